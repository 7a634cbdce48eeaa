"""The loops around micro-kernels: which tiles in which order, and what is fused behind them."""

from tcc.backends.arm.kernels.base import LANES
from tcc.backends.arm.kernels.conv import PARALLEL
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.micro import MicroDepthwise, MicroMatrix, MicroVector
from tcc.backends.arm.micro.records import QUAD, ChannelMatrix

SHARE = 64
"""Filters of a linear layer that one task of a parallel loop computes."""


def build(kernel: MicroMatrix, symbol: str) -> Expr:
    """Return the function of a convolution in tiles."""
    shared, each = kernel.macs >= PARALLEL, kernel.record.pixels
    together, (tiles, tail) = kernel.together, divmod(kernel.pixels, each)
    rounds, rest = divmod(tiles, together)

    def body(*given: Buffer) -> None:
        buffers, dealt = given, None
        if kernel.scratch:
            dealt, buffers = given[-2], (*given[:-2], given[-1])
            _deal(kernel, given[0], given[4], dealt)
        with tir.loop(kernel.groups, parallel=shared and kernel.groups > 1) as group:
            if rounds:
                with tir.loop(rounds, parallel=shared and kernel.groups == 1) as turn:
                    first = turn * together * each
                    _tiles(kernel, buffers, dealt, group, first, together, each)
            if rest:
                _tiles(kernel, buffers, dealt, group, rounds * together * each, rest, each)
            if tail:
                _tiles(kernel, buffers, dealt, group, tiles * each, 1, tail)

    return tir.function(symbol, kernel.spaces, body)


def _deal(kernel: MicroMatrix, source: Buffer, window: Buffer, dealt: Buffer) -> None:
    """Interleave the channels of all groups."""
    fours = kernel.groups * kernel.window.channels // QUAD
    with tir.loop(fours, parallel=kernel.macs >= PARALLEL) as four:
        tir.call(
            kernel.record.symbol("deal"), tir.address(source, 0), tir.address(dealt, 0),
            tir.address(window, 0), four, fours,
        )  # fmt: skip


def _tiles(
    kernel: MicroMatrix,
    buffers: tuple[Buffer, ...],
    dealt: Buffer | None,
    group: Expr,
    first: Expr,
    count: int,
    pixels: int,
) -> None:
    """Compute some tiles from a pixel on: gather them, then take weights over all of them.

    Panels are copied from interleaved channels, where these are `dealt`.
    """
    source, _, _, _, window, *_ = buffers
    w, record = kernel.window, kernel.record
    panels = tir.local(count * kernel.panel, "int8")
    if dealt is not None and isinstance(record, ChannelMatrix):
        read = tir.address(dealt, group * (record.dealt(w, 1) - record.sixteen))
    else:
        read = tir.address(source, group * (w.channels * w.size[0] * w.size[1]))
    with tir.loop(count) as tile:
        tir.call(
            record.symbol("gather" if dealt is None else "copy"), read,
            tir.address(panels, tile * kernel.panel), tir.address(window, 0),
            first + tile * kernel.record.pixels, pixels,
        )  # fmt: skip
    chunks, rest = divmod(kernel.own, kernel.chunk)

    def over(chunk: Expr, filters: int) -> None:
        if record.spans and count > 1 and not kernel.form.epilogue.steps:
            panel, every = tir.address(panels, 0), (first, count * pixels)
            _block(kernel, buffers, panel, every, (group, chunk * kernel.chunk, filters))
            return
        with tir.loop(count) as tile:
            at = first + tile * kernel.record.pixels, pixels
            panel = tir.address(panels, tile * kernel.panel)
            _block(kernel, buffers, panel, at, (group, chunk * kernel.chunk, filters))

    with tir.loop(chunks) as chunk:
        over(chunk, kernel.chunk)
    if rest:
        over(chunks, rest)


def _block(
    kernel: MicroMatrix,
    buffers: tuple[Buffer, ...],
    panel: Expr,
    at: tuple[Expr, int],
    block: tuple[Expr, Expr, int],
) -> None:
    """Compute some filters, a group's from `start` on, for the pixels of a panel."""
    _, weights, bias, factor, _, *operands, result = buffers
    (first, pixels), (group, start, filters), form = at, block, kernel.form
    padded, own = group * kernel.padded + start, group * kernel.own + start
    read = (
        panel, tir.address(weights, padded * (kernel.quads * 4)), tir.address(bias, padded),
        tir.address(factor, padded),
    )  # fmt: skip
    plain = not form.epilogue.steps
    plane = kernel.pixels if plain else kernel.record.pixels
    tile = result if plain else tir.local(filters * kernel.record.pixels, form.dtype)
    written = tir.address(tile, own * plane + first if plain else 0)
    sizes = (kernel.quads, filters, plane, pixels)
    tir.call(kernel.record.symbol(form.what), *read, written, *sizes, *(form.bounds or ()))
    if plain:
        return
    with tir.loop(filters) as f:
        lanes = LANES if pixels == kernel.record.pixels else 1
        for u in range(0, pixels, lanes):
            place = Position(own + f, 0, first + u)
            value = tir.load(tile, f * kernel.record.pixels + u, lanes)
            value = apply(form.epilogue, operands, value, place, lanes)
            tir.store(result, place.offset(kernel.result), value, lanes)


def build_vector(kernel: MicroVector, symbol: str) -> Expr:
    """Return the function of a linear layer."""
    count, rest = divmod(kernel.filters, SHARE)

    def body(*buffers: Buffer) -> None:
        if count:
            with tir.loop(count, parallel=kernel.macs >= PARALLEL and count > 1) as share:
                _filters(kernel, buffers, share * SHARE, SHARE)
        if rest:
            _filters(kernel, buffers, count * SHARE, rest)

    return tir.function(symbol, kernel.spaces, body)


def _filters(kernel: MicroVector, buffers: tuple[Buffer, ...], start: Expr, count: int) -> None:
    source, weights, bias, factor, *operands, result = buffers
    form = kernel.form
    plain = not form.epilogue.steps
    tile = result if plain else tir.local(count, form.dtype)
    tir.call(
        kernel.record.symbol(form.what), tir.address(source, 0),
        tir.address(weights, start * kernel.row), tir.address(bias, start),
        tir.address(factor, start), tir.address(tile, start if plain else 0),
        kernel.window.channels, count, kernel.window.flip, *(form.bounds or ()),
    )  # fmt: skip
    if plain:
        return
    with tir.loop(count) as f:
        place = Position(start + f, 0, 0)
        value = apply(form.epilogue, operands, tir.load(tile, f), place, 1)
        tir.store(result, place.offset(kernel.result), value)


def build_depthwise(kernel: MicroDepthwise, symbol: str) -> Expr:
    """Return the function of a depthwise convolution."""
    size, each = kernel.window.size, kernel.filters // kernel.channels

    def body(
        source: Buffer, weights: Buffer, bias: Buffer, factor: Buffer, window: Buffer, y: Buffer
    ) -> None:
        with tir.loop(kernel.filters, parallel=kernel.macs >= PARALLEL) as f:
            band = tir.local(kernel.window.band_elements + kernel.record.beyond, "int16")
            plane = f // each * (size[0] * size[1])
            tir.call(
                kernel.record.symbol("levels"), tir.address(source, plane),
                tir.address(weights, f * kernel.taps), tir.address(bias, f),
                tir.address(factor, f), tir.address(y, f * kernel.pixels),
                tir.address(window, 0), tir.address(band, 0), *(kernel.form.bounds or ()),
            )  # fmt: skip

    return tir.function(symbol, kernel.spaces, body)
