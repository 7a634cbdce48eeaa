"""Operations that compute each element from one element of each operand: what can be fused.

To add one: its line in `POINTWISE`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import sqrt
from operator import add, mul
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tcc.compiler.ir.types import TensorType
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
    integer_arithmetic,
)
from tcc.compiler.ops.integer import Dequantize, QAdd, QMul, Quantize, Quantized

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors = Sequence[NDArray[np.generic]]

Expr = Any


Types = Sequence[TensorType]


@dataclass(frozen=True, slots=True)
class Requantize:
    """clamp(rint(float32(x) * factor), low, high) of an int32 sum: how integer layers end."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class ToReal:
    """float32(x) * factor of an int32 sum."""


PointwiseOp = Op | Requantize | ToReal


class ElementFunctions(Protocol):
    """The functions of an element that kernels are written with."""

    def constant(self, value: float) -> Expr: ...  # noqa: D102
    def maximum(self, x: Expr, low: float) -> Expr: ...  # noqa: D102
    def clamp(self, x: Expr, low: float, high: float) -> Expr: ...  # noqa: D102
    def positive(self, x: Expr, then: Expr, otherwise: Expr) -> Expr: ...  # noqa: D102
    def sigmoid(self, x: Expr) -> Expr: ...  # noqa: D102
    def tanh(self, x: Expr) -> Expr: ...  # noqa: D102
    def erf(self, x: Expr) -> Expr: ...  # noqa: D102
    def real(self, x: Expr) -> Expr: ...  # noqa: D102
    def nearest(self, x: Expr, low: int, high: int) -> Expr: ...  # noqa: D102
    def shifted(self, x: Expr, bits: Expr, low: int, high: int) -> Expr: ...  # noqa: D102


def _as_they_are(_op: PointwiseOp, _types: Types, tensors: "Tensors") -> "Tensors":
    return tensors


@dataclass(frozen=True, slots=True)
class Pointwise:
    """`value` gives an element from the inputs' elements, then the weights' elements.

    `weights` makes, of the types of the op's inputs and its weight tensors, what the kernel reads:
    one value a channel, or a single one without axes.
    """

    value: "Callable[..., Expr]"
    weights: "Callable[[Any, Types, Tensors], Tensors]" = _as_they_are


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
    # A product: ARMv7's NEON has no division.
    return m.clamp(x * m.constant(1 / 6) + m.constant(0.5), 0.0, 1.0)


def _hard_swish(m: ElementFunctions, op: HardSwish, x: Expr) -> Expr:
    return x * _hard_sigmoid(m, op, x)


def _gelu(m: ElementFunctions, _op: Gelu, x: Expr) -> Expr:
    # by erf, as PyTorch's default; the tanh formula differs from it by up to 5e-4
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


def _requantized(m: ElementFunctions, op: Requantize | QMul, x: Expr, *others: Expr) -> Expr:
    *factors, scale = others
    return m.nearest(m.real(reduce(mul, factors, x)) * scale, op.low, op.high)


def _real(m: ElementFunctions, _op: ToReal | Dequantize, x: Expr, factor: Expr) -> Expr:
    return m.real(x) * factor


def _levels(m: ElementFunctions, op: Quantize, x: Expr, scale: Expr) -> Expr:
    # A division, as in the reference: a product with the inverse rounds otherwise
    # (docs/decisions/0019-integers-on-processors.md).
    return m.nearest(x / scale, op.low, op.high)


def _fixed_point(m: ElementFunctions, op: QAdd, *values: Expr) -> Expr:
    """Return the sum in int32, as `QAdd` says; the rounding term comes with the shift."""
    count = (len(values) - 2) // 2
    xs, factors, (half, bits) = values[:count], values[count:-2], values[-2:]
    return m.shifted(reduce(add, map(mul, xs, factors)) + half, bits, op.low, op.high)


def _multipliers(op: QAdd, types: Types, _tensors: "Tensors") -> "Tensors":
    factors, shift = op.fixed_point(*types)
    return [np.array(n, np.int32) for n in (*factors, 1 << (shift - 1), shift)]


def _product_scale(op: QMul, types: Types, _tensors: "Tensors") -> "Tensors":
    first, second = types
    y = op.infer(*types)
    return [integer_arithmetic.multiplier(first, float(second.scale or 0), y)]


def _own_scale(op: Quantize, _types: Types, _tensors: "Tensors") -> "Tensors":
    return [np.array(op.scale, np.float32)]


def _input_scale(_op: Dequantize, types: Types, _tensors: "Tensors") -> "Tensors":
    return [np.array(types[0].scale, np.float32)]


def _folded(op: BatchNorm, _types: Types, tensors: "Tensors") -> "Tensors":
    """Return scale and shift of a batch norm, computed in float64."""
    # Once, while compiling, so that only the products and sums of the device are rounded to
    # float32.
    weight, bias, mean, var = (t.astype(np.float64) for t in tensors)
    scale = weight / np.sqrt(var + op.eps)
    return scale.astype(np.float32), (bias - mean * scale).astype(np.float32)


def general(op: Op) -> Op:
    """Return an op without what its kernel reads from memory, so that kernels are shared."""
    match op:
        case Quantized():
            # A scale is an operand in memory: layers that differ in it alone are one kernel.
            return replace(op, scale=1.0)
        case _:
            return op


POINTWISE: Mapping[type, Pointwise] = {
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
    Requantize: Pointwise(_requantized),
    ToReal: Pointwise(_real),
    QAdd: Pointwise(_fixed_point, _multipliers),
    QMul: Pointwise(_requantized, _product_scale),
    Quantize: Pointwise(_levels, _own_scale),
    Dequantize: Pointwise(_real, _input_scale),
}
