"""Files and folders that tcc trusts: those that nobody except the user and root can change.

Others can change a file if they can write to it, to its folder, or to a folder above, where they
could put another file in its place. So each part of the path is checked, and each link in it.
"""

import errno
import grp
import hmac
import os
import pwd
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.support import atomic_files, regular_files

VARIABLES: Mapping[str, str] = {
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "XDG_STATE_HOME": ".local/state",
}
"""Variables that name a folder of the user, and the default of each below the home folder."""
MAX_LINKS = 40
"""Number of links that one path may contain, as on Linux."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def locate_folder(variable: str, name: str) -> Path | None:
    """Return one of tcc's folders, which may not exist yet; None without a home folder.

    Args:
        variable: The variable of the parent folder: one of `VARIABLES`.
        name: Its name in the folder `tcc` there.
    """
    base = os.environ.get(variable, "")
    # Relative values must be ignored (XDG Base Directory Specification 0.8): they would depend on
    # the working folder, which may contain untrusted files.
    if os.path.isabs(base):
        return Path(base) / "tcc" / name
    try:
        return Path.home() / VARIABLES[variable] / "tcc" / name
    except RuntimeError:
        return None


def describe_ignored_variables() -> tuple[str, ...]:
    """Return a message for each variable that is ignored because its path is not absolute."""
    relative = (
        name for name in VARIABLES if os.environ.get(name) and not _is_absolute_variable(name)
    )
    return tuple(
        f"{name}={os.environ[name][:80]} is ignored because it is not an absolute path; "
        f"~/{VARIABLES[name]} is used instead"
        for name in relative
    )


def find_obstacle(path: Path) -> str:
    """Return why one of tcc's folders is not trusted; empty if it is fine or does not exist."""
    reason = find_exposure(path)
    if not reason and os.path.lexists(path):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            reason = f"{path} is not a folder"
        elif status.st_uid != os.geteuid():
            reason = f"{path} belongs to {_describe_user(status.st_uid)}"
        elif status.st_mode & _OTHERS_WRITE:
            reason = f"others can write to {path}"
    if not reason:
        return ""
    unsafe = "it must be a folder that only you can write to"
    return f"{path} is not used: {unsafe}: {reason}"


def find_exposure(path: Path) -> str:
    """Return how others can change a file or folder; empty if they cannot, or it does not exist.

    A folder with the sticky bit, like `/tmp`, may be above the path, but not at its end: everybody
    can write to it, but nobody can replace another user's files.
    """
    try:
        parts = list(_walk_parts(path))
        for number, part in enumerate(parts, 1):
            if reason := _describe_weakness(part, is_final=number == len(parts)):
                return reason
    except (FileNotFoundError, NotADirectoryError):
        return ""  # a missing file has no content to trust
    except (OSError, ValueError) as error:
        return f"{path} cannot be checked: {getattr(error, 'strerror', None) or error}"
    return ""


def make_folder(path: Path) -> None:
    """Create one of tcc's folders and missing parents; nobody else can read them.

    Raises:
        OSError: It cannot be made.
    """
    for parent in (*reversed(path.parents), path):
        if not parent.is_dir():
            parent.mkdir(0o700, exist_ok=True)


@dataclass(frozen=True, slots=True)
class DigestFolder:
    """A set of SHA-256 digests, stored as empty files in `~/.local/state/tcc/NAME`.

    Adding one is atomic, even if several processes write or one is killed. Only the user can add
    digests.
    """

    name: str

    @property
    def path(self) -> Path | None:
        """The folder, which may not exist yet; None without a home folder."""
        return locate_folder("XDG_STATE_HOME", self.name)

    def contains(self, digest: str) -> bool:
        """Whether a SHA-256, in hex, was added."""
        state_folder = self.path
        return (
            state_folder is not None
            and not find_obstacle(state_folder)
            and (state_folder / digest).is_file()
        )

    def add(self, digests: Iterable[str]) -> None:
        """Add SHA-256 digests; if that is impossible, `find_obstacle` returns why."""
        state_folder, names = self.path, tuple(digests)
        if state_folder is None or not names:
            return
        with suppress(OSError):  # a build must not fail for it: its result is complete
            make_folder(state_folder)
            if not find_obstacle(state_folder):
                for name in names:
                    (state_folder / name).touch(0o600)

    def find_obstacle(self) -> str:
        """Return why the folder is not trusted or not writable; empty if it is fine."""
        state_folder = self.path
        if state_folder is None:
            return "there is no home folder to record local builds in: set XDG_STATE_HOME"
        if state_folder.exists() and not os.access(state_folder, os.W_OK):
            return f"{state_folder} is not writable"
        return find_obstacle(state_folder)


