"""The last convolution on 8-bit integers: its exact sums are real numbers at once."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.compiler.ir.op import Array, Call, Exact, Init, Op, Param
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import integer_arithmetic
from tcc.compiler.ops.conv import Conv
from tcc.compiler.ops.integer.base import FLOAT32, INT32, number, zero_point

EXACT = 1 << 24
"""Sums of products below this are exact in float32, in whatever order they are added."""


@dataclass(frozen=True, slots=True)
class RealConv(Op, Exact):
    """float32(sum x * w + b) * factor: what leaves the program loses nothing to 8 bits.

    Weights are int8 in [-127, 127], the bias int32 at x.scale * w.scale, which is the factor of
    each filter. No sum may reach `EXACT`: then float arithmetic on the integers gives it as well,
    so that every runtime has what this needs.
    """

    word: ClassVar[str] = "real_conv"
    conv: Conv

    def infer(self, x: TensorType) -> TensorType:
        """Return (filters, output height, output width) of float32."""
        return TensorType(self.conv.infer(x).shape)

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight, the factor per filter, and the bias."""
        weight, bias = self.conv.params(x)
        return (
            Param("weight", weight.shape, Init.ZEROS, dtype=DType.I8),
            Param("factor", bias.shape, Init.ONES),
            Param("bias", bias.shape, Init.ZEROS, dtype=DType.I32),
        )

    def macs(self, x: TensorType) -> int:
        """Return one multiply-accumulate per output element and filter tap."""
        return self.conv.macs(x)

    def integer(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the real numbers."""
        weight, factor, bias = params
        conv = self.conv
        padded = integer_arithmetic.bordered(xs[0], conv.pads)
        total = integer_arithmetic.sums(padded, weight, conv.stride, conv.dilation, conv.groups)
        total += bias.astype(np.int32)[:, None, None]
        return total.astype(np.float32) * factor.astype(np.float32)[:, None, None]

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return a float Conv of the integers, whose sums become real as a bias's int32 would.

        A Mul in place of the last two would be folded into the weights, which rounds them.
        """
        # The zero point is taken off in float32, where all sums below `EXACT` are exact.
        shift = zero_point(x)
        how = self.conv.onnx(x, opset)[0].attributes
        read = (Call("Sub", ("xs", number(shift)), output="xf"),) if shift else ()
        return (
            Call("Cast", ("x0",), {"to": FLOAT32}, "xs" if shift else "xf"),
            *read,
            Call("Cast", ("weight",), {"to": FLOAT32}, "wf"),
            Call("Cast", ("bias",), {"to": FLOAT32}, "bf"),
            Call("Conv", ("xf", "wf", "bf"), how, "sum"),
            Call("Cast", ("sum",), {"to": INT32}, "total"),
            Call("DequantizeLinear", ("total", "factor"), {"axis": 1}),
        )

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Never called: integer graphs do not train."""
        raise AssertionError(self)

    def attributes(self) -> dict[str, object]:
        """Return the convolution's fields."""
        return self.conv.attributes()


def fits(weight: Array, bias: Array, largest: int) -> bool:
    """Whether no sum of weights times levels of a magnitude, and a bias, can reach `EXACT`.

    Args:
        weight: Integers (filters, channels / groups, kernel height, kernel width).
        bias: Steps of the sums (filters,).
        largest: The largest magnitude of a level that is read.
    """
    # In int64: what is too large for an int32 is to be found here, not to wrap around.
    total = np.abs(weight.reshape(len(weight), -1).astype(np.int64)).sum(axis=1)
    most = total * largest + np.abs(bias.astype(np.int64))
    return bool((most < EXACT).all())
