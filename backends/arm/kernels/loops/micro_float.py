"""The loops around float and Winograd micro-kernels: order of tiles, taps and filters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcc.backends.arm.kernels.base import LANES
from tcc.backends.arm.kernels.conv import PARALLEL
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply_epilogue
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.micro_float import MicroFloatDepthwise, MicroFloatMatrix
from tcc.backends.arm.kernels.micro_winograd import (
    MicroQuantizedWinograd,
    MicroWinograd,
    WinogradConvolution,
)

ADD_FLAG, LOWER_BOUND_FLAG, UPPER_BOUND_FLAG = 1, 2, 4
"""Flags of a micro-kernel's results, as in `c/float_matrix.h`: add to partial sums, clamp."""


FloatKernel = MicroFloatMatrix | MicroFloatDepthwise | MicroWinograd
"""Float kernels with a second pass over the results, for fused ops."""


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Consecutive tiles: the first one's number, and their count."""

    start: Expr
    count: Expr


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Pixels of a tile: the first one's number, and their count."""

    start: Expr
    count: Expr


@dataclass(frozen=True, slots=True)
class _Taps:
    """Channels that are summed at once, and whether these are the first or last ones."""

    channel: Expr
    channels: int
    is_first: bool
    is_last: bool


@dataclass(frozen=True, slots=True)
class _Filters:
    """Filters of a group: the first one's number, and their count."""

    group: Expr
    start: Expr
    count: Expr


