"""Files and folders written whole: whatever happens, the old or the new is there, never a part.

A new file or folder grows beside its target as `.<name>.tcc-new-<hex>`, claimed by its writer (see
`claim`), is synced to the disk and renamed into place. A folder that is replaced waits as
`.<name>.tcc-old-<hex>` for the moment between two renames; should the process die in that moment,
the next one that writes or reads the target puts it back. Whoever swaps a folder, or has to know
whether it is there, holds the lock of the folder around it, so that nobody sees that moment.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tcc.compiler.support import path_locks
from tcc.compiler.support.diagnostics import Diagnostic, UserError, whole_file

Ours = Callable[[Path], str | None]
"""Says why an existing path may not be replaced; None lets it be."""

PATIENCE = 30.0
"""Seconds to wait for another process that is replacing a folder beside ours."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MACHINE = _FULL | {errno.EIO, errno.EMFILE, errno.ENFILE}
STAGED = re.compile(r"\..+\.tcc-new-[0-9a-f]{8}")  # what is being written, or was left


class MachineError(Exception):
    """The machine, not the input, keeps the work from being done: a full disk, for one."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(str(diagnostic))
        self.diagnostic = diagnostic


def is_machine(error: OSError) -> bool:
    """Whether it is the machine that failed, and not the user who asked for what cannot be."""
    return error.errno in _MACHINE


def explain(error: OSError, path: Path | str, doing: str) -> UserError | MachineError:
    """Return what to raise for an operating system's error: the user's mistake or the machine's.

    `doing` completes "cannot ..."; the diagnostic names the path.
    """
    reason = error.strerror or str(error)
    full = error.errno in _FULL
    help = "free some space, or choose another disk; nothing half-written is left" if full else ""
    code = "E0604" if is_machine(error) else "E0603"
    found = Diagnostic(code, f"cannot {doing}: {reason}", whole_file(str(path)), help=help)
    return MachineError(found) if is_machine(error) else UserError((found,))


def anything(_: Path) -> str | None:
    """Let any regular file be replaced: the user named it to be rewritten."""
    return None


def nothing(_: Path) -> str | None:
    """Let nothing be replaced."""
    return "it exists already"


def check_target(path: Path, ours: Ours) -> None:
    """Refuse a file that exists and may not be replaced, before any work is done.

    Raises:
        UserError: E0602, saying why.
    """
    if not os.path.lexists(path) or _is_stream(path):
        return
    why = ours(path)
    if why:
        at = whole_file(str(path))
        help = "choose another output path, or move this one away"
        raise UserError((Diagnostic("E0602", f"will not replace this: {why}", at, help=help),))


def check_folder(path: Path, ours: Ours) -> None:
    """Refuse a folder that exists and may not be replaced, once nobody is replacing it.

    Raises:
        UserError: E0602, saying why, or the folder around it cannot be looked at.
    """
    with _explained(path):
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            return
        with _locked(target.parent):
            _settle(target)
            check_target(target, ours)


def write_file(path: Path, data: bytes, ours: Ours = anything) -> None:
    """Write a file whole; a file that is there keeps its permissions, a symbolic link its place.

    Raises:
        UserError: The path cannot be written, or exists and `ours` refuses it.
        MachineError: The disk is full or broken.
    """
    with _explained(path):
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if _is_stream(target):
            target.write_bytes(data)
            return
        check_target(target, ours)
        mode = _mode(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _staged(target, path_locks.new_file) as fresh:
            _fill(fresh, data, mode)
            fresh.replace(target)
            # A file's own fsync does not keep its name: the folder has to be synced as well
            # (fsync(2)).
            _sync(target.parent)


def write_tree(
    path: Path,
    files: Mapping[str, bytes],
    executable: frozenset[str],
    ours: Ours = nothing,
    accept: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write a folder whole, from its files' bytes by relative path; it replaces one that is there.

    `accept` is given the written folder before it takes its place; what it raises keeps it away.

    Args:
        path: The folder.
        files: Bytes by relative path.
        executable: The paths of those that may be run.
        ours: Says why a folder that is there may not be replaced.
        accept: Looks at the written folder first, and raises to keep it away.

    Raises:
        UserError: The path cannot be written, or exists and `ours` refuses it.
        MachineError: The disk is full or broken.
    """

    def grow(fresh: Path) -> None:
        _grow(fresh, files, executable)
        accept(fresh)

    write_grown(path, grow, ours)


