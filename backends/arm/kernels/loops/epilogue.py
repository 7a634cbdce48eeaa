"""Applies fused ops to values in the innermost loops.

The functions work on one float or on four. They call no C library, so the bits do not depend on
the installed one. Each is within a few units in the last place of the exact value. NaN gives NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from tcc.backends.arm.kernels.base import Shape3
from tcc.backends.arm.kernels.epilogue import RUNNING, Epilogue
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.pointwise import POINTWISE

# Errors below: the largest over some million floats against float64, in units in the last place,
# with product and sum rounded separately or fused.
# exp as in Cephes' expf (S. L. Moshier), whose 5.0000001201e-1 is 0.5 in float32: coefficients, and
# ln 2 in two parts, so that n times the first part is exact. Error 1.0.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
# tanh as in Eigen's generic_fast_tanh_float (P. Gonnet), also in ONNX Runtime's MLAS: odd over even
# polynomial, clamped where the quotient is 1 in float32. Error 5.6; fused 4.4.
_TANH_ODD = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_TANH_EVEN = (
    1.19825839466702e-06,
    1.18534705686654e-04,
    2.26843463243900e-03,
    4.89352518554385e-03,
)
# erf as in N. Juffa's erff (Stack Overflow, question 35148198): one polynomial below 475/512, the
# logarithm of 1 - erf above. Error 1.1; Juffa reports 0.995 with fused steps and a better exp.
_ERF_NEAR = (
    -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1,
)  # fmt: skip
_ERF_FAR = (
    -1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1,
    -1.28717512e-1,
)  # fmt: skip
_ROUND = 12582912.0
"""1.5 * 2**23: adding it rounds a float to an integer, which is then in its low bits."""
_ROUND_BITS = 0x4B400000
"""The bits of `_ROUND` as a float32."""


@dataclass(frozen=True, slots=True)
class LaneMath:
    """Arithmetic on values with some number of lanes."""

    lanes: int

    def create_constant(self, number: float) -> Expr:
        """Return a constant."""
        return tir.create_constant(number, self.lanes)

    def _bind(self, x: Expr) -> Expr:
        return tir.bind(x, self.lanes)

    def compute_maximum(self, x: Expr, low: float) -> Expr:
        """Return max(x, low)."""
        return tir.compute_maximum(x, self.create_constant(low), self.lanes)

    def clamp(self, x: Expr, low: float, high: float) -> Expr:
        """Return min(max(x, low), high)."""
        return tir.compute_minimum(
            self.compute_maximum(x, low), self.create_constant(high), self.lanes
        )

    def select_positive(self, x: Expr, then: Expr, otherwise: Expr) -> Expr:
        """Return `then` where x > 0, else `otherwise`."""
        return tirx.Select(x > self.create_constant(0.0), then, otherwise)

    def compute_exp(self, x: Expr) -> Expr:
        """Return the exponential, with x clamped to [-87.3, 88].

        x = n ln 2 + r with an integer n, exp(x) = 2**n exp(r), and a polynomial computes exp(r).
        """
        x = self._bind(self.clamp(x, -87.3, 88.0))
        rounded = self._bind(
            x * self.create_constant(1.44269504088896341) + self.create_constant(_ROUND)
        )
        n = self._bind(rounded - self.create_constant(_ROUND))
        r = self._bind(x - n * self.create_constant(0.693359375))
        r = self._bind(r + n * self.create_constant(2.12194440e-4))
        series = self._evaluate_polynomial(r, _EXP)
        return (series * (r * r) + r + self.create_constant(1.0)) * self._compute_power_of_two(
            rounded
        )

    def _compute_power_of_two(self, rounded: Expr) -> Expr:
        """Return 2**n from n + `_ROUND`, by writing n + 127 to a float's exponent bits."""
        lane_suffix = "" if self.lanes == 1 else f"x{self.lanes}"
        shift = tir.splat(tirx.IntImm("int32", 23), self.lanes)
        exponent_bias = tir.splat(tirx.IntImm("int32", 127 << 23), self.lanes)
        exponent = (tirx.reinterpret(f"int32{lane_suffix}", rounded) << shift) + exponent_bias
        return tirx.reinterpret(f"float32{lane_suffix}", exponent)

    def _evaluate_polynomial(self, x: Expr, coefficients: Sequence[float]) -> Expr:
        """Return the polynomial with these coefficients, highest power first."""
        total = self.create_constant(coefficients[0])
        for coefficient in coefficients[1:]:
            total = total * x + self.create_constant(coefficient)
        return self._bind(total)

    def compute_sigmoid(self, x: Expr) -> Expr:
        """Return 1 / (1 + exp(-x))."""
        unit = self.create_constant(1.0)
        return unit / (unit + self.compute_exp(self.create_constant(0.0) - x))

    def compute_erf(self, x: Expr) -> Expr:
        """Return the error function: a polynomial near 0, else 1 - exp(polynomial)."""
        size = self._bind(tir.compute_maximum(x, self.create_constant(0.0) - x, self.lanes))
        square = self._bind(x * x)
        small = self._bind(self._evaluate_polynomial(square, _ERF_NEAR) * x + x)
        exponent = self._bind(self._evaluate_polynomial(size, _ERF_FAR) * size - size)
        unit = self.create_constant(1.0)
        large = self._bind(unit - self.compute_exp(exponent))
        signed = self.select_positive(x, large, self.create_constant(0.0) - large)
        return self.select_positive(size - self.create_constant(0.927734375), signed, small)

    def to_float(self, x: Expr) -> Expr:
        """Return the float32 nearest to an int32."""
        return tir.convert(x, tir.FLOAT, self.lanes)

    def round_clamped(self, x: Expr, low: int, high: int) -> Expr:
        """Return the integer nearest to x, ties to even, clamped to [low, high], as int32.

        The clamp comes before the sum that rounds, which gives the same result. It separates that
        sum from the product in x: fusing both would round once, but the reference rounds twice.
        """
        clamped = self._bind(self.clamp(x, float(low), float(high)))
        bits = tir.reinterpret(clamped + self.create_constant(_ROUND), tir.INT, self.lanes)
        return bits - tir.create_integer(_ROUND_BITS, self.lanes)

    def shift_clamped(self, x: Expr, bits: Expr, low: int, high: int) -> Expr:
        """Return x >> bits (rounded down), clamped to [low, high]."""
        lower = tir.create_integer(low, self.lanes)
        upper = tir.create_integer(high, self.lanes)
        clamped = tir.select_larger(tir.bind(x >> bits, self.lanes), lower)
        clamped = tir.bind(clamped, self.lanes)
        return tirx.Select(clamped < upper, clamped, upper)

    def compute_tanh(self, x: Expr) -> Expr:
        """Return the hyperbolic tangent, a quotient of polynomials; exactly 1 from 9 on."""
        x = self._bind(self.clamp(x, -9.0, 9.0))
        square = self._bind(x * x)
        odd = x * self._evaluate_polynomial(square, _TANH_ODD)
        return odd / self._evaluate_polynomial(square, _TANH_EVEN)


