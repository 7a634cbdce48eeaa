"""The loops around micro-kernels of floats and of Winograd: tiles, taps and filters in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcc.backends.arm.kernels.base import LANES
from tcc.backends.arm.kernels.conv import PARALLEL
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.micro_float import MicroFloatDepthwise, MicroFloatMatrix
from tcc.backends.arm.kernels.micro_winograd import (
    MicroLevelWinograd,
    MicroWinograd,
    WinogradConvolution,
)

ADDS, LEAST, MOST = 1, 2, 4
"""What becomes of sums, as `c/float_matrix.h` has it."""


FloatKernel = MicroFloatMatrix | MicroFloatDepthwise | MicroWinograd
"""What results are read again behind."""


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Tiles in a row: the first one's number, and how many there are."""

    first: Expr
    count: Expr


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Pixels of a tile: the first one's number, and how many there are."""

    first: Expr
    count: Expr


@dataclass(frozen=True, slots=True)
class _Taps:
    """Channels that are summed at once, and what becomes of the sums."""

    channel: Expr
    channels: int
    begins: bool
    ends: bool


@dataclass(frozen=True, slots=True)
class _Filters:
    """Filters of a group, from `first` on."""

    group: Expr
    first: Expr
    count: Expr


def build(kernel: MicroFloatMatrix, symbol: str) -> Expr:
    """Return the function."""
    rounds, shares = -(-kernel.tiles // kernel.together), kernel.shares
    parallel, alone = kernel.macs >= PARALLEL, rounds * shares == 1

    def body(*buffers: Buffer) -> None:
        with tir.loop(kernel.groups, parallel=parallel and alone) as group:
            if kernel.in_rows:
                _rows(kernel, buffers, group, parallel=parallel and not alone)
                return
            with tir.loop(rounds * shares, parallel=parallel and not alone) as turn:
                first = turn // shares * kernel.together
                tiles = _Tiles(first, tir.least(kernel.together, kernel.tiles - first))
                start = turn % shares * kernel.share
                _round(kernel, buffers, tiles, _Filters(group, start, kernel.share))

    return tir.function(symbol, kernel.spaces, body)


def _rows(
    kernel: MicroFloatMatrix, buffers: Sequence[Buffer], group: Expr, *, parallel: bool
) -> None:
    """Read whole tiles where they lie, and gather what is left."""
    whole, rest = divmod(kernel.pixels, kernel.record.pixels)
    filters, channels = _Filters(group, 0, kernel.own), kernel.window.channels
    if whole:
        with tir.loop(whole, parallel=parallel) as tile:
            first = tile * kernel.record.pixels
            at = group * channels * kernel.pixels + first
            panel = tir.address(buffers[0], at), kernel.pixels
            taps = _Taps(0, channels, begins=True, ends=True)
            _block(kernel, buffers, panel, _Pixels(first, kernel.record.pixels), filters, taps)
    if rest:
        _round(kernel, buffers, _Tiles(whole, 1), filters)


def _round(
    kernel: MicroFloatMatrix, buffers: Sequence[Buffer], tiles: _Tiles, filters: _Filters
) -> None:
    """Compute some filters of some tiles, some channels after others."""
    panels = tir.local(kernel.together * kernel.panel)
    each, channels = kernel.channels, kernel.window.channels
    whole = (channels - 1) // each
    if whole:
        _sums(kernel, buffers, panels, tiles, filters, _Taps(0, each, begins=True, ends=False))
    if whole > 1:
        with tir.loop(whole - 1) as part:
            taps = _Taps((part + 1) * each, each, begins=False, ends=False)
            _sums(kernel, buffers, panels, tiles, filters, taps)
    last = _Taps(whole * each, channels - whole * each, begins=not whole, ends=True)
    _sums(kernel, buffers, panels, tiles, filters, last)


def _sums(
    kernel: MicroFloatMatrix,
    buffers: Sequence[Buffer],
    panels: Buffer,
    tiles: _Tiles,
    filters: _Filters,
    taps: _Taps,
) -> None:
    """Gather panels of some channels, and take the filters' weights over all of them."""
    source, _, _, window, *_ = buffers
    w, record = kernel.window, kernel.record
    start = filters.group * (w.channels * w.size[0] * w.size[1])

    def pixels(tile: Expr) -> _Pixels:
        first = (tiles.first + tile) * kernel.record.pixels
        return _Pixels(first, tir.least(kernel.record.pixels, kernel.pixels - first))

    with tir.loop(tiles.count) as tile:
        tir.call(
            record.symbol("gather"), tir.address(source, start),
            tir.address(panels, tile * kernel.panel), tir.address(window, 0),
            pixels(tile).first, pixels(tile).count, taps.channel, taps.channels,
        )  # fmt: skip
    with tir.pieces(filters.count, kernel.chunk) as (chunk, count), tir.loop(tiles.count) as tile:
        first = filters.first + chunk
        # the last filters may be there to fill a block or a share alone
        filled = kernel.own == kernel.shares * kernel.share
        real = count if filled else tir.least(count, kernel.own - first)
        panel = tir.address(panels, tile * kernel.panel), kernel.record.pixels
        some = _Filters(filters.group, first, real)
        _block(kernel, buffers, panel, pixels(tile), some, taps)


def _block(
    kernel: MicroFloatMatrix,
    buffers: Sequence[Buffer],
    panel: tuple[Expr, int],
    pixels: _Pixels,
    filters: _Filters,
    taps: _Taps,
) -> None:
    """Sum some filters for the pixels of a panel."""
    _, weights, bias, _, bounds, *operands, result = buffers
    taken, block = kernel.window.taps, kernel.record.filters
    padded = filters.group * kernel.padded + filters.first
    own = filters.group * kernel.own + filters.first
    ends = taps.ends * (LEAST * kernel.least + MOST * kernel.most)
    tir.call(
        kernel.record.symbol("sums"), *panel,
        tir.address(weights, padded * taken + taps.channel * (kernel.area * block)),
        tir.address(bias, padded), tir.address(bounds, 0),
        tir.address(result, own * kernel.pixels + pixels.first),
        taps.channels * kernel.area, taken * block, filters.count, kernel.pixels, pixels.count,
        ADDS * (not taps.begins) + ends,
    )  # fmt: skip
    if not taps.ends or not kernel.epilogue.steps:
        return
    with tir.loop(filters.count) as f:
        finish(kernel, (*operands, result), own + f, pixels.first, pixels.count)


def finish(
    kernel: FloatKernel, buffers: Sequence[Buffer], f: Expr, first: Expr, pixels: Expr
) -> None:
    """Apply what is fused behind to some pixels of a filter, which are read again.

    `buffers` are the epilogue's operands and the result.
    """
    *operands, result = buffers
    for lanes, start, count in vectors(pixels):
        with tir.loop(count) as n:
            place = Position(f, 0, first + start + n * lanes)
            at = place.offset(kernel.result)
            value = apply(kernel.epilogue, operands, tir.load(result, at, lanes), place, lanes)
            tir.store(result, at, value, lanes)


def build_depthwise(kernel: MicroFloatDepthwise, symbol: str) -> Expr:
    """Return the function of a depthwise convolution."""
    size, each = kernel.window.size, kernel.filters // kernel.channels

    def body(*buffers: Buffer) -> None:
        source, weights, bias, window, bounds, *rest = buffers
        with tir.loop(kernel.filters, parallel=kernel.macs >= PARALLEL) as f:
            tir.call(
                kernel.record.symbol("plane"), tir.address(source, f // each * (size[0] * size[1])),
                tir.address(weights, f * kernel.taps), tir.address(bias, f),
                tir.address(bounds, 0), tir.address(rest[-1], f * kernel.pixels),
                tir.address(window, 0), LEAST * kernel.least + MOST * kernel.most,
            )  # fmt: skip
            if kernel.epilogue.steps:
                finish(kernel, rest, f, 0, kernel.pixels)

    return tir.function(symbol, kernel.spaces, body)


def vectors(pixels: Expr, lanes: int = LANES) -> tuple[tuple[int, Expr, Expr], ...]:
    """Return how many pixels to take at once, from where on, and how often."""
    many = pixels // lanes
    return (lanes, 0, many), (1, many * lanes, pixels % lanes)


LEVELS = 16
"""Levels that are taken at once where they are read again: steps of some hide others' latency."""
Given = Callable[[Expr], tuple[Expr, ...]]
"""Returns what a block is told of a filter: where its biases and what follows them begin."""


def build_winograd(kernel: MicroWinograd, symbol: str) -> Expr:
    """Return the function of a convolution of floats."""
    shared = kernel.macs >= PARALLEL

    def body(*buffers: Buffer) -> None:
        source, weights, bias, window, bounds, *operands, points, result = buffers

        def given(f: Expr) -> tuple[Expr, ...]:
            return tir.address(bias, f), tir.address(bounds, 0)

        how = (LEAST * kernel.least + MOST * kernel.most,)
        _bands(kernel, (source, weights, window, points, result), given, how)
        if kernel.epilogue.steps:
            with tir.loop(kernel.filters, parallel=shared) as f:
                finish(kernel, (*operands, result), f, 0, kernel.pixels)

    return tir.function(symbol, kernel.spaces, body)


def build_level_winograd(kernel: MicroLevelWinograd, symbol: str) -> Expr:
    """Return the function of a convolution of levels."""
    shared = kernel.macs >= PARALLEL

    def body(*buffers: Buffer) -> None:
        source, weights, bias, factor, window, points, *operands, result = buffers

        def given(f: Expr) -> tuple[Expr, ...]:
            return tir.address(bias, f), tir.address(factor, f)

        _bands(
            kernel, (source, weights, window, points, result), given, (kernel.part, *kernel.bounds)
        )
        if kernel.epilogue.steps:
            with tir.loop(kernel.filters, parallel=shared) as f:
                _finish(kernel, operands, result, f)

    return tir.function(symbol, kernel.spaces, body)


def _finish(
    kernel: MicroLevelWinograd, operands: Sequence[Buffer], result: Buffer, f: Expr
) -> None:
    """Apply what is fused behind to the levels of a filter, which are read again."""
    for lanes, start, count in vectors(kernel.pixels, LEVELS):
        with tir.loop(count) as n:
            place = Position(f, 0, start + n * lanes)
            at = place.offset(kernel.result)
            # They lie where the result will, whose bytes may be of the other kind.
            found = tir.reinterpret(tir.stored(result, at, lanes), kernel.dtype, lanes)
            value = apply(
                kernel.epilogue, operands, tir.convert(found, tir.WHOLE, lanes), place, lanes
            )
            tir.store(result, at, value, lanes)


def _bands(
    kernel: WinogradConvolution, buffers: Sequence[Buffer], given: Given, how: tuple[int, ...]
) -> None:
    """Compute all tiles of all filters; `buffers` are map, weights, window, points and result."""
    source, weights, window, points, result = buffers
    w, record, shared = kernel.window, kernel.record, kernel.macs >= PARALLEL
    pixels, block_of = record.symbols
    with tir.pieces(kernel.tiles, kernel.band) as (first, count):
        with tir.loop(record.calls(w), parallel=shared) as channels:
            tir.call(
                pixels, tir.address(source, 0), tir.address(points, 0), tir.address(window, 0),
                first, count, channels, kernel.pitch,
            )  # fmt: skip
        with tir.loop(kernel.padded // record.filters, parallel=shared) as block:
            f = block * record.filters
            own = record.filters
            if kernel.filters < kernel.padded:
                own = tir.least(record.filters, kernel.filters - f)
            tir.call(
                block_of, tir.address(points, 0), tir.address(weights, f * w.taps), *given(f),
                tir.address(result, f * kernel.pixels), tir.address(window, 0), first, count,
                kernel.pitch, own, *how,
            )  # fmt: skip
