"""The loops of a direct convolution over tiles and taps."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import prod
from typing import Any, assert_never

from tcc.backends.arm.kernels.base import LANES, Space, choose_tile_width
from tcc.backends.arm.kernels.conv import PARALLEL, DirectConv, GatherMode
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply_epilogue
from tcc.backends.arm.kernels.loops.staging import BandedMap, Rows
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr

MAX_UNROLLED_TAPS = 32
"""Largest single-channel kernel that is unrolled: 5x5 is, 7x7 is not. LLVM spills registers in
longer sums."""


@dataclass(frozen=True, slots=True)
class ConvBuffers:
    """A function's arguments without scratch memory; `source` is the map or its staged copy."""

    source: Buffer
    weights: Buffer
    bias: Buffer
    operands: Sequence[Buffer]
    output: Buffer


@dataclass(frozen=True, slots=True)
class ChannelBlock:
    """A block of output channels: its index, and its number of channels."""

    index: Expr
    channels: int


@dataclass(frozen=True, slots=True)
class PixelTile:
    """Consecutive pixels, in vectors of `lanes`.

    `start` is the offset of the first pixel's window in the buffer that is read.
    """

    y: Expr
    x: Expr
    count: int
    lanes: int
    start: Expr

    def move(self, distance: Expr) -> "PixelTile":
        """Return the same pixels, read at another offset."""
        return replace(self, start=self.start + distance)


@dataclass(frozen=True, slots=True)
class Panel:
    """Taps at regular distances: tap k of the first pixel is at start + k * step."""

    buffer: Buffer
    start: Expr
    step: int


Visit = Callable[[Buffer, Expr, Expr], None]
"""Emits code for one tap: from the buffer, the offset for a tile's first pixel, and its index."""
WalkTaps = Callable[[Visit], None]
"""Calls a `Visit` for each tap of a tile, in loops that it emits."""


def create_panel_walk(kernel: DirectConv, panel: Panel) -> WalkTaps:
    """Return a walk over a panel in one loop."""

    def walk(visit: Visit) -> None:
        with tir.emit_loop(kernel.taps) as k:
            visit(panel.buffer, panel.start + k * panel.step, k)

    return walk


def create_nested_walk(kernel: DirectConv, source: Buffer, pixels: PixelTile) -> WalkTaps:
    """Return a walk over channels, rows and columns of the window, without gathering."""
    layout, (height, width) = kernel.layout, kernel.window.kernel

    def walk(visit: Visit) -> None:
        if kernel.depth == 1 and height * width <= MAX_UNROLLED_TAPS:
            # Unrolled: offsets are constants, and loads overlap with sums.
            for i in range(height):
                for j in range(width):
                    at = pixels.start + i * layout.row + layout.compute_column_offset(j)
                    visit(source, at, i * width + j)
            return
        with (
            tir.emit_loop(kernel.depth) as c,
            tir.emit_loop(height) as i,
            tir.emit_loop(width) as j,
        ):
            at = (
                pixels.start + c * layout.channel + i * layout.row + layout.compute_column_offset(j)
            )
            visit(source, at, (c * height + i) * width + j)

    return walk


def gather_taps(
    kernel: DirectConv, source: Buffer, c: Expr, pixels: PixelTile, panel: Panel
) -> None:
    """Copy the taps of channel `c` of a group, for some pixels, to a panel."""
    layout, (height, width) = kernel.layout, kernel.window.kernel
    with tir.emit_loop(height) as i, tir.emit_loop(width) as j:
        at = pixels.start + i * layout.row + layout.compute_column_offset(j)
        to = panel.start + ((c * height + i) * width + j) * panel.step
        for u in range(0, pixels.count, pixels.lanes):
            value = tir.load(source, at + u, pixels.lanes)
            tir.store(panel.buffer, to + u, value, pixels.lanes)


