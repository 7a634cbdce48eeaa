"""Operations of an integer program in PyTorch: bit-exact with the reference, with gradients.

Quantized values are float32 tensors of integers. Every sum is exact in float32 or float64, and is
rounded as in `ops.integer_arithmetic`. The gradient of a rounding is that of the identity where the
result was not clipped (straight-through estimator; Bengio et al., arXiv 1308.3432).
"""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from tcc.compiler.ir.op import Op
from tcc.compiler.ir.types import Quad, TensorType
from tcc.compiler.ops.conv import Conv
from tcc.compiler.ops.integer import (
    Dequantize,
    QAdd,
    QAvgPool,
    QConv,
    QGlobalAvgPool,
    QMul,
    QPad,
    Quantize,
    RealConv,
    RealGlobalAvgPool,
    Table,
)
from tcc.compiler.ops.integer.base import QuantizedOp
from tcc.compiler.ops.integer_arithmetic import compute_multiplier
from tcc.compiler.support.diagnostics import UnhandledError

LN2 = log(2)
Types = tuple[TensorType, ...]
Tensors = tuple[Tensor, ...]


class Rounding(Function):
    """Round to the nearest integer and clip to two bounds."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, low: int, high: int, exponent: Tensor | None, op: QuantizedOp | None
    ) -> Tensor:
        """Return integers in [low, high]."""
        rounded = torch.round(x)
        inside = (rounded >= low) & (rounded <= high)
        quantized = rounded.clamp_(low, high).add_(0.0)  # turn -0 into 0
        slopes = None if exponent is None else compute_scale_slopes(x, quantized, inside, op)
        ctx.save_for_backward(inside, slopes)
        return quantized

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient where nothing was clipped, and that of the scale's exponent."""
        inside, slopes = ctx.saved_tensors
        exponent_grad = None if slopes is None else (grad * slopes).sum()
        return grad * inside, None, None, exponent_grad, None


class ValueReplacement(Function):
    """Replace a tensor's values by given numbers; the gradient is multiplied by `slope`."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, numbers: Tensor, slope: Tensor) -> Tensor:
        """Return the numbers."""
        ctx.save_for_backward(slope)
        ctx.shape = source.shape
        return numbers.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the source."""
        (slope,) = ctx.saved_tensors
        return (grad * slope).reshape(ctx.shape), None, None


class FixedPointSum(Function):
    """The fixed-point sum of `QAdd`, in int32."""

    @staticmethod
    def forward(ctx: Any, op: QAdd, types: Types, exponent: Tensor | None, *xs: Tensor) -> Tensor:
        """Return the quantized values."""
        factors, shift = op.compute_fixed_point(*types)
        # In int32, because the products exceed the exact integer range of float32.
        total = torch.as_tensor(
            sum(x.to(torch.int32) * m for x, m in zip(xs, factors, strict=True))
        )
        rounded = (total + (1 << (shift - 1))) >> shift
        inside = (rounded >= op.low) & (rounded <= op.high)
        quantized = rounded.clamp_(op.low, op.high).to(torch.float32)
        slopes = (
            None
            if exponent is None
            else compute_scale_slopes(total / 2.0**shift, quantized, inside, op)
        )
        ctx.save_for_backward(inside, slopes)
        ctx.shares = [m / 2.0**shift for m in factors]
        ctx.shapes = [x.shape for x in xs]
        return quantized

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Return each input's gradient, summed where the input was broadcast."""
        inside, slopes = ctx.saved_tensors
        exponent_grad = None if slopes is None else (grad * slopes).sum()
        masked_grad = grad * inside
        shares = zip(ctx.shares, ctx.shapes, strict=True)
        input_grads = ((masked_grad * share).sum_to_size(shape) for share, shape in shares)
        return (None, None, exponent_grad, *input_grads)


