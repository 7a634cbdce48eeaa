"""The logarithm of integers, in integers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
FRACTION_BITS = 8
"""Bits of the fraction: a result is 256 times the logarithm to base 2."""
MANTISSA_BITS = 24
"""Bits of the mantissa's fraction; the square of a mantissa has at most 50 bits."""


def compute_log2q8(numbers: Any) -> Int64:
    """Return 256 log2 of integers, rounded down in each of 8 squarings.

    The exponent e is that of the largest power of two that is not above the number (at least 1),
    and the mantissa y is the number times 2^(24 - e), rounded down. Eight times: y = y y >> 24; if
    y >= 2^25, the next bit of the fraction is 1 and y = y >> 1, otherwise the bit is 0.

    Args:
        numbers: Integers below 2^53; numbers below 1 count as 1.
    """
    values = np.maximum(np.asarray(numbers, np.int64), 1)
    # Integers below 2^53 are exact in float64, and `frexp` is exact.
    exponents = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1
    mantissas = np.where(
        exponents > MANTISSA_BITS,
        values >> np.maximum(exponents - MANTISSA_BITS, 0),
        values << np.maximum(MANTISSA_BITS - exponents, 0),
    )
    fractions = np.zeros_like(values)
    for _ in range(FRACTION_BITS):
        mantissas = (mantissas * mantissas) >> MANTISSA_BITS
        bits = (mantissas >= 1 << (MANTISSA_BITS + 1)).astype(np.int64)
        fractions = 2 * fractions + bits
        mantissas >>= bits
    return (exponents << FRACTION_BITS) + fractions
