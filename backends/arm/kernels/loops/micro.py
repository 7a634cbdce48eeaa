"""The loops around int8 micro-kernels: order of the tiles, and fused ops."""

from tcc.backends.arm.kernels.base import LANES
from tcc.backends.arm.kernels.conv import PARALLEL
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply_epilogue
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.micro import MicroDepthwise, MicroMatrix, MicroVector
from tcc.backends.arm.micro.records import QUAD, ChannelMatrix

FILTERS_PER_TASK = 64
"""Filters of a linear layer per task of a parallel loop."""


def build_matrix(kernel: MicroMatrix, symbol: str) -> Expr:
    """Return the function of a convolution in tiles."""
    is_parallel, tile_pixels = kernel.macs >= PARALLEL, kernel.record.pixels
    tiles_per_round, (tiles, tail) = kernel.panels_per_round, divmod(kernel.pixels, tile_pixels)
    rounds, remaining_tiles = divmod(tiles, tiles_per_round)

    def emit_body(*arguments: Buffer) -> None:
        buffers, interleaved = arguments, None
        if kernel.scratch:
            interleaved, buffers = arguments[-2], (*arguments[:-2], arguments[-1])
            _pack_channels(kernel, arguments[0], arguments[4], interleaved)
        with tir.emit_loop(kernel.groups, parallel=is_parallel and kernel.groups > 1) as group:
            if rounds:
                with tir.emit_loop(
                    rounds, parallel=is_parallel and kernel.groups == 1
                ) as iteration:
                    first_pixel = iteration * tiles_per_round * tile_pixels
                    _emit_tiles(
                        kernel,
                        buffers,
                        interleaved,
                        group,
                        first_pixel,
                        tiles_per_round,
                        tile_pixels,
                    )
            if remaining_tiles:
                _emit_tiles(
                    kernel,
                    buffers,
                    interleaved,
                    group,
                    rounds * tiles_per_round * tile_pixels,
                    remaining_tiles,
                    tile_pixels,
                )
            if tail:
                _emit_tiles(kernel, buffers, interleaved, group, tiles * tile_pixels, 1, tail)

    return tir.build_function(symbol, kernel.spaces, emit_body)


def _pack_channels(
    kernel: MicroMatrix, source: Buffer, window: Buffer, interleaved: Buffer
) -> None:
    """Interleave the channels of all groups."""
    quad_count = kernel.groups * kernel.window.channels // QUAD
    with tir.emit_loop(quad_count, parallel=kernel.macs >= PARALLEL) as quad:
        tir.call(
            kernel.record.get_symbol("deal"),
            tir.get_address(source, 0),
            tir.get_address(interleaved, 0),
            tir.get_address(window, 0),
            quad,
            quad_count,
        )


def _emit_tiles(
    kernel: MicroMatrix,
    buffers: tuple[Buffer, ...],
    interleaved: Buffer | None,
    group: Expr,
    first_pixel: Expr,
    count: int,
    pixels: int,
) -> None:
    """Emit some tiles from a pixel on: gather them, then apply the weights to all of them.

    With `interleaved` channels, panels are copied from these.
    """
    source, _, _, _, window, *_ = buffers
    w, record = kernel.window, kernel.record
    panels = tir.allocate_local(count * kernel.panel_bytes, "int8")
    if interleaved is not None and isinstance(record, ChannelMatrix):
        source_address = tir.get_address(
            interleaved, group * (record.count_interleaved_quads(w, 1) - record.copy_width)
        )
    else:
        source_address = tir.get_address(source, group * (w.channels * w.size[0] * w.size[1]))
    with tir.emit_loop(count) as tile:
        tir.call(
            record.get_symbol("gather" if interleaved is None else "copy"), source_address,
            tir.get_address(panels, tile * kernel.panel_bytes), tir.get_address(window, 0),
            first_pixel + tile * kernel.record.pixels, pixels,
        )  # fmt: skip
    chunks, remaining_filters = divmod(kernel.group_filters, kernel.chunk_filters)

    def emit_chunk(chunk: Expr, filters: int) -> None:
        if record.supports_panel_spans and count > 1 and not kernel.form.epilogue.steps:
            panel, all_pixels = tir.get_address(panels, 0), (first_pixel, count * pixels)
            _emit_block(
                kernel, buffers, panel, all_pixels, (group, chunk * kernel.chunk_filters, filters)
            )
            return
        with tir.emit_loop(count) as tile:
            at = first_pixel + tile * kernel.record.pixels, pixels
            panel = tir.get_address(panels, tile * kernel.panel_bytes)
            _emit_block(kernel, buffers, panel, at, (group, chunk * kernel.chunk_filters, filters))

    with tir.emit_loop(chunks) as chunk:
        emit_chunk(chunk, kernel.chunk_filters)
    if remaining_filters:
        emit_chunk(chunks, remaining_filters)


