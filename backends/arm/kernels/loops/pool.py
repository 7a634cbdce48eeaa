"""The loops of pooling."""

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any, assert_never

from tcc.backends.arm.kernels.base import LANES, Space, tile_width
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply, operand
from tcc.backends.arm.kernels.loops.staging import PARALLEL, BandedMap
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.pool import ChannelPool, Reduction, WindowPool

UNROLLED = 16
"""Most taps of a window that are written out: 4x4. LLVM spills registers where it sees more."""


def build(kernel: WindowPool, symbol: str) -> Any:
    """Return the function of a pooling over windows."""
    spaces = [
        Space(prod(kernel.window.source), kernel.dtype),
        *kernel.prologue.spaces,
        *([Space(kernel.factors)] if kernel.factors else []),
        *kernel.epilogue.spaces,
        *kernel.scratch,
        kernel.epilogue.written(kernel.result),
    ]

    def body(source: Buffer, *every: Buffer) -> None:
        ahead = len(kernel.prologue.operands)
        before, rest = every[:ahead], every[ahead:]
        first, last = 1 if kernel.factors else 0, -1 - len(kernel.scratch)
        height = kernel.window.out[0]

        def copied(values: Sequence[Expr], channel: Expr, lanes: int) -> Expr:
            at = Position(channel, 0, 0)
            each = (apply(kernel.prologue, before, value, at, lanes) for value in values)
            return reduce(lambda a, b: _both(kernel.reduction, a, b, lanes), each)

        read = BandedMap(kernel.band, kernel.layout, height, source, rest[last:-1], copied)
        _windows(kernel, read, rest[:first], rest[first:last], rest[-1])

    return tir.function(symbol, spaces, body)


def _windows(
    kernel: WindowPool,
    read: BandedMap,
    factors: Sequence[Buffer],
    operands: Sequence[Buffer],
    result: Buffer,
) -> None:
    channels, height, width = kernel.result
    pixels, lanes = tile_width(width, kernel.tile, _lanes(kernel.dtype))
    shape = (1, height, width) if kernel.factors > 1 else (1, 1, 1)
    parallel = prod(kernel.result) * prod(kernel.window.kernel) >= PARALLEL
    own = not read.scratch
    with (
        tir.loop(channels, parallel=parallel and own) as c,
        read.rows(c, parallel=parallel and not own) as rows,
        tir.loop(rows.count, parallel=rows.parallel) as i,
        tir.tiles(width, pixels) as x,
    ):
        start = rows.start + i * kernel.layout.row_step + x
        for u, value in _tile(kernel, rows.read, start, pixels, lanes).items():
            at = Position(c, rows.first + i, x + u)
            for table in factors:
                value = value * operand(table, shape, at, lanes)  # noqa: PLW2901
            done = apply(kernel.epilogue, operands, value, at, lanes)
            tir.store(result, at.offset(kernel.result), done, lanes)


def _tile(
    kernel: WindowPool, read: Buffer, start: Expr, pixels: int, lanes: int
) -> dict[int, Expr]:
    """Return the reduced windows of some pixels in a row, by distance from the first.

    The first one's begins at `start`.
    """
    layout, (height, width) = kernel.layout, kernel.slid.kernel
    spots = range(0, pixels, lanes)
    found = tir.local(pixels, kernel.reduction.running(kernel.dtype))
    for u in spots:
        tir.store(found, u, _neutral(kernel, lanes), lanes)

    def line(i: Expr) -> None:
        for j in range(width):
            where = start + i * layout.row + layout.column(j)
            for u in spots:
                value = _read(kernel, read, where + u, lanes)
                value = _both(kernel.reduction, tir.stored(found, u, lanes), value, lanes)
                tir.store(found, u, value, lanes)

    if height * width <= UNROLLED:
        for i in range(height):
            line(i)
    else:
        with tir.loop(height) as i:
            line(i)
    return {u: tir.load(found, u, lanes) for u in spots}


def _lanes(dtype: str) -> int:
    """Return how many elements of a type are reduced at once."""
    return LANES if dtype == tir.FLOAT else 2 * LANES


def _neutral(kernel: WindowPool | ChannelPool, lanes: int) -> Expr:
    value = kernel.reduction.neutral(kernel.dtype)
    if kernel.dtype == tir.FLOAT:
        return tir.constant(value, lanes)
    return tir.integer(int(value), lanes)


def _read(kernel: WindowPool, read: Buffer, at: Expr, lanes: int) -> Expr:
    """Return elements of the type in which they are reduced."""
    as_they_are = kernel.reduction.running(kernel.dtype) == kernel.dtype
    return (tir.stored if as_they_are else tir.load)(read, at, lanes)


def _both(reduction: Reduction, a: Expr, b: Expr, lanes: int) -> Expr:
    match reduction:
        case Reduction.MAX if tir.kind(a) == tir.FLOAT:
            return tir.maximum(a, b, lanes)
        case Reduction.MAX:
            return tir.larger(a, b)
        case Reduction.MEAN:
            return a + b
        case _:
            assert_never(reduction)


def build_channel(kernel: ChannelPool, symbol: str) -> Any:
    """Return the function of a pooling over whole channels."""
    size = kernel.channels * kernel.pixels
    written = kernel.epilogue.written((kernel.channels, 1, 1))
    spaces = [Space(size, kernel.dtype), *kernel.epilogue.spaces, written]

    def body(source: Buffer, *rest: Buffer) -> None:
        with tir.loop(kernel.channels, parallel=size >= PARALLEL) as c:
            value = _reduced(kernel, source, c * kernel.pixels)
            factor = kernel.reduction.factor(kernel.pixels)
            if factor is not None and kernel.dtype == tir.FLOAT:
                value = value * tir.constant(factor, 1)
            value = apply(kernel.epilogue, rest, value, Position(c, 0, 0), 1)
            tir.store(rest[-1], c, value)

    return tir.function(symbol, spaces, body)


def _reduced(kernel: ChannelPool, source: Buffer, start: Expr) -> Expr:
    """Return the reduction of a channel: four partial ones side by side, then these."""
    running = tir.FLOAT if kernel.dtype == tir.FLOAT else tir.WHOLE
    partial, found = tir.local(LANES, running), tir.local(1, running)
    full = kernel.pixels // LANES
    # Four sums that do not wait for each other; the order, and so the rounding, is the same on
    # every core.
    tir.store(partial, 0, _neutral(kernel, LANES), LANES)
    tir.store(found, 0, _neutral(kernel, 1))
    if full:
        with tir.loop(full) as i:
            value = tir.load(source, start + i * LANES, LANES)
            value = _both(kernel.reduction, tir.load(partial, 0, LANES), value, LANES)
            tir.store(partial, 0, value, LANES)
    for lane in range(LANES):
        value = _both(kernel.reduction, tir.load(found, 0), tir.load(partial, lane), 1)
        tir.store(found, 0, value)
    for rest in range(full * LANES, kernel.pixels):
        value = _both(kernel.reduction, tir.load(found, 0), tir.load(source, start + rest), 1)
        tir.store(found, 0, value)
    return tir.load(found, 0)