def write_grown(path: Path, grow: Callable[[Path], None], ours: Ours = nothing) -> None:
    """Write a folder whole as `write_tree`, one that may be larger than the memory.

    `grow` is given an empty folder to fill; what it raises keeps it away.
    """
    with _explained(path):
        check_folder(path, ours)
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with _staged(target, path_locks.new_folder) as fresh:
            grow(fresh)
            with _locked(target.parent):
                _settle(target)
                check_target(target, ours)
                _swap(target, fresh)
            _sync(target.parent)


def recover(path: Path) -> None:
    """Put back a folder whose replacement was killed between its two renames, if there is one."""
    with suppress(OSError, ValueError):  # a name may be too long, or hold a null
        target = Path(os.path.realpath(path))
        with _locked(target.parent):
            _settle(target)


def _grow(folder: Path, files: Mapping[str, bytes], executable: frozenset[str]) -> None:
    for name, data in sorted(files.items()):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        # Made with O_EXCL, so that no link that somebody put there meanwhile is written through.
        os.close(path_locks.new_file(place, 0o777 if name in executable else 0o666))
        _fill(place, data, None)
    for parent, _, _ in os.walk(folder):
        _sync(Path(parent))


def _fill(path: Path, data: bytes, mode: int | None) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if mode is not None:
        path.chmod(mode)


def _swap(target: Path, fresh: Path) -> None:
    """Replace a folder; ends with the old or the new in place even if a signal interrupts it."""
    if not target.exists():
        fresh.rename(target)
        return
    try:
        target.rename(_beside(target, "old"))
        fresh.rename(target)
    finally:
        _settle(target)


def _settle(target: Path) -> None:
    """Under the parent's lock: put a folder that was moved aside back, or away if replaced.

    What is put away first gets a name that a sweep knows, lest a part of it be put back later.
    """
    for aside in _leftovers(target.parent, re.compile(_name(target, "old", "[0-9a-f]{8}"))):
        if os.path.lexists(target):
            away = _beside(target, "new")
            aside.rename(away)
            path_locks.remove(away)
        else:
            aside.rename(target)


@contextmanager
def _staged(target: Path, create: Callable[[Path], int]) -> Iterator[Path]:
    """Give a fresh, claimed path beside a target; it is gone afterwards unless renamed."""
    path_locks.sweep(_leftovers(target.parent, STAGED), path_locks.remove)
    fresh, descriptor = path_locks.claim(lambda: _beside(target, "new"), create)
    try:
        yield fresh
    finally:
        path_locks.remove(fresh)
        os.close(descriptor)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.tcc-{kind}-{os.urandom(4).hex()}")


def _name(target: Path, kind: str, hex: str) -> str:
    return rf"\.{re.escape(target.name)}\.tcc-{kind}-{hex}"


def _leftovers(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if pattern.fullmatch(e.name))


def _mode(path: Path) -> int | None:
    """Return the permissions that a file which replaces this one, if it is there, is to have."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    # Renaming over a file asks for no right to write it, but whoever made it read-only meant it.
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only")
    return stat.S_IMODE(mode)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock: two processes never swap in it at the same moment."""
    descriptor = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + PATIENCE
    try:
        # Tried again and again, since a wait in flock itself could not be ended after a time.
        while path_locks.lock(descriptor) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds the folder's lock")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems do not sync folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _is_stream(path: Path) -> bool:
    """Whether a path is a device or pipe (`/dev/stdout`): written to, never replaced."""
    with suppress(OSError):
        mode = path.stat().st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain(error, path, "write this") from error
