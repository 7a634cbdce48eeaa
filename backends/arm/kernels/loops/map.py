"""The loops of element-wise, resizing and data movement kernels."""

from math import prod
from typing import Any

from tcc.backends.arm.kernels.base import Space, choose_tile_width
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply_epilogue
from tcc.backends.arm.kernels.loops.staging import PARALLEL, write_staging
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.map import (
    Bilinear,
    BorderKernel,
    ChannelGather,
    ElementwiseKernel,
    Lookup,
    Nearest,
)

MAX_THREADS = 16
"""Number of parts of a map without channels: the largest number of threads."""


def build_elementwise(kernel: ElementwiseKernel, symbol: str) -> Any:
    """Return the function of an element-wise kernel."""
    channels, height, width = kernel.output_shape
    pixels, lanes = choose_tile_width(width, kernel.tile)

    def emit_body(*buffers: Buffer) -> None:
        parallel = prod(kernel.output_shape) >= PARALLEL
        with (
            tir.emit_loop(channels, parallel=parallel) as c,
            tir.emit_loop(height) as y,
            tir.tile_loop(width, pixels) as x,
        ):
            for u in range(0, pixels, lanes):
                at = Position(c, y, x + u)
                value = apply_epilogue(kernel.epilogue, buffers, None, at, lanes)
                tir.store(buffers[-1], at.compute_offset(kernel.output_shape), value, lanes)

    spaces = [*kernel.epilogue.spaces, kernel.epilogue.get_output_space(kernel.output_shape)]
    return tir.build_function(symbol, spaces, emit_body)


def build_gather(kernel: ChannelGather, symbol: str) -> Any:
    """Return the function of a channel reordering kernel."""
    channels, height, width = kernel.output_shape
    pixels, lanes = choose_tile_width(width, kernel.tile)

    def emit_body(source: Buffer, *trailing_buffers: Buffer) -> None:
        with (
            tir.emit_loop(channels, parallel=prod(kernel.output_shape) >= PARALLEL) as c,
            tir.emit_loop(height) as y,
            tir.tile_loop(width, pixels) as x,
        ):
            # A slice, a strided slice and a shuffle have the same form: runs of channels `step`
            # apart, with the runs `group_step` apart.
            source_channel = kernel.start + c // kernel.run * kernel.group_step
            source_channel = source_channel + c % kernel.run * kernel.step
            for u in range(0, pixels, lanes):
                at = Position(c, y, x + u)
                source_index = (source_channel * height + y) * width + x + u
                value = tir.load(source, source_index, lanes)
                value = apply_epilogue(kernel.epilogue, trailing_buffers, value, at, lanes)
                tir.store(
                    trailing_buffers[-1], at.compute_offset(kernel.output_shape), value, lanes
                )

    input_space, output_space = (
        Space(prod(kernel.input_shape), kernel.dtype),
        kernel.epilogue.get_output_space(kernel.output_shape),
    )
    return tir.build_function(
        symbol, [input_space, *kernel.epilogue.spaces, output_space], emit_body
    )


def build_border(kernel: BorderKernel, symbol: str) -> Any:
    """Return the function that adds a border to a map."""
    plan = kernel.staging
    border_spaces = (Space(plan.source[0], plan.dtype),) if kernel.by_channel else ()

    def emit_body(source: Buffer, *trailing_buffers: Buffer) -> None:
        border_values = trailing_buffers[0] if kernel.by_channel else None
        write_staging(
            plan,
            source,
            trailing_buffers[-1],
            border_values,
            parallel=plan.space.elements >= PARALLEL,
        )

    return tir.build_function(
        symbol, [Space(prod(plan.source), plan.dtype), *border_spaces, plan.space], emit_body
    )


