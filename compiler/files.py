"""Files and folders written whole: whatever happens, the old or the new is there, never a part.

A new file or folder grows beside its target as `.<name>.tcc-new-<hex>`, is synced to the disk and
renamed into place. Its writer holds a lock on it, which the kernel drops when the process ends
in any way, so that leftovers of killed processes can be told from work in progress. A folder
that is replaced waits as `.<name>.tcc-old-<hex>` for the moment between two renames; should
the process die in that moment, the next one that writes or reads the target puts it back.
"""

import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tcc.compiler.source import Diagnostic, UserError, whole_file

try:
    import fcntl
except ImportError:  # Windows: no locks, so no clearing of leftovers either
    fcntl = None  # type: ignore[assignment]

Ours = Callable[[Path], str | None]
"""Says why an existing path may not be replaced; None lets it be."""

PATIENCE = 30.0
"""Seconds to wait for another process that is replacing a folder beside ours."""

_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE})


class MachineError(Exception):
    """The machine, not the input, keeps the work from being done: a full disk, for one."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(str(diagnostic))
        self.diagnostic = diagnostic


def explain(error: OSError, path: Path | str, doing: str) -> UserError | MachineError:
    """Return what to raise for an operating system's error: the user's mistake or the machine's.

    `doing` completes "cannot ..."; the diagnostic names the path.
    """
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    help = "free some space, or choose another disk; nothing half-written is left" if full else ""
    code = "E0604" if error.errno in _MACHINE else "E0603"
    found = Diagnostic(code, f"cannot {doing}: {reason}", whole_file(str(path)), help=help)
    return MachineError(found) if error.errno in _MACHINE else UserError((found,))


def anything(_: Path) -> str | None:
    """Let any regular file be replaced: the user named it to be rewritten."""
    return None


def nothing(_: Path) -> str | None:
    """Let nothing be replaced."""
    return "it exists already"


def check_target(path: Path, ours: Ours) -> None:
    """Refuse a target that exists and may not be replaced, before any work is done.

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
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is read-only")
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
        target.parent.mkdir(parents=True, exist_ok=True)
        with _staged(target, _new_file) as fresh:
            _fill(fresh, data, mode)
            fresh.replace(target)
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

    Raises:
        UserError: The path cannot be written, or exists and `ours` refuses it.
        MachineError: The disk is full or broken.
    """
    with _explained(path):
        target = Path(os.path.realpath(path))
        check_target(target, ours)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _staged(target, _new_folder) as fresh:
            _grow(fresh, files, executable)
            accept(fresh)
            with _locked(target.parent):
                _settle(target)
                check_target(target, ours)
                _swap(target, fresh)
            _sync(target.parent)


def recover(path: Path) -> None:
    """Put back a folder whose replacement was killed between its two renames, if there is one."""
    target = Path(os.path.realpath(path))
    with suppress(OSError), _locked(target.parent):
        _settle(target)


def _grow(folder: Path, files: Mapping[str, bytes], executable: frozenset[str]) -> None:
    for name, data in sorted(files.items()):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.close(_new_file(place, 0o777 if name in executable else 0o666))
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
    """Under the parent's lock: put a folder that was moved aside back, or away if replaced."""
    for aside in _leftovers(target, "old"):
        if os.path.lexists(target):
            shutil.rmtree(aside)
        else:
            aside.rename(target)


@contextmanager
def _staged(target: Path, create: Callable[[Path, int], int]) -> Iterator[Path]:
    """Give a fresh, locked path beside a target; it is gone afterwards unless renamed."""
    _sweep(target)
    fresh, descriptor = _claim(target, create)
    try:
        yield fresh
    finally:
        _remove(fresh)
        os.close(descriptor)


def _claim(target: Path, create: Callable[[Path, int], int]) -> tuple[Path, int]:
    while True:
        fresh = _beside(target, "new")
        descriptor = create(fresh, 0o666)
        _lock(descriptor)
        # Between its creation and its lock, another process may have swept it away.
        with suppress(OSError):
            if os.path.samestat(fresh.lstat(), os.fstat(descriptor)):
                return fresh, descriptor
        os.close(descriptor)


def _sweep(target: Path) -> None:
    """Remove what killed processes left of this target; locked ones are at work."""
    for path in _leftovers(target, "new"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if _lock(descriptor):
                    _remove(path)
            finally:
                os.close(descriptor)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.tcc-{kind}-{os.urandom(4).hex()}")


def _leftovers(target: Path, kind: str) -> list[Path]:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.tcc-{kind}-[0-9a-f]{{8}}")
    with os.scandir(target.parent) as entries:
        return sorted(Path(e.path) for e in entries if pattern.fullmatch(e.name))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _new_file(path: Path, mode: int) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)


def _new_folder(path: Path, _: int) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock: two processes never swap in it at the same moment."""
    descriptor = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + PATIENCE
    try:
        while _lock(descriptor) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds the folder's lock")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock an open file or folder; None if another process has it, False if the disk cannot."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


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
