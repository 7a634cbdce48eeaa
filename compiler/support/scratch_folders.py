"""Folders for the files of a step, gone when it ends; what a killed process left, the next removes.

They lie in the system's folder for temporary files, which others may share. Ours are known by
their name, by an owner that is this user, and by the file `MARK` in them; each is locked by
its process (see `claim`), as systemd's cleaner of temporary files wants it too.
"""

import errno
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from tcc.compiler.support import path_locks
from tcc.compiler.support.atomic_files import MachineError, is_machine
from tcc.compiler.support.diagnostics import Diagnostic, whole_file

MARK = "this-is-of-tcc"
"""The file that marks a folder as ours; it is the first to come and the last to go."""
LOOKED, SECONDS = 100_000, 2.0
"""How many entries a sweep looks at, and how long it may take before it leaves the rest."""
NO_ROOM = 1 << 16
"""Bytes below which a disk is full."""
_NAME = re.compile(r"tcc-scratch-[0-9a-f]{12}")


def root() -> Path:
    """Return the folder for temporary files: TMPDIR if it can be written, or else the system's.

    Raises:
        MachineError: No folder for temporary files can be written to (E0604).
    """
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise _failed(error, os.environ.get("TMPDIR", "/tmp")) from error


@contextmanager
def folder() -> Iterator[Path]:
    """Give a fresh folder that nobody else can read; it is gone afterwards.

    Raises:
        MachineError: The disk is full or broken: in here, or where the body writes to it (E0604).
    """
    base = root()
    sweep()
    try:
        path, descriptor = path_locks.claim(
            lambda: base / f"tcc-scratch-{os.urandom(6).hex()}", _new
        )
    except OSError as error:
        raise _failed(error, str(base)) from error
    try:
        yield path
    except OSError as error:
        if error.errno is None and _is_full(path):  # as numpy raises it
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if _is_of(path, error):
            raise _failed(error, str(base)) from error
        raise
    finally:
        _remove(path)
        os.close(descriptor)


def sweep() -> None:
    """Remove the folders that killed processes of this user left, for a bounded time."""
    end = time.monotonic() + SECONDS
    with suppress(OSError):
        path_locks.sweep((path for path in _ours() if time.monotonic() < end), _remove)


def check_room(path: Path) -> None:
    """Find out whether a failure is the disk's, where what failed does not tell.

    Raises:
        OSError: The disk of a scratch folder is full.
    """
    if _is_full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _is_full(path: Path) -> bool:
    return shutil.disk_usage(path).free < NO_ROOM


def _ours() -> list[Path]:
    base = root()
    with os.scandir(base) as entries:
        named = [entry for entry in islice(entries, LOOKED) if _NAME.fullmatch(entry.name)]
    return [Path(entry.path) for entry in named if _is_ours(entry)]


def _is_ours(entry: "os.DirEntry[str]") -> bool:
    with suppress(OSError):
        # A link of that name may lead to anybody's files.
        found = entry.stat(follow_symlinks=False)
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return False


def _new(path: Path) -> int:
    descriptor = path_locks.new_folder(path, 0o700)
    try:
        os.close(path_locks.new_file(path / MARK))
    except FileNotFoundError:  # swept already
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        path.rmdir()
        raise
    return descriptor


def _remove(path: Path) -> None:
    """Remove a folder if it is marked as ours, or empty, as ours is for a moment."""
    if (path / MARK).is_file():
        for entry in path.iterdir():
            if entry.name != MARK:
                path_locks.remove(entry)
        with suppress(OSError):  # what cannot be removed keeps its mark
            if [entry.name for entry in path.iterdir()] == [MARK]:
                (path / MARK).unlink()
    with suppress(OSError):
        path.rmdir()


def _is_of(path: Path, error: OSError) -> bool:
    """Whether the machine failed with a file below a path, or one that has no name."""
    if not is_machine(error):
        return False
    return error.filename is None or str(path) in str(error.filename)


def _failed(error: OSError, place: str) -> MachineError:
    reason = error.strerror or str(error)
    help = "free some space there, or set TMPDIR to a folder on another disk"
    if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        help = "set TMPDIR to a folder that can be written to"
    message = f"cannot write temporary files: {reason}"
    return MachineError(Diagnostic("E0604", message, whole_file(place), help=help))