def build(kernel: DirectConv, symbol: str) -> Any:
    """Return the function of a direct convolution."""
    filters, operand_count = kernel.filters + kernel.padding, len(kernel.epilogue.operands)
    numbers = kernel.numbers
    spaces = [
        Space(prod(kernel.window.source), numbers.source),
        Space(filters * kernel.taps, numbers.weight),
        Space(filters, numbers.total),
        *kernel.epilogue.spaces,
        *kernel.scratch,
        kernel.epilogue.get_output_space(kernel.output_shape),
    ]

    def emit_body(source: Buffer, weights: Buffer, bias: Buffer, *trailing_buffers: Buffer) -> None:
        operands, scratch = trailing_buffers[:operand_count], trailing_buffers[operand_count:-1]
        memory = ConvBuffers(source, weights, bias, operands, trailing_buffers[-1])
        match kernel.gather_mode:
            case GatherMode.MAP:
                _emit_gathered_map(kernel, memory, scratch)
            case GatherMode.TILE:
                _emit_gathered_tiles(kernel, memory, scratch)
            case GatherMode.NONE:
                _emit_in_place(kernel, memory, scratch)
            case _:
                assert_never(kernel.gather_mode)

    return tir.build_function(symbol, spaces, emit_body)


def _iterate_bands(
    kernel: DirectConv,
    memory: ConvBuffers,
    scratch: Sequence[Buffer],
    channel: Expr = 0,
    *,
    parallel: bool = False,
) -> AbstractContextManager[Rows]:
    """Run the body for each band of the output; `channel` is the first channel to read."""
    banded_map = BandedMap(kernel.band, kernel.layout, kernel.window.out[0], memory.source, scratch)
    return banded_map.iterate_rows(channel, parallel=parallel)


def _visit_tiles(
    kernel: DirectConv, rows: Rows, body: Callable[[PixelTile], None], *, flat: bool
) -> None:
    """Call `body` for all pixels of some rows of the output, one tile at a time."""
    height, width = rows.count, kernel.window.out[1]
    if flat:
        height, width = 1, height * width
    tile = choose_tile_width(width, kernel.tile[1], kernel.numbers.lanes)
    count, lanes = (width, 1) if kernel.uses_channel_vectors else tile
    shares_pixels = flat and rows.is_parallel
    with (
        tir.emit_loop(height, parallel=rows.is_parallel and not shares_pixels) as i,
        tir.tile_loop(width, count, parallel=shares_pixels) as j,
    ):
        y, x = (0, rows.first_row * kernel.window.out[1] + j) if flat else (rows.first_row + i, j)
        start = rows.start + i * kernel.layout.row_step + j
        body(PixelTile(y, x, count, lanes, start))


def _visit_blocks(
    kernel: DirectConv,
    body: Callable[[ChannelBlock], None],
    *,
    group: Expr = 0,
    parallel: bool = False,
) -> None:
    """Call `body` for each block of output channels of a group."""
    blocks = kernel.blocks
    group_blocks = blocks.count // kernel.groups
    with tir.emit_loop(group_blocks, parallel=parallel) as block:
        body(ChannelBlock(group * group_blocks + block, blocks.width))
    # Emitted separately, because the number of channels is a constant: no branch in the innermost
    # loop.
    if blocks.remainder:
        body(ChannelBlock(blocks.count, blocks.remainder))


def _emit_gathered_map(kernel: DirectConv, memory: ConvBuffers, scratch: Sequence[Buffer]) -> None:
    """Gather the taps of all pixels, then read the weights once."""
    *band, gathered = scratch
    size, parallel = prod(kernel.plane), kernel.macs >= PARALLEL
    has_private_bands = not band

    def get_panel(pixels: PixelTile) -> Panel:
        return Panel(gathered, pixels.y * kernel.window.out[1] + pixels.x, size)

    def compute_tile_of_block(block: ChannelBlock, pixels: PixelTile) -> None:
        compute_tile(kernel, memory, block, pixels, create_panel_walk(kernel, get_panel(pixels)))

    with (
        tir.emit_loop(kernel.depth, parallel=parallel and has_private_bands) as c,
        _iterate_bands(
            kernel, memory, band, c, parallel=parallel and not has_private_bands
        ) as rows,
    ):

        def gather_tile(pixels: PixelTile) -> None:
            gather_taps(kernel, rows.buffer, c, pixels, get_panel(pixels))

        _visit_tiles(kernel, rows, gather_tile, flat=False)

    all_rows = Rows(gathered, 0, 0, kernel.window.out[0], is_parallel=False)

    def compute_block(block: ChannelBlock) -> None:
        _visit_tiles(
            kernel, all_rows, lambda p: compute_tile_of_block(block, p), flat=kernel.is_flat
        )

    _visit_blocks(kernel, compute_block, parallel=parallel)


