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
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

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
        with _staged(target, new_file) as fresh:
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
        with _staged(target, new_folder) as fresh:
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
        os.close(new_file(place, 0o777 if name in executable else 0o666))
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
            remove_path(away)
        else:
            aside.rename(target)


@contextmanager
def _staged(target: Path, create: Callable[[Path], int]) -> Iterator[Path]:
    """Give a fresh, claimed path beside a target; it is gone afterwards unless renamed."""
    sweep(_leftovers(target.parent, STAGED), remove_path)
    fresh, descriptor = claim(lambda: _beside(target, "new"), create)
    try:
        yield fresh
    finally:
        remove_path(fresh)
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
        while lock(descriptor) is None:
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


def sweep(paths: Iterable[Path], remove_path: Callable[[Path], None]) -> None:
    """Remove those paths that no process has a lock on; an error leaves them for the next time."""
    for path in paths:
        with suppress(OSError):
            # Whatever else bears such a name, a link or a pipe, is neither followed nor waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                # False, where the disk knows no locks, is not enough: work in progress would look
                # left over.
                if lock(descriptor) and stands(path, descriptor):
                    remove_path(path)
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


def remove_path(path: Path) -> None:
    """Remove a file or a folder; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


SCRATCH_MARK = "this-is-of-tcc"
"""The file that marks a folder as ours; it is the first to come and the last to go."""
MOST_LOOKED, SWEEP_SECONDS = 100_000, 2.0
"""How many entries a sweep looks at, and how long it may take before it leaves the rest."""
NO_ROOM = 1 << 16
"""Bytes below which a disk is full."""
_SCRATCH_NAME = re.compile(r"tcc-scratch-[0-9a-f]{12}")


def scratch_root() -> Path:
    """Return the folder for temporary files: TMPDIR if it can be written, or else the system's.

    Raises:
        MachineError: No folder for temporary files can be written to (E0604).
    """
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise _fail_scratch(error, os.environ.get("TMPDIR", "/tmp")) from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a fresh folder that nobody else can read; it is gone afterwards.

    Raises:
        MachineError: The disk is full or broken: in here, or where the body writes to it (E0604).
    """
    base = scratch_root()
    sweep_scratch()
    try:
        path, descriptor = claim(lambda: base / f"tcc-scratch-{os.urandom(6).hex()}", _new_scratch)
    except OSError as error:
        raise _fail_scratch(error, str(base)) from error
    try:
        yield path
    except OSError as error:
        if error.errno is None and _is_full(path):  # as numpy raises it
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if _is_of_scratch(path, error):
            raise _fail_scratch(error, str(base)) from error
        raise
    finally:
        _remove_scratch(path)
        os.close(descriptor)


def sweep_scratch() -> None:
    """Remove the folders that killed processes of this user left, for a bounded time."""
    end = time.monotonic() + SWEEP_SECONDS
    with suppress(OSError):
        sweep((path for path in _list_scratch() if time.monotonic() < end), _remove_scratch)


def check_room(path: Path) -> None:
    """Find out whether a failure is the disk's, where what failed does not tell.

    Raises:
        OSError: The disk of a scratch folder is full.
    """
    if _is_full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _is_full(path: Path) -> bool:
    return shutil.disk_usage(path).free < NO_ROOM


def _list_scratch() -> list[Path]:
    base = scratch_root()
    with os.scandir(base) as entries:
        named = [
            entry for entry in islice(entries, MOST_LOOKED) if _SCRATCH_NAME.fullmatch(entry.name)
        ]
    return [Path(entry.path) for entry in named if _is_our_scratch(entry)]


def _is_our_scratch(entry: "os.DirEntry[str]") -> bool:
    with suppress(OSError):
        # A link of that name may lead to anybody's files.
        found = entry.stat(follow_symlinks=False)
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return False


def _new_scratch(path: Path) -> int:
    descriptor = new_folder(path, 0o700)
    try:
        os.close(new_file(path / SCRATCH_MARK))
    except FileNotFoundError:  # swept already
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        path.rmdir()
        raise
    return descriptor


def _remove_scratch(path: Path) -> None:
    """Remove a folder if it is marked as ours, or empty, as ours is for a moment."""
    if (path / SCRATCH_MARK).is_file():
        for entry in path.iterdir():
            if entry.name != SCRATCH_MARK:
                remove_path(entry)
        with suppress(OSError):  # what cannot be removed keeps its mark
            if [entry.name for entry in path.iterdir()] == [SCRATCH_MARK]:
                (path / SCRATCH_MARK).unlink()
    with suppress(OSError):
        path.rmdir()


def _is_of_scratch(path: Path, error: OSError) -> bool:
    """Whether the machine failed with a file below a path, or one that has no name."""
    if not is_machine(error):
        return False
    return error.filename is None or str(path) in str(error.filename)


def _fail_scratch(error: OSError, place: str) -> MachineError:
    reason = error.strerror or str(error)
    help = "free some space there, or set TMPDIR to a folder on another disk"
    if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        help = "set TMPDIR to a folder that can be written to"
    message = f"cannot write temporary files: {reason}"
    return MachineError(Diagnostic("E0604", message, whole_file(place), help=help))
