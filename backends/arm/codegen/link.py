"""Compiles and links sources and kernels into libraries and the runner program."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tcc.backends.arm.codegen import c_header, elf_symbols, runner_signature, zig
from tcc.backends.arm.codegen.c_source import Sources
from tcc.backends.arm.machine import Machine
from tcc.compiler.ir.target import Artifact
from tcc.compiler.support import atomic_files
from tcc.compiler.support.progress import Progress, silent

UNIT_TEMPLATE = """\
#include "src/{name}.c"
__asm__(".section .rodata\\n"
        ".balign 64\\n"
        ".global {name}_weights\\n"
        ".hidden {name}_weights\\n"
        "{name}_weights:\\n"
        ".incbin \\"weights.bin\\"\\n"
        ".byte 0\\n"
        ".previous\\n");
"""
"""All of a model's C and its weights in one object, because each zig process costs time."""
LINK_OPTIONS = ("-O2", "-s", "-Wl,--build-id=none", "-Wl,--gc-sections")
"""Options for linking: no symbols, no build id, no unused sections."""


def link_artifact(
    sources: Sources,
    objects: Mapping[str, bytes],
    machine: Machine,
    name: str,
    progress: Progress = silent,
) -> Artifact:
    """Return the libraries, the header, the runner program and the C sources.

    Args:
        sources: The model's C and weights.
        objects: The object files of its kernels; their symbols are hidden.
        machine: The target machine.
        name: The model's name, the prefix of all exported names.
        progress: Called for each file.

    Raises:
        ZigError: The sources do not compile or link.
    """
    output_names = (f"lib{name}.a", f"lib{name}.so", f"{name}-run")
    with atomic_files.create_scratch_folder() as folder:
        source_files = write_sources(folder, sources, name)
        for file, object_bytes in objects.items():
            (folder / file).write_bytes(object_bytes)
        _compile(folder, machine, name, sorted(objects), sources.exports, progress)
        built = {path: (folder / path).read_bytes() for path in output_names}
    return Artifact({**source_files, **built}, frozenset({output_names[-1]}))


def write_sources(folder: Path, sources: Sources, name: str) -> dict[str, bytes]:
    """Write all sources into a folder, and return those that belong to a bundle.

    `unit.c` is the model with its weights, and `src/runner.c` the program.
    """
    files = {f"{name}.h": sources.header, f"src/{name}.c": sources.model}
    sections = sources.sections | ({"SIGNER"} if sources.signer else frozenset())
    files |= {
        f"src/{file}": text for file, text in c_header.load_runtime_sources(name, sections).items()
    }
    if sources.signer:
        files |= runner_signature.render_sources(name, sources.signer)
    (folder / "src").mkdir()
    for path, text in files.items():
        (folder / path).write_text(text, "utf-8")
    (folder / "weights.bin").write_bytes(sources.weights)
    (folder / "unit.c").write_text(UNIT_TEMPLATE.format(name=name), "utf-8")
    return {path: text.encode() for path, text in files.items()}


def _compile(
    folder: Path,
    machine: Machine,
    name: str,
    objects: list[str],
    exports: tuple[str, ...],
    progress: Progress,
) -> None:
    """Build the libraries and the program.

    Only compiling uses the processor's name. Linking uses its family, so that zig builds one C
    library for all processors of a family. The same object is linked with both C libraries: they
    agree on everything that it uses.
    """
    mark = zig.get_marker_path(machine.arch)
    stage = "link" if mark.exists() else "link, after building zig's C library once"
    progress(stage, 0, 3)
    cpu = f"-mcpu={machine.cpu}"
    options = (*zig.COMPILE_OPTIONS, "-I.", "-Isrc")
    zig.run(
        folder, "cc", *machine.get_zig_target("gnu"), cpu, *options, "-c", "unit.c", "-o", "unit.o"
    )
    joined_object = f"{name}.o"
    zig.run(folder, "ld.lld", "-r", "-o", joined_object, "unit.o", *objects)
    (folder / joined_object).write_bytes(
        elf_symbols.keep_global_symbols((folder / joined_object).read_bytes(), exports)
    )
    # D omits times and owners, for reproducible bytes.
    zig.run(folder, "ar", "rcsD", f"lib{name}.a", joined_object)
    progress(stage, 1, 3)
    link_shared(folder, machine, name, exports)
    progress(stage, 2, 3)
    link_program(folder, machine, name)
    mark.touch()
    progress(stage, 3, 3)


def link_shared(folder: Path, machine: Machine, name: str, exports: Iterable[str]) -> None:
    """Link `libNAME.so` from `NAME.o`, exporting only some names; errors as `link_artifact`."""
    (folder / "exports").write_text(f"{{ global: {'; '.join(exports)}; local: *; }};\n", "utf-8")
    _link(
        folder, machine.get_zig_target("gnu"), f"lib{name}.so", f"{name}.o",
        "-shared", f"-Wl,-soname,lib{name}.so", "-Wl,--version-script=exports",
    )  # fmt: skip


def link_program(folder: Path, machine: Machine, name: str) -> None:
    """Link `NAME-run` from `src/runner.c` and `NAME.o`; errors as for `link_artifact`."""
    _link(
        folder,
        machine.get_zig_target("musl"),
        f"{name}-run",
        *_build_runner_options(folder, machine),
        f"{name}.o",
        "-static",
        "-pie",
    )


def link_loader(folder: Path, machine: Machine, name: str) -> None:
    """Link a `NAME-run` that loads `libNAME.so` from its own folder; errors as above."""
    _link(
        folder,
        machine.get_zig_target("gnu"),
        f"{name}-run",
        *_build_runner_options(folder, machine),
        "-L.",
        f"-l:lib{name}.so",
        "-Wl,-rpath,$ORIGIN",
    )


def _build_runner_options(folder: Path, machine: Machine) -> tuple[str, ...]:
    """Return the options and sources of the runner, with those of the signature check if any."""
    options = (*zig.COMPILE_OPTIONS, "-I.", "-Isrc", f"-mcpu={machine.cpu}")
    library = [f"src/{unit}" for unit in runner_signature.UNITS if (folder / "src" / unit).exists()]
    # Unused functions of the library are removed with their sections.
    sections = ("-ffunction-sections", "-fdata-sections") if library else ()
    return (*options, *sections, "src/runner.c", *library)


def _link(folder: Path, target: tuple[str, ...], output_name: str, *options: str) -> None:
    zig.run(folder, "cc", *target, *options, *LINK_OPTIONS, "-o", output_name, "-lm", "-lpthread")
