"""Folders in which tools keep what they would have to make or fetch again."""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tcc.compiler.support import (
    atomic_files,
    cache_seal,
    regular_files,
    scratch_folders,
    user_folders,
)

KERNELS = "kernels"
"""The folder of compiled kernels: of tcc's own sources alone, whatever network asked for them."""
SHOWN = "~/.cache/tcc"
"""The folder around them, as messages name it."""


def folder(name: str) -> Path:
    """Return the folder of a tool, which is there and can be written to by the user alone.

    Where the user's own cache is no such folder, it is one among the temporary files.

    Raises:
        OSError: There is none, since others can write to the place for temporary files too.
    """
    place = user_folders.folder("XDG_CACHE_HOME", name)
    if place is not None:
        with suppress(OSError):
            user_folders.make(place)
            if not user_folders.obstacle(place) and os.access(place, os.W_OK):
                return place
    place = scratch_folders.root() / f"tcc-{name}-{os.geteuid()}"
    place.mkdir(0o700, exist_ok=True)
    # In a place that others share, a folder of this name may be theirs.
    if why := user_folders.obstacle(place):
        why = f"{why}; set XDG_CACHE_HOME to a folder that only you can write to"
        raise PermissionError(errno.EACCES, why, str(place))
    return place


def read(place: Path) -> bytes | None:
    """Return what `write` kept in a file; None where it is not there, damaged or of others."""
    try:
        with regular_files.opened(place) as file:
            entry = cache_seal.opened(place.name, file.read())
    except OSError:
        return None
    with suppress(OSError):
        os.utime(place)  # what is used stays longest
    return entry


def write(place: Path, content: bytes) -> None:
    """Keep something in a file of a tool's folder, sealed; nothing where there is no seal.

    Raises:
        UserError: The file cannot be written.
        MachineError: The disk is full or broken.
    """
    sealed = cache_seal.sealed(place.name, content)
    if sealed is not None:
        atomic_files.write_file(place, sealed)


def files(name: str) -> tuple[Path, ...]:
    """Return what a tool's folder holds; nothing where there is none."""
    with suppress(OSError):
        return tuple(path for path in folder(name).iterdir() if path.is_file())
    return ()


def size(found: Iterable[Path]) -> int:
    """Return the bytes that files take."""
    return sum(bytes_ for _, bytes_, _ in _stated(found))


def trim(name: str, limit: int) -> None:
    """Remove what was used longest ago from a tool's folder, until the rest fits."""
    known = sorted(_stated(files(name)))
    total = sum(bytes_ for _, bytes_, _ in known)
    for _, bytes_, path in known[:-1]:  # the newest stays: it is being used
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= bytes_


def _stated(found: Iterable[Path]) -> list[tuple[int, int, Path]]:
    """Return when each file was used, its bytes, and the file; others may remove some meanwhile."""
    stated = []
    for path in found:
        with suppress(FileNotFoundError):
            about = path.stat()
            stated.append((about.st_mtime_ns, about.st_size, path))
    return stated
