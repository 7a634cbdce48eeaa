"""Float32 forms of ops on 8-bit integers that give the same result for all quantized values.

The constants are searched so that each pair of values, or each value, gives the right result. Sums
and products round once per operation (IEEE 754), so they are the same on every processor. The last
bits of other functions depend on the runtime, so their results are kept away from ties.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops.activation import HardSigmoid, HardSwish, Sigmoid, Silu, Tanh
from tcc.compiler.ops.elementwise import ScalarFunction
from tcc.compiler.ops.integer_arithmetic import Float32

QuantizedArray: TypeAlias = NDArray[np.int64]
Float64Array: TypeAlias = NDArray[np.float64]
CONSTANT_STEPS = 8
"""Number of neighbouring float32 numbers to try on each side of a constant."""
TIE_DISTANCE = 2.0**-9
"""A sum can only differ if it is this near to a tie between two quantized values: it has four
roundings of 2**-24 each, and two constants off by `CONSTANT_STEPS` * 2**-23, of at most 256
quantization steps."""
SATURATION_LIMIT = 512
"""Quantized values beyond this are clipped for any output type."""
MARGIN = 2.0**-10
"""Distance of the results of a function from a tie, in quantization steps: 32 times the float32
resolution at 256."""
FUNCTION_ERROR = 2.0**-20
"""Additional error of a float function: six times that of sigmoid in ONNX Runtime."""
ERROR_SCALES: Mapping[type[ScalarFunction], Callable[[Float64Array], Float64Array]] = {
    HardSigmoid: np.ones_like,
    HardSwish: np.abs,
    Sigmoid: np.ones_like,
    Silu: np.abs,
    Tanh: np.ones_like,
}
"""Functions with a small enough float error, and the factor of `FUNCTION_ERROR` for an input: its
magnitude if the function is a product with it."""
SCALE_SHIFTS = np.arange(-64, 65) * 2.0**-20
"""Relative changes of the scales of a function, to keep its results away from ties."""


@dataclass(frozen=True, slots=True)
class FloatSum:
    """rint(float32(v / step)), v = float32(x_larger + float32(x_other * ratio)); ties to even.

    `larger` is the index of the input with the larger multiplier.
    """

    larger: int
    ratio: float
    step: float


@lru_cache(maxsize=4096)
def find_float_sum(factors: tuple[int, int], shift: int, lows: tuple[int, int]) -> FloatSum | None:
    """Return a float32 sum that equals (sum x_i * factors_i + half) >> shift.

    It is equal for all 65,536 pairs, or on the same side beyond 512. None if there are no
    constants with which all sums near a tie round to the right side.

    Args:
        factors: The multipliers, at least 0.
        shift: The sum is divided by this power of two; `half` is half of it.
        lows: The smallest value of each input.
    """
    larger = int(factors[1] > factors[0])
    if not factors[larger]:
        return None
    ratios = _list_neighbors(factors[1 - larger] / factors[larger])
    steps = _list_neighbors(2.0**shift / factors[larger])
    quantized_pairs = _list_pairs(lows)
    half = 1 << (shift - 1)
    total = quantized_pairs[0] * factors[0] + quantized_pairs[1] * factors[1] + half
    expected = _clip_to_limit(total >> shift)
    is_near_tie = np.abs(total - ((total + half) >> shift << shift)) < TIE_DISTANCE * 2.0**shift
    tie_sums = _compute_sums(
        tuple(quantized[is_near_tie, None, None] for quantized in quantized_pairs),
        larger,
        ratios[:, None],
        steps,
    )
    # Not a factor of 1: runtimes remove it, and fuse the rest to another operation.
    is_match = (tie_sums == expected[is_near_tie, None, None]).all(axis=0) & (ratios != 1)[:, None]
    matches = np.argwhere(is_match).tolist()
    # The nearest constants first. Check all pairs, because `is_near_tie` is an estimate.
    for i, j in sorted(
        matches,
        key=lambda offsets: (
            abs(offsets[0] - CONSTANT_STEPS) + abs(offsets[1] - CONSTANT_STEPS),
            offsets,
        ),
    ):
        if np.array_equal(_compute_sums(quantized_pairs, larger, ratios[i], steps[j]), expected):
            return FloatSum(larger, float(ratios[i]), float(steps[j]))
    return None


def _compute_sums(
    quantized_pairs: tuple[QuantizedArray, ...], larger: int, ratio: Float32, step: Float32
) -> QuantizedArray:
    larger_input, smaller_input = (
        quantized_pairs[i].astype(np.float32) for i in (larger, 1 - larger)
    )
    return _clip_to_limit(np.rint((larger_input + smaller_input * ratio) / step))


@lru_cache(maxsize=4096)
def find_product_step(factor: float, lows: tuple[int, int], zero: int) -> float | None:
    """Return a float32 divisor that replaces the multiplication of products by the factor.

    With it, all roundings of runtimes give the float32 result of rint(p * factor) for each product
    p of two quantized values, or are beyond 512. None if there is no such number.

    Args:
        factor: A float32 number above zero.
        lows: The smallest value of each input.
        zero: The zero point of the stored output.
    """
    left_operand, right_operand = _list_pairs(lows)
    products = np.unique(left_operand * right_operand).astype(np.float32)
    expected = _clip_to_limit(np.rint(products * np.float32(factor)))
    steps = _list_neighbors(1.0 / factor)
    for step in sorted(steps, key=lambda candidate: abs(candidate * factor - 1.0)):
        roundings = _iterate_product_roundings(products, np.float32(step), np.float32(zero))
        if all(np.array_equal(_clip_to_limit(rounding), expected) for rounding in roundings):
            return float(step)
    return None


def _iterate_product_roundings(
    products: Float32, step: np.float32, zero: np.float32
) -> Iterator[NDArray[np.float32]]:
    """Yield quotients rounded as in the standard, and as in fused kernels of ONNX Runtime."""
    inverse = np.float32(1) / step
    yield np.rint(products / step)
    yield np.rint(products * inverse)
    # Its kernels add the zero point before rounding (MLAS, qlmul.cpp), fused with the product
    # or not. The product is exact in float64, so rounding it to float32 is the only rounding.
    yield np.rint(products * inverse + zero) - zero
    exact = products.astype(np.float64) * np.float64(inverse) + np.float64(zero)
    yield np.rint(exact.astype(np.float32)) - zero


@lru_cache(maxsize=4096)
def find_function_scales(
    function: ScalarFunction, x: TensorType, y: TensorType, entries: tuple[int, ...]
) -> tuple[float, float] | None:
    """Return scales of the input and the output with which a float function equals a table.

    The result is rint(function(float32(value * first)) / second). The function may have the error
    `ERROR_SCALES` * `FUNCTION_ERROR`, and the quotient has `MARGIN` more. None if there are none.

    Args:
        function: One of `ERROR_SCALES`.
        x: The type of the input, with its scale.
        y: The type of the output, with its scale.
        entries: The output value for each input value, from the smallest on.
    """
    expected = np.array(entries, np.int64)
    quantized = np.arange(256) + x.limits[0]
    outputs = (np.float64(y.scale or 0) * (1 + SCALE_SHIFTS)).astype(np.float32)
    for shift in sorted(SCALE_SHIFTS[::4], key=abs):
        scale = np.float32(np.float64(x.scale or 0) * (1 + shift))
        real = (quantized.astype(np.float32) * scale).astype(np.float64)
        outputs_by_scale = function.evaluate(real)[:, None] / outputs.astype(np.float64)
        errors = FUNCTION_ERROR * ERROR_SCALES[type(function)](real)[:, None] / outputs
        # Results beyond the range of the type are clipped.
        max_errors = (
            np.abs(np.clip(outputs_by_scale, *y.limits) - expected[:, None]) + errors
        ).max(axis=0)
        best = int(max_errors.argmin())
        if max_errors[best] < 0.5 - MARGIN:
            return float(scale), float(outputs[best])
    return None


def _list_neighbors(number: float) -> Float32:
    """Return neighbouring float32 numbers, in order."""
    middle = np.float32(number)
    return np.array(
        middle + np.spacing(middle) * np.arange(-CONSTANT_STEPS, CONSTANT_STEPS + 1), np.float32
    )


def _list_pairs(lows: tuple[int, int]) -> tuple[QuantizedArray, QuantizedArray]:
    """Return all pairs of quantized values."""
    all_levels = np.arange(256)
    return np.repeat(all_levels + lows[0], 256), np.tile(all_levels + lows[1], 256)


def _clip_to_limit(numbers: NDArray[np.float32] | QuantizedArray) -> QuantizedArray:
    return np.clip(numbers, -SATURATION_LIMIT, SATURATION_LIMIT).astype(np.int64)
