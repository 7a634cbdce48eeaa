"""The loops of pooling."""

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any, assert_never

from tcc.backends.arm.kernels.base import LANES, Space, choose_tile_width
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply_epilogue, load_operand
from tcc.backends.arm.kernels.loops.staging import PARALLEL, BandedMap
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.pool import ChannelPool, Reduction, WindowPool

MAX_UNROLLED_TAPS = 16
"""Largest window that is unrolled, in taps: 4x4. LLVM spills registers in larger ones."""


def build_window(kernel: WindowPool, symbol: str) -> Any:
    """Return the function of a pooling over windows."""
    spaces = [
        Space(prod(kernel.window.source), kernel.dtype),
        *kernel.prologue.spaces,
        *([Space(kernel.factor_count)] if kernel.factor_count else []),
        *kernel.epilogue.spaces,
        *kernel.scratch,
        kernel.epilogue.get_output_space(kernel.output_shape),
    ]

    def emit_body(source: Buffer, *buffers: Buffer) -> None:
        prologue_count = len(kernel.prologue.operands)
        prologue_buffers, trailing_buffers = buffers[:prologue_count], buffers[prologue_count:]
        factor_count, operands_end = 1 if kernel.factor_count else 0, -1 - len(kernel.scratch)
        height = kernel.window.out[0]

        def apply_prologue(elements: Sequence[Expr], channel: Expr, lanes: int) -> Expr:
            at = Position(channel, 0, 0)
            prologue_outputs = (
                apply_epilogue(kernel.prologue, prologue_buffers, element, at, lanes)
                for element in elements
            )
            return reduce(
                lambda a, b: _reduce_pair(kernel.reduction, a, b, lanes), prologue_outputs
            )

        banded_map = BandedMap(
            kernel.band,
            kernel.layout,
            height,
            source,
            trailing_buffers[operands_end:-1],
            apply_prologue,
        )
        _emit_windows(
            kernel,
            banded_map,
            trailing_buffers[:factor_count],
            trailing_buffers[factor_count:operands_end],
            trailing_buffers[-1],
        )

    return tir.build_function(symbol, spaces, emit_body)


def _emit_windows(
    kernel: WindowPool,
    banded_map: BandedMap,
    factors: Sequence[Buffer],
    operands: Sequence[Buffer],
    output: Buffer,
) -> None:
    channels, height, width = kernel.output_shape
    pixels, lanes = choose_tile_width(width, kernel.tile, _get_lanes(kernel.dtype))
    shape = (1, height, width) if kernel.factor_count > 1 else (1, 1, 1)
    parallel = prod(kernel.output_shape) * prod(kernel.window.kernel) >= PARALLEL
    has_private_bands = not banded_map.scratch
    with (
        tir.emit_loop(channels, parallel=parallel and has_private_bands) as c,
        banded_map.iterate_rows(c, parallel=parallel and not has_private_bands) as rows,
        tir.emit_loop(rows.count, parallel=rows.is_parallel) as i,
        tir.tile_loop(width, pixels) as x,
    ):
        start = rows.start + i * kernel.layout.row_step + x
        for u, value in _reduce_tile(kernel, rows.buffer, start, pixels, lanes).items():
            at = Position(c, rows.first_row + i, x + u)
            for table in factors:
                value = value * load_operand(table, shape, at, lanes)  # noqa: PLW2901
            finished = apply_epilogue(kernel.epilogue, operands, value, at, lanes)
            tir.store(output, at.compute_offset(kernel.output_shape), finished, lanes)


def _reduce_tile(
    kernel: WindowPool, buffer: Buffer, start: Expr, pixels: int, lanes: int
) -> dict[int, Expr]:
    """Return the reduced windows of consecutive pixels, by distance from the first.

    The window of the first pixel starts at `start`.
    """
    layout, (height, width) = kernel.layout, kernel.sliding_window.kernel
    tile_offsets = range(0, pixels, lanes)
    accumulator = tir.allocate_local(pixels, kernel.reduction.get_accumulator_dtype(kernel.dtype))
    for u in tile_offsets:
        tir.store(accumulator, u, _create_identity(kernel, lanes), lanes)

    def reduce_row(i: Expr) -> None:
        for j in range(width):
            offset = start + i * layout.row + layout.compute_column_offset(j)
            for u in tile_offsets:
                value = _load_elements(kernel, buffer, offset + u, lanes)
                value = _reduce_pair(
                    kernel.reduction, tir.load_raw(accumulator, u, lanes), value, lanes
                )
                tir.store(accumulator, u, value, lanes)

    if height * width <= MAX_UNROLLED_TAPS:
        for i in range(height):
            reduce_row(i)
    else:
        with tir.emit_loop(height) as i:
            reduce_row(i)
    return {u: tir.load(accumulator, u, lanes) for u in tile_offsets}