KNOWN_PROGRAMS = DigestFolder("programs")
"""Program files that were built here or that the user allowed to run."""
LOCAL_BUILDS = DigestFolder("built")
"""Manifests of bundles that were built here while a key was trusted for their network."""


def _is_absolute_variable(variable: str) -> bool:
    return os.path.isabs(os.environ.get(variable, ""))


def _walk_parts(path: Path) -> Iterator[Path]:
    """Yield the folders and links that lead to a path, from the root to the path itself.

    Raises:
        OSError: A part is missing, or links lead in a circle.
    """
    pending = deque(path.absolute().parts[1:])
    current, links = Path("/"), 0
    yield current
    while pending:
        name = pending.popleft()
        if name == "..":
            current = current.parent  # links are already resolved
            continue
        part = current / name
        mode = part.lstat().st_mode
        if stat.S_ISLNK(mode):
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = Path(os.readlink(part))
            pending.extendleft(reversed(target.parts[target.is_absolute() :]))
            current = Path("/") if target.is_absolute() else current
        else:
            current = part
        yield part


def _describe_weakness(part: Path, *, is_final: bool) -> str:
    """Return how others can change a folder's content or a file; empty if they cannot."""
    status = part.lstat()
    # In a user namespace, root's own folders belong to another user, as the root folder does.
    owners = {os.geteuid(), 0} if is_final else {os.geteuid(), 0, os.stat("/").st_uid}
    if status.st_uid not in owners:
        return f"{part} belongs to {_describe_user(status.st_uid)}"
    if stat.S_ISLNK(status.st_mode):
        return ""  # a link's own mode has no meaning; its folder was checked
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if _is_writable_by_others(status) and not (sticky and not is_final):
        return f"others can write to {part}"
    return ""