def build_matrix(kernel: MicroFloatMatrix, symbol: str) -> Expr:
    """Return the function of a float convolution in tiles."""
    rounds, shares = -(-kernel.tiles // kernel.tiles_per_round), kernel.share_count
    parallel, is_single = kernel.macs >= PARALLEL, rounds * shares == 1

    def emit_body(*buffers: Buffer) -> None:
        with tir.emit_loop(kernel.groups, parallel=parallel and is_single) as group:
            if kernel.reads_rows:
                _emit_rows(kernel, buffers, group, parallel=parallel and not is_single)
                return
            with tir.emit_loop(rounds * shares, parallel=parallel and not is_single) as iteration:
                first_tile = iteration // shares * kernel.tiles_per_round
                tiles = _Tiles(
                    first_tile,
                    tir.select_smaller_index(kernel.tiles_per_round, kernel.tiles - first_tile),
                )
                first_filter = iteration % shares * kernel.filters_per_share
                _emit_round(
                    kernel, buffers, tiles, _Filters(group, first_filter, kernel.filters_per_share)
                )

    return tir.build_function(symbol, kernel.spaces, emit_body)


def _emit_rows(
    kernel: MicroFloatMatrix, buffers: Sequence[Buffer], group: Expr, *, parallel: bool
) -> None:
    """Read full tiles without gathering, and gather the remaining pixels."""
    full_tiles, remaining_pixels = divmod(kernel.pixels, kernel.record.pixels)
    filters, channels = _Filters(group, 0, kernel.group_filters), kernel.window.channels
    if full_tiles:
        with tir.emit_loop(full_tiles, parallel=parallel) as tile:
            first_pixel = tile * kernel.record.pixels
            at = group * channels * kernel.pixels + first_pixel
            panel = tir.get_address(buffers[0], at), kernel.pixels
            taps = _Taps(0, channels, is_first=True, is_last=True)
            _emit_block(
                kernel, buffers, panel, _Pixels(first_pixel, kernel.record.pixels), filters, taps
            )
    if remaining_pixels:
        _emit_round(kernel, buffers, _Tiles(full_tiles, 1), filters)


def _emit_round(
    kernel: MicroFloatMatrix, buffers: Sequence[Buffer], tiles: _Tiles, filters: _Filters
) -> None:
    """Emit some filters for some tiles, in passes over the channels."""
    panels = tir.allocate_local(kernel.tiles_per_round * kernel.panel_floats)
    chunk_channels, channels = kernel.chunk_channels, kernel.window.channels
    full_chunks = (channels - 1) // chunk_channels
    if full_chunks:
        _emit_sums(
            kernel,
            buffers,
            panels,
            tiles,
            filters,
            _Taps(0, chunk_channels, is_first=True, is_last=False),
        )
    if full_chunks > 1:
        with tir.emit_loop(full_chunks - 1) as part:
            taps = _Taps((part + 1) * chunk_channels, chunk_channels, is_first=False, is_last=False)
            _emit_sums(kernel, buffers, panels, tiles, filters, taps)
    last_taps = _Taps(
        full_chunks * chunk_channels,
        channels - full_chunks * chunk_channels,
        is_first=not full_chunks,
        is_last=True,
    )
    _emit_sums(kernel, buffers, panels, tiles, filters, last_taps)


def _emit_sums(
    kernel: MicroFloatMatrix,
    buffers: Sequence[Buffer],
    panels: Buffer,
    tiles: _Tiles,
    filters: _Filters,
    taps: _Taps,
) -> None:
    """Gather panels of some channels, and apply the filters' weights to all of them."""
    source, _, _, window, *_ = buffers
    w, record = kernel.window, kernel.record
    start = filters.group * (w.channels * w.size[0] * w.size[1])

    def get_pixels(tile: Expr) -> _Pixels:
        first_pixel = (tiles.start + tile) * kernel.record.pixels
        return _Pixels(
            first_pixel, tir.select_smaller_index(kernel.record.pixels, kernel.pixels - first_pixel)
        )

    with tir.emit_loop(tiles.count) as tile:
        tir.call(
            record.get_symbol("gather"), tir.get_address(source, start),
            tir.get_address(panels, tile * kernel.panel_floats), tir.get_address(window, 0),
            get_pixels(tile).start, get_pixels(tile).count, taps.channel, taps.channels,
        )  # fmt: skip
    with (
        tir.split_loop(filters.count, kernel.chunk_filters) as (chunk, count),
        tir.emit_loop(tiles.count) as tile,
    ):
        first_filter = filters.start + chunk
        # The last filters may only be padding of a block or of a thread's share.
        is_exact = kernel.group_filters == kernel.share_count * kernel.filters_per_share
        filter_count = (
            count
            if is_exact
            else tir.select_smaller_index(count, kernel.group_filters - first_filter)
        )
        panel = tir.get_address(panels, tile * kernel.panel_floats), kernel.record.pixels
        chunk_filters = _Filters(filters.group, first_filter, filter_count)
        _emit_block(kernel, buffers, panel, get_pixels(tile), chunk_filters, taps)


def _emit_block(
    kernel: MicroFloatMatrix,
    buffers: Sequence[Buffer],
    panel: tuple[Expr, int],
    pixels: _Pixels,
    filters: _Filters,
    taps: _Taps,
) -> None:
    """Emit the sums of some filters for the pixels of a panel."""
    _, weights, bias, _, bounds, *operands, output = buffers
    taps_per_filter, block = kernel.window.taps, kernel.record.filters
    first_padded_filter = filters.group * kernel.padded_filters + filters.start
    first_filter = filters.group * kernel.group_filters + filters.start
    bound_flags = taps.is_last * (
        LOWER_BOUND_FLAG * kernel.has_lower_bound + UPPER_BOUND_FLAG * kernel.has_upper_bound
    )
    tir.call(
        kernel.record.get_symbol("sums"),
        *panel,
        tir.get_address(
            weights,
            first_padded_filter * taps_per_filter + taps.channel * (kernel.kernel_area * block),
        ),
        tir.get_address(bias, first_padded_filter),
        tir.get_address(bounds, 0),
        tir.get_address(output, first_filter * kernel.pixels + pixels.start),
        taps.channels * kernel.kernel_area,
        taps_per_filter * block,
        filters.count,
        kernel.pixels,
        pixels.count,
        ADD_FLAG * (not taps.is_first) + bound_flags,
    )
    if not taps.is_last or not kernel.epilogue.steps:
        return
    with tir.emit_loop(filters.count) as f:
        apply_fused(kernel, (*operands, output), first_filter + f, pixels.start, pixels.count)


def apply_fused(
    kernel: FloatKernel, buffers: Sequence[Buffer], f: Expr, first_pixel: Expr, pixels: Expr
) -> None:
    """Apply fused ops to some pixels of a filter, in a second pass over the results.

    `buffers` are the epilogue's operands and the result.
    """
    *operands, output = buffers
    for lanes, start, count in split_vectors(pixels):
        with tir.emit_loop(count) as n:
            position = Position(f, 0, first_pixel + start + n * lanes)
            at = position.compute_offset(kernel.output_shape)
            value = apply_epilogue(
                kernel.epilogue, operands, tir.load(output, at, lanes), position, lanes
            )
            tir.store(output, at, value, lanes)


def build_depthwise(kernel: MicroFloatDepthwise, symbol: str) -> Expr:
    """Return the function of a depthwise convolution."""
    size, filters_per_channel = kernel.window.size, kernel.filters // kernel.channels

    def emit_body(*buffers: Buffer) -> None:
        source, weights, bias, window, bounds, *trailing_buffers = buffers
        with tir.emit_loop(kernel.filters, parallel=kernel.macs >= PARALLEL) as f:
            tir.call(
                kernel.record.get_symbol("plane"),
                tir.get_address(source, f // filters_per_channel * (size[0] * size[1])),
                tir.get_address(weights, f * kernel.taps),
                tir.get_address(bias, f),
                tir.get_address(bounds, 0),
                tir.get_address(trailing_buffers[-1], f * kernel.pixels),
                tir.get_address(window, 0),
                LOWER_BOUND_FLAG * kernel.has_lower_bound
                + UPPER_BOUND_FLAG * kernel.has_upper_bound,
            )
            if kernel.epilogue.steps:
                apply_fused(kernel, trailing_buffers, f, 0, kernel.pixels)

    return tir.build_function(symbol, kernel.spaces, emit_body)


def split_vectors(pixels: Expr, lanes: int = LANES) -> tuple[tuple[int, Expr, Expr], ...]:
    """Return how to split pixels into vectors and single ones: lanes, start and count of each."""
    vector_count = pixels // lanes
    return (lanes, 0, vector_count), (1, vector_count * lanes, pixels % lanes)


QUANTIZED_LANES = 16
"""8-bit values per step of the second pass: several vectors per step hide latency."""
FilterArguments = Callable[[Expr], tuple[Expr, ...]]
"""Returns the arguments of a block for its first filter: pointers to biases and what follows."""


def build_winograd(kernel: MicroWinograd, symbol: str) -> Expr:
    """Return the function of a float convolution with Winograd's method."""
    shared = kernel.macs >= PARALLEL

    def emit_body(*buffers: Buffer) -> None:
        source, weights, bias, window, bounds, *operands, points, output = buffers

        def get_filter_arguments(f: Expr) -> tuple[Expr, ...]:
            return tir.get_address(bias, f), tir.get_address(bounds, 0)

        extra_arguments = (
            LOWER_BOUND_FLAG * kernel.has_lower_bound + UPPER_BOUND_FLAG * kernel.has_upper_bound,
        )
        _emit_bands(
            kernel, (source, weights, window, points, output), get_filter_arguments, extra_arguments
        )
        if kernel.epilogue.steps:
            with tir.emit_loop(kernel.filters, parallel=shared) as f:
                apply_fused(kernel, (*operands, output), f, 0, kernel.pixels)

    return tir.build_function(symbol, kernel.spaces, emit_body)


def build_quantized_winograd(kernel: MicroQuantizedWinograd, symbol: str) -> Expr:
    """Return the function of an int8 convolution with Winograd's method."""
    shared = kernel.macs >= PARALLEL

    def emit_body(*buffers: Buffer) -> None:
        source, weights, bias, factor, window, points, *operands, output = buffers

        def get_filter_arguments(f: Expr) -> tuple[Expr, ...]:
            return tir.get_address(bias, f), tir.get_address(factor, f)

        _emit_bands(
            kernel,
            (source, weights, window, points, output),
            get_filter_arguments,
            (kernel.phases_per_sum, *kernel.bounds),
        )
        if kernel.epilogue.steps:
            with tir.emit_loop(kernel.filters, parallel=shared) as f:
                _apply_fused_quantized(kernel, operands, output, f)

    return tir.build_function(symbol, kernel.spaces, emit_body)


def _apply_fused_quantized(
    kernel: MicroQuantizedWinograd, operands: Sequence[Buffer], output: Buffer, f: Expr
) -> None:
    """Apply fused ops to the 8-bit values of a filter, in a second pass over the results."""
    for lanes, start, count in split_vectors(kernel.pixels, QUANTIZED_LANES):
        with tir.emit_loop(count) as n:
            position = Position(f, 0, start + n * lanes)
            at = position.compute_offset(kernel.output_shape)
            # The values are stored in the result's buffer, which may have another 8-bit type.
            quantized = tir.read_stored(tir.load_raw(output, at, lanes), kernel.dtype, lanes)
            value = apply_epilogue(kernel.epilogue, operands, quantized, position, lanes)
            tir.store(output, at, value, lanes)


def _emit_bands(
    kernel: WinogradConvolution,
    buffers: Sequence[Buffer],
    get_filter_arguments: FilterArguments,
    extra_arguments: tuple[int, ...],
) -> None:
    """Emit all tiles of all filters; `buffers` are map, weights, window, points and result."""
    source, weights, window, points, output = buffers
    w, record, shared = kernel.window, kernel.record, kernel.macs >= PARALLEL
    pixels_symbol, block_symbol = record.symbols
    with tir.split_loop(kernel.tile_count, kernel.band_tiles) as (first_tile, count):
        with tir.emit_loop(record.count_calls(w), parallel=shared) as channels:
            tir.call(
                pixels_symbol,
                tir.get_address(source, 0),
                tir.get_address(points, 0),
                tir.get_address(window, 0),
                first_tile,
                count,
                channels,
                kernel.pitch,
            )
        with tir.emit_loop(kernel.padded_filters // record.filters, parallel=shared) as block:
            f = block * record.filters
            filter_count = record.filters
            if kernel.filters < kernel.padded_filters:
                filter_count = tir.select_smaller_index(record.filters, kernel.filters - f)
            tir.call(
                block_symbol,
                tir.get_address(points, 0),
                tir.get_address(weights, f * w.taps),
                *get_filter_arguments(f),
                tir.get_address(output, f * kernel.pixels),
                tir.get_address(window, 0),
                first_tile,
                count,
                kernel.pitch,
                filter_count,
                *extra_arguments,
            )
