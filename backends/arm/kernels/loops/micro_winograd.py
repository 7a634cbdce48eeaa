"""The loops around Winograd's micro-kernels: bands of tiles, channels and blocks of filters."""

from collections.abc import Callable, Sequence

from tcc.backends.arm.kernels.conv import PARALLEL
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply
from tcc.backends.arm.kernels.loops.micro_float import LEAST, MOST, finish, vectors
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.micro_winograd import (
    MicroLevelWinograd,
    MicroWinograd,
    WinogradConvolution,
)

LEVELS = 16
"""Levels that are taken at once where they are read again: steps of some hide others' latency."""
Given = Callable[[Expr], tuple[Expr, ...]]
"""Returns what a block is told of a filter: where its biases and what follows them begin."""


def build(kernel: MicroWinograd, symbol: str) -> Expr:
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


def build_levels(kernel: MicroLevelWinograd, symbol: str) -> Expr:
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
