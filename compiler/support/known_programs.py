"""The programs that were built here or that the user let run, by the SHA-256 of their files.

`~/.local/state/tcc/programs` holds an empty file for each, called by its hash: it is there or it is
not, however many processes write and wherever one is killed. A folder that others may write to says
nothing.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from tcc.compiler.support import atomic_files
from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.diagnostics import UserError


def folder() -> Path | None:
    """Return the folder, which may not be there yet; None where there is no home."""
    given = os.environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored (XDG Base Directory Specification 0.8): it would be another
    # folder wherever a command is run, among them those that strangers' files are unpacked in.
    if os.path.isabs(given):
        return Path(given) / "tcc" / "programs"
    try:
        return Path.home() / ".local" / "state" / "tcc" / "programs"
    except RuntimeError:
        return None


def is_known(digest: str) -> bool:
    """Whether a program of this SHA-256, in hex, may run."""
    place = folder()
    return place is not None and not obstacle() and (place / digest).is_file()


def add(digests: Iterable[str]) -> None:
    """Let programs run from now on; where that cannot be noted, `obstacle` says why."""
    place, names = folder(), tuple(digests)
    if place is None or not names:
        return
    try:
        for made in (place.parent, place):
            made.mkdir(0o700, parents=True, exist_ok=True)
        if not obstacle():
            for name in names:
                # Nothing in it could be half-written: the name is all that counts.
                atomic_files.write_file(place / name, b"")
    except (OSError, UserError, MachineError):
        return  # a build is not to fail for it: it has done what was asked


def obstacle() -> str:
    """Return why the folder is not believed, or cannot be written to; nothing where it is fine."""
    place = folder()
    if place is None:
        return "there is no home to note in what was built here: set XDG_STATE_HOME"
    for each in (place.parent, place):
        if each.is_symlink() or (each.exists() and not _own(each)):
            return f"what {each} says is not believed: it is not a folder that only you write to"
    if place.exists() and not os.access(place, os.W_OK):
        return f"nothing can be noted in {place}"
    return ""


def _own(path: Path) -> bool:
    found = path.stat()
    mine = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and mine