def _is_writable_by_others(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private_group(status.st_gid)


def _is_private_group(group_id: int) -> bool:
    """Whether a group has the user as its only member, as many systems create it."""
    user = os.geteuid()
    try:
        account, group = pwd.getpwuid(user), grp.getgrgid(group_id)
    except KeyError:
        return False
    members = set(group.gr_mem) - {account.pw_name}
    is_private = account.pw_gid == group_id and group.gr_name == account.pw_name and not members
    return is_private and user != 0


def _describe_user(user_id: int) -> str:
    try:
        return f"user {pwd.getpwuid(user_id).pw_name}"
    except KeyError:
        return f"user {user_id}"


KERNELS_FOLDER = "kernels"
"""The folder of compiled kernels, which come from tcc's own sources for all networks."""
CACHE_DISPLAY_PATH = "~/.cache/tcc"
"""The parent folder of the caches, as messages name it."""


def prepare_cache_folder(name: str) -> Path:
    """Return a tool's cache folder, created if needed and writable by the user alone.

    If the user's cache cannot be one, it is among the temporary files.

    Raises:
        OSError: There is none, because others can write to the folder of temporary files too.
    """
    cache_path = locate_folder("XDG_CACHE_HOME", name)
    if cache_path is not None:
        with suppress(OSError):
            make_folder(cache_path)
            if not find_obstacle(cache_path) and os.access(cache_path, os.W_OK):
                return cache_path
    cache_path = atomic_files.find_scratch_root() / f"tcc-{name}-{os.geteuid()}"
    cache_path.mkdir(0o700, exist_ok=True)
    # In a shared folder, another user may have created a folder of this name.
    if reason := find_obstacle(cache_path):
        reason = f"{reason}; set XDG_CACHE_HOME to a folder that only you can write to"
        raise PermissionError(errno.EACCES, reason, str(cache_path))
    return cache_path


def read_cached(path: Path) -> bytes | None:
    """Return what `write_cached` stored; None if it is missing, damaged or another user's."""
    try:
        with regular_files.open_file(path) as file:
            content = open_sealed(path.name, file.read())
    except OSError:
        return None
    with suppress(OSError):
        os.utime(path)  # entries that are used stay longest
    return content


def write_cached(path: Path, content: bytes) -> None:
    """Store content in a file of a tool's cache, sealed; do nothing if there is no key.

    Raises:
        UserError: The file cannot be written.
        MachineError: The disk is full or broken.
    """
    sealed = seal(path.name, content)
    if sealed is not None:
        atomic_files.write_file(path, sealed)


def list_cached_files(name: str) -> tuple[Path, ...]:
    """Return the files in a tool's cache folder; empty if there is none."""
    with suppress(OSError):
        return tuple(path for path in prepare_cache_folder(name).iterdir() if path.is_file())
    return ()


def sum_sizes(paths: Iterable[Path]) -> int:
    """Return the total size of files in bytes."""
    return sum(bytes_ for _, bytes_, _ in _stat_files(paths))


def trim_cache(name: str, limit: int) -> None:
    """Remove the least recently used files of a tool's cache until the rest fits the limit."""
    file_statistics = sorted(_stat_files(list_cached_files(name)))
    total = sum(bytes_ for _, bytes_, _ in file_statistics)
    for _, bytes_, path in file_statistics[:-1]:  # the newest stays: it is in use
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= bytes_


def _stat_files(paths: Iterable[Path]) -> list[tuple[int, int, Path]]:
    """Return the time of last use, the size and the path of each file that still exists."""
    file_statistics = []
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.stat()
            file_statistics.append((status.st_mtime_ns, status.st_size, path))
    return file_statistics


SEAL_BYTES = 32
"""Bytes of the key, and of a seal: HMAC-SHA-256."""
KEY_NAME = "cache-key"
_PRIVATE = 0o600


def seal(name: str, content: bytes) -> bytes | None:
    """Return an entry's bytes with their seal in front; None if no key can be stored."""
    key = _load_key()
    return None if key is None else _compute_seal(key, name, content) + content


def open_sealed(name: str, sealed: bytes) -> bytes | None:
    """Return the content that was sealed under this name; None if the seal does not match."""
    key = _load_key()
    if key is None:
        return None
    seal, content = sealed[:SEAL_BYTES], sealed[SEAL_BYTES:]
    return content if hmac.compare_digest(seal, _compute_seal(key, name, content)) else None


def find_key_obstacle() -> str:
    """Return why no key can be stored, and so no entry; empty if one can."""
    if _load_key() is not None:
        return ""
    cache_folder = _find_key_folder()
    if cache_folder is None:
        return "there is no home folder for the cache key: set XDG_STATE_HOME"
    return find_obstacle(cache_folder) or f"the cache key cannot be stored in {cache_folder}"


def locate_key_file() -> Path | None:
    """Return the path of the key, which may not exist yet; None without a home folder."""
    cache_folder = _find_key_folder()
    return cache_folder and cache_folder / KEY_NAME


def _compute_seal(key: bytes, name: str, content: bytes) -> bytes:
    digest = hmac.new(key, name.encode() + b"\0", "sha256")
    digest.update(content)
    return digest.digest()


def _find_key_folder() -> Path | None:
    return locate_folder("XDG_STATE_HOME", "seal")


def _load_key() -> bytes | None:
    """Return the key, created if there is none; None if it cannot be stored."""
    cache_folder = _find_key_folder()
    if cache_folder is None:
        return None
    with suppress(OSError):
        make_folder(cache_folder)
        if find_obstacle(cache_folder):
            return None
        return _read_key(cache_folder / KEY_NAME) or _make_key(cache_folder / KEY_NAME)
    return None


def _read_key(path: Path) -> bytes | None:
    """Return the key in a file; None if it is missing, truncated, or readable by others."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        is_private = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == _PRIVATE
        if (
            stat.S_ISREG(status.st_mode)
            and is_private
            and len(key := file.read(SEAL_BYTES + 1)) == SEAL_BYTES
        ):
            return key
    path.unlink()  # a key that others can read protects nothing
    return None


def _make_key(path: Path) -> bytes | None:
    """Create a new key; if another process was first, return that process's key."""
    temporary_path = path.with_name(f"{path.name}.{os.urandom(6).hex()}")
    descriptor = os.open(temporary_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    try:
        os.write(descriptor, os.urandom(SEAL_BYTES))
        os.fsync(descriptor)
        # A link, unlike a rename, does not replace an existing key.
        with suppress(FileExistsError):
            os.link(temporary_path, path)
    finally:
        os.close(descriptor)
        temporary_path.unlink()
    return _read_key(path)
