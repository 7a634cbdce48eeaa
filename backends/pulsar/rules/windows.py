"""What Pulsar's documents say of windows: convolutions, poolings, resizing."""

from tcc.backends.pulsar.rules.operator import OnnxOperator
from tcc.compiler.ir.types import Pair

LARGEST_KERNEL = 18
STRIDES = frozenset({(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)})
"""Those that windows of any size may have."""
WIDEST = 8191
HIGHEST_PAD = 16384
MOST_TAPS = 65535


def channels(one: OnnxOperator) -> int:
    """Return the channels of the first input."""
    # 0 where the shape is unknown: a rule that cannot be judged is not broken.
    return (*one.shape(0), 0, 0)[1]


def filters(one: OnnxOperator) -> int:
    """Return the channels of the output."""
    return (*(one.outputs[0].shape or ()), 0, 0)[1]


def width(one: OnnxOperator) -> int:
    """Return the width of the first input."""
    return (*one.shape(0), 0, 0, 0, 0)[3]


def _size(pair: Pair) -> str:
    return f"{pair[0]}x{pair[1]}"


def groups(one: OnnxOperator) -> str | None:
    """Say whether groups do not divide the channels."""
    odd = channels(one) % one.groups or filters(one) % one.groups
    return f"{channels(one)} channels, {filters(one)} filters, {one.groups} groups" if odd else None


def kernel(one: OnnxOperator) -> str | None:
    """Say whether a kernel is too large."""
    large = max(one.kernel) > LARGEST_KERNEL
    return f"its kernel is {_size(one.kernel)}" if large else None


def dilated(one: OnnxOperator) -> str | None:
    """Say whether a kernel is too large with the holes between its taps."""
    extents = (d * (k - 1) + 1 for d, k in zip(one.pair("dilations"), one.kernel, strict=True))
    # The documents bound the kernel and the kernel with its holes each by itself.
    down, across = extents
    return f"it covers {down}x{across} pixels" if max(down, across) > LARGEST_KERNEL else None


def stride(one: OnnxOperator) -> str | None:
    """Say whether a stride is none of those that are taken.

    Beside the common ones that is a kernel's own size: n x n, or n x 1 and 1 x n with n not 2 or 3.
    """
    steps = one.pair("strides")
    if steps in STRIDES:
        return None
    row = 1 in steps and max(steps) not in (2, 3)
    if steps == one.kernel and (steps[0] == steps[1] or row):
        return None
    return f"its stride is {_size(steps)}, its kernel {_size(one.kernel)}"


def wide(one: OnnxOperator) -> str | None:
    """Say whether the input is too wide."""
    return f"its input is {width(one)} wide" if width(one) > WIDEST else None


def pad_top(one: OnnxOperator) -> str | None:
    """Say whether the border above is too high."""
    return f"its upper border is {one.pads[0]} high" if one.pads[0] > HIGHEST_PAD else None


def taps(one: OnnxOperator) -> str | None:
    """Say whether one filter reads too many numbers; channels of all groups, the stricter sense."""
    (down, across), depth = one.kernel, channels(one)
    shown = f"{down} x {across} x {depth} channels = {down * across * depth}"
    return shown if down * across * depth > MOST_TAPS else None


def uneven(one: OnnxOperator) -> str | None:
    """Say whether the stride does not divide the output's width."""
    size, step = (*(one.outputs[0].shape or ()), 0, 0, 0, 0)[3], one.pair("strides")[1]
    return f"its output is {size} wide, its stride {step}" if size % step else None


def depthwise(one: OnnxOperator) -> str | None:
    """Say whether a convolution has groups."""
    if one.groups == 1:
        return None
    alone = one.groups == channels(one)
    return "it is depthwise" if alone else f"it has {one.groups} groups"


def few_channels(one: OnnxOperator) -> str | None:
    """Say whether channels leave multipliers idle: 16 (32 for kernels of one) in, 8 out.

    Images have as many as they have, and what is one pixel takes no time.
    """
    if one.groups > 1 or channels(one) <= 4 or width(one) == 1:
        return None
    step = 32 if max(one.kernel) == 1 else 16
    # The manuals' advice on speed, not a limit.
    odd = channels(one) % step or filters(one) % 8
    return f"{channels(one)} channels in, {filters(one)} out" if odd else None


def slow_kernel(one: OnnxOperator) -> str | None:
    """Say whether a kernel is neither 1x1 nor 3x3 with a border of 1."""
    full = one.kernel == (1, 1) or (one.kernel == (3, 3) and set(one.pads) == {1})
    return None if full else f"its kernel is {_size(one.kernel)}, its pads {list(one.pads)}"


def holes(one: OnnxOperator) -> str | None:
    """Say whether a kernel has holes."""
    found = one.pair("dilations")
    return f"its dilation is {_size(found)}" if max(found) > 1 else None


def large_pool(one: OnnxOperator, most: int) -> str | None:
    """Say whether a pooling's window is larger than advised."""
    return f"its window is {_size(one.kernel)}" if max(one.kernel) > most else None


def scales(one: OnnxOperator) -> str | None:
    """Say whether a resizing is none by a power of two from 1/16 to 16, in height and width."""
    found = one.constant(2)
    if found is None or found.size != 4:
        return "its scales are no constant"
    # Powers of two are exact in float32: no tolerance is needed.
    powers = {2.0**power for power in range(-4, 5)}
    odd = [float(each) for each in found[2:] if float(each) not in powers]
    others = [float(each) for each in found[:2] if float(each) != 1]
    return f"its scales are {[float(each) for each in found]}" if odd or others else None
