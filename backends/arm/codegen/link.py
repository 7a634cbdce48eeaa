"""From sources and kernels to what a user links or runs."""

from pathlib import Path

from tcc.backends.arm.codegen import c_source, zig
from tcc.backends.arm.codegen.c_source import Sources
from tcc.backends.arm.machine import Machine
from tcc.compiler.ir.target import Artifact
from tcc.compiler.support import scratch_folders
from tcc.compiler.support.progress import Progress, silent

_WEIGHTS = """\
    .section .rodata
    .balign 64
    .global {name}_weights
    .hidden {name}_weights
{name}_weights:
    .incbin "weights.bin"
    .byte 0
    .section .note.GNU-stack,"",%progbits
"""
LINK = ("-O2", "-s", "-Wl,--build-id=none", "-Wl,--gc-sections")
"""Options for linking: no symbols, no build id, nothing unused."""


def linked(
    sources: Sources, kernels: bytes, machine: Machine, name: str, progress: Progress = silent
) -> Artifact:
    """Return the libraries, the header, the runner program and the C sources.

    Raises:
        ZigError: They do not compile or link.
    """
    files = {f"{name}.h": sources.header, f"src/{name}.c": sources.model}
    files |= {f"src/{file}": text for file, text in c_source.runtime(name).items()}
    made = (f"lib{name}.a", f"lib{name}.so", f"{name}-run")
    with scratch_folders.folder() as folder:
        (folder / "src").mkdir()
        for path, text in files.items():
            (folder / path).write_text(text, "utf-8")
        (folder / "kernels.o").write_bytes(kernels)
        (folder / "weights.bin").write_bytes(sources.weights)
        (folder / "weights.S").write_text(_WEIGHTS.format(name=name), "utf-8")
        (folder / "exports").write_text(_exports(name), "utf-8")
        _compile(folder, machine, name, progress)
        built = {path: (folder / path).read_bytes() for path in made}
    written = {path: text.encode() for path, text in files.items()}
    return Artifact({**written, **built}, frozenset({made[-1]}))


def _compile(folder: Path, machine: Machine, name: str, progress: Progress) -> None:
    """Make the libraries and the program.

    Only compiling names the processor; linking names its family, whose C library zig then
    builds once for all of its processors.
    """
    mark = zig.mark(machine.arch)
    stage = "link" if mark.exists() else "link, after building zig's C library once"
    progress(stage, 0, 3)
    for file in (f"src/{name}.c", "weights.S"):
        _object(folder, machine, "gnu", file, f"{Path(file).stem}.o")
    objects = (f"{name}.o", "kernels.o", "weights.o")
    zig.run(folder, "ar", "rcsD", f"lib{name}.a", *objects)
    progress(stage, 1, 3)
    _link(
        folder, machine, "gnu", f"lib{name}.so", *objects,
        "-shared", f"-Wl,-soname,lib{name}.so", "-Wl,--version-script=exports",
    )  # fmt: skip
    progress(stage, 2, 3)
    for file in (f"src/{name}.c", "src/runner.c"):
        _object(folder, machine, "musl", file, f"{Path(file).stem}-static.o")
    static = (f"{name}-static.o", "runner-static.o", "kernels.o", "weights.o")
    _link(folder, machine, "musl", f"{name}-run", *static, "-static")
    mark.touch()
    progress(stage, 3, 3)


def _object(folder: Path, machine: Machine, libc: str, file: str, made: str) -> None:
    options = (*machine.zig(libc), f"-mcpu={machine.cpu}", *zig.COMPILE, "-I.", "-Isrc")
    zig.run(folder, "cc", *options, "-c", file, "-o", made)


def _link(folder: Path, machine: Machine, libc: str, made: str, *options: str) -> None:
    zig.run(folder, "cc", *machine.zig(libc), *LINK, *options, "-o", made, "-lm", "-lpthread")


def _exports(name: str) -> str:
    """Return the linker's list of what the shared library shows."""
    shown = "".join(f" {name}_{word};" for word in c_source.PUBLIC)
    return f"{{ global:{shown} local: *; }};\n"
