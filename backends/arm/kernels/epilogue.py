"""What is fused behind an anchor: a few element-wise steps on the value just computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcc.backends.arm.kernels.base import KernelArgument, KernelWeights, Shape3, Value
from tcc.backends.arm.kernels.pointwise import POINTWISE
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import Pair, Shape
from tcc.compiler.ops import Op

if TYPE_CHECKING:
    import numpy as np

RUNNING = 0
"""Stands for the value that the step before has left."""


@dataclass(frozen=True, slots=True)
class FusedOp:
    """One operation; operand 0 is the running value, operand n the epilogue's n-th."""

    op: Op
    operands: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Steps in order, and the shapes of what they read besides the running value.

    An operand broadcasts: where its size along an axis is 1, it holds for the whole axis.
    """

    steps: tuple[FusedOp, ...] = ()
    operands: tuple[Shape3, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of floats of each operand."""
        return tuple(c * h * w for c, h, w in self.operands)

    def flat(self, plane: Pair) -> bool:
        """Whether an output's rows (height, width) need no telling apart in any operand."""
        return all(shape[1:] in {(1, 1), plane} for shape in self.operands)

    def flattened(self) -> "Epilogue":
        """Return the same for maps whose rows are laid end to end."""
        return replace(self, operands=tuple((c, 1, h * w) for c, h, w in self.operands))

    def upright(self) -> "Epilogue":
        """Return the same for a vector taken as a map of one pixel."""
        return replace(self, operands=tuple((c * w, 1, 1) for c, _, w in self.operands))

    def transposed(self) -> "Epilogue":
        """Return the same for a map of one pixel taken as a vector of its channels."""
        return replace(self, operands=tuple((1, 1, c * w) for c, _, w in self.operands))


NOTHING = Epilogue()
"""No steps at all."""


def shape3(shape: Shape) -> Shape3:
    """Return a shape with three axes; a vector lies along the last."""
    match shape:
        case (n,):
            return (1, 1, n)
        case (c, h, w):
            return (c, h, w)
    raise AssertionError(shape)


def fused(
    graph: Graph, weights: "Mapping[str, np.ndarray]", nodes: Sequence[Node], running: str
) -> tuple[Epilogue, tuple[KernelArgument, ...]]:
    """Return the epilogue of nodes that follow the value `running`, and its operands."""
    shapes: list[Shape3] = []
    arguments: list[KernelArgument] = []
    steps = []

    def operand(shape: Shape, argument: KernelArgument) -> int:
        shapes.append(shape3(shape))
        arguments.append(argument)
        return len(shapes)

    for node in nodes:
        numbers = [
            RUNNING if value == running else operand(graph.types[value].shape, Value(value))
            for value in node.inputs
        ]
        tensors = [weights[name] for name in node.params]
        per_channel = (node.type.shape[0], *(1 for _ in node.type.shape[1:]))
        own = POINTWISE[type(node.op)].weights(node.op, tensors)
        numbers += [operand(per_channel, KernelWeights(tensor)) for tensor in own]
        steps.append(FusedOp(node.op, tuple(numbers)))
        running = node.name
    return Epilogue(tuple(steps), tuple(shapes)), tuple(arguments)