def _get_lanes(dtype: str) -> int:
    """Return how many elements of a type are reduced at once."""
    return LANES if dtype == tir.FLOAT else 2 * LANES


def _create_identity(kernel: WindowPool | ChannelPool, lanes: int) -> Expr:
    value = kernel.reduction.get_identity(kernel.dtype)
    if kernel.dtype == tir.FLOAT:
        return tir.create_constant(value, lanes)
    return tir.create_integer(int(value), lanes)


def _load_elements(kernel: WindowPool, buffer: Buffer, at: Expr, lanes: int) -> Expr:
    """Return elements in the type of their accumulator."""
    keeps_dtype = kernel.reduction.get_accumulator_dtype(kernel.dtype) == kernel.dtype
    return (tir.load_raw if keeps_dtype else tir.load)(buffer, at, lanes)


def _reduce_pair(reduction: Reduction, a: Expr, b: Expr, lanes: int) -> Expr:
    match reduction:
        case Reduction.MAX if tir.get_dtype(a) == tir.FLOAT:
            return tir.compute_maximum(a, b, lanes)
        case Reduction.MAX:
            return tir.select_larger(a, b)
        case Reduction.MEAN:
            return a + b
        case _:
            assert_never(reduction)


def build_channel(kernel: ChannelPool, symbol: str) -> Any:
    """Return the function of a pooling over channels."""
    size = kernel.channels * kernel.pixels
    output_space = kernel.epilogue.get_output_space((kernel.channels, 1, 1))
    spaces = [Space(size, kernel.dtype), *kernel.epilogue.spaces, output_space]

    def emit_body(source: Buffer, *trailing_buffers: Buffer) -> None:
        with tir.emit_loop(kernel.channels, parallel=size >= PARALLEL) as c:
            value = _reduce_channel(kernel, source, c * kernel.pixels)
            factor = kernel.reduction.compute_factor(kernel.pixels)
            if factor is not None and kernel.dtype == tir.FLOAT:
                value = value * tir.create_constant(factor, 1)
            value = apply_epilogue(kernel.epilogue, trailing_buffers, value, Position(c, 0, 0), 1)
            tir.store(trailing_buffers[-1], c, value)

    return tir.build_function(symbol, spaces, emit_body)


def _reduce_channel(kernel: ChannelPool, source: Buffer, start: Expr) -> Expr:
    """Return the reduction of a channel: four partial reductions in parallel, then these."""
    accumulator_dtype = tir.FLOAT if kernel.dtype == tir.FLOAT else tir.INT
    partial, total = (
        tir.allocate_local(LANES, accumulator_dtype),
        tir.allocate_local(1, accumulator_dtype),
    )
    full_vectors = kernel.pixels // LANES
    # Four independent sums; the order, and so the rounding, is the same on every core.
    tir.store(partial, 0, _create_identity(kernel, LANES), LANES)
    tir.store(total, 0, _create_identity(kernel, 1))
    if full_vectors:
        with tir.emit_loop(full_vectors) as i:
            value = tir.load(source, start + i * LANES, LANES)
            value = _reduce_pair(kernel.reduction, tir.load(partial, 0, LANES), value, LANES)
            tir.store(partial, 0, value, LANES)
    for lane in range(LANES):
        value = _reduce_pair(kernel.reduction, tir.load(total, 0), tir.load(partial, lane), 1)
        tir.store(total, 0, value)
    for pixel in range(full_vectors * LANES, kernel.pixels):
        value = _reduce_pair(
            kernel.reduction, tir.load(total, 0), tir.load(source, start + pixel), 1
        )
        tir.store(total, 0, value)
    return tir.load(total, 0)
