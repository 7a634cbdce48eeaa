"""Read regular files only: a pipe would block, and a device may never end."""

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from tcc.compiler.support import atomic_files

KINDS = (
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)  # fmt: skip


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: It cannot be opened, or is not a regular file, which is checked before opening.
    """
    return os.fdopen(open_descriptor(path), "rb")


def open_descriptor(path: Path) -> int:
    """Open a file like `open_file`; return its descriptor."""
    _check(path, path.stat().st_mode)
    # If a pipe has replaced it meanwhile, opening does not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        _check(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    for is_kind, name in KINDS:
        if is_kind(mode):
            raise OSError(errno.EINVAL, f"it is {name}, not a file", str(path))


_CHUNK = 1 << 20


def read_file(path: Path, doing: str = "read this", max_bytes: int = -1) -> bytes:
    """Return the bytes of a file, or the first of them.

    Args:
        path: The file.
        doing: What cannot be done if reading fails; completes "cannot ...".
        max_bytes: The number of bytes to read; -1 for all.

    Raises:
        UserError: It cannot be read (E0603).
        MachineError: The disk is broken (E0604).
    """
    try:
        with open_file(path) as file:
            return file.read(max_bytes)
    except OSError as error:
        raise atomic_files.explain(error, path, doing) from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        UserError: It cannot be read (E0603).
    """
    # In chunks: a model of 2 GB is not held in memory for it.
    digest = hashlib.sha256()
    try:
        with open_file(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise atomic_files.explain(error, path, "read this") from error
    return digest.hexdigest()


def walk_files(folder: Path) -> set[str]:
    """Return the paths of all files below a folder, with `/`."""
    return {
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
    }
