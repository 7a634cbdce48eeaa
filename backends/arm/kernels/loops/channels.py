"""The loops of kernels that look at all channels of a pixel."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from tcc.backends.arm.kernels.base import LANES, Space, tile_width
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import LaneMath, Position, apply
from tcc.backends.arm.kernels.loops.staging import PARALLEL
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.map import LayerNormKernel, SoftmaxKernel

Visit = Callable[[Position, Expr], None]
"""Told of one channel of some pixels: where it is, and its index in the map."""
Walk = Callable[[Visit], None]
"""Runs a visit for every channel."""


def build_softmax(kernel: SoftmaxKernel, symbol: str) -> Any:
    """Return the function of softmax."""
    size = prod(kernel.shape)

    def body(source: Buffer, *rest: Buffer) -> None:
        # tiles that overlap would read each other's unfinished results
        exact = kernel.shape[2] % tile_width(kernel.shape[2], LANES)[0] == 0
        _pixels(
            kernel.shape,
            lambda walk, lanes: _softmax(kernel, source, rest, walk, lanes),
            parallel=exact,
        )

    return tir.function(symbol, [Space(size), *kernel.epilogue.spaces, Space(size)], body)


def build_normal(kernel: LayerNormKernel, symbol: str) -> Any:
    """Return the function of layer normalisation."""
    size, channels = prod(kernel.shape), kernel.shape[0]

    def body(source: Buffer, weight: Buffer, bias: Buffer, *rest: Buffer) -> None:
        _pixels(
            kernel.shape,
            lambda walk, lanes: _normal(kernel, source, (weight, bias), rest, walk, lanes),
            parallel=True,
        )

    affine, written = Space(channels), kernel.epilogue.written(kernel.shape)
    spaces = [Space(size), affine, affine, *kernel.epilogue.spaces, written]
    return tir.function(symbol, spaces, body)


def _pixels(
    shape: tuple[int, int, int], body: Callable[[Walk, int], None], *, parallel: bool
) -> None:
    """Run `body` for all pixels, some in a row at a time."""
    channels, height, width = shape
    count, lanes = tile_width(width, LANES)
    shared = parallel and prod(shape) >= PARALLEL
    with (
        tir.loop(height, parallel=shared and height > 1) as y,
        tir.tiles(width, count, parallel=shared and height == 1) as x,
    ):

        def walk(visit: Visit) -> None:
            with tir.loop(channels) as c:
                at = Position(c, y, x)
                visit(at, at.offset(shape))

        body(walk, lanes)


def _softmax(
    kernel: SoftmaxKernel, source: Buffer, rest: Sequence[Buffer], walk: Walk, lanes: int
) -> None:
    """Three walks: the largest, the exponentials and their sum, the quotients."""
    largest, total = tir.local(lanes), tir.local(lanes)
    result, math = rest[-1], LaneMath(lanes)
    # The largest is taken off first, or the exponential of a logit beyond 88 would be infinite in
    # float32.
    tir.store(largest, 0, tir.constant(float("-inf"), lanes), lanes)
    tir.store(total, 0, tir.constant(0.0, lanes), lanes)

    def compare(_at: Position, index: Expr) -> None:
        value = tir.load(source, index, lanes)
        tir.store(largest, 0, tir.maximum(tir.load(largest, 0, lanes), value, lanes), lanes)

    def exponential(_at: Position, index: Expr) -> None:
        value = tir.load(source, index, lanes) - tir.load(largest, 0, lanes)
        # Kept in the result itself, which has the room: an exponential costs more than a store and
        # a load.
        value = tir.bind(math.exp(value), lanes)
        tir.store(result, index, value, lanes)
        tir.store(total, 0, tir.load(total, 0, lanes) + value, lanes)

    def divide(at: Position, index: Expr) -> None:
        value = tir.load(result, index, lanes) / tir.load(total, 0, lanes)
        tir.store(result, index, apply(kernel.epilogue, rest, value, at, lanes), lanes)

    for visit in (compare, exponential, divide):
        walk(visit)


def _normal(
    kernel: LayerNormKernel,
    source: Buffer,
    affine: tuple[Buffer, Buffer],
    rest: Sequence[Buffer],
    walk: Walk,
    lanes: int,
) -> None:
    """Three walks: the mean, the variance, the normalised values."""
    mean, variance, factor = tir.local(lanes), tir.local(lanes), tir.local(lanes)
    share = tir.constant(1.0 / kernel.shape[0], lanes)
    # Not by the mean of squares, one walk less: it cancels where the mean is large beside the
    # deviation.
    for start in (mean, variance):
        tir.store(start, 0, tir.constant(0.0, lanes), lanes)

    def centered(index: Expr) -> Expr:
        return tir.bind(tir.load(source, index, lanes) - tir.load(mean, 0, lanes), lanes)

    def total(_at: Position, index: Expr) -> None:
        value = tir.load(source, index, lanes)
        tir.store(mean, 0, tir.load(mean, 0, lanes) + value, lanes)

    def squares(_at: Position, index: Expr) -> None:
        value = centered(index)
        tir.store(variance, 0, tir.load(variance, 0, lanes) + value * value, lanes)

    def write(at: Position, index: Expr) -> None:
        weight, bias = (tir.splat(tir.load(buffer, at.c), lanes) for buffer in affine)
        value = centered(index) * tir.load(factor, 0, lanes) * weight + bias
        value = apply(kernel.epilogue, rest, value, at, lanes)
        tir.store(rest[-1], index, value, lanes)

    walk(total)
    tir.store(mean, 0, tir.load(mean, 0, lanes) * share, lanes)
    walk(squares)
    spread = tir.load(variance, 0, lanes) * share + tir.constant(kernel.eps, lanes)
    tir.store(factor, 0, tir.constant(1.0, lanes) / tir.sqrt(spread), lanes)
    walk(write)
