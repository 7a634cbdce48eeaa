"""From micro-kernels to object files, by zig."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from tcc.backends.arm.codegen import zig
from tcc.backends.arm.kernels.base import Kernel
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.micro.cores import ISAS, Isa, forms
from tcc.backends.arm.micro.records import MicroKernel
from tcc.compiler.support import atomic_files, stage_cache, user_folders

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
    called = {micro for kernel in kernels for micro in kernel.micro_kernels}
    micros = sorted(called, key=lambda micro: micro.word)
    with atomic_files.scratch_folder() as folder:
        write(folder)
        made = dict(_variants(folder, micros, machine) if machine.variants else ())
        for micro in () if machine.variants else micros:
            made[f"{micro.word}.o"] = _object(folder, micro.word, machine, machine.cpu)
        return made


def _variants(
    folder: Path, micros: Iterable[MicroKernel], machine: Machine
) -> Iterator[tuple[str, bytes]]:
    """Yield the objects of all forms of micro-kernels, and of what chooses among them."""
    text = ['#include "isa.h"']
    for micro in micros:
        for isa in dict.fromkeys(forms(micro)):
            renamed = (f"-D{symbol}={_form(symbol, isa)}" for symbol in micro.symbols)
            yield (
                f"{micro.word}_{isa.name}.o",
                _object(folder, micro.word, machine, isa.cpu, *renamed),
            )
        for symbol in micro.symbols:
            names = [_form(symbol, isa) for isa in forms(micro)]
            text += [f"void {name}(void);" for name in dict.fromkeys(names)]
            listed = ", ".join(names)
            table = f"static const isa_form {symbol}_forms[{len(ISAS)}]"
            text.append(f"__attribute__((used)) {table} = {{{listed}}};")
            text.append(f"DISPATCH({symbol});")
    (folder / "dispatch.c").write_text("\n".join([*text, ""]), "utf-8")
    yield "dispatch.o", _object(folder, "dispatch", machine, machine.cpu)


def _form(symbol: str, isa: Isa) -> str:
    return f"{symbol}_{isa.name.replace('-', '_')}"


def _object(folder: Path, word: str, machine: Machine, cpu: str, *options: str) -> bytes:
    """Return a file compiled, or what was kept of it when it was compiled before.

    It is asked for anew with each network, and one for all instruction sets takes zig ten seconds.
    """
    told = (*machine.zig("gnu"), f"-mcpu={cpu}", *OPTIONS, *options)
    texts = {file.name: file.read_text("utf-8") for file in sorted(folder.glob("*.h"))}
    asked = repr((version("ziglang"), told, (folder / f"{word}.c").read_text("utf-8"), texts))
    key = sha256(asked.encode()).hexdigest()[:32]
    cache_path = user_folders.cache_folder(user_folders.KERNELS) / f"{word}-{key}.sealed"
    if made := user_folders.read_cached(cache_path):
        return made
    zig.run(folder, "cc", *told, "-c", f"{word}.c", "-o", f"{word}.o")
    made = (folder / f"{word}.o").read_bytes()
    user_folders.write_cached(cache_path, made)
    user_folders.trim_cache(
        user_folders.KERNELS, stage_cache.bytes_of_limit() or stage_cache.USUAL_LIMIT
    )
    return made


def write(folder: Path) -> None:
    """Write all sources into a folder."""
    for name, text in sources().items():
        (folder / name).write_text(text, "utf-8")
