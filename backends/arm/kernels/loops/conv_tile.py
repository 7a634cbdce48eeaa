"""One register tile of a convolution: a block of output channels by some pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

from tcc.backends.arm.kernels.conv import DirectConv
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply
from tcc.backends.arm.kernels.loops.taps import PixelTile, Taps
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.tiling import LANES


@dataclass(frozen=True, slots=True)
class ConvBuffers:
    """A function's arguments but its scratch memory; `source` is the map or its staged copy."""

    source: Buffer
    weights: Buffer
    bias: Buffer
    operands: Sequence[Buffer]
    result: Buffer


@dataclass(frozen=True, slots=True)
class ChannelBlock:
    """Output channels: the index of their block, and how many there are."""

    index: Expr
    channels: int


def compute(
    kernel: DirectConv, memory: ConvBuffers, block: ChannelBlock, pixels: PixelTile, taps: Taps
) -> None:
    """Compute and write one tile."""
    (_across if kernel.across else _along)(kernel, memory, block, pixels, taps)


def _along(
    kernel: DirectConv, memory: ConvBuffers, block: ChannelBlock, pixels: PixelTile, taps: Taps
) -> None:
    """A tile whose vectors run along pixels."""
    lanes, first = pixels.lanes, block.index * kernel.blocks.width
    sums = tir.local(block.channels * pixels.count, kernel.numbers.total)
    spots = [
        (t, u, t * pixels.count + u)
        for t in range(block.channels)
        for u in range(0, pixels.count, lanes)
    ]
    for t, _, spot in spots:
        # Begun with the bias, so that it costs no addition after the loop.
        tir.store(sums, spot, tir.splat(tir.load(memory.bias, first + t), lanes), lanes)

    def visit(read: Buffer, at: Expr, k: Expr) -> None:
        weight = _weights(kernel, block) + k * block.channels
        for t, u, spot in spots:
            factor = tir.splat(tir.load(memory.weights, weight + t), lanes)
            value = tir.load(read, at + u, lanes) * factor
            tir.store(sums, spot, tir.load(sums, spot, lanes) + value, lanes)

    taps(visit)
    for t, u, spot in spots:
        at = Position(first + t, pixels.y, pixels.x + u)
        value = apply(kernel.epilogue, memory.operands, tir.load(sums, spot, lanes), at, lanes)
        tir.store(memory.result, at.offset(kernel.result), value, lanes)


def _across(
    kernel: DirectConv, memory: ConvBuffers, block: ChannelBlock, pixels: PixelTile, taps: Taps
) -> None:
    """A tile whose vectors run along output channels, padded to whole vectors."""
    channels = -(-block.channels // LANES) * LANES
    first = block.index * kernel.blocks.width
    sums = tir.local(pixels.count * channels, kernel.numbers.total)
    spots = [
        (u, t, u * channels + t) for u in range(pixels.count) for t in range(0, channels, LANES)
    ]
    for _, t, spot in spots:
        tir.store(sums, spot, tir.load(memory.bias, first + t, LANES), LANES)

    def visit(read: Buffer, at: Expr, k: Expr) -> None:
        weight = _weights(kernel, block) + k * channels
        for u, t, spot in spots:
            value = tir.splat(tir.load(read, at + u), LANES)
            value = value * tir.load(memory.weights, weight + t, LANES)
            tir.store(sums, spot, tir.load(sums, spot, LANES) + value, LANES)

    taps(visit)
    if kernel.plane == (1, 1):
        _write_vector(kernel, memory, sums, first, block.channels)
        return
    for u in range(pixels.count):
        for t in range(block.channels):
            at = Position(first + t, pixels.y, pixels.x + u)
            value = tir.load(sums, u * channels + t)
            value = apply(kernel.epilogue, memory.operands, value, at, 1)
            tir.store(memory.result, at.offset(kernel.result), value)


def _weights(kernel: DirectConv, block: ChannelBlock) -> Expr:
    """Return where a block's weights begin; all blocks before it are full."""
    return block.index * (kernel.blocks.width * kernel.taps)


def _write_vector(
    kernel: DirectConv, memory: ConvBuffers, sums: Buffer, first: Expr, channels: int
) -> None:
    """Write the channels of a single pixel, in vectors as far as they are full."""
    epilogue = kernel.epilogue.transposed()
    full = channels // LANES * LANES
    pieces = [(t, LANES) for t in range(0, full, LANES)] + [(t, 1) for t in range(full, channels)]
    for t, lanes in pieces:
        at = Position(0, 0, first + t)
        value = apply(epilogue, memory.operands, tir.load(sums, t, lanes), at, lanes)
        tir.store(memory.result, at.x, value, lanes)
