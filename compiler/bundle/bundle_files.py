"""Reading the files that bundles are made of."""

import hashlib
import os
from pathlib import Path

from tcc.compiler.support import atomic_files, regular_files

_CHUNK = 1 << 20


def content(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        UserError: It cannot be read (E0603).
    """
    try:
        with regular_files.opened(path) as file:
            return file.read()
    except OSError as error:
        raise atomic_files.explain(error, path, "read this") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        UserError: It cannot be read (E0603).
    """
    # In pieces: a model of 2 GB is not held in memory to be checked.
    digest = hashlib.sha256()
    try:
        with regular_files.opened(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise atomic_files.explain(error, path, "read this") from error
    return digest.hexdigest()


def walk(folder: Path) -> set[str]:
    """Return the paths of all files below a folder, with `/`."""
    return {
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
    }
