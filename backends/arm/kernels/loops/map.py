"""The loops of element-wise kernels and of those that move elements."""

from math import prod
from typing import Any

from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.epilogue import Position, apply
from tcc.backends.arm.kernels.loops.staging import PARALLEL, stage
from tcc.backends.arm.kernels.loops.tir import Buffer
from tcc.backends.arm.kernels.map import BorderKernel, ChannelGather, ElementwiseKernel


def build(kernel: ElementwiseKernel, symbol: str) -> Any:
    """Return the function of an element-wise kernel."""
    channels, height, width = kernel.result
    pixels, lanes = tir.tile_width(width, kernel.tile)

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

    return tir.function(symbol, [*kernel.epilogue.sizes, prod(kernel.result)], body)


def build_gather(kernel: ChannelGather, symbol: str) -> Any:
    """Return the function of a reordering of channels."""
    channels, height, width = kernel.result
    source_size, size = kernel.sizes
    pixels, lanes = tir.tile_width(width, kernel.tile)

    def body(source: Buffer, *rest: Buffer) -> None:
        with (
            tir.loop(channels, parallel=size >= PARALLEL) as c,
            tir.loop(height) as y,
            tir.tiles(width, pixels) as x,
        ):
            taken = kernel.start + c // kernel.run * kernel.group_step
            taken = taken + c % kernel.run * kernel.step
            for u in range(0, pixels, lanes):
                at = Position(c, y, x + u)
                read = (taken * height + y) * width + x + u
                value = tir.load(source, read, lanes)
                value = apply(kernel.epilogue, rest, value, at, lanes)
                tir.store(rest[-1], at.offset(kernel.result), value, lanes)

    return tir.function(symbol, [source_size, *kernel.epilogue.sizes, size], body)


def build_border(kernel: BorderKernel, symbol: str) -> Any:
    """Return the function that puts a border around a map."""
    plan = kernel.staging
    sizes = [prod(plan.source), plan.floats]
    return tir.function(symbol, sizes, lambda source, result: stage(plan, source, result))
