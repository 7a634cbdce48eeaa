"""What a build's bytes depend on beside what it is given: tcc itself, packages, this processor."""

import hashlib
import os
import platform
import sys
from collections.abc import Iterator
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
                with open(path, "rb") as opened:
                    content = hashlib.sha256(opened.read()).hexdigest()
                yield f"{os.path.relpath(path, root)} {content}"


def _packages() -> Iterator[str]:
    """Yield what is installed, by the folders that say so, where Python looks for it."""
    for place in sys.path:
        try:
            with os.scandir(place or ".") as entries:
                named = [e for e in entries if e.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for each in sorted(named, key=lambda each: each.name):
            yield f"{each.name} {each.stat().st_mtime_ns}"


def _environment() -> Iterator[str]:
    yield from (platform.machine(), platform.system(), *platform.libc_ver())
    for name, value in sorted(os.environ.items()):
        if name in VARIABLES or name.startswith(PREFIXES):
            yield f"{name}={value}"
