"""The loops' innermost part: applying what is fused behind an anchor."""

from collections.abc import Sequence
from dataclasses import dataclass

from tcc.backends.arm.kernels.base import Shape3
from tcc.backends.arm.kernels.epilogue import RUNNING, Epilogue
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.math import LaneMath
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.pointwise import POINTWISE


@dataclass(frozen=True, slots=True)
class Position:
    """Where an element, or four in a row along x, stands in the output."""

    c: Expr
    y: Expr
    x: Expr

    def offset(self, shape: Shape3) -> Expr:
        """Return the index of that element in a buffer, broadcast along axes of size 1."""
        c, y, x = (i if n > 1 else 0 for i, n in zip((self.c, self.y, self.x), shape, strict=True))
        return (c * shape[1] + y) * shape[2] + x


def operand(buffer: Buffer, shape: Shape3, at: Position, lanes: int) -> Expr:
    """Return what an operand holds for an element or some in a row."""
    index = at.offset(shape)
    # An operand of one column, such as a factor for each channel, is one load for all lanes.
    if shape[2] > 1:
        return tir.load(buffer, index, lanes)
    return tir.splat(tir.load(buffer, index), lanes)


def apply(
    epilogue: Epilogue, buffers: Sequence[Buffer], value: Expr, at: Position, lanes: int
) -> Expr:
    """Return the value after the epilogue's steps; without a running value it may be None."""
    math = LaneMath(lanes)
    for step in epilogue.steps:
        inputs = [
            value
            if number == RUNNING
            else operand(buffers[number - 1], epilogue.operands[number - 1].shape, at, lanes)
            for number in step.operands
        ]
        # Bound after every step: as one large expression TVM would simplify across steps, and round
        # otherwise.
        value = tir.bind(POINTWISE[type(step.op)].value(math, step.op, *inputs), lanes)
    return value
