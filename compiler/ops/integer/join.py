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
"""Bits of the larger multiplier of a sum, after its first: as in XNNPACK's kernels. Two products of
21 bits and a level's 8 are below 2**30, so that their sum and the rounding term fit an int32."""
MAX_RATIO = 2.0**15
"""More counts as this much: then one level of an input is more than the whole range of the output.
With it, and the first shift of at least 1, up to 127 inputs fit an int32."""
MAX_SHIFT = 28
"""More would let the rounding term overflow; it is met where the output's scale is 256 times the
inputs', of which then nothing is left."""


@dataclass(frozen=True, slots=True)
class QAdd(QuantizedOp):
    """clamp((sum x_i * m_i + 2**(shift - 1)) >> shift), all in int32.

    m_i = rint(min(x_i.scale / y.scale, 2**15) * 2**shift), where shift lets the largest m_i have
    21 bits (one less for each doubling beyond two inputs). Equal scales make every m_i a power of
    two, and the sum exact.
    """

    keyword: ClassVar[str] = "qadd"
    float_ops: ClassVar[tuple[type[Op], ...]] = (Add,)
    arity: ClassVar[tuple[int, int | None]] = (2, None)

    def infer(self, *xs: TensorType) -> TensorType:
        """Return the type that all branches broadcast to."""
        return self.make_type(Add().infer(*xs).shape)

    def compute_fixed_point(self, *xs: TensorType) -> tuple[tuple[int, ...], int]:
        """Return the multipliers and the shift."""
        # In float32, and the multipliers rounded by rint, as XNNPACK's initialisation of its 8-bit
        # sums does (microparams-init.c): with float64 a multiplier may be the next integer.
        ratios = [min(float(np.float32(x.scale) / np.float32(self.scale)), MAX_RATIO) for x in xs]
        _, exponent = frexp(max(ratios))  # max is in [2**(exponent - 1), 2**exponent)
        shift = FRACTION_BITS - (exponent - 1) - (len(xs) - 1).bit_length() + 1
        shift = min(max(shift, 1), MAX_SHIFT)
        return tuple(int(np.rint(r * 2.0**shift)) for r in ratios), shift

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the levels of the output."""
        factors, shift = self.compute_fixed_point(*types)
        total = sum(x.astype(np.int32) * np.int32(m) for x, m in zip(xs, factors, strict=True))
        shifted = (np.asarray(total, np.int32) + np.int32(1 << (shift - 1))) >> np.int32(shift)
        return integer_arithmetic.clamp_to_type(shifted, self.infer(*types), self.low, self.high)

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return float32 arithmetic where it is the same for each pair of levels, or int32's."""
        factors, shift = self.compute_fixed_point(*xs)
        if len(xs) == 2:
            (a, b), (x0, x1) = factors, xs
            if constants := find_float_sum((a, b), shift, (x0.limits[0], x1.limits[0])):
                return self._build_float32_calls(xs, constants)
        return self._build_int32_calls(xs, factors, shift)

    def _build_float32_calls(
        self, xs: tuple[TensorType, ...], constants: FloatSum
    ) -> tuple[Call, ...]:
        """Return the sum of two by operators that each round once."""
        larger_input, smaller_input = f"w{constants.larger}", f"w{1 - constants.larger}"
        return (
            *(make_dequantize(f"x{i}", x, f"w{i}") for i, x in enumerate(xs)),
            # Between one of them and the sum, so that ONNX Runtime does not make a QLinearAdd of
            # it, whose arithmetic is another on each kind of processor.
            Call("Mul", (smaller_input, make_float32(constants.ratio)), output="p"),
            Call("Add", (larger_input, "p"), output="t"),
            *make_quantize("t", self, self.infer(*xs), constants.step),
        )

    def _build_int32_calls(
        self, xs: tuple[TensorType, ...], factors: tuple[int, ...], shift: int
    ) -> tuple[Call, ...]:
        """Return int32 arithmetic; a division of a number made positive is the shift."""
        y = self.infer(*xs)
        min_sum = sum(x.limits[0] * m for x, m in zip(xs, factors, strict=True))
        level_offset = -(min_sum >> shift)  # levels to add, so that nothing below zero is divided
        calls: list[Call] = []
        for i, m in enumerate(factors):
            calls.append(Call("Cast", (f"x{i}",), {"to": INT32}, f"w{i}"))
            calls.append(Call("Mul", (f"w{i}", make_int32(m)), output=f"m{i}"))
        # ONNX shifts unsigned integers alone, and its division of integers rounds towards zero: of
        # a number from 0 on, the division by a power of two is the shift.
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
        """Return it for two values; the product of more stays a float."""
        return (cls(*site.out), ()) if len(site.types) == 2 else None

    def infer(self, *xs: TensorType) -> TensorType:
        """Return the type that both branches broadcast to."""
        return self.make_type(Add().infer(*xs).shape)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the levels of the output."""
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
        """Return the float32 product, which is exact, and its rounding."""
        x0, x1 = xs
        y, factor = self.infer(*xs), float(self._compute_factor(*xs))
        product = (
            *(make_dequantize(f"x{i}", x, f"w{i}") for i, x in enumerate(xs)),
            Call("Mul", ("w0", "w1"), output="p"),
        )
        # Rounded at once where it can be: ONNX Runtime makes one operation of that.
        if step := find_product_step(factor, (x0.limits[0], x1.limits[0]), get_zero_point(y)):
            return (*product, *make_quantize("p", self, y, step))
        return (
            *product,
            Call("Mul", ("p", make_float32(factor)), output="s"),
            *make_quantize("s", self, y),
        )


def make_narrowing_calls(source: str, y: TensorType, level_offset: int = 0) -> tuple[Call, ...]:
    """Return calls that store int32 levels, raised by `level_offset`, as the output.

    Args:
        source: The name of int32 levels, each larger by `level_offset` than it means.
        y: The output's type.
        level_offset: What the levels were raised by.
    """
    zero_shift = get_zero_point(y) - level_offset
    if not zero_shift:
        return (Call("Cast", (source,), {"to": UINT8}),)
    shifted_name = f"{source}m"
    return (
        Call("Add", (source, make_int32(zero_shift)), output=shifted_name),
        Call("Cast", (shifted_name,), {"to": UINT8}),
    )
