"""Element-wise operations, which can be fused into other kernels.

To add an operation, add a line to `POINTWISE`.
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
from tcc.compiler.ops.integer import Dequantize, QAdd, QMul, Quantize, QuantizedOp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors = Sequence[NDArray[np.generic]]

Expr = Any


Types = Sequence[TensorType]


@dataclass(frozen=True, slots=True)
class Requantize:
    """clamp(rint(float32(x) * factor), low, high) of an int32 sum: the end of int8 layers."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class DequantizeSum:
    """float32(x) * factor of an int32 sum."""


PointwiseOp = Op | Requantize | DequantizeSum


class ElementFunctions(Protocol):
    """The functions on one element that kernels are written with."""

    def create_constant(self, number: float) -> Expr: ...  # noqa: D102
    def compute_maximum(self, x: Expr, low: float) -> Expr: ...  # noqa: D102
    def clamp(self, x: Expr, low: float, high: float) -> Expr: ...  # noqa: D102
    def select_positive(self, x: Expr, then: Expr, otherwise: Expr) -> Expr: ...  # noqa: D102
    def compute_sigmoid(self, x: Expr) -> Expr: ...  # noqa: D102
    def compute_tanh(self, x: Expr) -> Expr: ...  # noqa: D102
    def compute_erf(self, x: Expr) -> Expr: ...  # noqa: D102
    def to_float(self, x: Expr) -> Expr: ...  # noqa: D102
    def round_clamped(self, x: Expr, low: int, high: int) -> Expr: ...  # noqa: D102
    def shift_clamped(self, x: Expr, bits: Expr, low: int, high: int) -> Expr: ...  # noqa: D102


def _keep_tensors(_op: PointwiseOp, _types: Types, tensors: "Tensors") -> "Tensors":
    return tensors


@dataclass(frozen=True, slots=True)
class Pointwise:
    """`compute` returns an element from the elements of inputs, then of weights.

    `weights` returns the kernel's operands, from the types of the op's inputs and its weight
    tensors: one value per channel, or a scalar.
    """

    compute: "Callable[..., Expr]"
    weights: "Callable[[Any, Types, Tensors], Tensors]" = _keep_tensors


def _apply_relu(m: ElementFunctions, _op: Relu, x: Expr) -> Expr:
    return m.compute_maximum(x, 0.0)


def _apply_relu6(m: ElementFunctions, _op: Relu6, x: Expr) -> Expr:
    return m.clamp(x, 0.0, 6.0)


def _apply_leaky_relu(m: ElementFunctions, op: LeakyRelu, x: Expr) -> Expr:
    return m.select_positive(x, x, x * m.create_constant(op.slope))


def _apply_sigmoid(m: ElementFunctions, _op: Sigmoid, x: Expr) -> Expr:
    return m.compute_sigmoid(x)


def _apply_tanh(m: ElementFunctions, _op: Tanh, x: Expr) -> Expr:
    return m.compute_tanh(x)


def _apply_silu(m: ElementFunctions, _op: Silu, x: Expr) -> Expr:
    return x * m.compute_sigmoid(x)


def _apply_hard_sigmoid(m: ElementFunctions, _op: HardSigmoid | HardSwish, x: Expr) -> Expr:
    # A product, because NEON on ARMv7 has no division.
    return m.clamp(x * m.create_constant(1 / 6) + m.create_constant(0.5), 0.0, 1.0)


def _apply_hard_swish(m: ElementFunctions, op: HardSwish, x: Expr) -> Expr:
    return x * _apply_hard_sigmoid(m, op, x)


def _apply_gelu(m: ElementFunctions, _op: Gelu, x: Expr) -> Expr:
    # With erf, PyTorch's default; the tanh formula differs by up to 5e-4.
    return (
        x
        * m.create_constant(0.5)
        * (m.create_constant(1.0) + m.compute_erf(x * m.create_constant(sqrt(0.5))))
    )


def _apply_scale(m: ElementFunctions, op: Scale, x: Expr) -> Expr:
    return x * m.create_constant(op.factor) + m.create_constant(op.offset)


def _apply_identity(_m: ElementFunctions, _op: Op, x: Expr) -> Expr:
    return x


def _apply_sum(_m: ElementFunctions, _op: Add, *xs: Expr) -> Expr:
    return reduce(add, xs)


def _apply_product(_m: ElementFunctions, _op: Mul, *xs: Expr) -> Expr:
    return reduce(mul, xs)


