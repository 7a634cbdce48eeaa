"""Files and folders that tcc believes: those that only the user, and root, can change.

Others can change a file if they can write to it, to its folder, or to a folder above that, where
they would put another one in its place. So each part of the path counts, and each link on the way.
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
"""The variables that name a folder of the user's, and its place in the home without them."""
MAX_LINKS = 40
"""Most links that one path may lead through, as Linux has it."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def locate_folder(variable: str, name: str) -> Path | None:
    """Return a folder of tcc's, which may not be there yet; None where there is no home.

    Args:
        variable: Names the folder around it: one of `VARIABLES`.
        name: What it is called in the folder `tcc` there.
    """
    base = os.environ.get(variable, "")
    # A relative one is to be ignored (XDG Base Directory Specification 0.8): it would be another
    # folder wherever a command is run, among them those that strangers' files are unpacked in.
    if os.path.isabs(base):
        return Path(base) / "tcc" / name
    try:
        return Path.home() / VARIABLES[variable] / "tcc" / name
    except RuntimeError:
        return None


def describe_ignored_variables() -> tuple[str, ...]:
    """Return, in words, which variables are ignored since they name no folder from the root on."""
    relative = (
        name for name in VARIABLES if os.environ.get(name) and not _is_absolute_variable(name)
    )
    return tuple(
        f"{name}={os.environ[name][:80]} is ignored: it is not an absolute path; "
        f"~/{VARIABLES[name]} is used"
        for name in relative
    )


def find_obstacle(path: Path) -> str:
    """Return why a folder of tcc's is not believed; nothing where it is fine, or not there."""
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
    unsafe = "it is not a folder that only you write to"
    return f"what {path} says is not believed: {unsafe}: {reason}"


def find_exposure(path: Path) -> str:
    """Return what lets others change a file or folder; nothing where they cannot, or none is there.

    A folder that all can write to but where nobody can replace another's files, as in `/tmp`, is
    fine above the path, and not at its end.
    """
    try:
        parts = list(_walk_parts(path))
        for number, part in enumerate(parts, 1):
            if reason := _describe_weakness(part, is_final=number == len(parts)):
                return reason
    except (FileNotFoundError, NotADirectoryError):
        return ""  # what is not there says nothing
    except (OSError, ValueError) as error:
        return f"{path} cannot be looked at: {getattr(error, 'strerror', None) or error}"
    return ""


def make_folder(path: Path) -> None:
    """Make a folder of tcc's, and those above that are missing; nobody else can read them.

    Raises:
        OSError: It cannot be made.
    """
    for parent in (*reversed(path.parents), path):
        if not parent.is_dir():
            parent.mkdir(0o700, exist_ok=True)


@dataclass(frozen=True, slots=True)
class DigestFolder:
    """Noted SHA-256 digests: empty files in `~/.local/state/tcc/NAME`, each called by its digest.

    A note is there or it is not, however many processes write and wherever one is killed. Others
    than the user can note nothing.
    """

    name: str

    @property
    def path(self) -> Path | None:
        """The folder, which may not be there yet; None where there is no home."""
        return locate_folder("XDG_STATE_HOME", self.name)

    def contains(self, digest: str) -> bool:
        """Whether a SHA-256, in hex, was noted."""
        state_folder = self.path
        return (
            state_folder is not None
            and not find_obstacle(state_folder)
            and (state_folder / digest).is_file()
        )

    def add(self, digests: Iterable[str]) -> None:
        """Note SHA-256s; where that cannot be done, `find_obstacle` says why."""
        state_folder, names = self.path, tuple(digests)
        if state_folder is None or not names:
            return
        with suppress(OSError):  # a build is not to fail for it: it has done what was asked
            make_folder(state_folder)
            if not find_obstacle(state_folder):
                for name in names:
                    (state_folder / name).touch(0o600)

    def find_obstacle(self) -> str:
        """Return why the folder is not believed, or cannot be written to; nothing if it is fine."""
        state_folder = self.path
        if state_folder is None:
            return "there is no home to note in what was built here: set XDG_STATE_HOME"
        if state_folder.exists() and not os.access(state_folder, os.W_OK):
            return f"nothing can be noted in {state_folder}"
        return find_obstacle(state_folder)


KNOWN_PROGRAMS = DigestFolder("programs")
"""The files of programs that were built here or that the user let run."""
LOCAL_BUILDS = DigestFolder("built")
"""Manifests of bundles that were built here while a key was trusted for their network."""


def _is_absolute_variable(variable: str) -> bool:
    return os.path.isabs(os.environ.get(variable, ""))


def _walk_parts(path: Path) -> Iterator[Path]:
    """Yield the folders and links that lead to a path, the root first, and what is at its end.

    Raises:
        OSError: A part is missing, or links lead in a circle.
    """
    pending = deque(path.absolute().parts[1:])
    current, links = Path("/"), 0
    yield current
    while pending:
        name = pending.popleft()
        if name == "..":
            current = current.parent  # through no link: each was followed
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
    """Return how others can change what lies in a folder, or a file; nothing where they cannot."""
    status = part.lstat()
    # In a namespace of users root's own folders belong to somebody else, as the root folder does.
    owners = {os.geteuid(), 0} if is_final else {os.geteuid(), 0, os.stat("/").st_uid}
    if status.st_uid not in owners:
        return f"{part} belongs to {_describe_user(status.st_uid)}"
    if stat.S_ISLNK(status.st_mode):
        return ""  # its own mode means nothing; the folder that it lies in was looked at
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if _is_writable_by_others(status) and not (sticky and not is_final):
        return f"others can write to {part}"
    return ""


