"""The loops of resizing."""

from math import prod
from typing import Any

from tcc.backends.arm.kernels.base import Space
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply
from tcc.backends.arm.kernels.loops.staging import PARALLEL
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.map import Bilinear, Nearest


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
