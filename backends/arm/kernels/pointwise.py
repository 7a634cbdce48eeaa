"""Operations that compute each element from one element of each operand: what can be fused.

To add one: its line in `POINTWISE`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import sqrt
from operator import add, mul
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tcc.compiler.ops import (
    Add,
    BatchNorm,
    Dropout,
    Gelu,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Mul,
    Op,
    Relu,
    Relu6,
    Scale,
    ScaleShift,
    Sigmoid,
    Silu,
    StochasticDepth,
    Tanh,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors = Sequence[NDArray[np.float32]]

Expr = Any


class ElementFunctions(Protocol):
    """The functions of an element that kernels are written with."""

    def constant(self, value: float) -> Expr: ...  # noqa: D102
    def maximum(self, x: Expr, low: float) -> Expr: ...  # noqa: D102
    def clamp(self, x: Expr, low: float, high: float) -> Expr: ...  # noqa: D102
    def positive(self, x: Expr, then: Expr, otherwise: Expr) -> Expr: ...  # noqa: D102
    def sigmoid(self, x: Expr) -> Expr: ...  # noqa: D102
    def tanh(self, x: Expr) -> Expr: ...  # noqa: D102
    def erf(self, x: Expr) -> Expr: ...  # noqa: D102


def _as_they_are(_op: Op, tensors: "Tensors") -> "Tensors":
    return tensors


@dataclass(frozen=True, slots=True)
class Pointwise:
    """`value` gives an element from the inputs' elements, then the weights' elements.

    `weights` makes, of the op's weight tensors, what the kernel reads: one value a channel.
    """

    value: "Callable[..., Expr]"
    weights: "Callable[[Any, Tensors], Tensors]" = _as_they_are


def _relu(m: ElementFunctions, _op: Relu, x: Expr) -> Expr:
    return m.maximum(x, 0.0)


def _relu6(m: ElementFunctions, _op: Relu6, x: Expr) -> Expr:
    return m.clamp(x, 0.0, 6.0)


def _leaky_relu(m: ElementFunctions, op: LeakyRelu, x: Expr) -> Expr:
    return m.positive(x, x, x * m.constant(op.slope))


def _sigmoid(m: ElementFunctions, _op: Sigmoid, x: Expr) -> Expr:
    return m.sigmoid(x)


def _tanh(m: ElementFunctions, _op: Tanh, x: Expr) -> Expr:
    return m.tanh(x)


def _silu(m: ElementFunctions, _op: Silu, x: Expr) -> Expr:
    return x * m.sigmoid(x)


def _hard_sigmoid(m: ElementFunctions, _op: HardSigmoid | HardSwish, x: Expr) -> Expr:
    return m.clamp(x * m.constant(1 / 6) + m.constant(0.5), 0.0, 1.0)


def _hard_swish(m: ElementFunctions, op: HardSwish, x: Expr) -> Expr:
    return x * _hard_sigmoid(m, op, x)


def _gelu(m: ElementFunctions, _op: Gelu, x: Expr) -> Expr:
    return x * m.constant(0.5) * (m.constant(1.0) + m.erf(x * m.constant(sqrt(0.5))))


def _scale(m: ElementFunctions, op: Scale, x: Expr) -> Expr:
    return x * m.constant(op.factor) + m.constant(op.offset)


def _identity(_m: ElementFunctions, _op: Op, x: Expr) -> Expr:
    return x


def _sum(_m: ElementFunctions, _op: Add, *xs: Expr) -> Expr:
    return reduce(add, xs)


def _product(_m: ElementFunctions, _op: Mul, *xs: Expr) -> Expr:
    return reduce(mul, xs)


def _scale_shift(_m: ElementFunctions, _op: Op, x: Expr, scale: Expr, shift: Expr) -> Expr:
    return x * scale + shift


def _folded(op: BatchNorm, tensors: "Tensors") -> "Tensors":
    """Return scale and shift of a batch norm, computed in float64."""
    weight, bias, mean, var = (t.astype(np.float64) for t in tensors)
    scale = weight / np.sqrt(var + op.eps)
    return scale.astype(np.float32), (bias - mean * scale).astype(np.float32)


POINTWISE: Mapping[type[Op], Pointwise] = {
    Relu: Pointwise(_relu),
    Relu6: Pointwise(_relu6),
    LeakyRelu: Pointwise(_leaky_relu),
    Sigmoid: Pointwise(_sigmoid),
    Tanh: Pointwise(_tanh),
    Silu: Pointwise(_silu),
    HardSigmoid: Pointwise(_hard_sigmoid),
    HardSwish: Pointwise(_hard_swish),
    Identity: Pointwise(_identity),
    Dropout: Pointwise(_identity),
    StochasticDepth: Pointwise(_identity),
    Gelu: Pointwise(_gelu),
    Scale: Pointwise(_scale),
    Add: Pointwise(_sum),
    Mul: Pointwise(_product),
    ScaleShift: Pointwise(_scale_shift),
    BatchNorm: Pointwise(_scale_shift, _folded),
}
