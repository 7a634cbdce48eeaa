"""The mean of 8-bit integers over windows, which may have different numbers of elements."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.compiler.ir.op import Array, Call, Init, Op, Param
from tcc.compiler.ir.types import DType, Quad, TensorType
from tcc.compiler.ops import integer_arithmetic
from tcc.compiler.ops.integer.base import (
    FLOAT32,
    IntegerSite,
    OpWithWeights,
    QuantizedOp,
    make_quantize,
    make_zero_point,
)
from tcc.compiler.ops.pool import AvgPool
from tcc.compiler.ops.window import compute_reached_padding


@dataclass(frozen=True, slots=True)
class QAvgPool(QuantizedOp):
    """clamp(rint(float32(sum x) * M)), M = x.scale / y.scale / (elements of the window).

    `factor` (1, output height, output width) is M; `ones` (channels, 1, kh, kw) computes the sum.
    """

    keyword: ClassVar[str] = "qavg_pool"
    float_ops: ClassVar[tuple[type[Op], ...]] = (AvgPool,)
    pool: AvgPool

    @classmethod
    def from_float_op(cls, op: AvgPool, site: IntegerSite) -> OpWithWeights:
        """Return the op with the ones for the sums and the factor of each window."""
        (x,) = site.types
        quantized_pool = cls(*site.out, op.resolve(x), zero_point=site.zero_point)
        ones, _ = quantized_pool.params(x)
        factor = integer_arithmetic.compute_multiplier(
            x, 1.0, quantized_pool.infer(x)
        ) / quantized_pool.count_elements(x)
        return quantized_pool, (np.ones(ones.shape, np.int8), factor.astype(np.float32))

    def infer(self, x: TensorType) -> TensorType:
        """Return (channels, output height, output width)."""
        return self.make_type(self.pool.infer(x).shape)

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the ones for the sums, and the factor of each window."""
        _, height, width = self.infer(x).shape
        ones = Param("ones", (x.shape[0], 1, *self.pool.kernel), Init.ONES, dtype=DType.I8)
        return (ones, Param("factor", (1, height, width), Init.ONES))

    def compute_padding(self, x: TensorType) -> Quad:
        """Return the border that the windows reach: top, left, bottom, right."""
        pool, (_, height, width), (_, rows, columns) = self.pool, x.shape, self.infer(x).shape
        pad_top, pad_left, pad_bottom, pad_right = pool.pads
        down, across = compute_reached_padding(
            (height, width), pool.kernel, pool.step, pool.pads, (rows, columns)
        )
        # With sizes rounded up (ceil_mode), the last windows may extend beyond the padding.
        return (pad_top, pad_left, max(pad_bottom, down), max(pad_right, across))

    def count_elements(self, x: TensorType) -> integer_arithmetic.Float32:
        """Return the divisor of the mean of each window, (1, height, width)."""
        counted_mask = np.ones((1, 1, *x.shape[1:]), np.int8)
        counted_mask = integer_arithmetic.pad_map(
            counted_mask, self.pool.pads, int(self.pool.count_include_pad)
        )
        # Elements beyond the padding are never counted, regardless of count_include_pad, as in
        # PyTorch.
        _, _, pad_bottom, pad_right = (
            a - b for a, b in zip(self.compute_padding(x), self.pool.pads, strict=True)
        )
        ones = np.ones((1, 1, *self.pool.kernel), np.int8)
        padded = integer_arithmetic.pad_map(counted_mask, (0, 0, pad_bottom, pad_right))
        counts: integer_arithmetic.Float32 = integer_arithmetic.compute_convolution(
            padded, ones, self.pool.step, (1, 1), 1
        )[0].astype(np.float32)
        return counts

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the quantized values of the output."""
        (x,), (ones, factor) = types, params
        padded = integer_arithmetic.pad_map(xs[0], self.compute_padding(x))
        total = integer_arithmetic.compute_convolution(
            padded, ones, self.pool.step, (1, 1), x.shape[0]
        )
        return integer_arithmetic.requantize(total, factor, self.infer(x), self.low, self.high)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return ConvInteger and the rounding."""
        attributes = {
            "kernel_shape": [*self.pool.kernel],
            "strides": [*self.pool.step],
            "pads": [*self.compute_padding(x)],
            "group": x.shape[0],
        }
        return (
            # Not QLinearConv: it has one factor per filter, but each window may have its own.
            Call("ConvInteger", ("x0", "ones", make_zero_point(x)), attributes, "t"),
            Call("Cast", ("t",), {"to": FLOAT32}, "f"),
            Call("Mul", ("f", "factor"), output="s"),
            *make_quantize("s", self, self.infer(x)),
        )