def _emit_gathered_tiles(
    kernel: DirectConv, memory: ConvBuffers, scratch: Sequence[Buffer]
) -> None:
    """Gather the taps of one tile of pixels, then use them for all output channels."""
    with _iterate_bands(kernel, memory, scratch, parallel=kernel.macs >= PARALLEL) as rows:

        def compute_pixels(pixels: PixelTile) -> None:
            gathered = tir.allocate_local(kernel.taps * pixels.count, kernel.numbers.gathered)
            panel = Panel(gathered, 0, pixels.count)
            walk_taps = create_panel_walk(kernel, panel)
            with tir.emit_loop(kernel.groups) as group:
                first_channel = group * kernel.depth
                with tir.emit_loop(kernel.depth) as c:
                    source_tile = pixels.move((first_channel + c) * kernel.layout.channel)
                    gather_taps(kernel, rows.buffer, c, source_tile, panel)
                _visit_blocks(
                    kernel,
                    lambda block: compute_tile(kernel, memory, block, pixels, walk_taps),
                    group=group,
                )

        _visit_tiles(kernel, rows, compute_pixels, flat=kernel.is_flat)


def _emit_in_place(kernel: DirectConv, memory: ConvBuffers, scratch: Sequence[Buffer]) -> None:
    """Read the map without gathering; of weights and map, the larger one is read once."""
    parallel = kernel.macs >= PARALLEL

    def compute_tile_of_block(rows: Rows, block: ChannelBlock, pixels: PixelTile) -> None:
        compute_tile(kernel, memory, block, pixels, create_nested_walk(kernel, rows.buffer, pixels))

    def compute_block(rows: Rows, block: ChannelBlock) -> None:
        _visit_tiles(
            kernel, rows, lambda p: compute_tile_of_block(rows, block, p), flat=kernel.is_flat
        )

    if kernel.groups > 1:
        has_private_bands = not scratch
        with (
            tir.emit_loop(kernel.groups, parallel=parallel and has_private_bands) as group,
            _iterate_bands(
                kernel,
                memory,
                scratch,
                group * kernel.depth,
                parallel=parallel and not has_private_bands,
            ) as rows,
        ):
            _visit_blocks(kernel, lambda block: compute_block(rows, block), group=group)
        return
    if kernel.is_weight_major:
        with _iterate_bands(kernel, memory, scratch, parallel=parallel) as rows:
            all_rows = replace(rows, is_parallel=False)
            _visit_blocks(kernel, lambda block: compute_block(all_rows, block), parallel=parallel)
        return
    with _iterate_bands(kernel, memory, scratch, parallel=parallel) as rows:

        def compute_pixels(pixels: PixelTile) -> None:
            _visit_blocks(kernel, lambda block: compute_tile_of_block(rows, block, pixels))

        _visit_tiles(kernel, rows, compute_pixels, flat=kernel.is_flat)


def compute_tile(
    kernel: DirectConv,
    memory: ConvBuffers,
    block: ChannelBlock,
    pixels: PixelTile,
    walk_taps: WalkTaps,
) -> None:
    """Emit the code that computes and writes one tile."""
    (_emit_channel_vectors if kernel.uses_channel_vectors else _emit_pixel_vectors)(
        kernel, memory, block, pixels, walk_taps
    )


