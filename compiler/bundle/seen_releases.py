"""The highest release that this user has seen of each network of each key: none lower is taken.

`~/.local/state/tcc/releases/<network and key>/` holds an empty file for each, called by its number:
it is there or it is not, so that the highest never goes down, however many processes write.
"""

import hashlib
import os
from pathlib import Path

from tcc.compiler.support import user_folders
from tcc.compiler.support.diagnostics import UserError, fail, whole_file


def highest(fingerprint: str, network: str) -> int:
    """Return the highest release that was seen; 0 where none was.

    Raises:
        UserError: Others can change what was noted (E1359).
    """
    folder = _locate(fingerprint, network)
    if folder is None or not os.path.lexists(folder):
        return 0
    if reason := user_folders.obstacle(folder.parent) or user_folders.obstacle(folder):
        raise _fail_to_note(folder, reason)
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise _fail_to_note(folder, error.strerror or str(error)) from error
    return max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0)


def note(fingerprint: str, network: str, release: int) -> None:
    """Note a release that is higher than what was seen.

    Raises:
        UserError: It cannot be noted (E1359): a lower one would be taken later.
    """
    folder = _locate(fingerprint, network)
    if folder is None:
        raise _fail_to_note(Path("~"), "there is no home")
    try:
        user_folders.make(folder)
        if not (reason := user_folders.obstacle(folder)):
            (folder / str(release)).touch(0o600)
            return
    except OSError as error:
        reason = error.strerror or str(error)
    raise _fail_to_note(folder, reason)


def _locate(fingerprint: str, network: str) -> Path | None:
    folder = user_folders.folder("XDG_STATE_HOME", "releases")
    # A network's name need not be one that a file can have.
    digest = hashlib.sha256(f"{fingerprint}\0{network}".encode()).hexdigest()
    return folder and folder / digest[:40]


def _fail_to_note(folder: Path, reason: str) -> UserError:
    message = "which releases were seen cannot be noted: an older one could come back unnoticed"
    help = (
        "set XDG_STATE_HOME to a folder that only you can write to, or say the least release "
        "that is taken: `tcc trust add KEY.pem --min-release N`"
    )
    return fail("E1359", message, whole_file(str(folder)), label=reason, help=help)
