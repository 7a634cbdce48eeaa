"""The loops of a direct convolution: which tiles in which order."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from math import prod
from typing import Any, assert_never

from tcc.backends.arm.kernels.base import Space
from tcc.backends.arm.kernels.conv import PARALLEL, DirectConv, Gathered
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.conv_tile import ChannelBlock, ConvBuffers, compute
from tcc.backends.arm.kernels.loops.staging import BandedMap, Rows
from tcc.backends.arm.kernels.loops.taps import Panel, PixelTile, gather, in_a_row, nested
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.tiling import tile_width


def build(kernel: DirectConv, symbol: str) -> Any:
    """Return the function."""
    filters, extra = kernel.filters + kernel.padding, len(kernel.epilogue.operands)
    numbers = kernel.numbers
    spaces = [
        Space(prod(kernel.window.source), numbers.source),
        Space(filters * kernel.taps, numbers.weight),
        Space(filters, numbers.total),
        *kernel.epilogue.spaces,
        *kernel.scratch,
        kernel.epilogue.written(kernel.result),
    ]

    def body(source: Buffer, weights: Buffer, bias: Buffer, *rest: Buffer) -> None:
        operands, scratch = rest[:extra], rest[extra:-1]
        memory = ConvBuffers(source, weights, bias, operands, rest[-1])
        match kernel.gathered:
            case Gathered.MAP:
                _gathered_map(kernel, memory, scratch)
            case Gathered.TILE:
                _gathered_tiles(kernel, memory, scratch)
            case Gathered.NONE:
                _in_place(kernel, memory, scratch)
            case _:
                assert_never(kernel.gathered)

    return tir.function(symbol, spaces, body)


def _bands(
    kernel: DirectConv,
    memory: ConvBuffers,
    scratch: Sequence[Buffer],
    channel: Expr = 0,
    *,
    parallel: bool = False,
) -> AbstractContextManager[Rows]:
    """Run what follows for each band of the output, whose windows' first channel is that one."""
    pieces = BandedMap(kernel.band, kernel.layout, kernel.window.out[0], memory.source, scratch)
    return pieces.rows(channel, parallel=parallel)


def _plane(
    kernel: DirectConv, rows: Rows, body: Callable[[PixelTile], None], *, flat: bool
) -> None:
    """Run `body` for all pixels of some rows of the output, a tile at a time."""
    height, width = rows.count, kernel.window.out[1]
    if flat:
        height, width = 1, height * width
    tile = tile_width(width, kernel.tile[1], kernel.numbers.lanes)
    count, lanes = (width, 1) if kernel.across else tile
    across = flat and rows.parallel
    with (
        tir.loop(height, parallel=rows.parallel and not across) as i,
        tir.tiles(width, count, parallel=across) as j,
    ):
        y, x = (0, rows.first * kernel.window.out[1] + j) if flat else (rows.first + i, j)
        start = rows.start + i * kernel.layout.row_step + j
        body(PixelTile(y, x, count, lanes, start))


def _blocks(
    kernel: DirectConv,
    body: Callable[[ChannelBlock], None],
    *,
    group: Expr = 0,
    parallel: bool = False,
) -> None:
    """Run `body` for each block of output channels of a group."""
    blocks = kernel.blocks
    own = blocks.count // kernel.groups
    with tir.loop(own, parallel=parallel) as block:
        body(ChannelBlock(group * own + block, blocks.width))
    # A body of its own, as the count of channels is written out in it: no branch in the innermost
    # loop.
    if blocks.rest:
        body(ChannelBlock(blocks.count, blocks.rest))


def _gathered_map(kernel: DirectConv, memory: ConvBuffers, scratch: Sequence[Buffer]) -> None:
    """Gather the taps of all pixels, then walk through the weights once."""
    *band, gathered = scratch
    size, parallel = prod(kernel.plane), kernel.macs >= PARALLEL
    own = not band

    def panel(pixels: PixelTile) -> Panel:
        return Panel(gathered, pixels.y * kernel.window.out[1] + pixels.x, size)

    def tile(block: ChannelBlock, pixels: PixelTile) -> None:
        compute(kernel, memory, block, pixels, in_a_row(kernel, panel(pixels)))

    with (
        tir.loop(kernel.depth, parallel=parallel and own) as c,
        _bands(kernel, memory, band, c, parallel=parallel and not own) as rows,
    ):

        def taken(pixels: PixelTile) -> None:
            gather(kernel, rows.read, c, pixels, panel(pixels))

        _plane(kernel, rows, taken, flat=False)

    every = Rows(gathered, 0, 0, kernel.window.out[0], parallel=False)

    def channels(block: ChannelBlock) -> None:
        _plane(kernel, every, lambda p: tile(block, p), flat=kernel.flat)

    _blocks(kernel, channels, parallel=parallel)


def _gathered_tiles(kernel: DirectConv, memory: ConvBuffers, scratch: Sequence[Buffer]) -> None:
    """Gather the taps of one tile of pixels, then use them for all output channels."""
    with _bands(kernel, memory, scratch, parallel=kernel.macs >= PARALLEL) as rows:

        def tile(pixels: PixelTile) -> None:
            gathered = tir.local(kernel.taps * pixels.count, kernel.numbers.gathered)
            panel = Panel(gathered, 0, pixels.count)
            taps = in_a_row(kernel, panel)
            with tir.loop(kernel.groups) as group:
                first = group * kernel.depth
                with tir.loop(kernel.depth) as c:
                    from_ = pixels.moved((first + c) * kernel.layout.channel)
                    gather(kernel, rows.read, c, from_, panel)
                _blocks(
                    kernel, lambda block: compute(kernel, memory, block, pixels, taps), group=group
                )

        _plane(kernel, rows, tile, flat=kernel.flat)


def _in_place(kernel: DirectConv, memory: ConvBuffers, scratch: Sequence[Buffer]) -> None:
    """Read the map where it lies; the larger one of weights and map is walked through once."""
    parallel = kernel.macs >= PARALLEL

    def tile(rows: Rows, block: ChannelBlock, pixels: PixelTile) -> None:
        compute(kernel, memory, block, pixels, nested(kernel, rows.read, pixels))

    def channels(rows: Rows, block: ChannelBlock) -> None:
        _plane(kernel, rows, lambda p: tile(rows, block, p), flat=kernel.flat)

    if kernel.groups > 1:
        own = not scratch
        with (
            tir.loop(kernel.groups, parallel=parallel and own) as group,
            _bands(
                kernel, memory, scratch, group * kernel.depth, parallel=parallel and not own
            ) as rows,
        ):
            _blocks(kernel, lambda block: channels(rows, block), group=group)
        return
    if kernel.weights_outside:
        with _bands(kernel, memory, scratch, parallel=parallel) as rows:
            every = replace(rows, parallel=False)
            _blocks(kernel, lambda block: channels(every, block), parallel=parallel)
        return
    with _bands(kernel, memory, scratch, parallel=parallel) as rows:

        def pixel_tile(pixels: PixelTile) -> None:
            _blocks(kernel, lambda block: tile(rows, block, pixels))

        _plane(kernel, rows, pixel_tile, flat=kernel.flat)
