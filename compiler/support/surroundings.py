"""What a build's bytes depend on beside what it is given: tcc itself, packages, this processor."""

import hashlib
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from tcc.compiler.support import cpu

SOURCES = ("compiler", "backends", "spec", "zoo")
"""Folders of tcc whose files decide what is built: code, blocks, drawings, calibrations."""
COMPILED = "__pycache__"
PIECE = 1 << 17
"""Bytes that are read at a time."""
VARIABLES = ("CPATH", "C_INCLUDE_PATH", "GLIBC_TUNABLES", "LD_LIBRARY_PATH", "LD_PRELOAD")
PREFIXES = ("NPY_", "OPENBLAS_", "ORT_", "QEMU_", "TVM_", "ZIG_")
"""Variables that choose other code for the same numbers, here or in compilers."""


@cache
def digest() -> str:
    """Return the SHA-256 of all of it, by which results of the same inputs may differ.

    Packages count by name, version and the time they were installed at: who edits one by hand has
    to clear what was kept.
    """
    found = hashlib.sha256()
    for each in (*_packages(), *_environment(), *cpu.identity(), sys.version):
        found.update(f"{each}\n".encode(errors="surrogateescape"))
    root = str(Path(__file__).parents[2])
    for name in sources():
        content = _content(os.path.join(root, name))
        # With its length: no content can pass for the next file's name.
        found.update(f"\n{name}\n{len(content)}\n".encode(errors="surrogateescape"))
        found.update(content)
    return found.hexdigest()


def sources() -> Iterator[str]:
    """Yield the files of tcc that decide what is built, below its root, in order."""
    root = str(Path(__file__).parents[2])
    for name in SOURCES:
        yield from _below(root, name)


def _below(root: str, folder: str) -> Iterator[str]:
    try:
        with os.scandir(os.path.join(root, folder)) as found:
            entries = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in found)
    except OSError:  # gone meanwhile
        return
    for name, is_folder in entries:
        if not is_folder:
            yield f"{folder}/{name}"
        elif name != COMPILED:
            yield from _below(root, f"{folder}/{name}")


def _content(path: str) -> bytes:
    # Without Python's buffers, which take longer than the reading: these are a thousand files.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # an editor's link to nowhere, or gone meanwhile
        return b""
    try:
        parts = [os.read(file, PIECE)]
        while parts[-1]:
            parts.append(os.read(file, PIECE))
    except OSError:
        return b""
    finally:
        os.close(file)
    return b"".join(parts)


def _packages() -> Iterator[str]:
    """Yield what is installed, by the folders that say so, where Python looks for it."""
    for place in sys.path:
        try:
            with os.scandir(place or ".") as entries:
                named = [e for e in entries if e.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for each in sorted(named, key=lambda each: each.name):
            with suppress(OSError):
                yield f"{each.name} {each.stat().st_mtime_ns}"


def _environment() -> Iterator[str]:
    yield from (platform.machine(), platform.system())
    with suppress(AttributeError, OSError, ValueError):  # where the C library is another one
        yield os.confstr("CS_GNU_LIBC_VERSION") or ""
    for name, value in sorted(os.environ.items()):
        if name in VARIABLES or name.startswith(PREFIXES):
            yield f"{name}={value}"
