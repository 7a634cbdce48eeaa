"""A network with all that its C needs to know: what it runs, where values lie, what they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from tcc.backends.arm.kernels.base import Kernel
from tcc.backends.arm.schedule.arena import ALIGNMENT, Arena
from tcc.backends.arm.schedule.program import Program
from tcc.compiler.ir.graph import Output
from tcc.compiler.ir.types import DType, Shape
from tcc.compiler.ops.integer import Dequantize

INSTANCE = 640
"""Bytes at the arena's start for the instance itself, on every machine; C checks that they do."""

COUNTS, COUNT_SIZE = "saturation counts", 16
"""The buffer of what is counted, and the bytes of it for each layer: two 64-bit numbers."""


@dataclass(frozen=True)
class Network:
    """A program, the places of its values, and the names of its kernels.

    `counted` says that it counts how often levels are the last ones, at `COUNTS` in the arena;
    `variants` that it chooses among instruction sets when it is loaded.
    """

    program: Program
    arena: Arena
    symbols: Mapping[Kernel, str]
    counted: bool = False
    variants: bool = False

    @property
    def sections(self) -> frozenset[str]:
        """What its C has that not all have: words behind MODEL_ in `#ifdef`s of `runtime/`."""
        given = {"COUNTS": self.counted, "ISAS": self.variants}
        return frozenset(word for word, has in given.items() if has)

    @property
    def arena_size(self) -> int:
        """Bytes that an instance needs, wherever they begin."""
        return INSTANCE + self.arena.nbytes + ALIGNMENT - 1

    def at(self, value: str) -> int:
        """Return the offset of a value."""
        place = self.program.places[value]
        return self.arena.offsets[place.buffer] + place.offset


def levels(program: Program) -> tuple[tuple[str, ...], DType] | None:
    """Return the values of 8-bit integers that the outputs are the real numbers of, and their type.

    None where not every output is made of such a value, of one type.
    """
    graph = program.graph
    made = {node.name: node for node in graph.nodes}
    found = [made.get(output.value) for output in graph.outputs]
    read = [n.inputs[0] if n and isinstance(n.op, Dequantize) else None for n in found]
    written = {program.places[step.result].buffer for step in program.steps}
    names = tuple(v for v in read if v is not None and program.places[v].buffer in written)
    kinds = {graph.types[value].dtype for value in names}
    if len(names) < len(read) or len(kinds) != 1:
        return None
    return names, kinds.pop()


def outputs(program: Program) -> tuple[tuple[Output, Shape, int], ...]:
    """Return the outputs with their shapes and their offsets in the output, in floats."""
    found, offset = [], 0
    for output in program.graph.outputs:
        kind = program.graph.types[output.value]
        found.append((output, kind.shape, offset))
        offset += kind.elements
    return tuple(found)
