"""Arithmetic of sliding-window ops."""

from tcc.compiler.ir.op import OpError
from tcc.compiler.ir.types import Pair, Quad

Padding = int | Pair | Quad | str
"""Padding in a spec: n, [vertical, horizontal], [top, left, bottom, right] or `same`."""


def to_pair(size: int | Pair) -> Pair:
    """Return height and width; one number stands for both."""
    return (size, size) if isinstance(size, int) else size


def compute_dilated_extent(kernel: Pair, dilation: Pair) -> Pair:
    """Return the extent of a dilated kernel."""
    return (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)


def resolve_padding(padding: Padding, size: Pair, kernel: Pair, stride: Pair) -> Quad:
    """Return top, left, bottom, right; `same` gives ceil(size / stride) outputs.

    Args:
        padding: As in the spec. An odd number of pixels for `same` has the extra one at the end.
        size: The height and width of the input, for `same`.
        kernel: The extent of the window, including dilation.
        stride: The vertical and horizontal step of the window.
    """
    match padding:
        case "same":
            # As SAME in TensorFlow and SAME_UPPER in ONNX.
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
    """Return output height and width: floor((n + pads - k) / s) + 1, or with ceil.

    With ceil, a last window that would start in the trailing padding is dropped, as in torch.

    Args:
        size: The height and width of the input.
        kernel: The extent of the window, including dilation.
        stride: The vertical and horizontal step of the window.
        pad: Rows and columns of padding at the top, left, bottom and right.
        ceil: Whether to count a last window that is partly beyond the padding.

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
    """Return the bottom and right padding that the windows reach, which can differ from `pad`.

    Args:
        size: The height and width of the input.
        kernel: The extent of the window, including dilation.
        stride: The vertical and horizontal step of the window.
        pad: Padding; only the top and the left are used.
        out: The vertical and horizontal number of windows.
    """
    overhangs = (
        (m - 1) * s + k - n - pad_before
        for n, k, s, pad_before, m in zip(size, kernel, stride, pad[:2], out, strict=True)
    )
    pad_bottom, pad_right = (max(overhang, 0) for overhang in overhangs)
    return pad_bottom, pad_right
