"""Operations of an integer program in PyTorch: bit-exact with the reference, with gradients.

Quantized values are float32 tensors of integers. Every sum is exact in float32 or float64, and is
rounded as in `ops.integer_arithmetic`. The gradient of a rounding is that of the identity where the
result was not clipped (straight-through estimator; Bengio et al., arXiv 1308.3432).
"""

from collections.abc import Callable
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

Types = tuple[TensorType, ...]
Tensors = tuple[Tensor, ...]


class Rounding(Function):
    """Round to the nearest integer and clip to two bounds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: int, high: int) -> Tensor:
        """Return integers in [low, high]."""
        rounded = torch.round(x)
        ctx.save_for_backward((rounded >= low) & (rounded <= high))
        return rounded.clamp_(low, high).add_(0.0)  # turn -0 into 0

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient where nothing was clipped."""
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None


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
    def forward(ctx: Any, op: QAdd, types: Types, *xs: Tensor) -> Tensor:
        """Return the quantized values."""
        factors, shift = op.compute_fixed_point(*types)
        # In int32, because the products exceed the exact integer range of float32.
        total = sum(x.to(torch.int32) * m for x, m in zip(xs, factors, strict=True))
        quantized = (torch.as_tensor(total) + (1 << (shift - 1))) >> shift
        ctx.save_for_backward((quantized >= op.low) & (quantized <= op.high))
        ctx.shares = [m / 2.0**shift for m in factors]
        ctx.shapes = [x.shape for x in xs]
        return quantized.clamp_(op.low, op.high).to(torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Return each input's gradient, summed where the input was broadcast."""
        (inside,) = ctx.saved_tensors
        masked_grad = grad * inside
        shares = zip(ctx.shares, ctx.shapes, strict=True)
        return (None, None, *((masked_grad * share).sum_to_size(shape) for share, shape in shares))


class TableLookup(Function):
    """Look up values in a table; the gradient is multiplied by the function's slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, slopes: Tensor, low: int) -> Tensor:
        """Return the table entries of quantized values; the first entry is for `low`."""
        index = (x - low).to(torch.int64)
        # uint8 takes a quarter of the memory of float32; each table saves it until the backward
        # pass.
        ctx.save_for_backward(index.to(torch.uint8), slopes)
        return table[index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient times the function's slope at each quantized value."""
        index, slopes = ctx.saved_tensors
        return grad * slopes[index.to(torch.int64)], None, None, None


def run_integer_op(op: Op, types: Types, xs: Tensors, weights: Tensors, *, wide: bool) -> Tensor:  # noqa: C901, PLR0911
    """Return the output of an operation of an integer program.

    Args:
        op: The operation.
        types: The types of its inputs, with their scales.
        xs: The inputs (N, *shape).
        weights: Its weights in order; integer weights as float32.
        wide: Whether sums of products need float64 to be exact.
    """
    x = xs[0]
    match op:
        case Quantize():
            return _requantize(x / _create_scalar(op.scale, x), op)
        case Dequantize():
            return x * _create_scalar(types[0].scale or 0, x)
        case QConv(conv=conv):
            weight, scale, bias = weights
            total = _run_convolution(conv, x, (weight, bias), wide)
            factor = _create_scalar(types[0].scale or 0, x) * scale / _create_scalar(op.scale, x)
            return _requantize(total * factor[:, None, None], op)
        case RealConv(conv=conv):
            weight, factor, bias = weights
            return _run_convolution(conv, x, (weight, bias), wide) * factor[:, None, None]
        case QAdd():
            return _apply_function(FixedPointSum.apply, op, types, *xs)
        case QMul():
            product = compute_multiplier(types[0], float(types[1].scale or 0), op.infer(*types))
            return _requantize(xs[0] * xs[1] * _create_scalar(float(product), x), op)
        case QGlobalAvgPool():
            return _requantize(
                _sum_pixels(x) * _create_scalar(float(op.compute_factor(*types)), x), op
            )
        case RealGlobalAvgPool():
            return _sum_pixels(x) * _create_scalar(float(op.compute_factor(*types)), x)
        case QAvgPool(pool=pool):
            ones, factor = weights
            padded = _pad_zeros(x, op.compute_padding(types[0]))
            total = functional.conv2d(padded, ones, stride=pool.step, groups=x.shape[1])
            return _requantize(total * factor, op)
        case QPad():
            return _pad_channels(x, op)
        case Table():
            return _apply_table(x, types[0], weights[0], op)
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
    return _apply_function(Rounding.apply, x, low, high)


def _requantize(x: Tensor, op: QuantizedOp) -> Tensor:
    return round_straight_through(x, op.low, op.high)


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


def _apply_table(x: Tensor, tensor_type: TensorType, table: Tensor, op: Table) -> Tensor:
    min_input, _ = tensor_type.limits
    real = (np.arange(256) + min_input) * np.float64(tensor_type.scale or 0)
    scaled = op.function.evaluate(real) / np.float64(op.scale)
    inside = (np.rint(scaled) >= op.low) & (np.rint(scaled) <= op.high)
    # Slopes from the entries before rounding: afterwards, most differences would be 0 or 1.
    slopes = torch.as_tensor(np.gradient(scaled) * inside, dtype=torch.float32, device=x.device)
    min_output = op.infer(tensor_type).limits[0]
    return _apply_function(TableLookup.apply, x, table + min_output, slopes, min_input)
