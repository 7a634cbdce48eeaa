"""The activations as functions of numbers, for tables of their values."""

import math

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ops import (
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Op,
    Relu,
    Relu6,
    Scale,
    Sigmoid,
    Silu,
    Tanh,
)

Values = NDArray[np.float64]


def known(op: Op) -> bool:
    """Whether an operation is a function of one number that has a table."""
    kinds = (
        Gelu, HardSigmoid, HardSwish, LeakyRelu, Relu, Relu6, Scale, Sigmoid, Silu, Tanh,
    )  # fmt: skip
    return isinstance(op, kinds)


def apply(op: Op, x: Values) -> Values:  # noqa: C901, PLR0911 - a case an activation
    """Return an activation of float64 numbers."""
    match op:
        case Relu():
            return np.asarray(np.maximum(x, 0))
        case Relu6():
            return np.asarray(np.clip(x, 0, 6))
        case LeakyRelu(slope=slope):
            return np.asarray(np.where(x > 0, x, slope * x))
        case Scale(factor=factor, offset=offset):
            return x * factor + offset
        case Sigmoid():
            return _sigmoid(x)
        case Silu():
            return x * _sigmoid(x)
        case Tanh():
            return np.asarray(np.tanh(x))
        case Gelu():
            erf = np.array([math.erf(v) for v in (x / math.sqrt(2)).ravel()])
            return np.asarray(x / 2 * (1 + erf.reshape(x.shape)))
        case HardSigmoid():
            return _hard_sigmoid(x)
        case HardSwish():
            return x * _hard_sigmoid(x)
    raise AssertionError(op)


def _sigmoid(x: Values) -> Values:
    small = np.exp(-np.abs(x))  # at most 1, so that nothing overflows
    return np.asarray(np.where(x >= 0, 1.0, small) / (1.0 + small))


def _hard_sigmoid(x: Values) -> Values:
    return np.asarray(np.clip(x / 6 + 0.5, 0, 1))