class TableLookup(Function):
    """Look up values in a table; the gradient is multiplied by the function's slope."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        table: Tensor,
        slopes: Tensor,
        low: int,
        exponent: Tensor | None,
        scale_slopes: Tensor | None,
    ) -> Tensor:
        """Return the table entries of quantized values; the first entry is for `low`."""
        index = (x - low).to(torch.int64)
        # uint8 takes a quarter of the memory of float32; each table saves it until the backward
        # pass.
        ctx.save_for_backward(
            index.to(torch.uint8), slopes, None if exponent is None else scale_slopes
        )
        return table[index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient times the function's slope at each quantized value."""
        saved_index, slopes, scale_slopes = ctx.saved_tensors
        index = saved_index.to(torch.int64)
        exponent_grad = None if scale_slopes is None else (grad * scale_slopes[index]).sum()
        return grad * slopes[index], None, None, None, exponent_grad, None


def compute_scale_slopes(
    x: Tensor, quantized: Tensor, inside: Tensor, op: QuantizedOp | None
) -> Tensor:
    """Return the change of each real value per doubling of its scale, in quantization steps.

    A real value is scale * quantized. Inside the range, it changes by the rounding error; at an end
    of the range, it moves with that end (Esser et al., arXiv 1902.08153, equation 3). At the bound
    of a fused clamp it does not move, because that bound is a real number.

    Args:
        x: The values before rounding, in quantization steps.
        quantized: The values after rounding and clipping.
        inside: Where nothing was clipped.
        op: The operation, which defines the range.
    """
    assert op is not None
    low, high = op.make_type(()).limits
    at_end = ((quantized == low) | (quantized == high)) & ~inside
    return (quantized * (inside | at_end) - x * inside) * LN2


def run_integer_op(  # noqa: C901, PLR0911
    op: Op,
    types: Types,
    xs: Tensors,
    weights: Tensors,
    *,
    wide: bool,
    exponent: Tensor | None = None,
) -> Tensor:
    """Return the output of an operation of an integer program.

    Args:
        op: The operation.
        types: The types of its inputs, with their scales.
        xs: The inputs (N, *shape).
        weights: Its weights in order; integer weights as float32.
        wide: Whether sums of products need float64 to be exact.
        exponent: Receives the gradient of the output's scale, as a power of two; or None.
    """
    x = xs[0]
    match op:
        case Quantize():
            return _requantize(x / _create_scalar(op.scale, x), op, exponent)
        case Dequantize():
            return x * _create_scalar(types[0].scale or 0, x)
        case QConv(conv=conv):
            weight, scale, bias = weights
            total = _run_convolution(conv, x, (weight, bias), wide)
            factor = _create_scalar(types[0].scale or 0, x) * scale / _create_scalar(op.scale, x)
            return _requantize(total * factor[:, None, None], op, exponent)
        case RealConv(conv=conv):
            weight, factor, bias = weights
            return _run_convolution(conv, x, (weight, bias), wide) * factor[:, None, None]
        case QAdd():
            return _apply_function(FixedPointSum.apply, op, types, exponent, *xs)
        case QMul():
            product = compute_multiplier(types[0], float(types[1].scale or 0), op.infer(*types))
            return _requantize(xs[0] * xs[1] * _create_scalar(float(product), x), op, exponent)
        case QGlobalAvgPool():
            total = _sum_pixels(x) * _create_scalar(float(op.compute_factor(*types)), x)
            return _requantize(total, op, exponent)
        case RealGlobalAvgPool():
            return _sum_pixels(x) * _create_scalar(float(op.compute_factor(*types)), x)
        case QAvgPool(pool=pool):
            ones, factor = weights
            padded = _pad_zeros(x, op.compute_padding(types[0]))
            total = functional.conv2d(padded, ones, stride=pool.step, groups=x.shape[1])
            return _requantize(total * factor, op, exponent)
        case QPad():
            return _pad_channels(x, op)
        case Table():
            return _apply_table(x, types[0], weights[0], op, exponent)
    raise UnhandledError("operation on integers", op.keyword)


