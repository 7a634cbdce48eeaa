"""Folders of the user's own that tcc believes: what others may write to says nothing."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path


def folder(variable: str, usual: str, name: str) -> Path | None:
    """Return a folder of tcc's, which may not be there yet; None where there is no home.

    Args:
        variable: Names the folder around it, as `XDG_STATE_HOME`.
        usual: The folder around it in the home where the variable is not set.
        name: What it is called in the folder `tcc` there.
    """
    given = os.environ.get(variable, "")
    # A relative one is to be ignored (XDG Base Directory Specification 0.8): it would be another
    # folder wherever a command is run, among them those that strangers' files are unpacked in.
    if os.path.isabs(given):
        return Path(given) / "tcc" / name
    try:
        return Path.home() / usual / "tcc" / name
    except RuntimeError:
        return None


def obstacle(path: Path) -> str:
    """Return why a folder of tcc's is not believed; nothing where it is fine, or not there."""
    for each in (path.parent, path):
        if each.is_symlink() or (each.exists() and not _own(each)):
            return f"what {each} says is not believed: it is not a folder that only you write to"
    return ""


def make(path: Path) -> None:
    """Make a folder of tcc's, which nobody else can read.

    Raises:
        OSError: It cannot be made.
    """
    around: Sequence[Path] = (path.parent, path)
    for each in around:
        each.mkdir(0o700, parents=True, exist_ok=True)


def _own(path: Path) -> bool:
    found = path.stat()
    mine = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and mine
