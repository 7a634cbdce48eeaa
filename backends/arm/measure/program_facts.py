"""What a program says of itself, and what its file says: its layers, its memory."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcc.backends.arm.execute.runner import Shapes, shapes_of
from tcc.backends.arm.measure.places import ProgramPlace
from tcc.compiler.ir.measurement import MemoryUse
from tcc.compiler.support import regular_files

LOADED = 1
"""The type of a program header of what is loaded."""


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """The outputs, the layers by name and kernel, in order, and the memory of a program."""

    outputs: Shapes
    layers: tuple[tuple[str, str], ...]
    memory: MemoryUse


def facts(place: ProgramPlace, program: Path) -> ProgramFacts:
    """Return what a program says of itself.

    Raises:
        UserError: What it says makes no sense (E0652).
    """
    said = place.execute(["--describe"], 0, 0).out
    try:
        about = json.loads(said)
        outputs = shapes_of(about)
    except (ValueError, RecursionError):
        raise place.wrong("the program does not say what it is") from None
    given: Mapping[str, object] = about
    with regular_files.opened(program) as file:
        data = file.read()
    arena, bound = (_size(given.get(name)) for name in ("arena", "arena_bound"))
    memory = MemoryUse(len(data), loaded(data), arena, bound)
    return ProgramFacts(outputs, tuple(_layers(place, given.get("layers"))), memory)


def _size(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _layers(place: ProgramPlace, listed: object) -> Sequence[tuple[str, str]]:
    found = []
    for layer in listed if isinstance(listed, list) else ():
        match layer:
            case {"name": str(name), "kernel": str(kernel)}:
                found.append((name, kernel))
            case _:
                raise place.wrong("the program does not say what its layers are")
    return found


def loaded(program: bytes) -> int | None:
    """Return how many bytes of memory an ELF file's parts take once loaded; None for others."""
    # EI_CLASS of the ELF header (elf(5)): 1 is 32 bits, 2 is 64.
    wide = program[4:5] == b"\2"
    # Where e_phoff, e_phentsize and e_phnum stand in the header, and p_memsz in a program header.
    offset, each, number, size = (32, 54, 56, 40) if wide else (28, 42, 44, 20)
    word = "<Q" if wide else "<I"
    try:
        (table,) = struct.unpack_from(word, program, offset)
        (step,), (count,) = (struct.unpack_from("<H", program, at) for at in (each, number))
        starts = [table + step * index for index in range(count)]
        kinds = [struct.unpack_from("<I", program, start)[0] for start in starts]
        sizes = [int(struct.unpack_from(word, program, start + size)[0]) for start in starts]
    except struct.error:
        return None
    parts = zip(kinds, sizes, strict=True)
    # p_memsz and not p_filesz: what is zero at the start takes memory and no file.
    return sum(nbytes for kind, nbytes in parts if kind == LOADED) or None
