"""Compiles micro-kernels to object files with zig."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from tcc.backends.arm.codegen import zig
from tcc.backends.arm.kernels.base import Kernel
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.micro.cores import ISAS, Isa, select_isas
from tcc.backends.arm.micro.records import MicroKernel
from tcc.compiler.support import atomic_files, stage_cache, user_folders

MICRO_KERNEL_OPTIONS = (*zig.COMPILE_OPTIONS, "-fvisibility=hidden", "-ffunction-sections")
"""Options for micro-kernels. Each function has a section: the linker removes unused ones."""


def read_sources() -> dict[str, str]:
    """Return the C sources of all micro-kernels, by file name."""
    folder = files("tcc.backends.arm.micro") / "c"
    c_files = (file for file in folder.iterdir() if file.name.endswith((".c", ".h")))
    return {file.name: file.read_text("utf-8") for file in sorted(c_files, key=lambda f: f.name)}


def compile_kernels(kernels: Iterable[Kernel], machine: Machine) -> dict[str, bytes]:
    """Return the object files of the micro-kernels that these kernels call, by name.

    Raises:
        ZigError: A micro-kernel does not compile.
    """
    called = {micro for kernel in kernels for micro in kernel.micro_kernels}
    micros = sorted(called, key=lambda micro: micro.name)
    with atomic_files.create_scratch_folder() as folder:
        write_sources(folder)
        object_files = dict(
            _compile_variants(folder, micros, machine) if machine.has_isa_variants else ()
        )
        for micro in () if machine.has_isa_variants else micros:
            object_files[f"{micro.name}.o"] = _compile_object(
                folder, micro.name, machine, machine.cpu
            )
        return object_files


def _compile_variants(
    folder: Path, micros: Iterable[MicroKernel], machine: Machine
) -> Iterator[tuple[str, bytes]]:
    """Yield the objects of each micro-kernel per instruction set, and of the dispatcher."""
    text = ['#include "isa.h"']
    for micro in micros:
        for isa in dict.fromkeys(select_isas(micro)):
            definitions = (
                f"-D{symbol}={_build_variant_name(symbol, isa)}" for symbol in micro.symbols
            )
            yield (
                f"{micro.name}_{isa.name}.o",
                _compile_object(folder, micro.name, machine, isa.cpu, *definitions),
            )
        for symbol in micro.symbols:
            variant_names = [_build_variant_name(symbol, isa) for isa in select_isas(micro)]
            text += [f"void {name}(void);" for name in dict.fromkeys(variant_names)]
            variant_list = ", ".join(variant_names)
            table = f"static const isa_form {symbol}_forms[{len(ISAS)}]"
            text.append(f"__attribute__((used)) {table} = {{{variant_list}}};")
            text.append(f"DISPATCH({symbol});")
    (folder / "dispatch.c").write_text("\n".join([*text, ""]), "utf-8")
    yield "dispatch.o", _compile_object(folder, "dispatch", machine, machine.cpu)


def _build_variant_name(symbol: str, isa: Isa) -> str:
    return f"{symbol}_{isa.name.replace('-', '_')}"


def _compile_object(
    folder: Path, file_stem: str, machine: Machine, cpu: str, *options: str
) -> bytes:
    """Return a compiled file, from the cache if it was compiled before.

    Every build needs these files, and compiling one for all instruction sets takes 10 s.
    """
    arguments = (*machine.get_zig_target("gnu"), f"-mcpu={cpu}", *MICRO_KERNEL_OPTIONS, *options)
    texts = {file.name: file.read_text("utf-8") for file in sorted(folder.glob("*.h"))}
    cache_input = repr(
        (version("ziglang"), arguments, (folder / f"{file_stem}.c").read_text("utf-8"), texts)
    )
    key = sha256(cache_input.encode()).hexdigest()[:32]
    cache_path = (
        user_folders.prepare_cache_folder(user_folders.KERNELS_FOLDER) / f"{file_stem}-{key}.sealed"
    )
    if object_bytes := user_folders.read_cached(cache_path):
        return object_bytes
    zig.run(folder, "cc", *arguments, "-c", f"{file_stem}.c", "-o", f"{file_stem}.o")
    object_bytes = (folder / f"{file_stem}.o").read_bytes()
    user_folders.write_cached(cache_path, object_bytes)
    user_folders.trim_cache(
        user_folders.KERNELS_FOLDER, stage_cache.read_limit() or stage_cache.DEFAULT_LIMIT
    )
    return object_bytes


def write_sources(folder: Path) -> None:
    """Write all sources into a folder."""
    for name, text in read_sources().items():
        (folder / name).write_text(text, "utf-8")
