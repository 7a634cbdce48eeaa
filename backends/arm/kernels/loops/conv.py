"""The loops of a direct convolution: which tiles in which order."""

from collections.abc import Callable
from math import prod
from typing import Any, assert_never

from tcc.backends.arm.kernels.base import Space
from tcc.backends.arm.kernels.conv import DirectConv, Gathered
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.conv_tile import ChannelBlock, ConvBuffers, compute
from tcc.backends.arm.kernels.loops.staging import stage
from tcc.backends.arm.kernels.loops.taps import Panel, PixelTile, Taps, gather, in_a_row, nested
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.compiler.ir.types import Pair

PARALLEL = 1 << 15
"""Multiply-accumulates from which a loop is worth several threads: some 55 us of a Cortex-A7 at
1 GHz, at the 1.7 cycles that each takes by the model: of the order of what waking threads takes."""


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
        if staging := kernel.staging:
            stage(staging, source, scratch[0])
            source = scratch[0]
        memory = ConvBuffers(source, weights, bias, operands, rest[-1])
        match kernel.gathered:
            case Gathered.MAP:
                _gathered_map(kernel, memory, scratch[-1])
            case Gathered.TILE:
                _gathered_tiles(kernel, memory)
            case Gathered.NONE:
                _in_place(kernel, memory)
            case _:
                assert_never(kernel.gathered)

    return tir.function(symbol, spaces, body)


def _plane(
    kernel: DirectConv,
    body: Callable[[PixelTile], None],
    *,
    parallel: bool = False,
    rows: Pair | None = None,
) -> None:
    """Run `body` for all pixels of the output, or of `rows` (height, width), a tile at a time."""
    height, width = rows or kernel.plane
    tile = tir.tile_width(width, kernel.tile[1], kernel.numbers.lanes)
    count, lanes = (width, 1) if kernel.across else tile
    with (
        tir.loop(height, parallel=parallel and height > 1) as y,
        tir.tiles(width, count, parallel=parallel and height == 1) as x,
    ):
        body(PixelTile(y, x, count, lanes))


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
    if blocks.rest:
        body(ChannelBlock(blocks.count, blocks.rest))


def _gathered_map(kernel: DirectConv, memory: ConvBuffers, gathered: Buffer) -> None:
    """Gather the taps of all pixels, then walk through the weights once."""
    rows, size = kernel.window.out, prod(kernel.plane)

    def panel(pixels: PixelTile, width: int) -> Panel:
        return Panel(gathered, pixels.y * width + pixels.x, size)

    def tile(block: ChannelBlock, pixels: PixelTile) -> None:
        taps = in_a_row(kernel, panel(pixels, kernel.plane[1]))
        compute(kernel, memory, block, pixels, taps)

    parallel = kernel.macs >= PARALLEL
    with tir.loop(kernel.depth, parallel=parallel) as c:
        _plane(
            kernel,
            lambda p: gather(kernel, memory.source, 0, c, p, panel(p, rows[1])),
            rows=rows,
        )
    _blocks(kernel, lambda block: _plane(kernel, lambda p: tile(block, p)), parallel=parallel)


def _gathered_tiles(kernel: DirectConv, memory: ConvBuffers) -> None:
    """Gather the taps of one tile of pixels, then use them for all output channels."""

    def tile(pixels: PixelTile) -> None:
        gathered = tir.local(kernel.taps * pixels.count, kernel.numbers.gathered)
        panel = Panel(gathered, 0, pixels.count)
        taps = in_a_row(kernel, panel)
        with tir.loop(kernel.groups) as group:
            with tir.loop(kernel.depth) as c:
                gather(kernel, memory.source, group, c, pixels, panel)
            _blocks(kernel, lambda block: compute(kernel, memory, block, pixels, taps), group=group)

    _plane(kernel, tile, parallel=kernel.macs >= PARALLEL)


def _in_place(kernel: DirectConv, memory: ConvBuffers) -> None:
    """Read the map where it lies; the larger one of weights and map is walked through once."""
    parallel = kernel.macs >= PARALLEL

    def taps(group: Expr, pixels: PixelTile) -> Taps:
        return nested(kernel, memory.source, group, pixels)

    if kernel.groups == 1 and not kernel.weights_outside:

        def tile(pixels: PixelTile) -> None:
            walk = taps(0, pixels)
            _blocks(kernel, lambda block: compute(kernel, memory, block, pixels, walk))

        _plane(kernel, tile, parallel=parallel)
        return

    def channels(block: ChannelBlock, group: Expr) -> None:
        _plane(kernel, lambda p: compute(kernel, memory, block, p, taps(group, p)))

    if kernel.groups == 1:
        _blocks(kernel, lambda block: channels(block, 0), parallel=parallel)
        return
    with tir.loop(kernel.groups, parallel=parallel) as group:
        _blocks(kernel, lambda block: channels(block, group), group=group)