def _emit_pixel_vectors(
    kernel: DirectConv,
    memory: ConvBuffers,
    block: ChannelBlock,
    pixels: PixelTile,
    walk_taps: WalkTaps,
) -> None:
    """Emit a tile with vectors along pixels."""
    lanes, first_channel = pixels.lanes, block.index * kernel.blocks.width
    sums = tir.allocate_local(block.channels * pixels.count, kernel.numbers.total)
    sum_positions = [
        (t, u, t * pixels.count + u)
        for t in range(block.channels)
        for u in range(0, pixels.count, lanes)
    ]
    for t, _, sum_position in sum_positions:
        # Start with the bias: this saves an addition after the loop.
        tir.store(
            sums, sum_position, tir.splat(tir.load(memory.bias, first_channel + t), lanes), lanes
        )

    def visit(buffer: Buffer, at: Expr, k: Expr) -> None:
        weight = _locate_weights(kernel, block) + k * block.channels
        for t, u, sum_position in sum_positions:
            factor = tir.splat(tir.load(memory.weights, weight + t), lanes)
            value = tir.load(buffer, at + u, lanes) * factor
            tir.store(sums, sum_position, tir.load(sums, sum_position, lanes) + value, lanes)

    walk_taps(visit)
    for t, u, sum_position in sum_positions:
        at = Position(first_channel + t, pixels.y, pixels.x + u)
        value = apply_epilogue(
            kernel.epilogue, memory.operands, tir.load(sums, sum_position, lanes), at, lanes
        )
        tir.store(memory.output, at.compute_offset(kernel.output_shape), value, lanes)


def _emit_channel_vectors(
    kernel: DirectConv,
    memory: ConvBuffers,
    block: ChannelBlock,
    pixels: PixelTile,
    walk_taps: WalkTaps,
) -> None:
    """Emit a tile with vectors along output channels, padded to full vectors."""
    channels = -(-block.channels // LANES) * LANES
    first_channel = block.index * kernel.blocks.width
    sums = tir.allocate_local(pixels.count * channels, kernel.numbers.total)
    sum_positions = [
        (u, t, u * channels + t) for u in range(pixels.count) for t in range(0, channels, LANES)
    ]
    for _, t, sum_position in sum_positions:
        tir.store(sums, sum_position, tir.load(memory.bias, first_channel + t, LANES), LANES)

    def visit(buffer: Buffer, at: Expr, k: Expr) -> None:
        weight = _locate_weights(kernel, block) + k * channels
        for u, t, sum_position in sum_positions:
            value = tir.splat(tir.load(buffer, at + u), LANES)
            value = value * tir.load(memory.weights, weight + t, LANES)
            tir.store(sums, sum_position, tir.load(sums, sum_position, LANES) + value, LANES)

    walk_taps(visit)
    if kernel.plane == (1, 1):
        _write_vector(kernel, memory, sums, first_channel, block.channels)
        return
    for u in range(pixels.count):
        for t in range(block.channels):
            at = Position(first_channel + t, pixels.y, pixels.x + u)
            value = tir.load(sums, u * channels + t)
            value = apply_epilogue(kernel.epilogue, memory.operands, value, at, 1)
            tir.store(memory.output, at.compute_offset(kernel.output_shape), value)


def _locate_weights(kernel: DirectConv, block: ChannelBlock) -> Expr:
    """Return the offset of a block's weights; all blocks before it are full."""
    return block.index * (kernel.blocks.width * kernel.taps)


def _write_vector(
    kernel: DirectConv, memory: ConvBuffers, sums: Buffer, first_channel: Expr, channels: int
) -> None:
    """Write the channels of a single pixel, in vectors where these are full."""
    epilogue = kernel.epilogue.to_vector()
    full_channels = channels // LANES * LANES
    pieces = [(t, LANES) for t in range(0, full_channels, LANES)] + [
        (t, 1) for t in range(full_channels, channels)
    ]
    for t, lanes in pieces:
        at = Position(0, 0, first_channel + t)
        value = apply_epilogue(epilogue, memory.operands, tir.load(sums, t, lanes), at, lanes)
        tir.store(memory.output, at.x, value, lanes)
