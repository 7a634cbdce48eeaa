"""The loops of a direct convolution: which tiles and taps in which order."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import prod
from typing import Any, assert_never

from tcc.backends.arm.kernels.base import LANES, Space, tile_width
from tcc.backends.arm.kernels.conv import PARALLEL, DirectConv, Gathered
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply
from tcc.backends.arm.kernels.loops.staging import BandedMap, Rows
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr

UNROLLED = 32
"""Most taps of a kernel of one channel that are written out: 5x5, not 7x7. LLVM spills registers
where it sees longer sums at once."""


@dataclass(frozen=True, slots=True)
class ConvBuffers:
    """A function's arguments but its scratch memory; `source` is the map or its staged copy."""

    source: Buffer
    weights: Buffer
    bias: Buffer
    operands: Sequence[Buffer]
    result: Buffer


@dataclass(frozen=True, slots=True)
class ChannelBlock:
    """Output channels: the index of their block, and how many there are."""

    index: Expr
    channels: int


@dataclass(frozen=True, slots=True)
class PixelTile:
    """Some pixels in a row, `lanes` of them to a vector.

    `start` is where the first one's window begins in what is read.
    """

    y: Expr
    x: Expr
    count: int
    lanes: int
    start: Expr

    def moved(self, distance: Expr) -> "PixelTile":
        """Return the same pixels, read elsewhere."""
        return replace(self, start=self.start + distance)


@dataclass(frozen=True, slots=True)
class Panel:
    """Where taps lie at regular distances: tap k of the first pixel at start + k * step."""

    buffer: Buffer
    start: Expr
    step: int


Visit = Callable[[Buffer, Expr, Expr], None]
"""Told of one tap: what and where it reads for a tile's first pixel, and its number."""
Taps = Callable[[Visit], None]
"""Runs a visit for each tap of a tile."""


def in_a_row(kernel: DirectConv, panel: Panel) -> Taps:
    """Return a walk in one loop."""

    def walk(visit: Visit) -> None:
        with tir.loop(kernel.taps) as k:
            visit(panel.buffer, panel.start + k * panel.step, k)

    return walk


def nested(kernel: DirectConv, source: Buffer, pixels: PixelTile) -> Taps:
    """Return a walk over channels, rows and columns of the window, where they lie."""
    layout, (height, width) = kernel.layout, kernel.window.kernel

    def walk(visit: Visit) -> None:
        if kernel.depth == 1 and height * width <= UNROLLED:
            # Unrolled: the compiler sees constant distances, and loads overlap with sums.
            for i in range(height):
                for j in range(width):
                    at = pixels.start + i * layout.row + layout.column(j)
                    visit(source, at, i * width + j)
            return
        with tir.loop(kernel.depth) as c, tir.loop(height) as i, tir.loop(width) as j:
            at = pixels.start + c * layout.channel + i * layout.row + layout.column(j)
            visit(source, at, (c * height + i) * width + j)

    return walk


def gather(kernel: DirectConv, source: Buffer, c: Expr, pixels: PixelTile, panel: Panel) -> None:
    """Write what the taps of channel `c` of a group, which some pixels read, into a panel."""
    layout, (height, width) = kernel.layout, kernel.window.kernel
    with tir.loop(height) as i, tir.loop(width) as j:
        at = pixels.start + i * layout.row + layout.column(j)
        to = panel.start + ((c * height + i) * width + j) * panel.step
        for u in range(0, pixels.count, pixels.lanes):
            value = tir.load(source, at + u, pixels.lanes)
            tir.store(panel.buffer, to + u, value, pixels.lanes)


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


def compute(
    kernel: DirectConv, memory: ConvBuffers, block: ChannelBlock, pixels: PixelTile, taps: Taps
) -> None:
    """Compute and write one tile."""
    (_across if kernel.across else _along)(kernel, memory, block, pixels, taps)


def _along(
    kernel: DirectConv, memory: ConvBuffers, block: ChannelBlock, pixels: PixelTile, taps: Taps
) -> None:
    """A tile whose vectors run along pixels."""
    lanes, first = pixels.lanes, block.index * kernel.blocks.width
    sums = tir.local(block.channels * pixels.count, kernel.numbers.total)
    spots = [
        (t, u, t * pixels.count + u)
        for t in range(block.channels)
        for u in range(0, pixels.count, lanes)
    ]
    for t, _, spot in spots:
        # Begun with the bias, so that it costs no addition after the loop.
        tir.store(sums, spot, tir.splat(tir.load(memory.bias, first + t), lanes), lanes)

    def visit(read: Buffer, at: Expr, k: Expr) -> None:
        weight = _weights(kernel, block) + k * block.channels
        for t, u, spot in spots:
            factor = tir.splat(tir.load(memory.weights, weight + t), lanes)
            value = tir.load(read, at + u, lanes) * factor
            tir.store(sums, spot, tir.load(sums, spot, lanes) + value, lanes)

    taps(visit)
    for t, u, spot in spots:
        at = Position(first + t, pixels.y, pixels.x + u)
        value = apply(kernel.epilogue, memory.operands, tir.load(sums, spot, lanes), at, lanes)
        tir.store(memory.result, at.offset(kernel.result), value, lanes)


def _across(
    kernel: DirectConv, memory: ConvBuffers, block: ChannelBlock, pixels: PixelTile, taps: Taps
) -> None:
    """A tile whose vectors run along output channels, padded to whole vectors."""
    channels = -(-block.channels // LANES) * LANES
    first = block.index * kernel.blocks.width
    sums = tir.local(pixels.count * channels, kernel.numbers.total)
    spots = [
        (u, t, u * channels + t) for u in range(pixels.count) for t in range(0, channels, LANES)
    ]
    for _, t, spot in spots:
        tir.store(sums, spot, tir.load(memory.bias, first + t, LANES), LANES)

    def visit(read: Buffer, at: Expr, k: Expr) -> None:
        weight = _weights(kernel, block) + k * channels
        for u, t, spot in spots:
            value = tir.splat(tir.load(read, at + u), LANES)
            value = value * tir.load(memory.weights, weight + t, LANES)
            tir.store(sums, spot, tir.load(sums, spot, LANES) + value, LANES)

    taps(visit)
    if kernel.plane == (1, 1):
        _write_vector(kernel, memory, sums, first, block.channels)
        return
    for u in range(pixels.count):
        for t in range(block.channels):
            at = Position(first + t, pixels.y, pixels.x + u)
            value = tir.load(sums, u * channels + t)
            value = apply(kernel.epilogue, memory.operands, value, at, 1)
            tir.store(memory.result, at.offset(kernel.result), value)


def _weights(kernel: DirectConv, block: ChannelBlock) -> Expr:
    """Return where a block's weights begin; all blocks before it are full."""
    return block.index * (kernel.blocks.width * kernel.taps)


def _write_vector(
    kernel: DirectConv, memory: ConvBuffers, sums: Buffer, first: Expr, channels: int
) -> None:
    """Write the channels of a single pixel, in vectors as far as they are full."""
    epilogue = kernel.epilogue.transposed()
    full = channels // LANES * LANES
    pieces = [(t, LANES) for t in range(0, full, LANES)] + [(t, 1) for t in range(full, channels)]
    for t, lanes in pieces:
        at = Position(0, 0, first + t)
        value = apply(epilogue, memory.operands, tir.load(sums, t, lanes), at, lanes)
        tir.store(memory.result, at.x, value, lanes)
