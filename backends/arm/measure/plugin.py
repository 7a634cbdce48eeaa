"""The counting plugin of qemu: compiled once, into the user's cache."""

import platform
import re
import subprocess
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from tcc.backends.arm.codegen import zig
from tcc.backends.arm.machine import Machine
from tcc.compiler.support import atomic_files, user_folders
from tcc.compiler.support.external_tools import MissingTool, Tool

SOURCE = "count.c"
OLDEST = 6
"""The first major version of qemu whose plugins hear of system calls."""
NEW_API = 9
"""The first major version that wants the second version of its interface."""


def write(machine: Machine, path: Path) -> None:
    """Write the plugin for the qemu of a machine, compiled if it was not yet.

    What runs is never the file in the cache: it is checked first, and this copy is of what was.

    Raises:
        MissingTool: There is no qemu that takes plugins, or no zig to compile it.
        ZigError: It does not compile.
        OSError: The cache or the file cannot be written.
    """
    api = 2 if _version(machine) >= NEW_API else 1
    text = (files("tcc.backends.arm") / "measure" / SOURCE).read_bytes()
    # An old glibc's symbols alone, so that the plugin loads beside whichever qemu was built with.
    options = ("-target", f"{_processor()}-linux-gnu.2.28", f"-DAPI={api}", "-shared", "-s")
    key = sha256(repr((text, options, zig.COMPILE)).encode()).hexdigest()[:16]
    entry = zig.cache() / f"count-{key}.sealed"
    library = user_folders.read_cached(entry)
    if library is None:
        library = _compile(text, options)
        user_folders.write_cached(entry, library)
    path.write_bytes(library)


def _compile(text: bytes, options: tuple[str, ...]) -> bytes:
    with atomic_files.scratch_folder() as folder:
        (folder / SOURCE).write_bytes(text)
        zig.run(folder, "cc", *zig.COMPILE, *options, "-o", "count.so", SOURCE)
        return (folder / "count.so").read_bytes()


def named(plugin: Path, out: Path) -> tuple[str, ...]:
    """Return qemu's options that have a plugin write a file; commas end a word of theirs."""
    return ("-plugin", ",".join(str(word).replace(",", ",,") for word in (plugin, f"out={out}")))


def _processor() -> str:
    found = platform.machine()
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(found, found)


def _version(machine: Machine) -> int:
    """Return the major version of a machine's qemu.

    Raises:
        MissingTool: It is not here, is too old, or was built without plugins.
    """
    found = re.search(r"version (\d+)\.", _said(machine, "--version"))
    # A qemu without plugins says so in its list of options alone.
    if not found or int(found[1]) < OLDEST or "-plugin" not in _said(machine, "-h"):
        needed_for = "count instructions, built with plugins (Debian 12's is, Debian 13's is not)"
        raise MissingTool(Tool(machine.qemu, needed_for, None, builds=False))
    return int(found[1])


def _said(machine: Machine, option: str) -> str:
    try:
        done = subprocess.run(
            [machine.qemu, option], check=False, capture_output=True, timeout=60, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
