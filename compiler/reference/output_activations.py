"""What is applied to a network's raw outputs, in float64."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.types import OutputActivation

Values = NDArray[np.float64]


def applied(
    activation: OutputActivation, raw: "NDArray[np.floating]", temperature: float = 1.0
) -> Values:
    """Return probabilities of raw outputs; classes are the first axis.

    `softmax` over that axis, `sigmoid` of each value, `none` the values as they are, each of what
    the temperature divides.

    Args:
        activation: The function.
        raw: Raw outputs (classes, ...).
        temperature: What they are divided by first.
    """
    values = raw.astype(np.float64) / temperature
    match activation:
        case "softmax":
            with np.errstate(invalid="ignore"):  # infinite raw values give NaN, as they should
                # The largest becomes 1: no exponential overflows, and the quotient is the same.
                powers = np.exp(values - values.max(axis=0, keepdims=True))
                shares: Values = powers / powers.sum(axis=0, keepdims=True)
            return shares
        case "sigmoid":
            small = np.exp(-np.abs(values))  # at most 1, so that nothing overflows
            return np.where(values >= 0, 1.0, small) / (1.0 + small)
        case "none":
            return values
        case _:
            assert_never(activation)
