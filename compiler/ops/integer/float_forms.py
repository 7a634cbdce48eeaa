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

Levels: TypeAlias = NDArray[np.int64]
Real: TypeAlias = NDArray[np.float64]
STEPS = 8
"""How many float32 numbers on either side of each constant are tried."""
NEAR = 2.0**-9
"""A sum may come out otherwise only where it is this near to the middle between two levels: it has
four roundings of 2**-24 each, and two constants off by `STEPS` * 2**-23, of 256 levels at most."""
BEYOND = 512
"""Levels that are saturated whatever the output's bounds are."""
MARGIN = 2.0**-10
"""How far a function's results are from the middle between two levels, in levels: 32 times what
float32 tells apart of 256."""
ERROR = 2.0**-20
"""How far off a function of floats may be besides: six times what ONNX Runtime's sigmoid is."""
ERRORS: Mapping[type[ScalarFunction], Callable[[Real], Real]] = {
    HardSigmoid: np.ones_like,
    HardSwish: np.abs,
    Sigmoid: np.ones_like,
    Silu: np.abs,
    Tanh: np.ones_like,
}
"""Functions that are near enough in floats, and what `ERROR` is times for a number: its own size
where they are products with it."""
SHIFTS = np.arange(-64, 65) * 2.0**-20
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
def float_sum(factors: tuple[int, int], shift: int, lows: tuple[int, int]) -> FloatSum | None:
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
    ratios = _around(factors[1 - larger] / factors[larger])
    steps = _around(2.0**shift / factors[larger])
    levels = _pairs(lows)
    half = 1 << (shift - 1)
    total = levels[0] * factors[0] + levels[1] * factors[1] + half
    right = _bounded(total >> shift)
    near = np.abs(total - ((total + half) >> shift << shift)) < NEAR * 2.0**shift
    few = _sums(tuple(x[near, None, None] for x in levels), larger, ratios[:, None], steps)
    # Not times 1, which runtimes drop, to make another operation of what is left.
    alike = (few == right[near, None, None]).all(axis=0) & (ratios != 1)[:, None]
    fits = np.argwhere(alike).tolist()
    # The constants that are least off first; by all pairs, since what is near is an estimate.
    for i, j in sorted(fits, key=lambda at: (abs(at[0] - STEPS) + abs(at[1] - STEPS), at)):
        if np.array_equal(_sums(levels, larger, ratios[i], steps[j]), right):
            return FloatSum(larger, float(ratios[i]), float(steps[j]))
    return None


def _sums(levels: tuple[Levels, ...], larger: int, ratio: Float32, step: Float32) -> Levels:
    most, other = (levels[i].astype(np.float32) for i in (larger, 1 - larger))
    return _bounded(np.rint((most + other * ratio) / step))


@lru_cache(maxsize=4096)
def product_step(factor: float, lows: tuple[int, int], zero: int) -> float | None:
    """Return a float32 number by which products are divided, rather than times the factor.

    With it all ways in which runtimes round products give rint(p * factor), in float32, for each
    product p of two levels, or beyond 512. None where there is no such number.

    Args:
        factor: A float32 number above zero.
        lows: The least level of each input.
        zero: What stands for zero in the output as it is stored.
    """
    first, second = _pairs(lows)
    products = np.unique(first * second).astype(np.float32)
    right = _bounded(np.rint(products * np.float32(factor)))
    steps = _around(1.0 / factor)
    for step in sorted(steps, key=lambda each: abs(each * factor - 1.0)):
        ways = _product_roundings(products, np.float32(step), np.float32(zero))
        if all(np.array_equal(_bounded(way), right) for way in ways):
            return float(step)
    return None


def _product_roundings(
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
def function_scales(
    function: ScalarFunction, x: TensorType, y: TensorType, entries: tuple[int, ...]
) -> tuple[float, float] | None:
    """Return scales of the input and the output with which a function of floats gives a table.

    rint(function(float32(level * first)) / second), where the function may be off as `ERRORS` says,
    and the quotient by `MARGIN` more. None where none were found.

    Args:
        function: One of `ERRORS`.
        x: The input's type, with its scale.
        y: The output's.
        entries: The level of the output for each of the input, from the least on.
    """
    right = np.array(entries, np.int64)
    levels = np.arange(256) + x.limits[0]
    outputs = (np.float64(y.scale or 0) * (1 + SHIFTS)).astype(np.float32)
    for shift in sorted(SHIFTS[::4], key=abs):
        scale = np.float32(np.float64(x.scale or 0) * (1 + shift))
        real = (levels.astype(np.float32) * scale).astype(np.float64)
        found = function.float64(real)[:, None] / outputs.astype(np.float64)
        errors = ERROR * ERRORS[type(function)](real)[:, None] / outputs
        # What is beyond the type's bounds is saturated.
        off = (np.abs(np.clip(found, *y.limits) - right[:, None]) + errors).max(axis=0)
        best = int(off.argmin())
        if off[best] < 0.5 - MARGIN:
            return float(scale), float(outputs[best])
    return None


def _around(value: float) -> Float32:
    """Return float32 numbers around one, in order."""
    middle = np.float32(value)
    return np.array(middle + np.spacing(middle) * np.arange(-STEPS, STEPS + 1), np.float32)


def _pairs(lows: tuple[int, int]) -> tuple[Levels, Levels]:
    """Return each pair of levels."""
    every = np.arange(256)
    return np.repeat(every + lows[0], 256), np.tile(every + lows[1], 256)


def _bounded(levels: NDArray[np.float32] | Levels) -> Levels:
    return np.clip(levels, -BEYOND, BEYOND).astype(np.int64)
