"""What `tcc verify` reports of an artifact's libraries, which others build with."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.bundle.library_check import LibraryCheck


def report_libraries(report: Report, folder: str, libraries: "Iterable[LibraryCheck]") -> None:
    """Print a line for each library; a library that was not verified is a warning."""
    for library in libraries:
        if library.unverified:
            report.notice(f"{folder}: {library.file} was not verified: {library.unverified}")
        else:
            report.text(f"{folder}: {library.file}: {_describe(library)}")


def describe_fault(libraries: "Iterable[LibraryCheck]") -> str:
    """Return what is wrong with the first library that is; nothing where none is."""
    for library in libraries:
        if not library.holds:
            return f"{library.file} is not what its goldens are of: {_describe(library)}"
    return ""


def document(library: "LibraryCheck") -> dict[str, Any]:
    """Return a library as plain data."""
    return {
        **{key: text or None for key, text in asdict(library).items() if key != "agreement"},
        "file": library.file,
        "agreement": [agreement.as_json() for agreement in library.agreement],
        "holds": None if library.unverified else library.holds,
    }


def _describe(library: "LibraryCheck") -> str:
    if library.problem:
        return library.problem
    if library.same_bytes:
        return f"{library.same_bytes}, byte for byte"
    for agreement in library.agreement:
        if not agreement.holds:
            amounts = f"{agreement.differing:,} of {agreement.values:,} values"
            output = f"output `{agreement.output}` of golden {agreement.golden}"
            return f"a program that uses it differs in {amounts} of {output}"
    goldens = len({agreement.golden for agreement in library.agreement})
    bits = "" if any(agreement.differing for agreement in library.agreement) else ", to the bit"
    return f"a program that uses it gives the {goldens} goldens{bits}"