def _apply_scale_shift(_m: ElementFunctions, _op: Op, x: Expr, scale: Expr, shift: Expr) -> Expr:
    return x * scale + shift


def _requantize(m: ElementFunctions, op: Requantize | QMul, x: Expr, *operands: Expr) -> Expr:
    *factors, scale = operands
    return m.round_clamped(m.to_float(reduce(mul, factors, x)) * scale, op.low, op.high)


def _dequantize(
    m: ElementFunctions, _op: DequantizeSum | Dequantize, x: Expr, factor: Expr
) -> Expr:
    return m.to_float(x) * factor


def _quantize(m: ElementFunctions, op: Quantize, x: Expr, scale: Expr) -> Expr:
    # A division, as in the reference: multiplying by the inverse rounds differently
    # (docs/decisions/0019-integers-on-processors.md).
    return m.round_clamped(x / scale, op.low, op.high)


def _apply_fixed_point_sum(m: ElementFunctions, op: QAdd, *operands: Expr) -> Expr:
    """Return the sum in int32, as `QAdd` defines it; the rounding term is an operand."""
    count = (len(operands) - 2) // 2
    xs, factors, (half, bits) = operands[:count], operands[count:-2], operands[-2:]
    return m.shift_clamped(reduce(add, map(mul, xs, factors)) + half, bits, op.low, op.high)


def _compute_multipliers(op: QAdd, types: Types, _tensors: "Tensors") -> "Tensors":
    factors, shift = op.compute_fixed_point(*types)
    return [np.array(n, np.int32) for n in (*factors, 1 << (shift - 1), shift)]


def _compute_product_scale(op: QMul, types: Types, _tensors: "Tensors") -> "Tensors":
    first_type, second_type = types
    output_type = op.infer(*types)
    return [
        integer_arithmetic.compute_multiplier(
            first_type, float(second_type.scale or 0), output_type
        )
    ]


def _get_scale(op: Quantize, _types: Types, _tensors: "Tensors") -> "Tensors":
    return [np.array(op.scale, np.float32)]


def _get_input_scale(_op: Dequantize, types: Types, _tensors: "Tensors") -> "Tensors":
    return [np.array(types[0].scale, np.float32)]


def _fold_batch_norm(op: BatchNorm, _types: Types, tensors: "Tensors") -> "Tensors":
    """Return scale and shift of a batch norm, computed in float64."""
    # In float64 at compile time, so that only the device's product and sum round to float32.
    weight, bias, mean, var = (t.astype(np.float64) for t in tensors)
    scale = weight / np.sqrt(var + op.eps)
    return scale.astype(np.float32), (bias - mean * scale).astype(np.float32)


def canonicalize_op(op: Op) -> Op:
    """Return an op without values that its kernel reads from memory, to share kernels."""
    match op:
        case QuantizedOp():
            # The scale is an operand in memory: layers that differ only in it share a kernel.
            return replace(op, scale=1.0)
        case _:
            return op


POINTWISE: Mapping[type, Pointwise] = {
    Relu: Pointwise(_apply_relu),
    Relu6: Pointwise(_apply_relu6),
    LeakyRelu: Pointwise(_apply_leaky_relu),
    Sigmoid: Pointwise(_apply_sigmoid),
    Tanh: Pointwise(_apply_tanh),
    Silu: Pointwise(_apply_silu),
    HardSigmoid: Pointwise(_apply_hard_sigmoid),
    HardSwish: Pointwise(_apply_hard_swish),
    Identity: Pointwise(_apply_identity),
    Dropout: Pointwise(_apply_identity),
    StochasticDepth: Pointwise(_apply_identity),
    Gelu: Pointwise(_apply_gelu),
    Scale: Pointwise(_apply_scale),
    Add: Pointwise(_apply_sum),
    Mul: Pointwise(_apply_product),
    ScaleShift: Pointwise(_apply_scale_shift),
    BatchNorm: Pointwise(_apply_scale_shift, _fold_batch_norm),
    Requantize: Pointwise(_requantize),
    DequantizeSum: Pointwise(_dequantize),
    QAdd: Pointwise(_apply_fixed_point_sum, _compute_multipliers),
    QMul: Pointwise(_requantize, _compute_product_scale),
    Quantize: Pointwise(_quantize, _get_scale),
    Dequantize: Pointwise(_dequantize, _get_input_scale),
}
