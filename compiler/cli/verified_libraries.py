"""What `tcc verify` reports of an artifact's libraries, which others build with."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tcc.compiler.cli.report import Report

if TYPE_CHECKING:
    from tcc.compiler.bundle.library_check import LibraryCheck


def say(report: Report, folder: str, libraries: "Iterable[LibraryCheck]") -> None:
    """Print a line for each library; a library that was not verified is a warning."""
    for library in libraries:
        if library.unverified:
            report.notice(f"{folder}: {library.file} was not verified: {library.unverified}")
        else:
            report.text(f"{folder}: {library.file}: {_verdict(library)}")


def describe_fault(libraries: "Iterable[LibraryCheck]") -> str:
    """Return what is wrong with the first library that is; nothing where none is."""
    for library in libraries:
        if not library.holds:
            return f"{library.file} is not what its goldens are of: {_verdict(library)}"
    return ""


def document(library: "LibraryCheck") -> dict[str, Any]:
    """Return a library as plain data."""
    return {
        **{key: text or None for key, text in asdict(library).items() if key != "agreement"},
        "file": library.file,
        "agreement": [each.as_json() for each in library.agreement],
        "holds": None if library.unverified else library.holds,
    }


def _verdict(library: "LibraryCheck") -> str:
    if library.problem:
        return library.problem
    if library.same_bytes:
        return f"{library.same_bytes}, byte for byte"
    wrong = [each for each in library.agreement if not each.holds]
    if wrong:
        one = wrong[0]
        differing = f"{one.differing:,} of {one.values:,} values of output `{one.output}`"
        return f"a program that uses it differs in {differing} of golden {one.golden}"
    goldens = len({each.golden for each in library.agreement})
    bits = "" if any(each.differing for each in library.agreement) else ", to the bit"
    return f"a program that uses it gives the {goldens} goldens{bits}"
