"""Seals of cache entries: by a key that only this user can read, and that no cache holds.

An entry that somebody planted, in an archive that was unpacked or on a disk that is shared, has no
seal of this key, wherever the variables of the environment say that the cache is.
"""

import hmac
import os
import stat
from contextlib import suppress
from pathlib import Path

from tcc.compiler.support import user_folders

BYTES = 32
"""Bytes of the key, and of a seal: HMAC-SHA-256."""
NAME = "cache-key"
_PRIVATE = 0o600


def sealed(name: str, content: bytes) -> bytes | None:
    """Return an entry's bytes behind their seal; None where no key can be kept."""
    key = _load_key()
    return None if key is None else _compute_seal(key, name, content) + content


def opened(name: str, entry: bytes) -> bytes | None:
    """Return what `sealed` was given for this name; None where the seal is not of it."""
    key = _load_key()
    if key is None:
        return None
    seal, content = entry[:BYTES], entry[BYTES:]
    return content if hmac.compare_digest(seal, _compute_seal(key, name, content)) else None


def obstacle() -> str:
    """Return why no key can be kept, and so no entry; nothing where one can."""
    if _load_key() is not None:
        return ""
    folder = _find_folder()
    if folder is None:
        return "there is no home for the key of its seals: set XDG_STATE_HOME"
    return user_folders.obstacle(folder) or f"the key of its seals cannot be kept in {folder}"


def key_file() -> Path | None:
    """Return the file of the key, which may not be there yet; None where there is no home."""
    folder = _find_folder()
    return folder and folder / NAME


def _compute_seal(key: bytes, name: str, content: bytes) -> bytes:
    digest = hmac.new(key, name.encode() + b"\0", "sha256")
    digest.update(content)
    return digest.digest()


def _find_folder() -> Path | None:
    return user_folders.folder("XDG_STATE_HOME", "seal")


def _load_key() -> bytes | None:
    """Return the key, which is made where there is none; None where it cannot be kept."""
    folder = _find_folder()
    if folder is None:
        return None
    with suppress(OSError):
        user_folders.make(folder)
        if user_folders.obstacle(folder):
            return None
        return _read(folder / NAME) or _make(folder / NAME)
    return None


def _read(path: Path) -> bytes | None:
    """Return the key in a file; None where it is missing, cut, or others could read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        secret = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == _PRIVATE
        if stat.S_ISREG(status.st_mode) and secret and len(key := file.read(BYTES + 1)) == BYTES:
            return key
    path.unlink()  # a key that others know seals nothing
    return None


def _make(path: Path) -> bytes | None:
    """Write a new key, unless another process was first: then return that one's."""
    fresh = path.with_name(f"{path.name}.{os.urandom(6).hex()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    try:
        os.write(descriptor, os.urandom(BYTES))
        os.fsync(descriptor)
        # A link, unlike a rename, leaves a key that is there already.
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        os.close(descriptor)
        fresh.unlink()
    return _read(path)