def replace_values(source: Tensor, array: NDArray[Any], slope: NDArray[Any] | float) -> Tensor:
    """Return quantized numbers in place of a float tensor; its gradient is multiplied by `slope`.

    Args:
        source: The float tensor that the numbers were rounded from.
        array: The numbers, with as many elements as `source`.
        slope: The factor that the source was multiplied by before rounding.
    """
    numbers = torch.tensor(np.asarray(array, np.float32), device=source.device)
    slope_tensor = torch.tensor(np.asarray(slope, np.float32), device=source.device)
    return _apply_function(ValueReplacement.apply, source, numbers, slope_tensor)


def _apply_function(function: Callable[..., Any], *arguments: Any) -> Tensor:
    output: Tensor = function(*arguments)
    return output


def _create_scalar(number: float, like: Tensor) -> Tensor:
    # A tensor on the device: to divide by a Python number, CUDA multiplies with its rounded
    # inverse.
    return torch.tensor(number, dtype=torch.float32, device=like.device)


def round_straight_through(x: Tensor, low: int, high: int) -> Tensor:
    """Return x rounded and clipped to [low, high], with the gradient of x where not clipped."""
    return _apply_function(Rounding.apply, x, low, high, None, None)


def _requantize(x: Tensor, op: QuantizedOp, exponent: Tensor | None) -> Tensor:
    return _apply_function(Rounding.apply, x, op.low, op.high, exponent, op)


def _run_convolution(conv: Conv, x: Tensor, weights: Tensors, wide: bool) -> Tensor:
    kind = torch.float64 if wide else torch.float32
    padded = _pad_zeros(x, conv.pads).to(kind)
    weight, bias = (tensor.to(kind) for tensor in weights)
    total = functional.conv2d(padded, weight, bias, conv.stride, 0, conv.dilation, conv.groups)
    return total.to(torch.float32)


def _sum_pixels(x: Tensor) -> Tensor:
    # The sum of 8-bit values is exact in float64, and is rounded to float32 once, as in the
    # reference.
    return x.sum((2, 3), keepdim=True, dtype=torch.float64).to(torch.float32)


def _pad_zeros(x: Tensor, padding: Quad) -> Tensor:
    pad_top, pad_left, pad_bottom, pad_right = padding
    return functional.pad(x, (pad_left, pad_right, pad_top, pad_bottom)) if any(padding) else x


def _pad_channels(x: Tensor, op: QPad) -> Tensor:
    border_mask = 1 - _pad_zeros(torch.ones_like(x[:1, :1]), op.padding)
    fill = torch.tensor(op.levels, dtype=x.dtype, device=x.device).reshape(1, -1, 1, 1)
    return _pad_zeros(x, op.padding) + border_mask * fill


def _apply_table(
    x: Tensor, tensor_type: TensorType, table: Tensor, op: Table, exponent: Tensor | None
) -> Tensor:
    min_input, _ = tensor_type.limits
    real = (np.arange(256) + min_input) * np.float64(tensor_type.scale or 0)
    scaled = op.function.evaluate(real) / np.float64(op.scale)
    rounded = np.rint(scaled)
    inside = (rounded >= op.low) & (rounded <= op.high)
    # Slopes from the entries before rounding: afterwards, most differences would be 0 or 1.
    slopes = torch.as_tensor(np.gradient(scaled) * inside, dtype=torch.float32, device=x.device)
    min_output = op.infer(tensor_type).limits[0]
    scale_slopes = compute_scale_slopes(
        torch.as_tensor(scaled),
        torch.as_tensor(rounded.clip(op.low, op.high)),
        torch.as_tensor(inside),
        op,
    ).to(slopes)
    return _apply_function(
        TableLookup.apply, x, table + min_output, slopes, min_input, exponent, scale_slopes
    )
