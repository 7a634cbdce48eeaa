"""The operations of an integer program in PyTorch: the reference's levels, and gradients.

Levels are float32 tensors of whole numbers. Every sum is exact, as float32 or float64 holds it, and
is rounded as `ops.integer_arithmetic` says. Backwards, a rounding counts as the identity where its
result was not clamped (Bengio et al., arXiv 1308.3432, called straight-through).
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
from tcc.compiler.ops.integer.base import Quantized
from tcc.compiler.ops.integer_arithmetic import multiplier
from tcc.compiler.support.diagnostics import UnhandledError

Types = tuple[TensorType, ...]
Tensors = tuple[Tensor, ...]


class Rounding(Function):
    """rint, kept within two bounds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: int, high: int) -> Tensor:
        """Return whole numbers in [low, high]."""
        found = torch.round(x)
        ctx.save_for_backward((found >= low) & (found <= high))
        return found.clamp_(low, high).add_(0.0)  # no integer is -0

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient where nothing was clamped."""
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None


class Standing(Function):
    """Given numbers in the place of others; backwards, these times `slope`."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        """Return the value."""
        ctx.save_for_backward(slope)
        ctx.shape = source.shape
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the source."""
        (slope,) = ctx.saved_tensors
        return (grad * slope).reshape(ctx.shape), None, None


