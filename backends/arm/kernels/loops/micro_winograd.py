"""The loops around Winograd's micro-kernel: bands of tiles, channels and blocks of filters."""

from collections.abc import Sequence

from tcc.backends.arm.kernels.conv import PARALLEL
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.micro_float import LEAST, MOST, finish
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.micro_winograd import MicroWinograd


def build(kernel: MicroWinograd, symbol: str) -> Expr:
    """Return the function."""
    shared = kernel.macs >= PARALLEL

    def body(*buffers: Buffer) -> None:
        with tir.pieces(kernel.tiles, kernel.band) as (first, count):
            _band(kernel, buffers, first, count, parallel=shared)
        if kernel.epilogue.steps:
            *operands, _, result = buffers[5:]
            with tir.loop(kernel.filters, parallel=shared) as f:
                finish(kernel, (*operands, result), f, 0, kernel.pixels)

    return tir.function(symbol, kernel.spaces, body)


def _band(
    kernel: MicroWinograd, buffers: Sequence[Buffer], first: Expr, count: Expr, *, parallel: bool
) -> None:
    """Compute some tiles of all filters."""
    source, weights, bias, window, bounds, *_, points, result = buffers
    w, record = kernel.window, kernel.record
    with tir.loop(w.channels, parallel=parallel) as channel:
        tir.call(
            record.symbol("pixels"), tir.address(source, 0), tir.address(points, 0),
            tir.address(window, 0), first, count, channel, kernel.pitch,
        )  # fmt: skip
    with tir.loop(kernel.padded // record.filters, parallel=parallel) as block:
        f = block * record.filters
        own = record.filters
        if kernel.filters < kernel.padded:
            own = tir.least(record.filters, kernel.filters - f)
        tir.call(
            record.symbol("block"), tir.address(points, 0), tir.address(weights, f * w.taps),
            tir.address(bias, f), tir.address(bounds, 0), tir.address(result, f * kernel.pixels),
            tir.address(window, 0), first, count, kernel.pitch, own,
            LEAST * kernel.least + MOST * kernel.most,
        )  # fmt: skip
