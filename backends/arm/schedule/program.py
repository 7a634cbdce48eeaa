"""A network as ordered steps, with the buffer of each value.

Values that only rename or join others need no step if their parts can share memory: `flatten` is
its input, and the inputs of a `concat` are written in place.
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

VALUE_ALIGNMENT = 16
"""Alignment of every value in bytes: kernels read full vectors."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A step that copies a value into another one, `offset` bytes from its start."""

    source: str
    output: str
    offset: int


ProgramStep = KernelCall | Copy


@dataclass(frozen=True, slots=True)
class ValueLocation:
    """The location of a value: a buffer's name, and the offset in bytes from its start."""

    buffer: str
    offset: int


@dataclass(frozen=True)
class Program:
    """Ordered steps, and the location of every value."""

    graph: Graph
    steps: tuple[ProgramStep, ...]
    locations: Mapping[str, ValueLocation]

    @property
    def kernels(self) -> Mapping[Kernel, str]:
        """Each distinct kernel, in order of first use, with the node that first needs it."""
        nodes_by_kernel: dict[Kernel, str] = {}
        for step in self.steps:
            if isinstance(step, KernelCall):
                nodes_by_kernel.setdefault(step.kernel, step.output)
        return nodes_by_kernel


def get_scratch_name(call: KernelCall, index: int) -> str:
    """Return the name of the buffer of a call's scratch argument."""
    return f"{call.output} scratch {index}"


@dataclass
class _Builder:
    graph: Graph
    steps: list[ProgramStep] = field(default_factory=list)
    parent_locations: dict[str, ValueLocation] = field(default_factory=dict)
    """Values inside of another value, which may itself be inside of another one."""

    def locate(self, value_name: str) -> ValueLocation:
        offset = 0
        # For nested joins, offsets add up to the outermost buffer.
        while value_name in self.parent_locations:
            location = self.parent_locations[value_name]
            value_name, offset = location.buffer, offset + location.offset
        return ValueLocation(value_name, offset)

    def get_nbytes(self, value_name: str) -> int:
        return self.graph.types[value_name].nbytes

    def alias_input(self, _op: ops.Op, node: Node) -> bool:
        """Let a node's value share its input's memory."""
        self.parent_locations[node.name] = ValueLocation(node.inputs[0], 0)
        return True

    def alias_slice(self, op: ops.Slice, node: Node) -> bool:
        """Let consecutive channels share the input's memory, if they are aligned."""
        c = self.graph.types[node.inputs[0]].shape[0]
        start, _, step = slice(op.start, op.stop, op.step).indices(c)
        offset = start * (self.get_nbytes(node.inputs[0]) // c)
        if step != 1 or offset % VALUE_ALIGNMENT:
            return False
        self.parent_locations[node.name] = ValueLocation(node.inputs[0], offset)
        return True

    def join_inputs(self, _op: ops.Concat, node: Node) -> bool:
        """Place each input inside of the result, or copy it there."""
        offset = 0
        for value_name in node.inputs:
            location, nbytes = self.locate(value_name), self.get_nbytes(value_name)
            fills_buffer = location.offset == 0 and self.get_nbytes(location.buffer) == nbytes
            # Only a value that fills its buffer can be placed elsewhere; parts of another value
            # are copied.
            if fills_buffer and location.buffer != node.name and offset % VALUE_ALIGNMENT == 0:
                self.parent_locations[location.buffer] = ValueLocation(node.name, offset)
            else:
                self.steps.append(Copy(value_name, node.name, offset))
            offset += nbytes
        return True


ALIAS_RULES: Mapping[type[ops.Op], Callable[[_Builder, Any, Node], bool]] = {
    ops.Flatten: _Builder.alias_input,
    ops.Unflatten: _Builder.alias_input,
    ops.Identity: _Builder.alias_input,
    ops.Dropout: _Builder.alias_input,
    ops.StochasticDepth: _Builder.alias_input,
    ops.Slice: _Builder.alias_slice,
    ops.Concat: _Builder.join_inputs,
}
"""Operations that may need no kernel; if a rule returns False, `kernel_choice.RULES` applies."""


def is_supported(op: type[ops.Op]) -> bool:
    """Whether an operation can be built."""
    return op in ALIAS_RULES or op in kernel_choice.RULES


def build_program(
    graph: Graph,
    weights: "Mapping[str, np.ndarray]",
    machine: Machine,
    progress: Progress = silent,
) -> Program:
    """Return the steps that compute a graph's outputs from its inputs."""
    builder = _Builder(graph)
    groups = partition(graph)
    for index, group in enumerate(groups):
        progress("choose kernels", index, len(groups))
        alias_rule = ALIAS_RULES.get(type(group.anchor.op))
        if not (alias_rule and alias_rule(builder, group.anchor.op, group.anchor)):
            builder.steps.append(kernel_choice.select(Site(graph, weights, machine, group)))
    progress("choose kernels", len(groups), len(groups))
    locations = {value_name: builder.locate(value_name) for value_name in graph.types}
    return Program(graph, tuple(builder.steps), locations)


def compute_buffers(program: Program, kept_names: Iterable[str] = ()) -> tuple[Buffer, ...]:
    """Return the buffers that a program uses, with the steps of their use.

    Step 0 writes the inputs. The step after the last reads the outputs and `kept_names`.
    """
    graph, locations = program.graph, program.locations
    steps_by_buffer: dict[str, list[int]] = {}
    scratches: list[Buffer] = []
    sizes = {p.buffer: graph.types[p.buffer].nbytes for p in locations.values()}

    def extend_lifetime(value_name: str, step: int) -> None:
        steps_by_buffer.setdefault(locations[value_name].buffer, []).append(step)

    for network_input in graph.inputs:
        extend_lifetime(network_input.name, 0)
    for number, step in enumerate(program.steps, 1):
        for value_name in _iterate_values(step):
            extend_lifetime(value_name, number)
        for name, nbytes in _iterate_scratches(step):
            scratches.append(Buffer(name, nbytes, number, number, is_scratch=True))
    for value_name in (*(output.value for output in graph.outputs), *kept_names):
        extend_lifetime(value_name, len(program.steps) + 1)
    value_buffers = (
        Buffer(name, sizes[name], min(steps_in_use), max(steps_in_use))
        for name, steps_in_use in steps_by_buffer.items()
    )
    return (*value_buffers, *scratches)


def _iterate_values(step: ProgramStep) -> Iterator[str]:
    match step:
        case Copy(source, output, _):
            yield from (source, output)
        case KernelCall(_, arguments, output):
            yield from (a.name for a in arguments if isinstance(a, Value))
            yield output


def _iterate_scratches(step: ProgramStep) -> Iterator[tuple[str, int]]:
    if isinstance(step, KernelCall):
        for index, argument in enumerate(step.arguments):
            if isinstance(argument, Scratch):
                yield get_scratch_name(step, index), argument.space.nbytes
