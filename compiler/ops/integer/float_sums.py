"""Sums of two 8-bit integers in float32, where they are the integer sum to the bit."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ops.integer_arithmetic import Float32

STEPS = 8
"""How many float32 numbers on either side of each constant are tried."""
NEAR = 2.0**-9
"""A sum may come out otherwise only where it is this near to the middle between two levels: it has
four roundings of 2**-24 each, and two constants off by `STEPS` * 2**-23, of 256 levels at most."""
BEYOND = 512
"""Levels that are saturated whatever the output's bounds are."""
Pair: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class FloatSum:
    """rint(float32(v / step)), v = float32(float32(u_larger + float32(u_other * ratio)) + offset).

    u are levels as they are stored, from 0 to 255, and `rint` rounds halves to even. `larger` is
    the place of the input with the larger multiplier.
    """

    larger: int
    ratio: float
    offset: float
    step: float


@lru_cache(maxsize=4096)
def float_sum(factors: tuple[int, int], shift: int, zeros: tuple[int, int]) -> FloatSum | None:
    """Return a sum in float32 that is (sum (u_i - zeros_i) * factors_i + half) >> shift.

    For each of the 65,536 pairs, or beyond 512 levels where that is. None where none was found: it
    takes constants with which all sums that are near a middle between two levels fall rightly.

    Args:
        factors: The multipliers, from 0 on.
        shift: The power of two that the sum is divided by; `half` is half of it.
        zeros: What stands for zero in each input as it is stored.
    """
    larger = int(factors[1] > factors[0])
    if not factors[larger]:
        return None
    ratios = _around(factors[1 - larger] / factors[larger])
    steps = _around(2.0**shift / factors[larger])
    offsets = np.float32(-zeros[larger]) - ratios * np.float32(zeros[1 - larger])
    every = np.arange(256)
    stored = np.repeat(every, 256), np.tile(every, 256)
    total = sum((u - z) * m for u, z, m in zip(stored, zeros, factors, strict=True))
    total = np.asarray(total) + (1 << (shift - 1))
    right = _bounded(total >> shift)
    near = np.abs(total - ((total + (1 << (shift - 1))) >> shift << shift)) < NEAR * 2.0**shift
    near &= np.abs(right) < BEYOND
    few = _sums(_axes(stored, near), larger, ratios[:, None], offsets[:, None], steps)
    fits = np.argwhere((few == right[near][:, None, None]).all(axis=0)).tolist()
    # The constants that are least off first; by all pairs, since what is near is an estimate.
    for i, j in sorted(fits, key=lambda at: (abs(at[0] - STEPS) + abs(at[1] - STEPS), at)):
        if np.array_equal(_sums(stored, larger, ratios[i], offsets[i], steps[j]), right):
            return FloatSum(larger, float(ratios[i]), float(offsets[i]), float(steps[j]))
    return None


def _around(value: float) -> Float32:
    """Return float32 numbers around one, in order."""
    found = np.full(2 * STEPS + 1, value, np.float32)
    spacing = np.spacing(np.float32(value))
    return found + spacing * np.arange(-STEPS, STEPS + 1, dtype=np.float32)


def _axes(stored: Pair, which: NDArray[np.bool_]) -> Pair:
    first, second = (u[which][:, None, None] for u in stored)
    return first, second


def _sums(
    stored: Pair, larger: int, ratio: Float32, offset: Float32, step: Float32
) -> NDArray[np.int64]:
    most, other = (stored[i].astype(np.float32) for i in (larger, 1 - larger))
    value = most + other * ratio
    # Left out where it is zero, which changes no number.
    return _bounded(np.rint((value + offset) / step).astype(np.int64))


def _bounded(levels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.clip(levels, -BEYOND, BEYOND)
