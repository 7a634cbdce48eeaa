"""The mean of each channel of 8-bit integers: a sum and one factor, without weights."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from tcc.compiler.ir.op import Array, Call, Const, ExactIntegerOp, Op, require_image_shape
from tcc.compiler.ir.types import Shape, TensorType
from tcc.compiler.ops import integer_arithmetic
from tcc.compiler.ops.integer.base import (
    FLOAT32,
    INT32,
    IntegerSite,
    OpWithWeights,
    QuantizedOp,
    get_zero_point,
    make_float32,
    make_int32,
    make_scale,
    make_zero_point,
)
from tcc.compiler.ops.pool import GlobalAvgPool

MAX_ELEMENTS = 1 << 23
"""Number of elements of a channel below which its sum fits an int32: 255 * 2**23 < 2**31."""
ZERO_POINT = Const((0,), "uint8", scalar=True)
MIN_CHANNELS_LAST = 16
"""Number of channels from which on channels-last is faster. Convolutions of ONNX Runtime have that
layout, so it removes the transposition."""


@dataclass(frozen=True, slots=True)
class QGlobalAvgPool(QuantizedOp):
    """clamp(rint(float32(sum x) * M)), with M = x.scale * (1 / elements) / y.scale.

    This is a matrix product with ones of scale 1 / elements. All runtimes round products in the
    same way, while their operators for means differ by up to one quantization step.
    """

    keyword: ClassVar[str] = "qglobal_avg_pool"
    float_ops: ClassVar[tuple[type[Op], ...]] = (GlobalAvgPool,)

    @classmethod
    def from_float_op(cls, op: GlobalAvgPool, site: IntegerSite) -> OpWithWeights | None:
        """Return the op, or a float output at the end of the network."""
        # The sum of a larger map could overflow, so it stays float.
        if not is_sum_in_int32(site.types[0]):
            return None
        if site.is_float_output:
            return RealGlobalAvgPool(), ()
        return cls(*site.out, zero_point=site.zero_point), ()

    def infer(self, x: TensorType) -> TensorType:
        """Return (channels, 1, 1)."""
        return self.make_type(_compute_output_shape(x, self.keyword))

    def compute_factor(self, x: TensorType) -> integer_arithmetic.Float32:
        """Return M."""
        return integer_arithmetic.compute_multiplier(
            x, float(compute_element_share(x)), self.infer(x)
        )

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the quantized values of the output."""
        factor, y = self.compute_factor(*types), self.infer(*types)
        return integer_arithmetic.requantize(_sum_channels(xs[0]), factor, y, self.low, self.high)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return QLinearMatMul with a one for each element of a channel."""
        y, channels, count = self.infer(x), x.shape[0], prod(x.shape[1:])
        clamp = self.clamp(y)
        output_name, input_operands, output_operands = (
            "c" if clamp else "y",
            ("r", make_scale(x), make_zero_point(x)),
            (make_scale(y), make_zero_point(y)),
        )
        ones_scale = (make_float32(float(compute_element_share(x))), ZERO_POINT)
        if channels < MIN_CHANNELS_LAST:
            return (
                Call("Reshape", ("x0", Const((0, channels, count))), output="r"),
                Call(
                    "QLinearMatMul",
                    (
                        *input_operands,
                        Const(((1,),) * count, "uint8"),
                        *ones_scale,
                        *output_operands,
                    ),
                    output="m",
                ),
                Call("Reshape", ("m", Const((0, channels, 1, 1))), output=output_name),
                *clamp,
            )
        return (
            Call("Transpose", ("x0",), {"perm": [0, 2, 3, 1]}, "l"),
            Call("Reshape", ("l", Const((0, 1, count, channels))), output="r"),
            Call(
                "QLinearMatMul",
                (Const(((1,) * count,), "uint8"), *ones_scale, *input_operands, *output_operands),
                output="m",
            ),
            Call("Transpose", ("m",), {"perm": [0, 3, 1, 2]}, output_name),
            *clamp,
        )


@dataclass(frozen=True, slots=True)
class RealGlobalAvgPool(Op, ExactIntegerOp):
    """float32(sum x) * (x.scale * (1 / elements)): a mean as a float output."""

    keyword: ClassVar[str] = "real_global_avg_pool"

    def infer(self, x: TensorType) -> TensorType:
        """Return (channels, 1, 1) in float32."""
        return TensorType(_compute_output_shape(x, self.keyword))

    def compute_factor(self, x: TensorType) -> np.float32:
        """Return the factor of a sum."""
        return np.float32(x.scale) * compute_element_share(x)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the float values."""
        return _sum_channels(xs[0]).astype(np.float32) * self.compute_factor(*types)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return the sum in int32 and its factor."""
        return (
            *_build_sum_calls(x),
            Call("Cast", ("t",), {"to": FLOAT32}, "f"),
            Call("Mul", ("f", make_float32(float(self.compute_factor(x))))),
        )

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Not supported: integer graphs are not trained."""
        raise AssertionError(self)


def compute_element_share(x: TensorType) -> np.float32:
    """Return the weight of one element in the mean."""
    # Rounded to float32 separately, because it is stored as the scale of the ones.
    return np.float32(1) / np.float32(prod(x.shape[1:]))


def is_sum_in_int32(x: TensorType) -> bool:
    """Return whether the sum of any channel fits an int32."""
    return prod(x.shape[1:]) < MAX_ELEMENTS


def _compute_output_shape(x: TensorType, keyword: str) -> Shape:
    return (require_image_shape(x, keyword)[0], 1, 1)


def _sum_channels(x: Array) -> integer_arithmetic.Int32:
    # numpy would sum in 64 bits; `MAX_ELEMENTS` keeps the sums within 32 bits, as on targets.
    total: integer_arithmetic.Int32 = x.sum(axis=(2, 3), keepdims=True, dtype=np.int32)
    return total


def _build_sum_calls(x: TensorType) -> tuple[Call, ...]:
    """Return calls that compute the sum of the quantized values of each channel as `t`."""
    # Stored values include the zero point; it is subtracted once, from the sum.
    shift = get_zero_point(x) * prod(x.shape[1:])
    sums = "r" if shift else "t"
    calls = (
        Call("Cast", ("x0",), {"to": INT32}, "w"),
        Call("ReduceSum", ("w", Const((2, 3))), {"keepdims": 1}, sums),
    )
    return (*calls, Call("Sub", ("r", make_int32(shift)), output="t")) if shift else calls
