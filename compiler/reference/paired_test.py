"""Whether two networks differ by more than chance, judged on the same images."""

from dataclasses import dataclass
from math import comb, erfc, sqrt

import numpy as np
from numpy.typing import NDArray

EXACT = 1000
"""Most images of which one network alone is right whose probability is counted out."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """McNemar's test: images that one of two alone has right, and the probability `p` of that.

    It is that of a difference at least so large where both are right equally often.
    """

    first_only: int
    second_only: int
    p: float
    exact: bool


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedTest:
    """Return McNemar's test (Psychometrika 12, 1947) of which images each network has right.

    Exact, by the binomial distribution, up to `EXACT` images that tell them apart; chi squared with
    Edwards's correction beyond.
    """
    # Only images that one of the two has right tell them apart.
    a, b = int((first & ~second).sum()), int((second & ~first).sum())
    total = a + b
    if total <= EXACT:
        tail = sum(comb(total, k) for k in range(min(a, b) + 1))
        # Two-sided; twice the smaller tail may exceed 1 where both have equally many.
        return PairedTest(a, b, float(min(1, 2 * tail / 2**total)), True)
    chi = max(0, abs(a - b) - 1) / sqrt(total)
    return PairedTest(a, b, erfc(chi / sqrt(2)), False)
