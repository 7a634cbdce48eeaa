"""Refusals of ops and their messages."""

import pytest

from tcc.compiler.ir.graph import make_node
from tcc.compiler.ir.op import OpError
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import (
    AdaptiveAvgPool,
    Add,
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    GlobalAvgPool,
    GlobalMaxPool,
    Linear,
    MaxPool,
    Mul,
    Op,
    Pad,
    Resize,
    Slice,
)

NEED_MAPS: tuple[Op, ...] = (
    Conv(4, (3, 3)),
    DepthwiseConv((3, 3)),
    ConvTranspose(4, (2, 2)),
    Resize(scale=(2, 2)),
    MaxPool((2, 2), padding="same"),
    AvgPool((2, 2), padding="same"),
    GlobalAvgPool(),
    GlobalMaxPool(),
    AdaptiveAvgPool((1, 1)),
    ChannelShuffle(2),
    Pad(1),
)

REFUSALS: dict[str, tuple[Op, tuple[tuple[int, ...], ...], str]] = {
    "conv-too-large": (
        Conv(4, (3, 5)),
        ((3, 7, 4),),
        "E0302 a window of width 5 does not fit the input: the input is 7x4, padded width 4"
        " (use a smaller kernel, more padding, or less striding before this step)",
    ),
    "conv-dilated-too-large": (
        Conv(4, (3, 3), padding=1, dilation=(4, 1)),
        ((3, 6, 6),),
        "E0302 a window of height 9 does not fit the input: the input is 6x6, padded height 8"
        " (use a smaller kernel, more padding, or less striding before this step)",
    ),
    "pool-too-large": (
        AvgPool((8, 8)),
        ((3, 7, 9),),
        "E0302 a window of height 8 does not fit the input: the input is 7x9, padded height 7"
        " (use a smaller kernel, more padding, or less striding before this step)",
    ),
    "groups-of-channels": (
        Conv(4, (1, 1), groups=2),
        ((3, 2, 2),),
        "E0303 groups must divide the channels: 3 channels in 2 groups"
        " (set `groups` to a divisor of 3, or change the channels)",
    ),
    "groups-of-filters": (
        Conv(5, (1, 1), groups=2),
        ((4, 2, 2),),
        "E0303 groups must divide the filters: 5 filters in 2 groups"
        " (set `groups` to a divisor of 5, or change the filters)",
    ),
    "shuffle-groups": (
        ChannelShuffle(4),
        ((6, 2, 2),),
        "E0303 groups must divide the channels: 6 channels in 4 groups"
        " (set `groups` to a divisor of 6)",
    ),
    "linear-of-map": (
        Linear(3),
        ((4, 2, 2),),
        "E0304 linear needs a vector: the input is 4x2x2"
        " (put `flatten` (after `global_avg_pool`) before it)",
    ),
    "pool-of-padding": (
        MaxPool((2, 2), padding=2),
        ((3, 4, 4),),
        "E0305 max_pool needs padding smaller than its window: window 2x2, padding [2, 2, 2, 2]"
        " (use less padding, or a larger kernel)",
    ),
    "adaptive-indivisible": (
        AdaptiveAvgPool((2, 3)),
        ((3, 7, 9),),
        "E0307 adaptive_avg_pool needs an input size that its output size divides: the input is"
        " 7x9, the output 2x3 (choose a divisor, or use `avg_pool` with an explicit window)",
    ),
    "slice-empty": (
        Slice(4, 2),
        ((6, 2, 2),),
        "E0308 slice selects no channel: start 4, stop 2 of 6 channels"
        " (select at least one channel; negative numbers count from the last channel)",
    ),
    "pad-same": (
        Pad("same"),
        ((3, 4, 4),),
        "E0315 `same` is not possible for a pad (write the padding as numbers)",
    ),
    "transposed-groups": (
        ConvTranspose(4, (2, 2), groups=2),
        ((3, 4, 4),),
        "E0303 groups must divide the channels: 3 channels in 2 groups"
        " (set `groups` to a divisor of 3, or change the channels)",
    ),
    "transposed-output-padding": (
        ConvTranspose(4, (2, 2), (2, 2), output_padding=(0, 2)),
        ((3, 4, 4),),
        "E0309 output_padding must be smaller than the stride or the dilation: it is [0, 2], the"
        " stride [2, 2], the dilation [1, 1] (use a smaller `output_padding`)",
    ),
    "transposed-padding": (
        ConvTranspose(4, (2, 2), padding=(1, 3)),
        ((3, 4, 4),),
        "E0302 the output is empty after the padding is cropped: the input is 4x4, padding [1, 3]"
        " (use less padding)",
    ),
    "resize-to-nothing": (
        Resize(),
        ((3, 4, 4),),
        "E0310 resize needs either `size` or `scale` (give one of them)",
    ),
    "resize-twice": (
        Resize(size=(8, 8), scale=(2, 2)),
        ((3, 4, 4),),
        "E0310 resize needs either `size` or `scale` (give one of them)",
    ),
    "resize-nearest-uneven": (
        Resize(size=(8, 6)),
        ((3, 4, 4),),
        "E0311 nearest resizing needs a multiple or a divisor of the input size: the input is"
        " 4x4, the output 8x6 (use `mode: bilinear`, or another size)",
    ),
    "concat-sizes": (
        Concat(),
        ((3, 4, 4), (5, 4, 4), (3, 4, 6)),
        "E0312 concat needs equal heights and widths: branch 0 is 3x4x4, branch 2 is 3x4x6 (use `padding: same`"
        " and equal strides in the convolutions, or pool the larger branch)",
    ),
    "concat-ranks": (
        Concat(),
        ((3, 1, 1), (3,)),
        "E0312 concat cannot join feature maps and vectors: branch 0 is 3x1x1, branch 1 is 3 (put"
        " `flatten` into every branch, or into none)",
    ),
    "add-shapes": (
        Add(),
        ((3, 4, 4), (5, 4, 4)),
        "E0313 add needs equal shapes, or 1 where a branch is broadcast: branch 0 is 3x4x4,"
        " branch 1 is 5x4x4 (a 1x1 convolution with `filters: C` and equal strides makes branches"
        " equal)",
    ),
    "mul-gate": (
        Mul(),
        ((16, 4, 4), (8, 1, 1)),
        "E0313 mul needs equal shapes, or 1 where a branch is broadcast: branch 0 is 16x4x4,"
        " branch 1 is 8x1x1 (`C` is the number of channels of the previous step: store that"
        " of the branches with `let: {full: C}` above, and end the gate with `filters: full`)",
    ),
    "mul-ranks": (
        Mul(),
        ((3, 4, 4), (3,)),
        "E0314 mul cannot join feature maps and vectors: branch 0 is 3x4x4, branch 1 is 3"
        " (put `flatten` into every branch, or into none)",
    ),
}


def read_refusal(op: Op, *shapes: tuple[int, ...]) -> str:
    kinds = tuple(map(TensorType, shapes))
    with pytest.raises(OpError) as caught:
        make_node("op", op, tuple(f"x{i}" for i in range(len(kinds))), kinds)
    help = f" ({caught.value.help})" if caught.value.help else ""
    return f"{caught.value.code} {caught.value}{help}"


@pytest.mark.parametrize(("op", "shapes", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_invalid_ops_are_refused_with_a_message(
    op: Op, shapes: tuple[tuple[int, ...], ...], expected: str
) -> None:
    assert read_refusal(op, *shapes) == expected


@pytest.mark.parametrize("op", NEED_MAPS, ids=lambda op: op.keyword)
def test_vectors_are_refused_where_a_map_is_needed(op: Op) -> None:
    assert read_refusal(op, (8,)) == (
        f"E0301 {op.keyword} needs a channels x height x width value:"
        " the input is a vector of 8 (move this step before `flatten`)"
    )
