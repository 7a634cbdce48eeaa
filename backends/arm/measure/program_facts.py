"""Facts about a program from its own description and its ELF file: outputs, layers, memory."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcc.backends.arm.execute.runner import Shapes, parse_shapes
from tcc.backends.arm.measure.program_hosts import ProgramHost
from tcc.compiler.ir.measurement import MemoryUse
from tcc.compiler.support import regular_files

PT_LOAD = 1
"""The type of the program header of a loaded segment."""


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """A program's outputs, its layers in order (name and kernel), and its memory."""

    outputs: Shapes
    layers: tuple[tuple[str, str], ...]
    memory: MemoryUse


def read_facts(host: ProgramHost, program: Path) -> ProgramFacts:
    """Return the facts about a program.

    Raises:
        UserError: Its description is not valid (E0652).
    """
    output = host.execute(["--describe"], 0, 0).out
    try:
        description = json.loads(output)
        outputs = parse_shapes(description)
    except (ValueError, RecursionError):
        raise host.create_error("`--describe` of the program prints no valid description") from None
    fields: Mapping[str, object] = description
    with regular_files.open_file(program) as file:
        content = file.read()
    arena, arena_bound = (_parse_size(fields.get(name)) for name in ("arena", "arena_bound"))
    memory = MemoryUse(len(content), count_loaded_bytes(content), arena, arena_bound)
    return ProgramFacts(outputs, tuple(_parse_layers(host, fields.get("layers"))), memory)


def _parse_size(number: object) -> int | None:
    return number if type(number) is int and number > 0 else None


def _parse_layers(host: ProgramHost, records: object) -> Sequence[tuple[str, str]]:
    layers = []
    for record in records if isinstance(records, list) else ():
        match record:
            case {"name": str(name), "kernel": str(kernel)}:
                layers.append((name, kernel))
            case _:
                raise host.create_error("`--describe` of the program lists no valid layers")
    return layers


def count_loaded_bytes(program: bytes) -> int | None:
    """Return the memory of an ELF file's loaded segments in bytes; None for other files."""
    # EI_CLASS of the ELF header (elf(5)): 1 is 32 bits, 2 is 64.
    is_64_bit = program[4:5] == b"\2"
    # Offsets of e_phoff, e_phentsize and e_phnum in the header, and of p_memsz in a program header.
    phoff_offset, phentsize_offset, phnum_offset, memsz_offset = (
        (32, 54, 56, 40) if is_64_bit else (28, 42, 44, 20)
    )
    word_format = "<Q" if is_64_bit else "<I"
    try:
        (table,) = struct.unpack_from(word_format, program, phoff_offset)
        (entry_size,), (count,) = (
            struct.unpack_from("<H", program, at) for at in (phentsize_offset, phnum_offset)
        )
        starts = [table + entry_size * index for index in range(count)]
        kinds = [struct.unpack_from("<I", program, start)[0] for start in starts]
        sizes = [
            int(struct.unpack_from(word_format, program, start + memsz_offset)[0])
            for start in starts
        ]
    except struct.error:
        return None
    parts = zip(kinds, sizes, strict=True)
    # p_memsz, not p_filesz: zero-initialized data needs memory but is not in the file.
    return sum(nbytes for kind, nbytes in parts if kind == PT_LOAD) or None
