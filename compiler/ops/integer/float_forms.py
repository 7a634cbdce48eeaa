"""Operations on 8-bit integers in float32, where that gives the same for all levels there are.

Constants are found for which each pair of levels, or each level, comes out right. Sums and products
are the same on every processor then, since they round once an operation, as IEEE 754 says; a
function of real numbers, whose last bits are its runtime's, is kept off the middle between levels.
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
"""How many float32 numbers on either side of each constant are tried."""
TIE_DISTANCE = 2.0**-9
"""A sum may come out otherwise only where it is this near to the middle between two levels: it has
four roundings of 2**-24 each, and two constants off by `STEPS` * 2**-23, of 256 levels at most."""
SATURATION_LIMIT = 512
"""Levels that are saturated whatever the output's bounds are."""
MARGIN = 2.0**-10
"""How far a function's results are from the middle between two levels, in levels: 32 times what
float32 tells apart of 256."""
FUNCTION_ERROR = 2.0**-20
"""How far off a function of floats may be besides: six times what ONNX Runtime's sigmoid is."""
ERROR_SCALES: Mapping[type[ScalarFunction], Callable[[Float64Array], Float64Array]] = {
    HardSigmoid: np.ones_like,
    HardSwish: np.abs,
    Sigmoid: np.ones_like,
    Silu: np.abs,
    Tanh: np.ones_like,
}
"""Functions that are near enough in floats, and what `ERROR` is times for a number: its own size
where they are products with it."""
SCALE_SHIFTS = np.arange(-64, 65) * 2.0**-20
"""By what part of themselves the scales of a function are moved, to keep its results off."""


@dataclass(frozen=True, slots=True)
class FloatSum:
    """rint(float32(v / step)), v = float32(x_larger + float32(x_other * ratio)); ties to even.

    `larger` is the place of the input with the larger multiplier.
    """

    larger: int
    ratio: float
    step: float


@lru_cache(maxsize=4096)
def find_float_sum(factors: tuple[int, int], shift: int, lows: tuple[int, int]) -> FloatSum | None:
    """Return a sum in float32 that is (sum x_i * factors_i + half) >> shift.

    For each of the 65,536 pairs, or beyond 512 levels where that is; None where no constants were
    found with which all sums near a middle between two levels fall on its right side.

    Args:
        factors: The multipliers, from 0 on.
        shift: The power of two that the sum is divided by; `half` is half of it.
        lows: The least level of each input.
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
    # Not times 1, which runtimes drop, to make another operation of what is left.
    is_match = (tie_sums == expected[is_near_tie, None, None]).all(axis=0) & (ratios != 1)[:, None]
    matches = np.argwhere(is_match).tolist()
    # The constants that are least off first; by all pairs, since what is near is an estimate.
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
    """Return a float32 number by which products are divided, rather than times the factor.

    With it all ways in which runtimes round products give rint(p * factor), in float32, for each
    product p of two levels, or beyond 512. None where there is no such number.

    Args:
        factor: A float32 number above zero.
        lows: The least level of each input.
        zero: What stands for zero in the output as it is stored.
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
    """Yield rounded quotients as the standard says, and as ONNX Runtime computes them in one go."""
    inverse = np.float32(1) / step
    yield np.rint(products / step)
    yield np.rint(products * inverse)
    # Its kernels add the zero point before they round (MLAS, qlmul.cpp), in one step with the
    # product or in two. That product is exact in float64, of which float32 is the one rounding.
    yield np.rint(products * inverse + zero) - zero
    exact = products.astype(np.float64) * np.float64(inverse) + np.float64(zero)
    yield np.rint(exact.astype(np.float32)) - zero


@lru_cache(maxsize=4096)
def find_function_scales(
    function: ScalarFunction, x: TensorType, y: TensorType, entries: tuple[int, ...]
) -> tuple[float, float] | None:
    """Return scales of the input and the output with which a function of floats gives a table.

    rint(function(float32(level * first)) / second), where the function may be off as `ERROR_SCALES`
    says, and the quotient by `MARGIN` more. None where none were found.

    Args:
        function: One of `ERROR_SCALES`.
        x: The input's type, with its scale.
        y: The output's.
        entries: The level of the output for each of the input, from the least on.
    """
    expected = np.array(entries, np.int64)
    quantized = np.arange(256) + x.limits[0]
    outputs = (np.float64(y.scale or 0) * (1 + SCALE_SHIFTS)).astype(np.float32)
    for shift in sorted(SCALE_SHIFTS[::4], key=abs):
        scale = np.float32(np.float64(x.scale or 0) * (1 + shift))
        real = (quantized.astype(np.float32) * scale).astype(np.float64)
        outputs_by_scale = function.evaluate(real)[:, None] / outputs.astype(np.float64)
        errors = FUNCTION_ERROR * ERROR_SCALES[type(function)](real)[:, None] / outputs
        # What is beyond the type's bounds is saturated.
        max_errors = (
            np.abs(np.clip(outputs_by_scale, *y.limits) - expected[:, None]) + errors
        ).max(axis=0)
        best = int(max_errors.argmin())
        if max_errors[best] < 0.5 - MARGIN:
            return float(scale), float(outputs[best])
    return None


def _list_neighbors(number: float) -> Float32:
    """Return float32 numbers around one, in order."""
    middle = np.float32(number)
    return np.array(
        middle + np.spacing(middle) * np.arange(-CONSTANT_STEPS, CONSTANT_STEPS + 1), np.float32
    )


def _list_pairs(lows: tuple[int, int]) -> tuple[QuantizedArray, QuantizedArray]:
    """Return each pair of levels."""
    all_levels = np.arange(256)
    return np.repeat(all_levels + lows[0], 256), np.tile(all_levels + lows[1], 256)


def _clip_to_limit(numbers: NDArray[np.float32] | QuantizedArray) -> QuantizedArray:
    return np.clip(numbers, -SATURATION_LIMIT, SATURATION_LIMIT).astype(np.int64)
