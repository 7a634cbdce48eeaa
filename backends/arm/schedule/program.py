"""A network as steps in order, and the buffer in which each value lies.

A value that only renames or joins others needs no step where its parts can lie where they
belong: `flatten` is its input, and what a `concat` joins is written in place.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tcc.backends.arm.kernels.base import Kernel, KernelCall, Scratch, Value
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.schedule import kernel_choice
from tcc.backends.arm.schedule.arena import Buffer
from tcc.backends.arm.schedule.partition import Site, partition
from tcc.compiler import ops
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

VECTOR = 16
"""Every value begins at a multiple of this many bytes: kernels read whole vectors."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A step that copies a value into another one, `offset` bytes from its start."""

    source: str
    result: str
    offset: int


ProgramStep = KernelCall | Copy


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies: in the buffer of that name, `offset` bytes from its start."""

    buffer: str
    offset: int


@dataclass(frozen=True)
class Program:
    """Steps in order, and the place of every value."""

    graph: Graph
    steps: tuple[ProgramStep, ...]
    places: Mapping[str, Place]

    @property
    def kernels(self) -> Mapping[Kernel, str]:
        """Each different kernel, with the node that first needs it, in order of need."""
        found: dict[Kernel, str] = {}
        for step in self.steps:
            if isinstance(step, KernelCall):
                found.setdefault(step.kernel, step.result)
        return found


def scratch(call: KernelCall, index: int) -> str:
    """Return the name of the buffer of a call's argument that is scratch memory."""
    return f"{call.result} scratch {index}"


@dataclass
class _Builder:
    graph: Graph
    steps: list[ProgramStep] = field(default_factory=list)
    within: dict[str, Place] = field(default_factory=dict)
    """The values that lie in another one, which may itself lie in another."""

    def place(self, value: str) -> Place:
        offset = 0
        # Joins of joins: offsets add up to the outermost buffer.
        while value in self.within:
            place = self.within[value]
            value, offset = place.buffer, offset + place.offset
        return Place(value, offset)

    def nbytes(self, value: str) -> int:
        return self.graph.types[value].nbytes

    def same(self, _op: ops.Op, node: Node) -> bool:
        """Let a node's value be its input's."""
        self.within[node.name] = Place(node.inputs[0], 0)
        return True

    def part(self, op: ops.Slice, node: Node) -> bool:
        """Let consecutive channels be a part of the input, if vectors can begin there."""
        c = self.graph.types[node.inputs[0]].shape[0]
        start, _, step = slice(op.start, op.stop, op.step).indices(c)
        offset = start * (self.nbytes(node.inputs[0]) // c)
        if step != 1 or offset % VECTOR:
            return False
        self.within[node.name] = Place(node.inputs[0], offset)
        return True

    def join(self, _op: ops.Concat, node: Node) -> bool:
        """Let each input lie in the result, or copy it there."""
        offset = 0
        for value in node.inputs:
            place, nbytes = self.place(value), self.nbytes(value)
            whole = place.offset == 0 and self.nbytes(place.buffer) == nbytes
            # Only a value that is the whole of its buffer can move; what lies in another one stays
            # there.
            if whole and place.buffer != node.name and offset % VECTOR == 0:
                self.within[place.buffer] = Place(node.name, offset)
            else:
                self.steps.append(Copy(value, node.name, offset))
            offset += nbytes
        return True


PLACED: Mapping[type[ops.Op], Callable[[_Builder, Any, Node], bool]] = {
    ops.Flatten: _Builder.same,
    ops.Unflatten: _Builder.same,
    ops.Identity: _Builder.same,
    ops.Dropout: _Builder.same,
    ops.StochasticDepth: _Builder.same,
    ops.Slice: _Builder.part,
    ops.Concat: _Builder.join,
}
"""Operations that may need no kernel; False leaves one to `rules`."""


def supported(op: type[ops.Op]) -> bool:
    """Whether an operation can be built."""
    return op in PLACED or op in kernel_choice.RULES


def program(
    graph: Graph,
    weights: "Mapping[str, np.ndarray]",
    machine: Machine,
    progress: Progress = silent,
) -> Program:
    """Return the steps that compute a graph's outputs from its inputs."""
    builder = _Builder(graph)
    groups = partition(graph)
    for done, group in enumerate(groups):
        progress("choose kernels", done, len(groups))
        placed = PLACED.get(type(group.anchor.op))
        if not (placed and placed(builder, group.anchor.op, group.anchor)):
            builder.steps.append(kernel_choice.select(Site(graph, weights, machine, group)))
    progress("choose kernels", len(groups), len(groups))
    places = {value: builder.place(value) for value in graph.types}
    return Program(graph, tuple(builder.steps), places)


def buffers(program: Program, kept: Iterable[str] = ()) -> tuple[Buffer, ...]:
    """Return the buffers that a program uses, and when.

    Step 0 brings the inputs, and the step after the last takes away the outputs and what is `kept`.
    """
    graph, places = program.graph, program.places
    used: dict[str, list[int]] = {}
    scratches: list[Buffer] = []
    sizes = {p.buffer: graph.types[p.buffer].nbytes for p in places.values()}

    def use(value: str, step: int) -> None:
        used.setdefault(places[value].buffer, []).append(step)

    for source in graph.inputs:
        use(source.name, 0)
    for number, step in enumerate(program.steps, 1):
        for value in _values(step):
            use(value, number)
        for name, nbytes in _scratches(step):
            scratches.append(Buffer(name, nbytes, number, number, scratch=True))
    for value in (*(output.value for output in graph.outputs), *kept):
        use(value, len(program.steps) + 1)
    values = (Buffer(name, sizes[name], min(at), max(at)) for name, at in used.items())
    return (*values, *scratches)


def _values(step: ProgramStep) -> Iterator[str]:
    match step:
        case Copy(source, result, _):
            yield from (source, result)
        case KernelCall(_, arguments, result):
            yield from (a.name for a in arguments if isinstance(a, Value))
            yield result


def _scratches(step: ProgramStep) -> Iterator[tuple[str, int]]:
    if isinstance(step, KernelCall):
        for index, argument in enumerate(step.arguments):
            if isinstance(argument, Scratch):
                yield scratch(step, index), argument.space.nbytes
