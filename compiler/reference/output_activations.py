"""Activation functions of a network's outputs, in float64."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.types import OutputActivation

Float64 = NDArray[np.float64]


def apply_activation(
    activation: OutputActivation, raw: "NDArray[np.floating]", temperature: float = 1.0
) -> Float64:
    """Return the probabilities of raw outputs; classes are the first axis.

    `softmax` over that axis, `sigmoid` of each value, or `none` for unchanged values, after
    division by the temperature.

    Args:
        activation: The function.
        raw: Raw outputs (classes, ...).
        temperature: Divisor of the raw outputs.
    """
    logits = raw.astype(np.float64) / temperature
    match activation:
        case "softmax":
            with np.errstate(invalid="ignore"):  # infinite raw values give NaN, as intended
                # The largest becomes 1: no exponential overflows, and the ratio is the same.
                powers = np.exp(logits - logits.max(axis=0, keepdims=True))
                probabilities: Float64 = powers / powers.sum(axis=0, keepdims=True)
            return probabilities
        case "sigmoid":
            exponentials = np.exp(-np.abs(logits))  # at most 1, so that nothing overflows
            return np.where(logits >= 0, 1.0, exponentials) / (1.0 + exponentials)
        case "none":
            return logits
        case _:
            assert_never(activation)
