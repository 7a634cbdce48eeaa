"""The programs that were built here or that the user let run, by the SHA-256 of their files.

`~/.local/state/tcc/programs` holds an empty file for each, called by its hash: it is there or it is
not, however many processes write and wherever one is killed.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from tcc.compiler.support import atomic_files, user_folders
from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.diagnostics import UserError


def folder() -> Path | None:
    """Return the folder, which may not be there yet; None where there is no home."""
    return user_folders.folder("XDG_STATE_HOME", ".local/state", "programs")


def is_known(digest: str) -> bool:
    """Whether a program of this SHA-256, in hex, may run."""
    place = folder()
    return place is not None and not user_folders.obstacle(place) and (place / digest).is_file()


def add(digests: Iterable[str]) -> None:
    """Let programs run from now on; where that cannot be noted, `obstacle` says why."""
    place, names = folder(), tuple(digests)
    if place is None or not names:
        return
    try:
        user_folders.make(place)
        if not user_folders.obstacle(place):
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
    if place.exists() and not os.access(place, os.W_OK):
        return f"nothing can be noted in {place}"
    return user_folders.obstacle(place)
