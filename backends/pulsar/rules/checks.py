"""Checks of operators: those that several rules share, and what the documents say of windows."""

from typing import Any

from tcc.backends.pulsar.rules.operator import OnnxOperator
from tcc.backends.pulsar.rules.rule import Check
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


def _show_pair(pair: Pair) -> str:
    return f"{pair[0]}x{pair[1]}"


def groups(one: OnnxOperator) -> str | None:
    """Say whether groups do not divide the channels."""
    odd = channels(one) % one.groups or filters(one) % one.groups
    return f"{channels(one)} channels, {filters(one)} filters, {one.groups} groups" if odd else None


def kernel(one: OnnxOperator) -> str | None:
    """Say whether a kernel is too large."""
    large = max(one.kernel) > LARGEST_KERNEL
    return f"its kernel is {_show_pair(one.kernel)}" if large else None


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
    return f"its stride is {_show_pair(steps)}, its kernel {_show_pair(one.kernel)}"


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
    return None if full else f"its kernel is {_show_pair(one.kernel)}, its pads {list(one.pads)}"


def holes(one: OnnxOperator) -> str | None:
    """Say whether a kernel has holes."""
    found = one.pair("dilations")
    return f"its dilation is {_show_pair(found)}" if max(found) > 1 else None


def large_pool(one: OnnxOperator, most: int) -> str | None:
    """Say whether a pooling's window is larger than advised."""
    return f"its window is {_show_pair(one.kernel)}" if max(one.kernel) > most else None


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


def only(name: str, *allowed: Any) -> Check:
    """Return the check that an attribute is left out or one of the allowed."""

    def broken(one: OnnxOperator) -> str | None:
        # The first of the allowed is ONNX's own default, which an attribute that is left out has.
        found = one.attributes.get(name, allowed[0])
        return None if found in allowed else f"`{name}` is {_shown(found)}"

    return broken


def absent(*names: str) -> Check:
    """Return the check that attributes are left out."""

    def broken(one: OnnxOperator) -> str | None:
        found = [name for name in names if name in one.attributes]
        return f"`{found[0]}` is {_shown(one.attributes[found[0]])}" if found else None

    return broken


def given(name: str) -> Check:
    """Return the check that an attribute is not left to its default."""

    def broken(one: OnnxOperator) -> str | None:
        return None if name in one.attributes else f"`{name}` is left out"

    return broken


def rank(*allowed: int) -> Check:
    """Return the check of how many dimensions the first input has."""

    def broken(one: OnnxOperator) -> str | None:
        found = len(one.shape(0))
        return None if found in allowed else f"its input has {found} dimensions"

    return broken


def after(*kinds: str) -> Check:
    """Return the check of what makes the first input."""

    def broken(one: OnnxOperator) -> str | None:
        source = one.inputs[0] if one.inputs else None
        maker = (source.maker if source else "") or "an input"
        return None if maker in kinds else f"it comes after {maker}"

    return broken


def symmetric(one: OnnxOperator) -> str | None:
    """Say which pads are not the same on both sides."""
    top, left, bottom, right = one.pads
    return None if (top, left) == (bottom, right) else f"its pads are {_shown(one.pads)}"


def ones(name: str) -> Check:
    """Return the check that all numbers of an attribute are 1."""

    def broken(one: OnnxOperator) -> str | None:
        found = one.attributes.get(name, ())
        return None if all(each == 1 for each in found) else f"`{name}` is {_shown(found)}"

    return broken


def constant(place: int, *allowed: float) -> Check:
    """Return the check that an input is left out, or a constant of allowed numbers."""

    def broken(one: OnnxOperator) -> str | None:
        # Left out is allowed: the rules are about what is said.
        if place >= len(one.inputs) or one.inputs[place] is None:
            return None
        numbers = one.constant(place)
        if numbers is None:
            return f"input {place} is no constant"
        odd = [float(each) for each in numbers.reshape(-1) if float(each) not in allowed]
        return f"it holds {odd[0]:g}" if odd else None

    return broken


def never(one: OnnxOperator) -> str:
    """Say that the operator is there, which is what is wrong."""
    return f"it is a {one.kind}"


def _shown(found: Any) -> str:
    return str(list(found)) if isinstance(found, tuple) else str(found)[:60]