def build_lookup(kernel: Lookup, symbol: str) -> Any:
    """Return the function of a byte table lookup."""
    size = kernel.elements
    parts = MAX_THREADS if size >= PARALLEL else 1
    part_size = size // parts

    def emit_body(source: Buffer, table: Buffer, output: Buffer) -> None:
        def store_lookup(at: Expr) -> None:
            tir.store(output, at, tir.load_raw(table, tir.load(source, at)))

        # Equal parts, then the remaining elements (fewer than one part) one by one.
        with tir.emit_loop(parts, parallel=parts > 1) as part, tir.emit_loop(part_size) as i:
            store_lookup(part * part_size + i)
        for at in range(parts * part_size, size):
            store_lookup(at)

    spaces = [Space(size, "uint8"), Space(256, "uint8"), Space(size, "uint8")]
    return tir.build_function(symbol, spaces, emit_body)


def build_nearest(kernel: Nearest, symbol: str) -> Any:
    """Return the function of nearest sampling."""
    (_, h, w), (channels, height, width) = kernel.input_shape, kernel.output_shape
    size = prod(kernel.output_shape)

    def emit_body(source: Buffer, *trailing_buffers: Buffer) -> None:
        with tir.emit_loop(channels, parallel=size >= PARALLEL) as c, tir.emit_loop(height) as y:
            # floor(y * h / height) in integers, as the spec defines it: no float rounding can
            # select another pixel.
            row = (c * h + y * h // height) * w
            with tir.emit_loop(width) as x:
                at = Position(c, y, x)
                value = apply_epilogue(
                    kernel.epilogue, trailing_buffers, tir.load(source, row + x * w // width), at, 1
                )
                tir.store(trailing_buffers[-1], at.compute_offset(kernel.output_shape), value)

    input_space, output_space = (
        Space(prod(kernel.input_shape), kernel.dtype),
        kernel.epilogue.get_output_space(kernel.output_shape),
    )
    return tir.build_function(
        symbol, [input_space, *kernel.epilogue.spaces, output_space], emit_body
    )


def build_bilinear(kernel: Bilinear, symbol: str) -> Any:
    """Return the function of bilinear sampling."""
    (_, h, w), (channels, height, width) = kernel.input_shape, kernel.output_shape
    size = prod(kernel.output_shape)

    def emit_body(source: Buffer, rows: Buffer, columns: Buffer, *trailing_buffers: Buffer) -> None:
        with (
            tir.emit_loop(channels, parallel=size >= PARALLEL) as c,
            tir.emit_loop(height) as y,
            tir.emit_loop(width) as x,
        ):
            # Indices and weights come from precomputed tables: computed on the device, they would
            # round differently on each core.
            upper_row, lower_row, row_share = _load_entry(rows, y)
            left_column, right_column, column_share = _load_entry(columns, x)

            def load_pixel(row: Expr, column: Expr) -> Expr:
                return tir.load(source, (c * h + row) * w + column)

            top = _interpolate(
                load_pixel(upper_row, left_column),
                load_pixel(upper_row, right_column),
                column_share,
            )
            bottom = _interpolate(
                load_pixel(lower_row, left_column),
                load_pixel(lower_row, right_column),
                column_share,
            )
            at = Position(c, y, x)
            value = tir.bind(_interpolate(top, bottom, row_share), 1)
            value = apply_epilogue(kernel.epilogue, trailing_buffers, value, at, 1)
            tir.store(trailing_buffers[-1], at.compute_offset(kernel.output_shape), value)

    tables = Space(3 * height), Space(3 * width)
    output_space = kernel.epilogue.get_output_space(kernel.output_shape)
    spaces = [Space(prod(kernel.input_shape)), *tables, *kernel.epilogue.spaces, output_space]
    return tir.build_function(symbol, spaces, emit_body)


def _load_entry(table: Buffer, i: Expr) -> tuple[Expr, Expr, Expr]:
    """Return an entry of a table: two indices, and a weight."""
    lower, upper, share = (tir.load(table, i * 3 + k) for k in range(3))
    return tir.to_index(lower), tir.to_index(upper), share


def _interpolate(start: Expr, end: Expr, share: Expr) -> Expr:
    unit = tir.create_constant(1.0, 1)
    # Two products and a sum, not start + (end - start) * share: at share 1 the result is exactly
    # `end`.
    return tir.bind(start * (unit - share) + end * share, 1)
