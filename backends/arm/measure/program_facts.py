"""What a program says of itself, and what its file says: its layers, its memory."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tcc.backends.arm.execute.runner import Calls
from tcc.compiler.ir.measurement import MemoryUse
from tcc.compiler.support import regular_files

LOADED = 1
"""The type of a program header of what is loaded."""


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """The layers by name and kernel, in order, and the memory that the program needs."""

    layers: tuple[tuple[str, str], ...]
    memory: MemoryUse


def facts(calls: Calls) -> ProgramFacts:
    """Return what a program says of itself.

    Raises:
        UserError: What it says makes no sense (E0652).
    """
    about = calls.about()
    said: Mapping[str, object] = about if isinstance(about, dict) else {}
    with regular_files.opened(calls.program) as file:
        data = file.read()
    try:
        program = loaded(data)
    except (struct.error, ValueError):
        program = None
    sizes = (said.get(name) for name in ("arena", "arena_bound", "weights"))
    arena, bound, weights = (size if isinstance(size, int) else None for size in sizes)
    layers = tuple(_layers(calls, said.get("layers")))
    return ProgramFacts(layers, MemoryUse(len(data), program, arena, bound, weights))


def _layers(calls: Calls, listed: object) -> Sequence[tuple[str, str]]:
    found = []
    for layer in listed if isinstance(listed, list) else ():
        match layer:
            case {"name": str(name), "kernel": str(kernel)}:
                found.append((name, kernel))
            case _:
                raise calls.wrong("the program does not say what its layers are")
    return found


def loaded(program: bytes) -> int:
    """Return how many bytes of memory the parts of an ELF file take that are loaded.

    Raises:
        ValueError, struct.error: It is no such file.
    """
    if program[:4] != b"\x7fELF":
        raise ValueError("it is no ELF file")
    wide = program[4] == 2
    offset, entry, count, size = (32, 54, 56, 40) if wide else (28, 42, 44, 20)
    (table,) = struct.unpack_from("<Q" if wide else "<I", program, offset)
    (each,) = struct.unpack_from("<H", program, entry)
    (number,) = struct.unpack_from("<H", program, count)
    total = 0
    for start in range(table, table + each * number, each):
        (kind,) = struct.unpack_from("<I", program, start)
        if kind == LOADED:
            total += struct.unpack_from("<Q" if wide else "<I", program, start + size)[0]
    return total
