"""What a guard reads of a network: rows of its images, and channels of one layer."""

from dataclasses import dataclass

from tcc.compiler.guard.guard_document import MAX_CHANNELS
from tcc.compiler.guard.pixel_sums import MAX_SAMPLED_PIXELS, ROW_STEPS, count_sampled_pixels
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import DType, Shape
from tcc.compiler.ops.integer.border import QPad
from tcc.compiler.ops.integer.conv import QConv
from tcc.compiler.support.diagnostics import fail, make_file_span

SHARE = 0.02
"""Largest share of a network's cycles that a guard may take."""
CYCLES_PER_PIXEL = 51
"""Modelled Cortex-A7 cycles of the sums, for each pixel of a sampled row."""
CYCLES_PER_CODE = 4
"""The same for each code of the tapped layer, with the forms."""
CYCLES_PER_MAC = 0.5
"""Cycles of a network for each of its multiply-accumulates, at least."""
MIN_CHANNELS = 16
REDUCTION = 8
"""The tapped layer has at most 1/8 of the image's height and width."""


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """What a guard reads: rows of the image, and every `stride`-th channel of layer `tap`.

    `shape` is the input's (channels, height, width), `tap_shape` the layer's. Without a layer that
    suits, `tap` is None.
    """

    shape: Shape
    row_step: int
    tap: str | None
    tap_shape: Shape
    stride: int


def plan_guard(graph: Graph) -> GuardPlan:
    """Return what the guard of an int8 program reads.

    Args:
        graph: The integer program, with one input.

    Raises:
        UserError: The input is no image with 1 or 3 channels, or it is too large (E0742).
    """
    (network_input,) = graph.inputs
    shape = network_input.type.shape
    if len(shape) != 3 or shape[0] not in (1, 3) or network_input.preprocess is None:
        message = "a guard needs a network with an image input of 1 or 3 channels"
        dims = "x".join(map(str, shape))
        raise fail(
            "E0742",
            message,
            make_file_span(graph.name),
            label=f"`{network_input.name}` is {dims}",
            help="build without --guard-data, or declare `preprocess` for the input",
        )
    tap = find_tap(graph)
    tap_shape = tap.type.shape if tap else ()
    stride = -(-tap_shape[0] // MAX_CHANNELS) if tap else 1
    return GuardPlan(
        shape, choose_row_step(graph, tap), tap.name if tap else None, tap_shape, stride
    )


def find_tap(graph: Graph) -> Node | None:
    """Return the layer whose channels are summed.

    It is the first layer of 8-bit codes with at least 16 channels and at most 1/8 of the image's
    height and width, or else the penultimate one: the last with codes and at least 16 channels.
    Borders and depthwise convolutions are left out, since targets merge them with the next layer.
    """
    (network_input,) = graph.inputs
    _, height, width = network_input.type.shape
    candidates = [node for node in graph.nodes if _has_channel_codes(node)]
    for node in candidates:
        shape = node.type.shape
        if len(shape) == 3 and REDUCTION * shape[1] <= height and REDUCTION * shape[2] <= width:
            return node
    return candidates[-1] if candidates else None


def _has_channel_codes(node: Node) -> bool:
    shape = node.type.shape
    if node.type.dtype not in (DType.I8, DType.U8) or len(shape) not in (1, 3):
        return False
    match node.op:
        case QPad():
            return False
        case QConv() as op if op.conv.groups > 1:
            return False
    return shape[0] >= MIN_CHANNELS


def choose_row_step(graph: Graph, tap: Node | None) -> int:
    """Return the smallest step of rows with which a guard takes at most 2 % of the cycles.

    The step depends on the program alone, so that all targets have the same.

    Raises:
        UserError: The image has too many pixels for every step (E0742).
    """
    _, height, width = graph.inputs[0].type.shape
    macs = sum(node.op.macs(*graph.get_input_types(node)) for node in graph.nodes)
    budget = SHARE * CYCLES_PER_MAC * macs - (CYCLES_PER_CODE * tap.type.elements if tap else 0)
    steps = [
        step
        for step in ROW_STEPS
        if count_sampled_pixels(height, width, step)[0] <= MAX_SAMPLED_PIXELS
    ]
    if not steps:
        raise fail(
            "E0742",
            "the image is too large for a guard",
            make_file_span(graph.name),
            label=f"{width}x{height} pixels",
            help="build without --guard-data, or let `preprocess` resize the image",
        )
    affordable = [
        step
        for step in steps
        if CYCLES_PER_PIXEL * count_sampled_pixels(height, width, step)[0] <= budget
    ]
    return affordable[0] if affordable else steps[-1]