def _is_writable_by_others(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private_group(status.st_gid)


def _is_private_group(group_id: int) -> bool:
    """Whether a group is the user's alone: many systems have files writable by such a group."""
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
"""The folder of compiled kernels: of tcc's own sources alone, whatever network asked for them."""
CACHE_DISPLAY_PATH = "~/.cache/tcc"
"""The folder around them, as messages name it."""


def prepare_cache_folder(name: str) -> Path:
    """Return the folder of a tool, which is there and can be written to by the user alone.

    Where the user's own cache is no such folder, it is one among the temporary files.

    Raises:
        OSError: There is none, since others can write to the place for temporary files too.
    """
    cache_path = locate_folder("XDG_CACHE_HOME", name)
    if cache_path is not None:
        with suppress(OSError):
            make_folder(cache_path)
            if not find_obstacle(cache_path) and os.access(cache_path, os.W_OK):
                return cache_path
    cache_path = atomic_files.find_scratch_root() / f"tcc-{name}-{os.geteuid()}"
    cache_path.mkdir(0o700, exist_ok=True)
    # In a place that others share, a folder of this name may be theirs.
    if reason := find_obstacle(cache_path):
        reason = f"{reason}; set XDG_CACHE_HOME to a folder that only you can write to"
        raise PermissionError(errno.EACCES, reason, str(cache_path))
    return cache_path


def read_cached(path: Path) -> bytes | None:
    """Return what `write` kept in a file; None where it is not there, damaged or of others."""
    try:
        with regular_files.open_file(path) as file:
            content = open_sealed(path.name, file.read())
    except OSError:
        return None
    with suppress(OSError):
        os.utime(path)  # what is used stays longest
    return content


def write_cached(path: Path, content: bytes) -> None:
    """Keep something in a file of a tool's folder, sealed; nothing where there is no seal.

    Raises:
        UserError: The file cannot be written.
        MachineError: The disk is full or broken.
    """
    sealed = seal(path.name, content)
    if sealed is not None:
        atomic_files.write_file(path, sealed)


def list_cached_files(name: str) -> tuple[Path, ...]:
    """Return what a tool's folder holds; nothing where there is none."""
    with suppress(OSError):
        return tuple(path for path in prepare_cache_folder(name).iterdir() if path.is_file())
    return ()


def sum_sizes(paths: Iterable[Path]) -> int:
    """Return the bytes that files take."""
    return sum(bytes_ for _, bytes_, _ in _stat_files(paths))


def trim_cache(name: str, limit: int) -> None:
    """Remove what was used longest ago from a tool's folder, until the rest fits."""
    file_statistics = sorted(_stat_files(list_cached_files(name)))
    total = sum(bytes_ for _, bytes_, _ in file_statistics)
    for _, bytes_, path in file_statistics[:-1]:  # the newest stays: it is being used
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= bytes_


def _stat_files(paths: Iterable[Path]) -> list[tuple[int, int, Path]]:
    """Return when each file was used, its bytes, and the file; others may remove some meanwhile."""
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
    """Return an entry's bytes behind their seal; None where no key can be kept."""
    key = _load_key()
    return None if key is None else _compute_seal(key, name, content) + content


def open_sealed(name: str, sealed: bytes) -> bytes | None:
    """Return what `sealed` was given for this name; None where the seal is not of it."""
    key = _load_key()
    if key is None:
        return None
    seal, content = sealed[:SEAL_BYTES], sealed[SEAL_BYTES:]
    return content if hmac.compare_digest(seal, _compute_seal(key, name, content)) else None


def find_key_obstacle() -> str:
    """Return why no key can be kept, and so no entry; nothing where one can."""
    if _load_key() is not None:
        return ""
    cache_folder = _find_key_folder()
    if cache_folder is None:
        return "there is no home for the key of its seals: set XDG_STATE_HOME"
    return find_obstacle(cache_folder) or f"the key of its seals cannot be kept in {cache_folder}"


def locate_key_file() -> Path | None:
    """Return the file of the key, which may not be there yet; None where there is no home."""
    cache_folder = _find_key_folder()
    return cache_folder and cache_folder / KEY_NAME


def _compute_seal(key: bytes, name: str, content: bytes) -> bytes:
    digest = hmac.new(key, name.encode() + b"\0", "sha256")
    digest.update(content)
    return digest.digest()


def _find_key_folder() -> Path | None:
    return locate_folder("XDG_STATE_HOME", "seal")


def _load_key() -> bytes | None:
    """Return the key, which is made where there is none; None where it cannot be kept."""
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
    """Return the key in a file; None where it is missing, cut, or others could read it."""
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
    path.unlink()  # a key that others know seals nothing
    return None


def _make_key(path: Path) -> bytes | None:
    """Write a new key, unless another process was first: then return that one's."""
    temporary_path = path.with_name(f"{path.name}.{os.urandom(6).hex()}")
    descriptor = os.open(temporary_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    try:
        os.write(descriptor, os.urandom(SEAL_BYTES))
        os.fsync(descriptor)
        # A link, unlike a rename, leaves a key that is there already.
        with suppress(FileExistsError):
            os.link(temporary_path, path)
    finally:
        os.close(descriptor)
        temporary_path.unlink()
    return _read_key(path)
