"""The loops of element-wise kernels, of resizing and of those that move elements."""

from math import prod
from typing import Any

from tcc.backends.arm.kernels.base import Space, tile_width
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply
from tcc.backends.arm.kernels.loops.staging import PARALLEL, stage
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.map import (
    Bilinear,
    BorderKernel,
    ChannelGather,
    ElementwiseKernel,
    Lookup,
    Nearest,
)

THREADS = 16
"""Into how many parts a map is cut that has no channels to cut between: the most threads."""


def build(kernel: ElementwiseKernel, symbol: str) -> Any:
    """Return the function of an element-wise kernel."""
    channels, height, width = kernel.result
    pixels, lanes = tile_width(width, kernel.tile)

    def body(*buffers: Buffer) -> None:
        parallel = prod(kernel.result) >= PARALLEL
        with (
            tir.loop(channels, parallel=parallel) as c,
            tir.loop(height) as y,
            tir.tiles(width, pixels) as x,
        ):
            for u in range(0, pixels, lanes):
                at = Position(c, y, x + u)
                value = apply(kernel.epilogue, buffers, None, at, lanes)
                tir.store(buffers[-1], at.offset(kernel.result), value, lanes)

    spaces = [*kernel.epilogue.spaces, kernel.epilogue.written(kernel.result)]
    return tir.function(symbol, spaces, body)


def build_gather(kernel: ChannelGather, symbol: str) -> Any:
    """Return the function of a reordering of channels."""
    channels, height, width = kernel.result
    pixels, lanes = tile_width(width, kernel.tile)

    def body(source: Buffer, *rest: Buffer) -> None:
        with (
            tir.loop(channels, parallel=prod(kernel.result) >= PARALLEL) as c,
            tir.loop(height) as y,
            tir.tiles(width, pixels) as x,
        ):
            # A slice, a strided one and a shuffle are one form: runs of channels `step` apart, the
            # runs `group_step` apart.
            taken = kernel.start + c // kernel.run * kernel.group_step
            taken = taken + c % kernel.run * kernel.step
            for u in range(0, pixels, lanes):
                at = Position(c, y, x + u)
                read = (taken * height + y) * width + x + u
                value = tir.load(source, read, lanes)
                value = apply(kernel.epilogue, rest, value, at, lanes)
                tir.store(rest[-1], at.offset(kernel.result), value, lanes)

    read, written = Space(prod(kernel.source), kernel.dtype), kernel.epilogue.written(kernel.result)
    return tir.function(symbol, [read, *kernel.epilogue.spaces, written], body)


def build_border(kernel: BorderKernel, symbol: str) -> Any:
    """Return the function that puts a border around a map."""
    plan = kernel.staging
    outside = (Space(plan.source[0], plan.dtype),) if kernel.by_channel else ()

    def body(source: Buffer, *rest: Buffer) -> None:
        levels = rest[0] if kernel.by_channel else None
        stage(plan, source, rest[-1], levels, parallel=plan.space.elements >= PARALLEL)

    return tir.function(symbol, [Space(prod(plan.source), plan.dtype), *outside, plan.space], body)


def build_lookup(kernel: Lookup, symbol: str) -> Any:
    """Return the function that looks bytes up."""
    size = kernel.elements
    parts = THREADS if size >= PARALLEL else 1
    each = size // parts

    def body(source: Buffer, table: Buffer, result: Buffer) -> None:
        def one(at: Expr) -> None:
            tir.store(result, at, tir.stored(table, tir.load(source, at)))

        # Parts of whole numbers of elements, and the rest, less than one part, one by one at the
        # end.
        with tir.loop(parts, parallel=parts > 1) as part, tir.loop(each) as i:
            one(part * each + i)
        for at in range(parts * each, size):
            one(at)

    spaces = [Space(size, "uint8"), Space(256, "uint8"), Space(size, "uint8")]
    return tir.function(symbol, spaces, body)


def build_nearest(kernel: Nearest, symbol: str) -> Any:
    """Return the function of sampling the nearest pixel."""
    (_, h, w), (channels, height, width) = kernel.source, kernel.result
    size = prod(kernel.result)

    def body(source: Buffer, *rest: Buffer) -> None:
        with tir.loop(channels, parallel=size >= PARALLEL) as c, tir.loop(height) as y:
            # In integers, floor(y * h / height) as the language has it: no float decides which
            # pixel it is.
            row = (c * h + y * h // height) * w
            with tir.loop(width) as x:
                at = Position(c, y, x)
                value = apply(kernel.epilogue, rest, tir.load(source, row + x * w // width), at, 1)
                tir.store(rest[-1], at.offset(kernel.result), value)

    read, written = Space(prod(kernel.source), kernel.dtype), kernel.epilogue.written(kernel.result)
    return tir.function(symbol, [read, *kernel.epilogue.spaces, written], body)


def build_bilinear(kernel: Bilinear, symbol: str) -> Any:
    """Return the function of sampling between four pixels."""
    (_, h, w), (channels, height, width) = kernel.source, kernel.result
    size = prod(kernel.result)

    def body(source: Buffer, rows: Buffer, columns: Buffer, *rest: Buffer) -> None:
        with (
            tir.loop(channels, parallel=size >= PARALLEL) as c,
            tir.loop(height) as y,
            tir.loop(width) as x,
        ):
            # Indices and shares come from tables that were made once: a kernel that computed them
            # would round otherwise on each core.
            above, below, down = _entry(rows, y)
            left, right, across = _entry(columns, x)

            def pixel(row: Expr, column: Expr) -> Expr:
                return tir.load(source, (c * h + row) * w + column)

            top = _between(pixel(above, left), pixel(above, right), across)
            bottom = _between(pixel(below, left), pixel(below, right), across)
            at = Position(c, y, x)
            value = tir.bind(_between(top, bottom, down), 1)
            value = apply(kernel.epilogue, rest, value, at, 1)
            tir.store(rest[-1], at.offset(kernel.result), value)

    tables = Space(3 * height), Space(3 * width)
    written = kernel.epilogue.written(kernel.result)
    spaces = [Space(prod(kernel.source)), *tables, *kernel.epilogue.spaces, written]
    return tir.function(symbol, spaces, body)


def _entry(table: Buffer, i: Expr) -> tuple[Expr, Expr, Expr]:
    """Return an entry of a table: two indices, and a share."""
    before, after, share = (tir.load(table, i * 3 + k) for k in range(3))
    return tir.whole(before), tir.whole(after), share


def _between(first: Expr, second: Expr, share: Expr) -> Expr:
    one = tir.constant(1.0, 1)
    # Two products and a sum, not first + (second - first) * share: where the share is 1 the result
    # is the second pixel itself.
    return tir.bind(first * (one - share) + second * share, 1)
