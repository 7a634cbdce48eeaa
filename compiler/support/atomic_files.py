"""Write files and folders atomically: the old or the new content is there, never a part.

A new file or folder is written next to its target as `.<name>.tcc-new-<hex>`, locked by its writer
(see `create_locked`), synced to the disk and renamed into place. A folder that is replaced is
renamed to `.<name>.tcc-old-<hex>` between two renames. If the process is killed between them, the
next process that writes or reads the target restores it. Both swapping a folder and checking
whether it exists happen under the lock of its parent folder, so no process sees the gap.
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

from tcc.compiler.support.diagnostics import Diagnostic, UserError, make_file_span

ReplacementPolicy = Callable[[Path], str | None]
"""Return the reason why an existing path may not be replaced; None if it may be."""

LOCK_TIMEOUT = 30.0
"""Seconds to wait for another process that is replacing a folder in the same parent."""

_DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MACHINE_ERRORS = _DISK_FULL_ERRORS | {errno.EIO, errno.EMFILE, errno.ENFILE}
STAGED_NAME = re.compile(r"\..+\.tcc-new-[0-9a-f]{8}")  # being written, or a leftover


class MachineError(Exception):
    """The machine, not the input, stops the work: a full disk, for example."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(str(diagnostic))
        self.diagnostic = diagnostic


def is_machine_error(error: OSError) -> bool:
    """Whether the machine failed (full disk, I/O error), and not the user's request."""
    return error.errno in _MACHINE_ERRORS


def explain(error: OSError, path: Path | str, doing: str) -> UserError | MachineError:
    """Return the exception for an operating system error: the user's mistake or the machine's.

    `doing` completes "cannot ..."; the diagnostic names the path.
    """
    reason = error.strerror or str(error)
    full = error.errno in _DISK_FULL_ERRORS
    help = "free some space, or choose another disk; no partial file is left" if full else ""
    code = "E0604" if is_machine_error(error) else "E0603"
    diagnostic = Diagnostic(code, f"cannot {doing}: {reason}", make_file_span(str(path)), help=help)
    return MachineError(diagnostic) if is_machine_error(error) else UserError((diagnostic,))


def allow_replacing(_: Path) -> str | None:
    """Allow any regular file to be replaced: the user named it as the output."""
    return None


def refuse_replacing(_: Path) -> str | None:
    """Refuse to replace anything."""
    return "it already exists"


def check_target(path: Path, policy: ReplacementPolicy) -> None:
    """Refuse a file that exists and may not be replaced, before any work is done.

    Raises:
        UserError: E0602, with the reason.
    """
    if not os.path.lexists(path) or _is_stream(path):
        return
    reason = policy(path)
    if reason:
        at = make_file_span(str(path))
        help = "choose another output path, or move the existing one away"
        raise UserError((Diagnostic("E0602", f"cannot replace this: {reason}", at, help=help),))


def check_folder(path: Path, policy: ReplacementPolicy) -> None:
    """Refuse a folder that exists and may not be replaced; wait while another process replaces it.

    Raises:
        UserError: E0602, with the reason, or the parent folder cannot be read.
    """
    with _explain_errors(path):
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            return
        with _lock_folder(target.parent):
            _restore_or_remove(target)
            check_target(target, policy)


