"""Checks of operators: shared ones, and the documented limits of windows."""

from typing import Any

from tcc.backends.pulsar.rules.operator import OnnxOperator
from tcc.backends.pulsar.rules.rule import Check
from tcc.compiler.ir.types import Pair

MAX_KERNEL = 18
COMMON_STRIDES = frozenset({(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)})
"""The strides that are allowed for every window size."""
MAX_WIDTH = 8191
MAX_TOP_PAD = 16384
MAX_TAPS = 65535


def get_input_channels(op: OnnxOperator) -> int:
    """Return the channels of the first input."""
    # 0 if the shape is unknown: such an operator does not break the rule.
    return (*op.get_shape(0), 0, 0)[1]


def get_output_channels(op: OnnxOperator) -> int:
    """Return the channels of the output."""
    return (*(op.outputs[0].shape or ()), 0, 0)[1]


def get_input_width(op: OnnxOperator) -> int:
    """Return the width of the first input."""
    return (*op.get_shape(0), 0, 0, 0, 0)[3]


def _show_pair(pair: Pair) -> str:
    return f"{pair[0]}x{pair[1]}"


def check_groups(op: OnnxOperator) -> str | None:
    """Report groups that do not divide the channels."""
    odd = get_input_channels(op) % op.groups or get_output_channels(op) % op.groups
    return (
        f"{get_input_channels(op)} channels, {get_output_channels(op)} filters, {op.groups} groups"
        if odd
        else None
    )


def check_kernel(op: OnnxOperator) -> str | None:
    """Report a kernel that is too large."""
    large = max(op.kernel) > MAX_KERNEL
    return f"its kernel is {_show_pair(op.kernel)}" if large else None


def check_dilated_kernel(op: OnnxOperator) -> str | None:
    """Report a dilated kernel that covers too many pixels."""
    extents = (d * (k - 1) + 1 for d, k in zip(op.get_pair("dilations"), op.kernel, strict=True))
    # The documents limit the kernel and the dilated kernel separately.
    down, across = extents
    return f"it covers {down}x{across} pixels" if max(down, across) > MAX_KERNEL else None


def check_stride(op: OnnxOperator) -> str | None:
    """Report a stride that is not supported.

    Supported are the common strides, and a stride equal to the kernel: n x n, or n x 1 and 1 x n
    with n not 2 or 3.
    """
    steps = op.get_pair("strides")
    if steps in COMMON_STRIDES:
        return None
    row = 1 in steps and max(steps) not in (2, 3)
    if steps == op.kernel and (steps[0] == steps[1] or row):
        return None
    return f"its stride is {_show_pair(steps)}, its kernel {_show_pair(op.kernel)}"


def check_width(op: OnnxOperator) -> str | None:
    """Report an input that is too wide."""
    return f"its input is {get_input_width(op)} wide" if get_input_width(op) > MAX_WIDTH else None


def check_top_pad(op: OnnxOperator) -> str | None:
    """Report top padding that is too large."""
    return f"its top padding is {op.pads[0]}" if op.pads[0] > MAX_TOP_PAD else None


def check_taps(op: OnnxOperator) -> str | None:
    """Report a filter with too many weights; counts all groups, the stricter reading."""
    (down, across), depth = op.kernel, get_input_channels(op)
    product_text = f"{down} x {across} x {depth} channels = {down * across * depth}"
    return product_text if down * across * depth > MAX_TAPS else None


def check_output_width(op: OnnxOperator) -> str | None:
    """Report a stride that does not divide the output's width."""
    size, step = (*(op.outputs[0].shape or ()), 0, 0, 0, 0)[3], op.get_pair("strides")[1]
    return f"its output is {size} wide, its stride {step}" if size % step else None


def check_depthwise(op: OnnxOperator) -> str | None:
    """Report a convolution with groups."""
    if op.groups == 1:
        return None
    is_depthwise = op.groups == get_input_channels(op)
    return "it is depthwise" if is_depthwise else f"it has {op.groups} groups"


def check_channels(op: OnnxOperator) -> str | None:
    """Report channels that leave multipliers idle: not multiples of 16 (1x1: 32) in and 8 out.

    Image inputs and inputs one pixel wide are exempt.
    """
    if op.groups > 1 or get_input_channels(op) <= 4 or get_input_width(op) == 1:
        return None
    step = 32 if max(op.kernel) == 1 else 16
    # This is the manuals' advice on speed, not a limit.
    odd = get_input_channels(op) % step or get_output_channels(op) % 8
    return f"{get_input_channels(op)} channels in, {get_output_channels(op)} out" if odd else None


