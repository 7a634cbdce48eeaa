"""Folders in which tools keep what they would have to make or fetch again."""

import errno
import os
from pathlib import Path

from tcc.compiler.support import scratch_folders

SHOWN = "~/.cache/tcc"
"""The folder around them, as messages name it."""


def folder(name: str) -> Path:
    """Return the folder of a tool, which is there and can be written to.

    Raises:
        OSError: There is no home, and in the place for temporary files it is somebody else's.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(given) if given else Path.home() / ".cache"
        found = base / "tcc" / name
        found.parent.mkdir(0o700, parents=True, exist_ok=True)  # what is believed lies in it too
        found.mkdir(exist_ok=True)
        if os.access(found, os.W_OK):
            return found
    except (OSError, RuntimeError):  # no home, or not ours to write to
        pass
    found = scratch_folders.root() / f"tcc-{name}-{os.getuid()}"
    found.mkdir(0o700, exist_ok=True)
    # In a place that others share, a folder of this name may be theirs.
    if found.is_symlink() or found.stat().st_uid != os.getuid():
        why = "it belongs to somebody else; set XDG_CACHE_HOME to a folder of yours"
        raise PermissionError(errno.EACCES, why, str(found))
    return found
