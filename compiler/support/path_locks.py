"""Paths that belong to the process that holds their lock.

The kernel drops a lock when its process ends in any way, so that what killed processes left can be
told from work in progress. Who claims a path makes it under a name that nobody has, opens it,
locks it, and then looks whether the name still stands for what was locked: if not, a sweep was
faster, and it starts again. Who sweeps locks a path first and removes it only while it has the
lock. So neither needs to know of the other, wherever the two are interrupted.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no locks, so no clearing of leftovers either
    fcntl = None  # type: ignore[assignment]

TRIES = 100
"""How often a claim that others swept away is made anew."""


def claim(name: Callable[[], Path], create: Callable[[Path], int]) -> tuple[Path, int]:
    """Return a fresh path and the open descriptor that locks it.

    Args:
        name: Gives another name at each call.
        create: Makes the path, which must not exist, and returns a descriptor of it.

    Raises:
        OSError: It cannot be made.
    """
    problem: OSError = FileNotFoundError()
    for _ in range(TRIES):
        path = name()
        try:
            descriptor = create(path)
        except (FileNotFoundError, FileExistsError) as error:  # swept already, or a name in use
            problem = error
            continue
        if lock(descriptor) is not None and stands(path, descriptor):
            return path, descriptor
        os.close(descriptor)
    raise problem


def sweep(paths: Iterable[Path], remove: Callable[[Path], None]) -> None:
    """Remove those paths that no process has a lock on; an error leaves them for the next time."""
    for path in paths:
        with suppress(OSError):
            # Whatever else bears such a name, a link or a pipe, is neither followed nor waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                # False, where the disk knows no locks, is not enough: work in progress would look
                # left over.
                if lock(descriptor) and stands(path, descriptor):
                    remove(path)
            finally:
                os.close(descriptor)


def lock(descriptor: int) -> bool | None:
    """Lock an open file or folder; None if another process has it, False if the disk cannot."""
    if fcntl is None:
        return False
    try:
        # flock's lock belongs to the open file and ends with it; lockf's would end as soon as the
        # process closes any descriptor of that file (fcntl(2)).
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


def stands(path: Path, descriptor: int) -> bool:
    """Whether a path is the name of what is open."""
    with suppress(OSError):
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    return False


def new_file(path: Path, mode: int = 0o666) -> int:
    """Make a file that must not exist; return a descriptor to write to."""
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)


def new_folder(path: Path, mode: int = 0o777) -> int:
    """Make a folder that must not exist; return a descriptor of it."""
    path.mkdir(mode)
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def remove(path: Path) -> None:
    """Remove a file or a folder; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