class FixedPointSum(Function):
    """The sum of `QAdd`, in int32."""

    @staticmethod
    def forward(ctx: Any, op: QAdd, types: Types, *xs: Tensor) -> Tensor:
        """Return the levels."""
        factors, shift = op.fixed_point(*types)
        # In whole numbers: products of 8-bit levels and the factors pass what float32 holds
        # exactly.
        total = sum(x.to(torch.int32) * m for x, m in zip(xs, factors, strict=True))
        found = (torch.as_tensor(total) + (1 << (shift - 1))) >> shift
        ctx.save_for_backward((found >= op.low) & (found <= op.high))
        ctx.shares = [m / 2.0**shift for m in factors]
        ctx.shapes = [x.shape for x in xs]
        return found.clamp_(op.low, op.high).to(torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Return each input's share, summed where it was broadcast."""
        (inside,) = ctx.saved_tensors
        kept = grad * inside
        shares = zip(ctx.shares, ctx.shapes, strict=True)
        return (None, None, *((kept * share).sum_to_size(shape) for share, shape in shares))


class TableEntry(Function):
    """An entry of a table; backwards, its slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, entries: Tensor, slopes: Tensor, low: int) -> Tensor:
        """Return the entries of levels from `low` on."""
        index = (x - low).to(torch.int64)
        # A quarter of the memory of the float levels, which are kept for every table until the
        # gradient is back.
        ctx.save_for_backward(index.to(torch.uint8), slopes)
        return entries[index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient by the function's slope at each level."""
        index, slopes = ctx.saved_tensors
        return grad * slopes[index.to(torch.int64)], None, None, None


def integer(op: Op, types: Types, xs: Tensors, own: Tensors, *, wide: bool) -> Tensor:  # noqa: C901, PLR0911
    """Return the output of an operation of an integer program.

    Args:
        op: The operation.
        types: Those of its inputs, with their scales.
        xs: The inputs (N, *shape).
        own: Its weights in order, whole numbers in float32 where they are integers.
        wide: Whether sums of products need float64 to be exact.
    """
    x = xs[0]
    match op:
        case Quantize():
            return _levels(x / _number(op.scale, x), op)
        case Dequantize():
            return x * _number(types[0].scale or 0, x)
        case QConv(conv=conv):
            weight, scale, bias = own
            total = _sums(conv, x, (weight, bias), wide)
            factor = _number(types[0].scale or 0, x) * scale / _number(op.scale, x)
            return _levels(total * factor[:, None, None], op)
        case RealConv(conv=conv):
            weight, factor, bias = own
            return _sums(conv, x, (weight, bias), wide) * factor[:, None, None]
        case QAdd():
            return _given(FixedPointSum.apply, op, types, *xs)
        case QMul():
            product = multiplier(types[0], float(types[1].scale or 0), op.infer(*types))
            return _levels(xs[0] * xs[1] * _number(float(product), x), op)
        case QGlobalAvgPool():
            return _levels(_total(x) * _number(float(op.factor(*types)), x), op)
        case RealGlobalAvgPool():
            return _total(x) * _number(float(op.factor(*types)), x)
        case QAvgPool(pool=pool):
            ones, factor = own
            padded = _bordered(x, op.padding(types[0]))
            total = functional.conv2d(padded, ones, stride=pool.step, groups=x.shape[1])
            return _levels(total * factor, op)
        case QPad():
            return _border(x, op)
        case Table():
            return _looked_up(x, types[0], own[0], op)
    raise UnhandledError("operation on integers", op.word)


def standing(source: Tensor, value: NDArray[Any], slope: NDArray[Any] | float) -> Tensor:
    """Return numbers that stand in a float tensor's place, whose gradient is theirs times `slope`.

    Args:
        source: The float tensor that they were rounded from.
        value: The numbers, of any shape of as many elements.
        slope: What the source's numbers are multiplied by before they are rounded.
    """
    numbers = torch.tensor(np.asarray(value, np.float32), device=source.device)
    rise = torch.tensor(np.asarray(slope, np.float32), device=source.device)
    return _given(Standing.apply, source, numbers, rise)


def _given(function: Callable[..., Any], *arguments: Any) -> Tensor:
    found: Tensor = function(*arguments)
    return found


def _number(value: float, like: Tensor) -> Tensor:
    # A tensor on the device: by a plain number, CUDA multiplies with its rounded inverse.
    return torch.tensor(value, dtype=torch.float32, device=like.device)


def rounded(x: Tensor, low: int, high: int) -> Tensor:
    """Return rint(x) within [low, high], whose gradient is that of x where nothing was clamped."""
    return _given(Rounding.apply, x, low, high)


def _levels(x: Tensor, op: Quantized) -> Tensor:
    return rounded(x, op.low, op.high)


def _sums(conv: Conv, x: Tensor, own: Tensors, wide: bool) -> Tensor:
    kind = torch.float64 if wide else torch.float32
    padded = _bordered(x, conv.pads).to(kind)
    weight, bias = (tensor.to(kind) for tensor in own)
    total = functional.conv2d(padded, weight, bias, conv.stride, 0, conv.dilation, conv.groups)
    return total.to(torch.float32)


def _total(x: Tensor) -> Tensor:
    # The sum of 8-bit levels is exact in float64 for any map; it is rounded to float32 once, as the
    # reference does.
    return x.sum((2, 3), keepdim=True, dtype=torch.float64).to(torch.float32)


def _bordered(x: Tensor, padding: Quad) -> Tensor:
    top, left, bottom, right = padding
    return functional.pad(x, (left, right, top, bottom)) if any(padding) else x


def _border(x: Tensor, op: QPad) -> Tensor:
    outside = 1 - _bordered(torch.ones_like(x[:1, :1]), op.padding)
    fill = torch.tensor(op.levels, dtype=x.dtype, device=x.device).reshape(1, -1, 1, 1)
    return _bordered(x, op.padding) + outside * fill


def _looked_up(x: Tensor, kind: TensorType, entries: Tensor, op: Table) -> Tensor:
    smallest, _ = kind.limits
    real = (np.arange(256) + smallest) * np.float64(kind.scale or 0)
    steps = op.function.float64(real) / np.float64(op.scale)
    inside = (np.rint(steps) >= op.low) & (np.rint(steps) <= op.high)
    # Differences between entries before they are rounded: after it, most would be 0 or 1.
    slopes = torch.as_tensor(np.gradient(steps) * inside, dtype=torch.float32, device=x.device)
    least = op.infer(kind).limits[0]
    return _given(TableEntry.apply, x, entries + least, slopes, smallest)
