"""Arithmetic that all sliding-window operations share."""

from tcc.compiler.ir.op import OpError
from tcc.compiler.ir.types import Pair, Quad

Padding = int | Pair | Quad | str
"""As written: n, [vertical, horizontal], [top, left, bottom, right] or `same`."""


def to_pair(size: int | Pair) -> Pair:
    """Return height and width of what may be written as one number."""
    return (size, size) if isinstance(size, int) else size


def compute_dilated_extent(kernel: Pair, dilation: Pair) -> Pair:
    """Return the extent that a dilated kernel covers."""
    return (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)


def resolve_padding(padding: Padding, size: Pair, kernel: Pair, stride: Pair) -> Quad:
    """Return top, left, bottom, right; `same` gives ceil(size / stride) outputs, odd pixel last.

    Args:
        padding: As written.
        size: The input's height and width, which decide what `same` is.
        kernel: The window's, with the gaps of dilation.
        stride: From one window to the next, down and across.
    """
    match padding:
        case "same":
            # As TensorFlow's SAME and ONNX's SAME_UPPER have it.
            needed = [
                max((-(-n // s) - 1) * s + k - n, 0)
                for n, k, s in zip(size, kernel, stride, strict=True)
            ]
            pad_top, pad_left = needed[0] // 2, needed[1] // 2
            return (pad_top, pad_left, needed[0] - pad_top, needed[1] - pad_left)
        case int(n):
            return (n, n, n, n)
        case (int(v), int(h)):
            return (v, h, v, h)
        case (int(t), int(pad_left), int(b), int(r)):
            return (t, pad_left, b, r)
    raise AssertionError(padding)


def compute_output_size(
    size: Pair, kernel: Pair, stride: Pair, pad: Quad, *, ceil: bool = False
) -> Pair:
    """Return output height and width: floor((n + pads - k) / s) + 1, or ceil.

    With ceil a last window that would start in the trailing padding is dropped, as in torch.

    Args:
        size: The input's height and width.
        kernel: The window's, with the gaps of dilation.
        stride: From one window to the next, down and across.
        pad: Rows and columns of padding at the top, left, bottom and right.
        ceil: Whether a last window that is partly beyond the padding counts.

    Raises:
        OpError: The window is larger than the padded input.
    """
    output_sizes = []
    for axis, name in ((0, "height"), (1, "width")):
        n, k, s = size[axis], kernel[axis], stride[axis]
        pad_before, pad_after = pad[axis], pad[axis + 2]
        remainder = n + pad_before + pad_after - k
        if remainder < 0:
            raise OpError(
                "E0302",
                f"a window of {name} {k} does not fit the input",
                f"the input is {size[0]}x{size[1]}, padded {name} {n + pad_before + pad_after}",
                "use a smaller kernel, more padding, or less striding before this step",
            )
        out = (-(-remainder // s) if ceil else remainder // s) + 1
        if ceil and (out - 1) * s >= n + pad_before:
            out -= 1
        output_sizes.append(out)
    return (output_sizes[0], output_sizes[1])


def compute_reached_padding(size: Pair, kernel: Pair, stride: Pair, pad: Quad, out: Pair) -> Pair:
    """Return the bottom and right padding that `out` windows reach: as in `pad`, less or more.

    Args:
        size: The input's height and width.
        kernel: The window's, with the gaps of dilation.
        stride: From one window to the next, down and across.
        pad: Padding, of which the top and the left count.
        out: How many windows there are, down and across.
    """
    overhangs = (
        (m - 1) * s + k - n - pad_before
        for n, k, s, pad_before, m in zip(size, kernel, stride, pad[:2], out, strict=True)
    )
    pad_bottom, pad_right = (max(overhang, 0) for overhang in overhangs)
    return pad_bottom, pad_right
