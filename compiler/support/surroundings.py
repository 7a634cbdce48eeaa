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
    for each in (*_sources(), *_packages(), *_environment(), *cpu.identity(), sys.version):
        found.update(f"{each}\n".encode(errors="surrogateescape"))
    return found.hexdigest()


def _sources() -> Iterator[str]:
    root = Path(__file__).parents[2]
    for name in SOURCES:
        for parent, folders, files in os.walk(root / name):
            folders[:] = sorted(set(folders) - {COMPILED})
            for file in sorted(files):
                path = os.path.join(parent, file)
                yield f"{os.path.relpath(path, root)} {_digest(path)}"


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:  # an editor's link to nowhere, or gone meanwhile
        return ""


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
