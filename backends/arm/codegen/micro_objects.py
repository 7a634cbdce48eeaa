"""From micro-kernels to object files, by zig."""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from tcc.backends.arm.codegen import zig
from tcc.backends.arm.kernels.base import Kernel
from tcc.backends.arm.machine import Machine
from tcc.compiler.support import scratch_folders

OPTIONS = (*zig.COMPILE, "-fvisibility=hidden", "-ffunction-sections")
"""Their text is of the matter: what a program does not call, the linker leaves out."""


def sources() -> dict[str, str]:
    """Return the C of all micro-kernels, by file name."""
    folder = files("tcc.backends.arm.micro") / "c"
    found = (file for file in folder.iterdir() if file.name.endswith((".c", ".h")))
    return {file.name: file.read_text("utf-8") for file in sorted(found, key=lambda f: f.name)}


def compiled(kernels: Iterable[Kernel], machine: Machine) -> dict[str, bytes]:
    """Return the object file of each micro-kernel that kernels call, by name.

    Raises:
        ZigError: One does not compile.
    """
    words = sorted({micro.word for kernel in kernels for micro in kernel.micro_kernels})
    if not words:
        return {}
    with scratch_folders.folder() as folder:
        write(folder)
        options = (*machine.zig("gnu"), f"-mcpu={machine.cpu}", *OPTIONS)
        for word in words:
            zig.run(folder, "cc", *options, "-c", f"{word}.c", "-o", f"{word}.o")
        return {f"{word}.o": (folder / f"{word}.o").read_bytes() for word in words}


def write(folder: Path) -> None:
    """Write all sources into a folder."""
    for name, text in sources().items():
        (folder / name).write_text(text, "utf-8")
