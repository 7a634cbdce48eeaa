"""Whose programs run here: those that were built here, and those that the user vouches for.

A bundle's seal and hashes show damage, not who made it. What a runtime reads is data; an artifact
that is code does with this machine what its maker likes, so its files' hashes have to be known.
"""

from collections.abc import Iterable
from dataclasses import replace

from tcc.compiler.bundle.bundle_folder import MODEL, Bundle
from tcc.compiler.bundle.manifest import BundleFile
from tcc.compiler.ir.device import Device
from tcc.compiler.support import user_folders
from tcc.compiler.support.diagnostics import Diagnostic, UserError, whole_file


class Untrusted(UserError):  # noqa: N818 - what it is, not what it does
    """A bundle's program is of somebody whom nobody vouched for."""


def code(device: Device, files: Iterable[BundleFile]) -> tuple[BundleFile, ...]:
    """Return those of a bundle's files that running it here executes."""
    start = f"{MODEL}/"
    known = {f.path.removeprefix(start): f for f in files if f.path.startswith(start)}
    return tuple(known[name] for name in device.code(known))


def check(bundle: Bundle, device: Device) -> None:
    """Refuse to run a program that is neither known nor signed by a trusted key.

    Args:
        bundle: A bundle that was read, so that its files have the hashes of its manifest.
        device: Its target.

    Raises:
        Untrusted: There is such a program (E1350).
    """
    if bundle.trusted:
        return
    files = code(device, bundle.manifest.files)
    strange = [file for file in files if not user_folders.KNOWN_PROGRAMS.has(file.sha256)]
    # Whether a signature holds was looked at when the bundle was read.
    if strange and bundle.signer is None:
        raise _strange(bundle, strange[0])


def trusted(bundle: Bundle, device: Device) -> Bundle:
    """Return a bundle whose program may run, now and later: the user says so."""
    user_folders.KNOWN_PROGRAMS.add(file.sha256 for file in code(device, bundle.manifest.files))
    return replace(bundle, trusted=True)


def _strange(bundle: Bundle, file: BundleFile) -> Untrusted:
    where = whole_file(str(bundle.folder / file.path))
    message = "this program was not built here, and no key that you trust signed it"
    label = "whoever made it can do with this machine what you can"
    help = "if you know where it comes from, `tcc verify BUNDLE --trust` lets it run, now and later"
    why = user_folders.KNOWN_PROGRAMS.obstacle()
    found = Diagnostic("E1350", message, where, label, (why,) if why else (), help)
    return Untrusted((found,))
