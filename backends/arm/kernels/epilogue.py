"""What is fused behind an anchor: a few element-wise steps on the value just computed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

from tcc.backends.arm.kernels.base import KernelArgument, KernelWeights, Shape3, Space, Value
from tcc.backends.arm.kernels.pointwise import POINTWISE, PointwiseOp, canonicalize_op
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import Pair, Shape

if TYPE_CHECKING:
    import numpy as np

RUNNING = 0
"""Stands for the value that the step before has left."""


@dataclass(frozen=True, slots=True)
class FusedOp:
    """One operation; operand 0 is the running value, operand n the epilogue's n-th."""

    op: PointwiseOp
    operands: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepOperand:
    """What a step reads beside the running value: its shape, and the type of its numbers.

    It broadcasts: where its size along an axis is 1, it holds for the whole axis.
    """

    shape: Shape3
    dtype: str = "float32"

    @property
    def space(self) -> Space:
        """The memory that it takes."""
        return Space(prod(self.shape), self.dtype)


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Steps in order, what they read besides the running value, and the type of the result."""

    steps: tuple[FusedOp, ...] = ()
    operands: tuple[StepOperand, ...] = ()
    dtype: str = "float32"

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of each operand."""
        return tuple(operand.space for operand in self.operands)

    def get_output_space(self, shape: Shape3) -> Space:
        """Return the memory of a result of some shape."""
        return Space(prod(shape), self.dtype)

    def can_flatten(self, plane: Pair) -> bool:
        """Whether an output's rows (height, width) need no telling apart in any operand."""
        return all(operand.shape[1:] in {(1, 1), plane} for operand in self.operands)

    def flatten(self) -> "Epilogue":
        """Return the same for maps whose rows are laid end to end."""
        return self._reshape_operands(lambda c, h, w: (c, 1, h * w))

    def to_map(self) -> "Epilogue":
        """Return the same for a vector taken as a map of one pixel."""
        return self._reshape_operands(lambda c, _, w: (c * w, 1, 1))

    def to_vector(self) -> "Epilogue":
        """Return the same for a map of one pixel taken as a vector of its channels."""
        return self._reshape_operands(lambda c, _, w: (1, 1, c * w))

    def _reshape_operands(self, reshape: Callable[[int, int, int], Shape3]) -> "Epilogue":
        reshaped = (replace(operand, shape=reshape(*operand.shape)) for operand in self.operands)
        return replace(self, operands=tuple(reshaped))


NO_EPILOGUE = Epilogue()
"""No steps at all, on floats."""


def to_shape3(shape: Shape) -> Shape3:
    """Return a shape with three axes; a vector lies along the last."""
    match shape:
        case (n,):
            return (1, 1, n)
        case (c, h, w):
            return (c, h, w)
    raise AssertionError(shape)


@dataclass(frozen=True, slots=True)
class Finish:
    """What makes an anchor's result of its sums, and the factor that it reads.

    The factor is one number, one a channel, or one a pixel (1, height, width).
    """

    op: PointwiseOp
    factor: "np.ndarray"

    @property
    def shape(self) -> Shape3:
        """The factor's shape as an operand's."""
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
    """Return the epilogue of nodes that follow the value `running`, and its operands."""
    builder = _EpilogueBuilder()
    if finish:
        factor = builder.add_constant(finish.shape, finish.factor)
        builder.steps.append(FusedOp(finish.op, (RUNNING, factor)))
    for node in nodes:
        types = graph.get_input_types(node)
        numbers = [
            RUNNING
            if input_name == running
            else builder.add(to_shape3(kind.shape), kind.dtype.value, Value(input_name))
            for input_name, kind in zip(node.inputs, types, strict=True)
        ]
        tensors = [weights[name] for name in node.params]
        # What the weights of a fused op may be, one a channel or one for all, broadcasts like any
        # operand.
        per_channel = to_shape3((node.type.shape[0], *(1 for _ in node.type.shape[1:])))
        operand_tensors = POINTWISE[type(node.op)].weights(node.op, types, tensors)
        numbers += [
            builder.add_constant(per_channel if t.ndim else (1, 1, 1), t) for t in operand_tensors
        ]
        builder.steps.append(FusedOp(canonicalize_op(node.op), tuple(numbers)))
        running = node.name
    dtype = graph.types[running].dtype.value
    return Epilogue(tuple(builder.steps), tuple(builder.operands), dtype), tuple(builder.arguments)