def check_kernel_speed(op: OnnxOperator) -> str | None:
    """Report a kernel that is neither 1x1 nor 3x3 with padding 1."""
    full = op.kernel == (1, 1) or (op.kernel == (3, 3) and set(op.pads) == {1})
    return None if full else f"its kernel is {_show_pair(op.kernel)}, its padding {list(op.pads)}"


def check_dilation(op: OnnxOperator) -> str | None:
    """Report a dilated kernel."""
    dilations = op.get_pair("dilations")
    return f"its dilation is {_show_pair(dilations)}" if max(dilations) > 1 else None


def check_pool_window(op: OnnxOperator, max_size: int) -> str | None:
    """Report a pooling window that is larger than advised."""
    return f"its window is {_show_pair(op.kernel)}" if max(op.kernel) > max_size else None


def check_scales(op: OnnxOperator) -> str | None:
    """Report a resize whose height or width scale is not a power of two from 1/16 to 16."""
    factors = op.get_constant(2)
    if factors is None or factors.size != 4:
        return "its scales are not constant"
    # Powers of two are exact in float32: no tolerance is needed.
    powers = {2.0**power for power in range(-4, 5)}
    wrong_factors = [float(factor) for factor in factors[2:] if float(factor) not in powers]
    batch_factors = [float(factor) for factor in factors[:2] if float(factor) != 1]
    return (
        f"its scales are {[float(factor) for factor in factors]}"
        if wrong_factors or batch_factors
        else None
    )


def require_attribute(name: str, *allowed: Any) -> Check:
    """Return the check that an attribute is missing or has an allowed value."""

    def check_attribute(op: OnnxOperator) -> str | None:
        # The first allowed value is ONNX's default, which a missing attribute has.
        attribute = op.attributes.get(name, allowed[0])
        return None if attribute in allowed else f"`{name}` is {_print_attribute(attribute)}"

    return check_attribute


def forbid_attributes(*names: str) -> Check:
    """Return the check that attributes are missing."""

    def check_attributes(op: OnnxOperator) -> str | None:
        present = [name for name in names if name in op.attributes]
        return (
            f"`{present[0]}` is {_print_attribute(op.attributes[present[0]])}" if present else None
        )

    return check_attributes


def require_explicit(name: str) -> Check:
    """Return the check that an attribute is present."""

    def check_presence(op: OnnxOperator) -> str | None:
        return None if name in op.attributes else f"`{name}` is missing"

    return check_presence


def require_rank(*allowed: int) -> Check:
    """Return the check that the first input has an allowed number of dimensions."""

    def check_rank(op: OnnxOperator) -> str | None:
        dimensions = len(op.get_shape(0))
        return None if dimensions in allowed else f"its input has {dimensions} dimensions"

    return check_rank


def require_producer(*kinds: str) -> Check:
    """Return the check that an operator of the given kinds computes the first input."""

    def check_producer(op: OnnxOperator) -> str | None:
        source = op.inputs[0] if op.inputs else None
        maker = (source.producer if source else "") or "an input"
        return None if maker in kinds else f"it comes after {maker}"

    return check_producer


def check_symmetric_pads(op: OnnxOperator) -> str | None:
    """Report pads that differ between opposite sides."""
    top, left_pad, bottom, right_pad = op.pads
    return (
        None
        if (top, left_pad) == (bottom, right_pad)
        else f"its pads are {_print_attribute(op.pads)}"
    )


def require_ones(name: str) -> Check:
    """Return the check that all values of an attribute are 1."""

    def check_ones(op: OnnxOperator) -> str | None:
        factors = op.attributes.get(name, ())
        return (
            None
            if all(factor == 1 for factor in factors)
            else f"`{name}` is {_print_attribute(factors)}"
        )

    return check_ones


def require_constant(index: int, *allowed: float) -> Check:
    """Return the check that an input is missing, or a constant with allowed values."""

    def check_constant(op: OnnxOperator) -> str | None:
        # A missing input is allowed: the rules limit only its values.
        if index >= len(op.inputs) or op.inputs[index] is None:
            return None
        numbers = op.get_constant(index)
        if numbers is None:
            return f"input {index} is not constant"
        odd = [float(number) for number in numbers.reshape(-1) if float(number) not in allowed]
        return f"it contains {odd[0]:g}" if odd else None

    return check_constant


def reject_always(op: OnnxOperator) -> str:
    """Report the operator itself, whatever its attributes."""
    return f"it is a {op.kind}"


def _print_attribute(attribute: Any) -> str:
    return str(list(attribute)) if isinstance(attribute, tuple) else str(attribute)[:60]
