"""Sums and products of 8-bit integers."""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import frexp
from typing import ClassVar

import numpy as np

from tcc.compiler.ir.op import Array, Call, Op
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import integer_arithmetic
from tcc.compiler.ops.integer.base import (
    INT32,
    UINT8,
    IntegerSite,
    OpWithWeights,
    QuantizedOp,
    get_zero_point,
    make_dequantize,
    make_float32,
    make_int32,
    make_quantize,
)
from tcc.compiler.ops.integer.float_forms import FloatSum, find_float_sum, find_product_step
from tcc.compiler.ops.join import Add, Mul

FRACTION_BITS = 20
"""Bits of the largest multiplier of a sum after its first bit, as in the kernels of XNNPACK. Two
products of 21 bits and 8 bits are below 2**30, so their sum with rounding fits an int32."""
MAX_RATIO = 2.0**15
"""Largest ratio: one step of an input then exceeds the range of the output. With it and a shift of
at least 1, up to 127 inputs fit an int32."""
MAX_SHIFT = 28
"""A larger shift would overflow the rounding term. It only occurs if the scale of the output is 256
times that of the inputs; then nothing is left of them."""


@dataclass(frozen=True, slots=True)
class QAdd(QuantizedOp):
    """clamp((sum x_i * m_i + 2**(shift - 1)) >> shift), in int32.

    m_i = rint(min(x_i.scale / y.scale, 2**15) * 2**shift). The shift gives the largest m_i 21 bits
    (one less for each doubling beyond two inputs). With equal scales every m_i is a power of two
    and the sum is exact.
    """

    keyword: ClassVar[str] = "qadd"
    float_ops: ClassVar[tuple[type[Op], ...]] = (Add,)
    arity: ClassVar[tuple[int, int | None]] = (2, None)

    def infer(self, *xs: TensorType) -> TensorType:
        """Return the type that all branches broadcast to."""
        return self.make_type(Add().infer(*xs).shape)

    def compute_fixed_point(self, *xs: TensorType) -> tuple[tuple[int, ...], int]:
        """Return the multipliers and the shift."""
        # In float32 and with rint, like the initialization of 8-bit sums in XNNPACK
        # (microparams-init.c). With float64, a multiplier may differ by one.
        ratios = [min(float(np.float32(x.scale) / np.float32(self.scale)), MAX_RATIO) for x in xs]
        _, exponent = frexp(max(ratios))  # max is in [2**(exponent - 1), 2**exponent)
        shift = FRACTION_BITS - (exponent - 1) - (len(xs) - 1).bit_length() + 1
        shift = min(max(shift, 1), MAX_SHIFT)
        return tuple(int(np.rint(r * 2.0**shift)) for r in ratios), shift

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the quantized values of the output."""
        factors, shift = self.compute_fixed_point(*types)
        total = sum(x.astype(np.int32) * np.int32(m) for x, m in zip(xs, factors, strict=True))
        shifted = (np.asarray(total, np.int32) + np.int32(1 << (shift - 1))) >> np.int32(shift)
        return integer_arithmetic.clamp_to_type(shifted, self.infer(*types), self.low, self.high)

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return float32 arithmetic if it is equal for all pairs of values, or int32 arithmetic."""
        factors, shift = self.compute_fixed_point(*xs)
        if len(xs) == 2:
            (a, b), (x0, x1) = factors, xs
            if constants := find_float_sum((a, b), shift, (x0.limits[0], x1.limits[0])):
                return self._build_float32_calls(xs, constants)
        return self._build_int32_calls(xs, factors, shift)

    def _build_float32_calls(
        self, xs: tuple[TensorType, ...], constants: FloatSum
    ) -> tuple[Call, ...]:
        """Return the sum of two inputs with operators that each round once."""
        larger_input, smaller_input = f"w{constants.larger}", f"w{1 - constants.larger}"
        return (
            *(make_dequantize(f"x{i}", x, f"w{i}") for i, x in enumerate(xs)),
            # The Mul keeps ONNX Runtime from fusing a QLinearAdd, which computes differently on
            # each kind of processor.
            Call("Mul", (smaller_input, make_float32(constants.ratio)), output="p"),
            Call("Add", (larger_input, "p"), output="t"),
            *make_quantize("t", self, self.infer(*xs), constants.step),
        )

    def _build_int32_calls(
        self, xs: tuple[TensorType, ...], factors: tuple[int, ...], shift: int
    ) -> tuple[Call, ...]:
        """Return int32 arithmetic; the division of a non-negative number replaces the shift."""
        y = self.infer(*xs)
        min_sum = sum(x.limits[0] * m for x, m in zip(xs, factors, strict=True))
        level_offset = -(min_sum >> shift)  # added to keep the dividend non-negative
        calls: list[Call] = []
        for i, m in enumerate(factors):
            calls.append(Call("Cast", (f"x{i}",), {"to": INT32}, f"w{i}"))
            calls.append(Call("Mul", (f"w{i}", make_int32(m)), output=f"m{i}"))
        # ONNX only shifts unsigned integers, and its integer division rounds towards zero. For a
        # non-negative number, division by a power of two equals the shift.
        names = ["m0", *(f"t{i}" for i in range(1, len(xs)))]
        pairs = enumerate(pairwise(names), 1)
        calls += (Call("Add", (a, f"m{i}"), output=b) for i, (a, b) in pairs)
        zeros = sum(get_zero_point(x) * m for x, m in zip(xs, factors, strict=True))
        rounding = (1 << (shift - 1)) + (level_offset << shift) - zeros
        low, high = (make_int32(n + level_offset) for n in (self.low, self.high))
        return (
            *calls,
            Call("Add", (names[-1], make_int32(rounding)), output="a"),
            Call("Div", ("a", make_int32(1 << shift)), output="d"),
            Call("Clip", ("d", low, high), output="b"),
            *make_narrowing_calls("b", y, level_offset),
        )


