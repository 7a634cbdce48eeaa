"""Epilogues: element-wise ops fused into a kernel, applied to each computed value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

from tcc.backends.arm.kernels.base import (
    KernelArgument,
    KernelWeights,
    Shape3,
    Space,
    Value,
    get_dtype,
)
from tcc.backends.arm.kernels.pointwise import POINTWISE, PointwiseOp, canonicalize_op
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import Pair, Shape

if TYPE_CHECKING:
    import numpy as np

RUNNING = 0
"""The operand number of the running value, the result of the previous step."""


@dataclass(frozen=True, slots=True)
class FusedOp:
    """One operation. Operand 0 is the running value, operand n the epilogue's n-th operand."""

    op: PointwiseOp
    operands: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepOperand:
    """An operand of a step: its shape and element type.

    It broadcasts along axes of size 1.
    """

    shape: Shape3
    dtype: str = "float32"

    @property
    def space(self) -> Space:
        """The operand's memory."""
        return Space(prod(self.shape), self.dtype)


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Fused steps in order, their operands, and the type of the result."""

    steps: tuple[FusedOp, ...] = ()
    operands: tuple[StepOperand, ...] = ()
    dtype: str = "float32"

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of each operand."""
        return tuple(operand.space for operand in self.operands)

    def get_output_space(self, shape: Shape3) -> Space:
        """Return the memory of a result of this shape."""
        return Space(prod(shape), self.dtype)

    def can_flatten(self, plane: Pair) -> bool:
        """Whether the output's rows (height, width) can be joined for every operand."""
        return all(operand.shape[1:] in {(1, 1), plane} for operand in self.operands)

    def flatten(self) -> "Epilogue":
        """Return the epilogue for maps with their rows joined to one."""
        return self._reshape_operands(lambda c, h, w: (c, 1, h * w))

    def to_map(self) -> "Epilogue":
        """Return the epilogue for a vector treated as a map of one pixel."""
        return self._reshape_operands(lambda c, _, w: (c * w, 1, 1))

    def to_vector(self) -> "Epilogue":
        """Return the epilogue for a map of one pixel treated as a vector of its channels."""
        return self._reshape_operands(lambda c, _, w: (1, 1, c * w))

    def _reshape_operands(self, reshape: Callable[[int, int, int], Shape3]) -> "Epilogue":
        reshaped = (replace(operand, shape=reshape(*operand.shape)) for operand in self.operands)
        return replace(self, operands=tuple(reshaped))


NO_EPILOGUE = Epilogue()
"""An epilogue without steps, for floats."""


def to_shape3(shape: Shape) -> Shape3:
    """Return a shape with three axes; a vector is along the last."""
    match shape:
        case (n,):
            return (1, 1, n)
        case (c, h, w):
            return (c, h, w)
    raise AssertionError(shape)


@dataclass(frozen=True, slots=True)
class Finish:
    """The op that turns a kernel's sums into its result, and its factor.

    The factor is a scalar, one value per channel, or one per pixel (1, height, width).
    """

    op: PointwiseOp
    factor: "np.ndarray"

    @property
    def shape(self) -> Shape3:
        """The factor's shape as an operand."""
        match self.factor.shape:
            case ():
                return (1, 1, 1)
            case (channels,):
                return (channels, 1, 1)
            case shape:
                return to_shape3(shape)


@dataclass
class _EpilogueBuilder:
    operands: list[StepOperand] = field(default_factory=list)
    arguments: list[KernelArgument] = field(default_factory=list)
    steps: list[FusedOp] = field(default_factory=list)

    def add(self, shape: Shape3, dtype: str, argument: KernelArgument) -> int:
        self.operands.append(StepOperand(shape, dtype))
        self.arguments.append(argument)
        return len(self.operands)

    def add_constant(self, shape: Shape3, tensor: "np.ndarray") -> int:
        return self.add(shape, str(tensor.dtype), KernelWeights(tensor))


def fuse_nodes(
    graph: Graph,
    weights: "Mapping[str, np.ndarray]",
    nodes: Sequence[Node],
    running: str,
    finish: Finish | None = None,
) -> tuple[Epilogue, tuple[KernelArgument, ...]]:
    """Return the epilogue of nodes that follow the value `running`, and its arguments."""
    builder = _EpilogueBuilder()
    if finish:
        factor = builder.add_constant(finish.shape, finish.factor)
        builder.steps.append(FusedOp(finish.op, (RUNNING, factor)))
    for node in nodes:
        types = graph.get_input_types(node)
        numbers = [
            RUNNING
            if input_name == running
            else builder.add(to_shape3(kind.shape), get_dtype(kind), Value(input_name))
            for input_name, kind in zip(node.inputs, types, strict=True)
        ]
        tensors = [weights[name] for name in node.params]
        # The weights of a fused op have one value per channel or one value, and broadcast like
        # any operand.
        per_channel = to_shape3((node.type.shape[0], *(1 for _ in node.type.shape[1:])))
        operand_tensors = POINTWISE[type(node.op)].weights(node.op, types, tensors)
        numbers += [
            builder.add_constant(per_channel if t.ndim else (1, 1, 1), t) for t in operand_tensors
        ]
        builder.steps.append(FusedOp(canonicalize_op(node.op), tuple(numbers)))
        running = node.name
    dtype = get_dtype(graph.types[running])
    return Epilogue(tuple(builder.steps), tuple(builder.operands), dtype), tuple(builder.arguments)