def write_file(path: Path, content: bytes, policy: ReplacementPolicy = allow_replacing) -> None:
    """Write a file atomically; an existing file keeps its permissions, a symbolic link stays.

    Raises:
        UserError: The path cannot be written, or exists and `policy` refuses it.
        MachineError: The disk is full or broken.
    """
    with _explain_errors(path):
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if _is_stream(target):
            target.write_bytes(content)
            return
        check_target(target, policy)
        mode = _read_mode(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _create_staged(target, create_file) as fresh:
            _fill(fresh, content, mode)
            fresh.replace(target)
            # fsync of the file does not sync its name: the folder must be synced as well
            # (fsync(2)).
            _flush_folder(target.parent)


def write_tree(
    path: Path,
    files: Mapping[str, bytes],
    executable: frozenset[str],
    policy: ReplacementPolicy = refuse_replacing,
    accept: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write a folder atomically from its files' bytes; an existing folder is replaced.

    Args:
        path: The folder.
        files: Bytes by relative path.
        executable: The relative paths of executable files.
        policy: Returns why an existing folder may not be replaced.
        accept: Checks the complete folder before it replaces the target; raises to reject it.

    Raises:
        UserError: The path cannot be written, or exists and `policy` refuses it.
        MachineError: The disk is full or broken.
    """

    def fill(fresh: Path) -> None:
        _write_files(fresh, files, executable)
        accept(fresh)

    fill_folder(path, fill, policy)


def fill_folder(
    path: Path, fill: Callable[[Path], None], policy: ReplacementPolicy = refuse_replacing
) -> None:
    """Write a folder atomically, like `write_tree`, where its content may exceed the memory.

    `fill` writes into an empty folder; if it raises, the target is unchanged.
    """
    with _explain_errors(path):
        check_folder(path, policy)
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with _create_staged(target, create_folder) as fresh:
            fill(fresh)
            with _lock_folder(target.parent):
                _restore_or_remove(target)
                check_target(target, policy)
                _swap(target, fresh)
            _flush_folder(target.parent)


def restore_folder(path: Path) -> None:
    """Restore a folder whose replacement was killed between the two renames."""
    with suppress(OSError, ValueError):  # the name may be too long, or contain a null
        target = Path(os.path.realpath(path))
        with _lock_folder(target.parent):
            _restore_or_remove(target)


def _write_files(folder: Path, files: Mapping[str, bytes], executable: frozenset[str]) -> None:
    for name, content in sorted(files.items()):
        file_path = folder / name
        file_path.parent.mkdir(parents=True, exist_ok=True)
        # Created with O_EXCL, so that a link put there meanwhile is not followed.
        os.close(create_file(file_path, 0o777 if name in executable else 0o666))
        _fill(file_path, content, None)
    for parent, _, _ in os.walk(folder):
        _flush_folder(Path(parent))


def _fill(path: Path, content: bytes, mode: int | None) -> None:
    with path.open("r+b") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if mode is not None:
        path.chmod(mode)


def _swap(target: Path, fresh: Path) -> None:
    """Replace a folder; the old or the new one is in place even after a signal."""
    if not target.exists():
        fresh.rename(target)
        return
    try:
        target.rename(_make_sibling_name(target, "old"))
        fresh.rename(target)
    finally:
        _restore_or_remove(target)


def _restore_or_remove(target: Path) -> None:
    """Restore a folder that was moved aside, or remove it if it was replaced.

    The parent's lock must be held. A folder to remove is first renamed to a name that cleanup
    removes, so that a half-removed folder is never restored.
    """
    for old_path in _list_leftovers(
        target.parent, re.compile(_build_name_pattern(target, "old", "[0-9a-f]{8}"))
    ):
        if os.path.lexists(target):
            stale_path = _make_sibling_name(target, "new")
            old_path.rename(stale_path)
            remove_path(stale_path)
        else:
            old_path.rename(target)


@contextmanager
def _create_staged(target: Path, create: Callable[[Path], int]) -> Iterator[Path]:
    """Yield a fresh, locked path next to a target; it is removed afterwards unless renamed."""
    remove_unlocked(_list_leftovers(target.parent, STAGED_NAME), remove_path)
    fresh, descriptor = create_locked(lambda: _make_sibling_name(target, "new"), create)
    try:
        yield fresh
    finally:
        remove_path(fresh)
        os.close(descriptor)


def _make_sibling_name(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.tcc-{kind}-{os.urandom(4).hex()}")


def _build_name_pattern(target: Path, kind: str, hex: str) -> str:
    return rf"\.{re.escape(target.name)}\.tcc-{kind}-{hex}"


def _list_leftovers(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    with os.scandir(folder) as dir_entries:
        return sorted(Path(e.path) for e in dir_entries if pattern.fullmatch(e.name))


def _read_mode(path: Path) -> int | None:
    """Return the permissions of an existing file, for its replacement; None if there is none."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    # A rename needs no write permission on the old file, but a read-only file must stay.
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only")
    return stat.S_IMODE(mode)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Hold a folder's lock: two processes never swap in it at the same time."""
    descriptor = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + LOCK_TIMEOUT
    try:
        # Polled, because a blocking flock cannot time out.
        while lock(descriptor) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT, "another process has locked this folder; try again later"
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
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
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain(error, path, "write this") from error


try:
    import fcntl
except ImportError:  # Windows: no locks, so leftovers are not removed either
    fcntl = None  # type: ignore[assignment]

MAX_ATTEMPTS = 100
"""How often a path is created again after another process removed it."""


def create_locked(name: Callable[[], Path], create: Callable[[Path], int]) -> tuple[Path, int]:
    """Return a fresh path and the open descriptor that locks it.

    Args:
        name: Returns another name at each call.
        create: Creates the path, which must not exist, and returns its descriptor.

    Raises:
        OSError: The path cannot be created.
    """
    problem: OSError = FileNotFoundError()
    for _ in range(MAX_ATTEMPTS):
        path = name()
        try:
            descriptor = create(path)
        except (FileNotFoundError, FileExistsError) as error:  # already removed, or name in use
            problem = error
            continue
        if lock(descriptor) is not None and is_same_file(path, descriptor):
            return path, descriptor
        os.close(descriptor)
    raise problem


def remove_unlocked(paths: Iterable[Path], remove_path: Callable[[Path], None]) -> None:
    """Remove the paths that no process has locked; errors leave a path for the next cleanup."""
    for path in paths:
        with suppress(OSError):
            # Anything else with such a name, a link or a pipe, is not followed or waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                # False (a disk without locks) is not enough: work in progress would look like a
                # leftover.
                if lock(descriptor) and is_same_file(path, descriptor):
                    remove_path(path)
            finally:
                os.close(descriptor)


def lock(descriptor: int) -> bool | None:
    """Lock an open file or folder; None if another process has it, False if unsupported."""
    if fcntl is None:
        return False
    try:
        # A flock lock belongs to the open file and ends with it. A lockf lock would end when
        # the process closes any descriptor of that file (fcntl(2)).
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


def is_same_file(path: Path, descriptor: int) -> bool:
    """Whether a path names the file that is open as `descriptor`."""
    with suppress(OSError):
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    return False


def create_file(path: Path, mode: int = 0o666) -> int:
    """Create a file that must not exist; return a descriptor to write to."""
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)


def create_folder(path: Path, mode: int = 0o777) -> int:
    """Create a folder that must not exist; return its descriptor."""
    path.mkdir(mode)
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def remove_path(path: Path) -> None:
    """Remove a file or a folder; files that cannot be removed stay."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


SCRATCH_MARK = "this-is-of-tcc"
"""The file that marks a folder as created by tcc: created first, removed last."""
MAX_SCANNED, CLEANUP_SECONDS = 100_000, 2.0
"""How many entries a cleanup reads, and how many seconds it may take."""
MIN_FREE_BYTES = 1 << 16
"""Free bytes below which a disk counts as full."""
_SCRATCH_NAME = re.compile(r"tcc-scratch-[0-9a-f]{12}")


def find_scratch_root() -> Path:
    """Return the folder for temporary files: TMPDIR if it is writable, otherwise the system's.

    Raises:
        MachineError: No folder for temporary files can be written to (E0604).
    """
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise _fail_scratch(error, os.environ.get("TMPDIR", "/tmp")) from error


@contextmanager
def create_scratch_folder() -> Iterator[Path]:
    """Yield a fresh folder that only the user can read; it is removed afterwards.

    Raises:
        MachineError: The disk is full or broken, here or where the body writes (E0604).
    """
    base = find_scratch_root()
    remove_stale_scratch()
    try:
        path, descriptor = create_locked(
            lambda: base / f"tcc-scratch-{os.urandom(6).hex()}", _create_marked_folder
        )
    except OSError as error:
        raise _fail_scratch(error, str(base)) from error
    try:
        yield path
    except OSError as error:
        if error.errno is None and _is_full(path):  # numpy raises it without an errno
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if _is_of_scratch(path, error):
            raise _fail_scratch(error, str(base)) from error
        raise
    finally:
        _remove_scratch(path)
        os.close(descriptor)


def remove_stale_scratch() -> None:
    """Remove the folders that killed processes of this user left, for a limited time."""
    end = time.monotonic() + CLEANUP_SECONDS
    with suppress(OSError):
        remove_unlocked(
            (path for path in _list_scratch() if time.monotonic() < end), _remove_scratch
        )


def check_disk_space(path: Path) -> None:
    """Raise if the disk is full, where the failure itself does not show it.

    Raises:
        OSError: The disk of a scratch folder is full.
    """
    if _is_full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _is_full(path: Path) -> bool:
    return shutil.disk_usage(path).free < MIN_FREE_BYTES


def _list_scratch() -> list[Path]:
    base = find_scratch_root()
    with os.scandir(base) as dir_entries:
        scratch_entries = [
            dir_entry
            for dir_entry in islice(dir_entries, MAX_SCANNED)
            if _SCRATCH_NAME.fullmatch(dir_entry.name)
        ]
    return [Path(dir_entry.path) for dir_entry in scratch_entries if _is_our_scratch(dir_entry)]


def _is_our_scratch(dir_entry: "os.DirEntry[str]") -> bool:
    with suppress(OSError):
        # A link with such a name may point to another user's files.
        status = dir_entry.stat(follow_symlinks=False)
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return False


def _create_marked_folder(path: Path) -> int:
    descriptor = create_folder(path, 0o700)
    try:
        os.close(create_file(path / SCRATCH_MARK))
    except FileNotFoundError:  # already removed by another process
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        path.rmdir()
        raise
    return descriptor


def _remove_scratch(path: Path) -> None:
    """Remove a folder if it has tcc's mark, or is empty (a new one is empty at first)."""
    if (path / SCRATCH_MARK).is_file():
        for child in path.iterdir():
            if child.name != SCRATCH_MARK:
                remove_path(child)
        with suppress(OSError):  # a folder that cannot be emptied keeps its mark
            if [child.name for child in path.iterdir()] == [SCRATCH_MARK]:
                (path / SCRATCH_MARK).unlink()
    with suppress(OSError):
        path.rmdir()


def _is_of_scratch(path: Path, error: OSError) -> bool:
    """Whether the machine failed with a file below a path, or with an unnamed file."""
    if not is_machine_error(error):
        return False
    return error.filename is None or str(path) in str(error.filename)


def _fail_scratch(error: OSError, folder: str) -> MachineError:
    reason = error.strerror or str(error)
    help = "free some space there, or set TMPDIR to a folder on another disk"
    if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        help = "set TMPDIR to a folder that can be written to"
    message = f"cannot write temporary files: {reason}"
    return MachineError(Diagnostic("E0604", message, make_file_span(folder), help=help))
