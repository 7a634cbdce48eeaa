"""The loops of kernels that reduce over the channels of each pixel."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from tcc.backends.arm.kernels.base import LANES, Space, choose_tile_width
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import LaneMath, Position, apply_epilogue
from tcc.backends.arm.kernels.loops.staging import PARALLEL
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.map import LayerNormKernel, SoftmaxKernel

Visit = Callable[[Position, Expr], None]
"""Called for one channel of some pixels, with its position and its index in the map."""
Walk = Callable[[Visit], None]
"""Calls a visit for every channel."""


def build_softmax(kernel: SoftmaxKernel, symbol: str) -> Any:
    """Return the function of a softmax kernel."""
    size = prod(kernel.shape)

    def emit_body(source: Buffer, *trailing_buffers: Buffer) -> None:
        # With threads, overlapping tiles would read each other's partial results.
        exact = kernel.shape[2] % choose_tile_width(kernel.shape[2], LANES)[0] == 0
        _visit_pixels(
            kernel.shape,
            lambda walk, lanes: _emit_softmax(kernel, source, trailing_buffers, walk, lanes),
            parallel=exact,
        )

    return tir.build_function(
        symbol, [Space(size), *kernel.epilogue.spaces, Space(size)], emit_body
    )


def build_layer_norm(kernel: LayerNormKernel, symbol: str) -> Any:
    """Return the function of a layer normalization kernel."""
    size, channels = prod(kernel.shape), kernel.shape[0]

    def emit_body(source: Buffer, weight: Buffer, bias: Buffer, *trailing_buffers: Buffer) -> None:
        _visit_pixels(
            kernel.shape,
            lambda walk, lanes: _emit_layer_norm(
                kernel, source, (weight, bias), trailing_buffers, walk, lanes
            ),
            parallel=True,
        )

    affine_space, output_space = Space(channels), kernel.epilogue.get_output_space(kernel.shape)
    spaces = [Space(size), affine_space, affine_space, *kernel.epilogue.spaces, output_space]
    return tir.build_function(symbol, spaces, emit_body)


def _visit_pixels(
    shape: tuple[int, int, int], body: Callable[[Walk, int], None], *, parallel: bool
) -> None:
    """Call `body` for all pixels, some consecutive ones at a time."""
    channels, height, width = shape
    count, lanes = choose_tile_width(width, LANES)
    shared = parallel and prod(shape) >= PARALLEL
    with (
        tir.emit_loop(height, parallel=shared and height > 1) as y,
        tir.tile_loop(width, count, parallel=shared and height == 1) as x,
    ):

        def walk(visit: Visit) -> None:
            with tir.emit_loop(channels) as c:
                at = Position(c, y, x)
                visit(at, at.compute_offset(shape))

        body(walk, lanes)


def _emit_softmax(
    kernel: SoftmaxKernel,
    source: Buffer,
    trailing_buffers: Sequence[Buffer],
    walk: Walk,
    lanes: int,
) -> None:
    """Emit three passes: the maximum, the exponentials and their sum, the quotients."""
    largest, total = tir.allocate_local(lanes), tir.allocate_local(lanes)
    output, math = trailing_buffers[-1], LaneMath(lanes)
    # Subtract the maximum first: the float32 exponential of a logit above 88 is infinite.
    tir.store(largest, 0, tir.create_constant(float("-inf"), lanes), lanes)
    tir.store(total, 0, tir.create_constant(0.0, lanes), lanes)

    def compare_element(_at: Position, index: Expr) -> None:
        value = tir.load(source, index, lanes)
        tir.store(largest, 0, tir.compute_maximum(tir.load(largest, 0, lanes), value, lanes), lanes)

    def store_exponential(_at: Position, index: Expr) -> None:
        value = tir.load(source, index, lanes) - tir.load(largest, 0, lanes)
        # The exponentials are stored in the result: computing one again costs more than a store
        # and a load.
        value = tir.bind(math.compute_exp(value), lanes)
        tir.store(output, index, value, lanes)
        tir.store(total, 0, tir.load(total, 0, lanes) + value, lanes)

    def write_quotient(at: Position, index: Expr) -> None:
        value = tir.load(output, index, lanes) / tir.load(total, 0, lanes)
        tir.store(
            output,
            index,
            apply_epilogue(kernel.epilogue, trailing_buffers, value, at, lanes),
            lanes,
        )

    for visit in (compare_element, store_exponential, write_quotient):
        walk(visit)


def _emit_layer_norm(
    kernel: LayerNormKernel,
    source: Buffer,
    affine: tuple[Buffer, Buffer],
    trailing_buffers: Sequence[Buffer],
    walk: Walk,
    lanes: int,
) -> None:
    """Emit three passes: the mean, the variance, the normalized values."""
    mean, variance, factor = (
        tir.allocate_local(lanes),
        tir.allocate_local(lanes),
        tir.allocate_local(lanes),
    )
    mean_factor = tir.create_constant(1.0 / kernel.shape[0], lanes)
    # The mean of squares would save a pass, but cancels if the mean is large compared to the
    # deviation.
    for start in (mean, variance):
        tir.store(start, 0, tir.create_constant(0.0, lanes), lanes)

    def load_centered(index: Expr) -> Expr:
        return tir.bind(tir.load(source, index, lanes) - tir.load(mean, 0, lanes), lanes)

    def sum_elements(_at: Position, index: Expr) -> None:
        value = tir.load(source, index, lanes)
        tir.store(mean, 0, tir.load(mean, 0, lanes) + value, lanes)

    def sum_squares(_at: Position, index: Expr) -> None:
        value = load_centered(index)
        tir.store(variance, 0, tir.load(variance, 0, lanes) + value * value, lanes)

    def write_normalized(at: Position, index: Expr) -> None:
        weight, bias = (tir.splat(tir.load(buffer, at.c), lanes) for buffer in affine)
        value = load_centered(index) * tir.load(factor, 0, lanes) * weight + bias
        value = apply_epilogue(kernel.epilogue, trailing_buffers, value, at, lanes)
        tir.store(trailing_buffers[-1], index, value, lanes)

    walk(sum_elements)
    tir.store(mean, 0, tir.load(mean, 0, lanes) * mean_factor, lanes)
    walk(sum_squares)
    spread = tir.load(variance, 0, lanes) * mean_factor + tir.create_constant(kernel.eps, lanes)
    tir.store(factor, 0, tir.create_constant(1.0, lanes) / tir.compute_sqrt(spread), lanes)
    walk(write_normalized)
