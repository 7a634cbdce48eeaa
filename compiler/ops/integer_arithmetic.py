"""Arithmetic on levels, the integers q of quantised values, in numpy: exact, or rounded once.

Feature maps are (N, C, H, W). Sums of products run through float32 matrix products of integers
small enough that every partial sum is an exact float32 integer, whatever the order: numpy has a
fast product of float matrices, from BLAS, and none of integer ones.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.types import Pair, Quad, TensorType

QuantizedArray = NDArray[Any]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

MAX_EXACT_CHANNELS = 512
"""Channels that one float32 product may sum: 512 * 255 * 128 is 2**24 - 2**16, and float32 has
every integer up to 2**24."""


def concat(xs: Sequence[QuantizedArray]) -> QuantizedArray:
    """Return the channels of all inputs one after another."""
    joined: QuantizedArray = np.concatenate(xs, axis=1)
    return joined


def compute_window_max(
    x: QuantizedArray, kernel: Sequence[int], stride: Pair, start: Pair, size: Pair
) -> QuantizedArray:
    """Return the largest level of each window; what lies outside the input never wins.

    Args:
        x: Levels (N, C, H, W).
        kernel: The window's height and width.
        stride: From one window to the next, down and across.
        start: The padding at the top and left.
        size: The output's height and width.

    Returns:
        The levels (N, C, *size), of the type of `x`.
    """
    pad_bottom, pad_right = (
        max((m - 1) * s + k - p - n, 0)
        for m, s, k, p, n in zip(size, stride, kernel, start, x.shape[2:], strict=True)
    )
    # The least level of the type: it loses against everything, as minus infinity does among floats.
    widths = ((0, 0), (0, 0), (start[0], pad_bottom), (start[1], pad_right))
    padded = np.pad(x, widths, constant_values=np.iinfo(x.dtype).min)
    windows = (
        view for _, view in iterate_taps(padded, (kernel[0], kernel[1]), stride, (1, 1), size)
    )
    maximum = next(windows).copy()
    for view in windows:
        np.maximum(maximum, view, out=maximum)
    return maximum


def iterate_taps(
    x: QuantizedArray, kernel: Pair, stride: Pair, dilation: Pair, size: Pair
) -> Iterator[tuple[Pair, QuantizedArray]]:
    """Yield each place in the kernel with what all `size` windows hold there.

    Args:
        x: Levels (N, C, H, W) with the border, if there is one.
        kernel: The window's height and width, in taps.
        stride: From one window to the next, down and across.
        dilation: From one tap to the next, down and across.
        size: The output's height and width.

    Returns:
        Pairs of a tap, (row, column), and a view (N, C, *size) of `x`, nothing copied.
    """
    (down, across), (height, width) = stride, size
    # Tap by tap over whole maps: as many turns of Python's loop as a kernel has taps, and no copy
    # of windows.
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            row, column = i * dilation[0], j * dilation[1]
            rows = slice(row, row + (height - 1) * down + 1, down)
            yield (i, j), x[:, :, rows, column : column + (width - 1) * across + 1 : across]


def pad_map(x: QuantizedArray, padding: Quad, fill: int = 0) -> QuantizedArray:
    """Return a map with a border: top, left, bottom, right.

    Args:
        x: Levels (N, C, H, W).
        padding: Rows and columns at the top, left, bottom and right.
        fill: What the border holds.
    """
    pad_top, pad_left, pad_bottom, pad_right = padding
    widths = ((0, 0), (0, 0), (pad_top, pad_bottom), (pad_left, pad_right))
    return np.pad(x, widths, constant_values=fill)


def compute_convolution(
    x: QuantizedArray, weight: NDArray[np.int8], stride: Pair, dilation: Pair, groups: int
) -> Int32:
    """Return a convolution, exactly.

    Args:
        x: Levels (N, C, H, W) with the border, if there is one.
        weight: Integers (filters, C / groups, kh, kw).
        stride: From one window to the next, down and across.
        dilation: From one tap to the next, down and across.
        groups: Into how many parts channels and filters are divided.

    Returns:
        The sums (N, filters, height, width).
    """
    filters, depth, *window = weight.shape
    kernel = (window[0], window[1])
    size = [
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(x.shape[2:], dilation, kernel, stride, strict=True)
    ]
    totals = np.zeros((len(x), filters, *size), np.int32)
    for (i, j), view in iterate_taps(x, kernel, stride, dilation, (size[0], size[1])):
        # A filter of one channel has nothing to sum within a tap: no product of matrices is needed.
        if depth == 1:
            repeated = np.repeat(view, filters // groups, axis=1)
            totals += repeated * weight[:, 0, i, j].astype(np.int32)[:, None, None]
        else:
            _add_products(totals, view, weight[:, :, i, j], groups)
    return totals


def _add_products(
    totals: Int32, view: QuantizedArray, weight: NDArray[np.int8], groups: int
) -> None:
    """Add to (N, filters, H, W) the product of (filters, depth) weights and (N, C, H, W)."""
    (filters, depth), count = weight.shape, len(view)
    flat = view.reshape(count, groups, depth, -1)
    by_group = weight.reshape(groups, filters // groups, depth)
    total = totals.reshape(count, groups, filters // groups, -1)
    for start in range(0, depth, MAX_EXACT_CHANNELS):
        part = slice(start, start + MAX_EXACT_CHANNELS)
        weight_matrix, pixel_matrix = (
            a.astype(np.float32) for a in (by_group[:, :, part], flat[:, :, part])
        )
        # Parts are added as int32: as floats, their sum could pass 2**24 and be rounded.
        total += np.matmul(weight_matrix, pixel_matrix).astype(np.int32)


def compute_multiplier(x: TensorType, weight: Float32 | float, y: TensorType) -> Float32:
    """Return M = x.scale * weight / y.scale, what a sum of products times levels of y.

    Args:
        x: The type of the input.
        weight: The scale of each filter, or one number.
        y: The type of the output.

    Returns:
        float32, of the shape of `weight`.
    """
    # Each step is rounded to float32, in the order of ONNX Runtime's QLinearConv and of XNNPACK.
    # Rounded once, from float64, M may be the next number, and sums beside a tie another level.
    return np.asarray(np.float32(x.scale) * np.float32(weight) / np.float32(y.scale), np.float32)


def requantize(total: Int32, factor: Float32, y: TensorType, low: int, high: int) -> QuantizedArray:
    """Return clamp(rint(float32(total) * factor), low, high), ties to the even integer.

    Args:
        total: Sums (N, C, H, W).
        factor: What `compute_multiplier` gives, so shaped that it broadcasts.
        y: The type of the output.
        low: The smallest level, which an activation may have raised.
        high: The largest level.

    Returns:
        The levels, of the type of `y`.
    """
    # Sums beyond 2**24 are rounded to float32 first, as the runtimes' kernels convert them; rint is
    # the rounding that processors do by default, unlike C's round, which takes ties away from zero.
    return clamp_to_type(np.rint(total.astype(np.float32) * factor), y, low, high)


def clamp_to_type(numbers: QuantizedArray, y: TensorType, low: int, high: int) -> QuantizedArray:
    """Return whole numbers, kept within [low, high], as levels of a type.

    Args:
        numbers: Whole numbers of any type and shape.
        y: The type of the result.
        low: The smallest level.
        high: The largest one.
    """
    clamped_numbers: QuantizedArray = np.clip(numbers, low, high).astype(y.dtype.value)
    return clamped_numbers
