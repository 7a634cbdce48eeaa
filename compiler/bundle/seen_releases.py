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
    place = _place(fingerprint, network)
    if place is None or not os.path.lexists(place):
        return 0
    if why := user_folders.obstacle(place.parent) or user_folders.obstacle(place):
        raise _lost(place, why)
    try:
        names = os.listdir(place)
    except OSError as error:
        raise _lost(place, error.strerror or str(error)) from error
    return max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0)


def note(fingerprint: str, network: str, release: int) -> None:
    """Note a release that is higher than what was seen.

    Raises:
        UserError: It cannot be noted (E1359): a lower one would be taken later.
    """
    place = _place(fingerprint, network)
    if place is None:
        raise _lost(Path("~"), "there is no home")
    try:
        user_folders.make(place)
        if not (why := user_folders.obstacle(place)):
            (place / str(release)).touch(0o600)
            return
    except OSError as error:
        why = error.strerror or str(error)
    raise _lost(place, why)


def _place(fingerprint: str, network: str) -> Path | None:
    place = user_folders.folder("XDG_STATE_HOME", "releases")
    # A network's name need not be one that a file can have.
    digest = hashlib.sha256(f"{fingerprint}\0{network}".encode()).hexdigest()
    return place and place / digest[:40]


def _lost(place: Path, why: str) -> UserError:
    message = "which releases were seen cannot be noted: an older one could come back unnoticed"
    help = (
        "set XDG_STATE_HOME to a folder that only you can write to, or say the least release "
        "that is taken: `tcc trust add KEY.pem --min-release N`"
    )
    return fail("E1359", message, whole_file(str(place)), label=why, help=help)
