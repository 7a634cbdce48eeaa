"""Regular files alone: a pipe would be waited for, a device might never end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = (
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)  # fmt: skip


def opened(path: Path) -> BinaryIO:
    """Open a file to be read; its errors are the operating system's.

    Raises:
        OSError: It cannot be opened, or is no regular file, which is found before it is touched.
    """
    return os.fdopen(descriptor(path), "rb")


def descriptor(path: Path) -> int:
    """Open a file as `opened` does; return its descriptor."""
    _check(path, path.stat().st_mode)
    # Should a pipe have taken its place meanwhile, nobody waits for a writer.
    found = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        _check(path, os.fstat(found).st_mode)
    except OSError:
        os.close(found)
        raise
    return found


def _check(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    for is_kind, name in KINDS:
        if is_kind(mode):
            raise OSError(errno.EINVAL, f"it is {name}, not a file", str(path))