@dataclass(frozen=True, slots=True)
class Position:
    """The position of an element, or of the first of several along x, in the output."""

    c: Expr
    y: Expr
    x: Expr

    def compute_offset(self, shape: Shape3) -> Expr:
        """Return the element's index in a buffer of this shape, broadcast along axes of size 1."""
        c, y, x = (i if n > 1 else 0 for i, n in zip((self.c, self.y, self.x), shape, strict=True))
        return (c * shape[1] + y) * shape[2] + x


def load_operand(buffer: Buffer, shape: Shape3, at: Position, lanes: int) -> Expr:
    """Return an operand's value for one element, or for several along x."""
    index = at.compute_offset(shape)
    # An operand with one column, such as a factor per channel, is one load for all lanes.
    if shape[2] > 1:
        return tir.load(buffer, index, lanes)
    return tir.splat(tir.load(buffer, index), lanes)


def apply_epilogue(
    epilogue: Epilogue, buffers: Sequence[Buffer], value: Expr, at: Position, lanes: int
) -> Expr:
    """Return the value after the epilogue's steps; `value` is None if no step reads it."""
    math = LaneMath(lanes)
    for step in epilogue.steps:
        inputs = [
            value
            if number == RUNNING
            else load_operand(buffers[number - 1], epilogue.operands[number - 1].shape, at, lanes)
            for number in step.operands
        ]
        # Bind the result of every step: TVM would simplify one large expression across steps and
        # change the rounding.
        value = tir.bind(POINTWISE[type(step.op)].compute(math, step.op, *inputs), lanes)
    return value