@dataclass(frozen=True, slots=True)
class QMul(QuantizedOp):
    """clamp(rint(float32(x_0 * x_1) * M)), with M = x_0.scale * x_1.scale / y.scale."""

    keyword: ClassVar[str] = "qmul"
    float_ops: ClassVar[tuple[type[Op], ...]] = (Mul,)
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    @classmethod
    def from_float_op(cls, op: Mul, site: IntegerSite) -> OpWithWeights | None:
        """Return the op for two inputs; a product of more stays float."""
        is_pair = len(site.types) == 2
        return (cls(*site.out, zero_point=site.zero_point), ()) if is_pair else None

    def infer(self, *xs: TensorType) -> TensorType:
        """Return the type that both branches broadcast to."""
        return self.make_type(Add().infer(*xs).shape)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the quantized values of the output."""
        product = reduce(np.multiply, (x.astype(np.int32) for x in xs))
        y = self.infer(*types)
        return integer_arithmetic.requantize(
            product, self._compute_factor(*types), y, self.low, self.high
        )

    def _compute_factor(self, *xs: TensorType) -> integer_arithmetic.Float32:
        left_type, right_type = xs
        return integer_arithmetic.compute_multiplier(
            left_type, float(right_type.scale or 0), self.infer(*xs)
        )

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return the exact float32 product, and its rounding."""
        x0, x1 = xs
        y, factor = self.infer(*xs), float(self._compute_factor(*xs))
        product = (
            *(make_dequantize(f"x{i}", x, f"w{i}") for i, x in enumerate(xs)),
            Call("Mul", ("w0", "w1"), output="p"),
        )
        # Rounded directly if possible: ONNX Runtime fuses that to one operation.
        if step := find_product_step(factor, (x0.limits[0], x1.limits[0]), get_zero_point(y)):
            return (*product, *make_quantize("p", self, y, step))
        return (
            *product,
            Call("Mul", ("p", make_float32(factor)), output="s"),
            *make_quantize("s", self, y),
        )


def make_narrowing_calls(source: str, y: TensorType, level_offset: int = 0) -> tuple[Call, ...]:
    """Return calls that store int32 values with an offset as the output.

    Args:
        source: The name of int32 quantized values, each with `level_offset` added.
        y: The type of the output.
        level_offset: The offset of the values.
    """
    zero_shift = get_zero_point(y) - level_offset
    if not zero_shift:
        return (Call("Cast", (source,), {"to": UINT8}),)
    shifted_name = f"{source}m"
    return (
        Call("Add", (source, make_int32(zero_shift)), output=shifted_name),
        Call("Cast", (shifted_name,), {"to": UINT8}),
    )