def _emit_block(
    kernel: MicroMatrix,
    buffers: tuple[Buffer, ...],
    panel: Expr,
    at: tuple[Expr, int],
    block: tuple[Expr, Expr, int],
) -> None:
    """Emit some filters of a group, from `start` on, for the pixels of a panel."""
    _, weights, bias, factor, _, *operands, output = buffers
    (first_pixel, pixels), (group, start, filters), form = at, block, kernel.form
    first_padded_filter, first_filter = (
        group * kernel.padded_filters + start,
        group * kernel.group_filters + start,
    )
    inputs = (
        panel,
        tir.get_address(weights, first_padded_filter * (kernel.quads * 4)),
        tir.get_address(bias, first_padded_filter),
        tir.get_address(factor, first_padded_filter),
    )
    writes_output = not form.epilogue.steps
    plane = kernel.pixels if writes_output else kernel.record.pixels
    tile = (
        output if writes_output else tir.allocate_local(filters * kernel.record.pixels, form.dtype)
    )
    output_address = tir.get_address(
        tile, first_filter * plane + first_pixel if writes_output else 0
    )
    sizes = (kernel.quads, filters, plane, pixels)
    tir.call(
        kernel.record.get_symbol(form.function_name),
        *inputs,
        output_address,
        *sizes,
        *(form.bounds or ()),
    )
    if writes_output:
        return
    with tir.emit_loop(filters) as f:
        lanes = LANES if pixels == kernel.record.pixels else 1
        for u in range(0, pixels, lanes):
            position = Position(first_filter + f, 0, first_pixel + u)
            value = tir.load(tile, f * kernel.record.pixels + u, lanes)
            value = apply_epilogue(form.epilogue, operands, value, position, lanes)
            tir.store(output, position.compute_offset(kernel.output_shape), value, lanes)


def build_vector(kernel: MicroVector, symbol: str) -> Expr:
    """Return the function of a linear layer."""
    count, remaining_filters = divmod(kernel.filters, FILTERS_PER_TASK)

    def emit_body(*buffers: Buffer) -> None:
        if count:
            with tir.emit_loop(count, parallel=kernel.macs >= PARALLEL and count > 1) as share:
                _emit_filters(kernel, buffers, share * FILTERS_PER_TASK, FILTERS_PER_TASK)
        if remaining_filters:
            _emit_filters(kernel, buffers, count * FILTERS_PER_TASK, remaining_filters)

    return tir.build_function(symbol, kernel.spaces, emit_body)


def _emit_filters(
    kernel: MicroVector, buffers: tuple[Buffer, ...], start: Expr, count: int
) -> None:
    source, weights, bias, factor, *operands, output = buffers
    form = kernel.form
    writes_output = not form.epilogue.steps
    tile = output if writes_output else tir.allocate_local(count, form.dtype)
    tir.call(
        kernel.record.get_symbol(form.function_name), tir.get_address(source, 0),
        tir.get_address(weights, start * kernel.row_bytes), tir.get_address(bias, start),
        tir.get_address(factor, start), tir.get_address(tile, start if writes_output else 0),
        kernel.window.channels, count, kernel.window.offset, *(form.bounds or ()),
    )  # fmt: skip
    if writes_output:
        return
    with tir.emit_loop(count) as f:
        position = Position(start + f, 0, 0)
        value = apply_epilogue(form.epilogue, operands, tir.load(tile, f), position, 1)
        tir.store(output, position.compute_offset(kernel.output_shape), value)


def build_depthwise(kernel: MicroDepthwise, symbol: str) -> Expr:
    """Return the function of a depthwise convolution."""
    size, filters_per_channel = kernel.window.size, kernel.filters // kernel.channels

    def emit_body(
        source: Buffer,
        weights: Buffer,
        bias: Buffer,
        factor: Buffer,
        window: Buffer,
        output: Buffer,
    ) -> None:
        with tir.emit_loop(kernel.filters, parallel=kernel.macs >= PARALLEL) as f:
            band = tir.allocate_local(kernel.window.band_elements + kernel.record.overread, "int16")
            plane = f // filters_per_channel * (size[0] * size[1])
            tir.call(
                kernel.record.get_symbol("levels"), tir.get_address(source, plane),
                tir.get_address(weights, f * kernel.taps), tir.get_address(bias, f),
                tir.get_address(factor, f), tir.get_address(output, f * kernel.pixels),
                tir.get_address(window, 0), tir.get_address(band, 0), *(kernel.form.bounds or ()),
            )  # fmt: skip

    return tir.build_function(symbol, kernel.spaces, emit_body)
