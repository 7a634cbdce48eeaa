"""Files and folders that tcc believes: those that only the user, and root, can change.

Others can change a file if they can write to it, to its folder, or to a folder above that, where
they would put another one in its place. So each part of the path counts, and each link on the way.
"""

import errno
import grp
import os
import pwd
import stat
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

VARIABLES: Mapping[str, str] = {
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "XDG_STATE_HOME": ".local/state",
}
"""The variables that name a folder of the user's, and its place in the home without them."""
MAX_LINKS = 40
"""Most links that one path may lead through, as Linux has it."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def folder(variable: str, name: str) -> Path | None:
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


def ignored_variables() -> tuple[str, ...]:
    """Return, in words, which variables are ignored since they name no folder from the root on."""
    relative = (name for name in VARIABLES if os.environ.get(name) and not _names_root(name))
    return tuple(
        f"{name}={os.environ[name][:80]} is ignored: it is not an absolute path; "
        f"~/{VARIABLES[name]} is used"
        for name in relative
    )


def obstacle(path: Path) -> str:
    """Return why a folder of tcc's is not believed; nothing where it is fine, or not there."""
    reason = exposure(path)
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


def exposure(path: Path) -> str:
    """Return what lets others change a file or folder; nothing where they cannot, or none is there.

    A folder that all can write to but where nobody can replace another's files, as in `/tmp`, is
    fine above the path, and not at its end.
    """
    try:
        parts = list(_walk_parts(path))
        for number, part in enumerate(parts, 1):
            if reason := _describe_weakness(part, last=number == len(parts)):
                return reason
    except (FileNotFoundError, NotADirectoryError):
        return ""  # what is not there says nothing
    except (OSError, ValueError) as error:
        return f"{path} cannot be looked at: {getattr(error, 'strerror', None) or error}"
    return ""


def make(path: Path) -> None:
    """Make a folder of tcc's, and those above that are missing; nobody else can read them.

    Raises:
        OSError: It cannot be made.
    """
    for each in (*reversed(path.parents), path):
        if not each.is_dir():
            each.mkdir(0o700, exist_ok=True)


def _names_root(variable: str) -> bool:
    return os.path.isabs(os.environ.get(variable, ""))


def _walk_parts(path: Path) -> Iterator[Path]:
    """Yield the folders and links that lead to a path, the root first, and what is at its end.

    Raises:
        OSError: A part is missing, or links lead in a circle.
    """
    pending = deque(path.absolute().parts[1:])
    here, links = Path("/"), 0
    yield here
    while pending:
        name = pending.popleft()
        if name == "..":
            here = here.parent  # through no link: each was followed
            continue
        part = here / name
        mode = part.lstat().st_mode
        if stat.S_ISLNK(mode):
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = Path(os.readlink(part))
            pending.extendleft(reversed(target.parts[target.is_absolute() :]))
            here = Path("/") if target.is_absolute() else here
        else:
            here = part
        yield part


def _describe_weakness(part: Path, *, last: bool) -> str:
    """Return how others can change what lies in a folder, or a file; nothing where they cannot."""
    status = part.lstat()
    # In a namespace of users root's own folders belong to somebody else, as the root folder does.
    owners = {os.geteuid(), 0} if last else {os.geteuid(), 0, os.stat("/").st_uid}
    if status.st_uid not in owners:
        return f"{part} belongs to {_describe_user(status.st_uid)}"
    if stat.S_ISLNK(status.st_mode):
        return ""  # its own mode means nothing; the folder that it lies in was looked at
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if _others_write(status) and not (sticky and not last):
        return f"others can write to {part}"
    return ""


def _others_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private_group(status.st_gid)


def _is_private_group(number: int) -> bool:
    """Whether a group is the user's alone: many systems have files writable by such a group."""
    user = os.geteuid()
    try:
        account, group = pwd.getpwuid(user), grp.getgrgid(number)
    except KeyError:
        return False
    members = set(group.gr_mem) - {account.pw_name}
    alone = account.pw_gid == number and group.gr_name == account.pw_name and not members
    return alone and user != 0


def _describe_user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
