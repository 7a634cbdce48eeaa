"""Instructions of complete programs: dot products of bytes only on cores that have them."""

import struct

import numpy as np
import pytest

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.machine import INT8, MACHINES
from tcc.compiler.ops import Conv, Relu
from tcc.testing.int8_models import build_int8_model
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

EXECUTABLE = 1
DOTS = ((0x9F20FC00, 0x0E009400), (0x9F00F400, 0x0F00E000))
"""Mask and bits of SDOT and UDOT, of vectors and by lane: Armv8-A manual of Arm, C7.2."""


def count_dot_products(elf: bytes) -> int:
    """Return the number of dot product instructions in a 64-bit ELF file."""
    (table_offset,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    total = 0
    for part in range(count):
        _, flags, offset = struct.unpack_from("<IIQ", elf, table_offset + part * size)
        (length,) = struct.unpack_from("<Q", elf, table_offset + part * size + 32)
        if flags & EXECUTABLE:
            instructions = np.frombuffer(elf, "<u4", length // 4, offset)
            total += sum(int((instructions & mask == bits).sum()) for mask, bits in DOTS)
    return total


@pytest.mark.slow
def test_dot_products_are_used_only_on_cores_that_have_them() -> None:
    add = NetBuilder(8, 9, 9)
    for number in range(2):
        add(f"conv{number}", Conv(16, (3, 3), padding=1))
        add(f"relu{number}", Relu())
    graph = add.build()
    model = build_int8_model(graph, sample_weights(graph))
    counts_by_target = {}
    for machine in MACHINES:
        if machine.target.name in {"arm-a53", "arm-a72", "arm-a76"}:
            files = Arm().emit(machine.target, model, INT8).files
            programs = [content for content in files.values() if content.startswith(b"\x7fELF")]
            counts_by_target[machine.target.name] = [
                count_dot_products(content) for content in programs
            ]
            assert len(programs) > 1
    assert not any(counts_by_target["arm-a53"] + counts_by_target["arm-a72"])
    assert all(counts_by_target["arm-a76"])
