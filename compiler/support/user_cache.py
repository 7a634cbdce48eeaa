"""Folders in which tools keep what they would have to make or fetch again."""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tcc.compiler.support import scratch_folders

KERNELS = "kernels"
"""The folder of compiled kernels: of tcc's own sources alone, whatever network asked for them."""
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
