"""A network with the facts that its C needs: steps, offsets of values, and kernel names."""

from collections.abc import Mapping
from dataclasses import dataclass

from tcc.backends.arm.kernels.base import Kernel
from tcc.backends.arm.schedule.arena import ALIGNMENT, Arena
from tcc.backends.arm.schedule.program import Program
from tcc.compiler.guard.guard_document import Guard
from tcc.compiler.ir.graph import Output
from tcc.compiler.ir.types import DType, Shape
from tcc.compiler.ops.integer import Dequantize

INSTANCE_BYTES = 640
"""Bytes of the instance struct at the arena's start, on every machine; C checks the size."""

COUNTS_BUFFER, COUNT_BYTES = "saturation counts", 16
"""The buffer of saturation counts, and its bytes per layer: two 64-bit counters."""

GUARD_SUMS, GUARD_RING = "guard sums", "guard ring"
"""The buffers of the guard: its sums, and some rows of the image."""


@dataclass(frozen=True)
class Network:
    """A program, the offsets of its values, and the symbols of its kernels.

    If `is_instrumented`, it counts saturated values in the arena's `COUNTS_BUFFER`. If
    `has_isa_variants`, it chooses an instruction set when it is loaded. With a `guard`, it sums
    pixels and channels in each run.
    """

    program: Program
    arena: Arena
    symbols: Mapping[Kernel, str]
    is_instrumented: bool = False
    has_isa_variants: bool = False
    guard: Guard | None = None

    @property
    def sections(self) -> frozenset[str]:
        """Its optional sections: the names after MODEL_ in `#ifdef`s of `runtime/`."""
        flags_by_section = {
            "COUNTS": self.is_instrumented,
            "ISAS": self.has_isa_variants,
            "GUARD": self.guard is not None,
        }
        return frozenset(
            section for section, is_included in flags_by_section.items() if is_included
        )

    @property
    def arena_size(self) -> int:
        """Bytes that an instance needs at any alignment of its memory."""
        return INSTANCE_BYTES + self.arena.nbytes + ALIGNMENT - 1

    def get_offset(self, value_name: str) -> int:
        """Return the offset of a value."""
        location = self.program.locations[value_name]
        return self.arena.offsets[location.buffer] + location.offset


def find_quantized_outputs(program: Program) -> tuple[tuple[str, ...], DType] | None:
    """Return the 8-bit values from which the outputs are dequantized, and their type.

    None unless every output is dequantized from such a value, all of one type.
    """
    graph = program.graph
    nodes_by_name = {node.name: node for node in graph.nodes}
    output_nodes = [nodes_by_name.get(output.value) for output in graph.outputs]
    quantized_names = [
        n.inputs[0] if n and isinstance(n.op, Dequantize) else None for n in output_nodes
    ]
    written_buffers = {program.locations[step.output].buffer for step in program.steps}
    names = tuple(
        quantized_name
        for quantized_name in quantized_names
        if quantized_name is not None
        and program.locations[quantized_name].buffer in written_buffers
    )
    kinds = {graph.types[quantized_name].dtype for quantized_name in names}
    if len(names) < len(quantized_names) or len(kinds) != 1:
        return None
    return names, kinds.pop()


def locate_outputs(program: Program) -> tuple[tuple[Output, Shape, int], ...]:
    """Return the outputs with their shapes and their offsets in the output array, in floats."""
    located_outputs, offset = [], 0
    for output in program.graph.outputs:
        kind = program.graph.types[output.value]
        located_outputs.append((output, kind.shape, offset))
        offset += kind.elements
    return tuple(located_outputs)
