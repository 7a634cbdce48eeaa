"""Arithmetic on quantized values in numpy: exact, or rounded once.

Feature maps are (N, C, H, W). Sums of products use float32 matrix products of integers so small
that each partial sum is an exact float32 integer in any order. numpy has a fast matrix product for
floats (BLAS), but not for integers.
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
"""Most channels that one float32 product sums: 512 * 255 * 128 is 2**24 - 2**16, and float32
represents every integer up to 2**24."""


def concat(xs: Sequence[QuantizedArray]) -> QuantizedArray:
    """Return the concatenated channels of all inputs."""
    joined: QuantizedArray = np.concatenate(xs, axis=1)
    return joined


def compute_window_max(
    x: QuantizedArray, kernel: Sequence[int], stride: Pair, start: Pair, size: Pair
) -> QuantizedArray:
    """Return the largest quantized value of each window; padding never wins.

    Args:
        x: Quantized values (N, C, H, W).
        kernel: The height and width of the window.
        stride: The vertical and horizontal step of the window.
        start: The padding at the top and left.
        size: The height and width of the output.

    Returns:
        Quantized values (N, C, *size), with the type of `x`.
    """
    pad_bottom, pad_right = (
        max((m - 1) * s + k - p - n, 0)
        for m, s, k, p, n in zip(size, stride, kernel, start, x.shape[2:], strict=True)
    )
    # The smallest value of the type never wins, like minus infinity for floats.
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
    """Yield each tap of a kernel with a view of the input elements it meets in all windows.

    Args:
        x: Quantized values (N, C, H, W), with the border if there is one.
        kernel: The height and width of the window, in taps.
        stride: The vertical and horizontal step of the window.
        dilation: The vertical and horizontal distance between taps.
        size: The height and width of the output.

    Returns:
        Pairs of a tap (row, column) and a view (N, C, *size) of `x`; nothing is copied.
    """
    (down, across), (height, width) = stride, size
    # One Python iteration per tap on complete maps, without copies of windows.
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            row, column = i * dilation[0], j * dilation[1]
            rows = slice(row, row + (height - 1) * down + 1, down)
            yield (i, j), x[:, :, rows, column : column + (width - 1) * across + 1 : across]


def pad_map(x: QuantizedArray, padding: Quad, fill: int = 0) -> QuantizedArray:
    """Return a map with a border.

    Args:
        x: Quantized values (N, C, H, W).
        padding: Rows and columns at the top, left, bottom and right.
        fill: The value of the border.
    """
    pad_top, pad_left, pad_bottom, pad_right = padding
    widths = ((0, 0), (0, 0), (pad_top, pad_bottom), (pad_left, pad_right))
    return np.pad(x, widths, constant_values=fill)


def compute_convolution(
    x: QuantizedArray, weight: NDArray[np.int8], stride: Pair, dilation: Pair, groups: int
) -> Int32:
    """Return the exact sums of a convolution.

    Args:
        x: Quantized values (N, C, H, W), with the border if there is one.
        weight: Integers (filters, C / groups, kh, kw).
        stride: The vertical and horizontal step of the window.
        dilation: The vertical and horizontal distance between taps.
        groups: The number of groups of channels and filters.

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
        # A filter of one channel has one product per tap, so it needs no matrix product.
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
        # Parts are added as int32: as floats, their sum could exceed 2**24 and be rounded.
        total += np.matmul(weight_matrix, pixel_matrix).astype(np.int32)


def compute_multiplier(x: TensorType, weight: Float32 | float, y: TensorType) -> Float32:
    """Return M = x.scale * weight / y.scale, the factor from sums to quantized values of y.

    Args:
        x: The type of the input.
        weight: The scale of each filter, or one number.
        y: The type of the output.

    Returns:
        float32, with the shape of `weight`.
    """
    # Each step is rounded to float32, in the order of QLinearConv in ONNX Runtime and of XNNPACK.
    # Rounded only once, from float64, M may differ by one float32, and sums near a tie by one.
    return np.asarray(np.float32(x.scale) * np.float32(weight) / np.float32(y.scale), np.float32)


def requantize(total: Int32, factor: Float32, y: TensorType, low: int, high: int) -> QuantizedArray:
    """Return clamp(rint(float32(total) * factor), low, high); ties round to the even integer.

    Args:
        total: Sums (N, C, H, W).
        factor: The result of `compute_multiplier`, in a shape that broadcasts.
        y: The type of the output.
        low: The smallest value, which an activation may have raised.
        high: The largest value.

    Returns:
        Quantized values of the type of `y`.
    """
    # Sums above 2**24 are rounded to float32 first, as in the kernels of the runtimes. rint rounds
    # like processors by default, unlike round in C, which rounds ties away from zero.
    return clamp_to_type(np.rint(total.astype(np.float32) * factor), y, low, high)


def clamp_to_type(numbers: QuantizedArray, y: TensorType, low: int, high: int) -> QuantizedArray:
    """Return integers clamped to [low, high], as quantized values of a type.

    Args:
        numbers: Integers of any type and shape.
        y: The type of the result.
        low: The smallest value.
        high: The largest value.
    """
    clamped_numbers: QuantizedArray = np.clip(numbers, low, high).astype(y.array_dtype)
    return clamped_numbers
