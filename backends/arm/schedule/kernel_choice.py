"""Which kernel computes which operation.

For each kind of anchor a rule makes the call. To add an operation: its rule here, or its line in
`kernels.pointwise`. Convolutions have candidates, the cheapest of which is called: to add a faster
kernel, see `float_choice` or `micro_choice`, and measure its costs.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.backends.arm.kernels.base import KernelCall, KernelWeights, Scratch, Shape3
from tcc.backends.arm.kernels.epilogue import Epilogue, fused
from tcc.backends.arm.kernels.map import (
    Bilinear,
    BorderKernel,
    ChannelGather,
    ElementwiseKernel,
    LayerNormKernel,
    Lookup,
    Nearest,
    SoftmaxKernel,
)
from tcc.backends.arm.kernels.pointwise import POINTWISE, PointwiseOp, Requantize, ToReal
from tcc.backends.arm.kernels.pool import ChannelPool, Reduction, WindowPool, mean_factors
from tcc.backends.arm.kernels.window import Staging, Window
from tcc.backends.arm.schedule import float_choice, micro_choice
from tcc.backends.arm.schedule.convolutions import matrix, transposed
from tcc.backends.arm.schedule.partition import Site
from tcc.compiler import ops
from tcc.compiler.ir.types import Pair
from tcc.compiler.ops import integer
from tcc.compiler.support.diagnostics import UnhandledError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rule = Callable[[Any, Site], KernelCall]
"""Returns the call that computes a group with that anchor."""


def window_max(op: ops.MaxPool, site: Site) -> KernelCall:
    """Return a maximum over windows."""
    return _window_pool(op, site, Reduction.MAX, ())


def window_mean(op: ops.AvgPool, site: Site) -> KernelCall:
    """Return a mean over windows."""
    factors = mean_factors(_pooled(op, site), count_border=op.count_include_pad)
    return _window_pool(op, site, Reduction.MEAN, (KernelWeights(factors),))


def _pooled(op: ops.MaxPool | ops.AvgPool, site: Site) -> Window:
    _, height, width = site.result
    return Window(site.source, (height, width), op.kernel, op.step, pads=op.pads)


def _window_pool(
    op: ops.MaxPool | ops.AvgPool,
    site: Site,
    reduction: Reduction,
    factors: tuple[KernelWeights, ...],
) -> KernelCall:
    (prologue, ahead), (epilogue, operands) = site.prologue(), site.epilogue()
    count, tile = sum(f.data.size for f in factors), site.machine.tile[1]
    window = _pooled(op, site)
    kernel = WindowPool(window, reduction, count, tile, epilogue, site.dtype, prologue)
    return site.call(kernel, *ahead, *factors, *operands, *map(Scratch, kernel.scratch))


def window_levels(op: integer.QAvgPool, site: Site) -> KernelCall:
    """Return a mean of levels over windows, each with a factor of its own."""
    _, factors = site.tensors
    epilogue, operands = site.epilogue(Requantize(op.low, op.high), factors)
    window = replace(_pooled(op.pool, site), pads=op.padding(site.read))
    tile = site.machine.tile[1]
    kernel = WindowPool(window, Reduction.MEAN, 0, tile, epilogue, site.dtype)
    return site.call(kernel, *operands, *map(Scratch, kernel.scratch))


def channel_max(_op: ops.GlobalMaxPool, site: Site) -> KernelCall:
    """Return the maximum of each channel."""
    return _channel_pool(site, Reduction.MAX)


def channel_mean(_op: ops.GlobalAvgPool, site: Site) -> KernelCall:
    """Return the mean of each channel."""
    return _channel_pool(site, Reduction.MEAN)


def channel_levels(op: integer.QGlobalAvgPool, site: Site) -> KernelCall:
    """Return the mean of each channel of levels."""
    finish = Requantize(op.low, op.high)
    return _channel_pool(site, Reduction.MEAN, finish, np.asarray(op.factor(site.read)))


def channel_real(op: integer.RealGlobalAvgPool, site: Site) -> KernelCall:
    """Return the mean of each channel of levels as a real number."""
    return _channel_pool(site, Reduction.MEAN, ToReal(), np.asarray(op.factor(site.read)))


def _channel_pool(
    site: Site,
    reduction: Reduction,
    finish: PointwiseOp | None = None,
    factor: "NDArray[Any] | None" = None,
) -> KernelCall:
    epilogue, operands = site.epilogue(finish, factor)
    channels, height, width = site.source
    kernel = ChannelPool(channels, height * width, reduction, epilogue, site.dtype)
    return site.call(kernel, *operands)


def softmax(_op: ops.Softmax, site: Site) -> KernelCall:
    """Return softmax over the channels."""
    epilogue, operands = site.epilogue()
    shape, epilogue = _channels_first(site, site.result, epilogue)
    return site.call(SoftmaxKernel(shape, epilogue), *operands)


def layer_norm(op: ops.LayerNorm, site: Site) -> KernelCall:
    """Return a normalisation of the channels of each pixel."""
    epilogue, operands = site.epilogue()
    shape, epilogue = _channels_first(site, site.result, epilogue)
    constants = (KernelWeights(tensor.ravel()) for tensor in site.tensors)
    return site.call(LayerNormKernel(shape, op.eps, epilogue), *constants, *operands)


def resize(op: ops.Resize, site: Site) -> KernelCall:
    """Return a sampling at another resolution."""
    epilogue, operands = site.epilogue()
    match op.mode:
        case "nearest":
            kernel = Nearest(site.source, site.result, epilogue, site.dtype)
            return site.call(kernel, *operands)
        case "bilinear":
            axes = zip(site.source[1:], site.result[1:], strict=True)
            tables = (KernelWeights(Bilinear.table(n, out)) for n, out in axes)
            return site.call(Bilinear(site.source, site.result, epilogue), *tables, *operands)
        case _:
            raise UnhandledError("way to resize", op.mode)


def channels_taken(op: ops.Slice, site: Site) -> KernelCall:
    """Return a choice of channels."""
    nothing = Epilogue(result=site.dtype)
    source, _ = _channels_first(site, site.source, nothing)
    result, _ = _channels_first(site, site.result, nothing)
    start, _, step = slice(op.start, op.stop, op.step).indices(source[0])
    tile, run = site.machine.tile[1], result[0]
    return site.call(ChannelGather(source, result, start, step, run, 0, tile, nothing, site.dtype))


def channels_dealt(op: ops.ChannelShuffle, site: Site) -> KernelCall:
    """Return a channel shuffle: channel j * groups + i comes from i * (channels / groups) + j."""
    epilogue, operands = site.epilogue()
    shape, epilogue = _channels_first(site, site.result, epilogue)
    tile, run = site.machine.tile[1], op.groups
    step = shape[0] // run
    kernel = ChannelGather(shape, shape, 0, step, run, 1, tile, epilogue, site.dtype)
    return site.call(kernel, *operands)


def _channels_first(site: Site, shape: Shape3, epilogue: Epilogue) -> tuple[Shape3, Epilogue]:
    """Return a shape and epilogue with a vector stood upright, and rows laid end to end."""
    c, h, w = shape
    if len(site.group.anchor.type.shape) == 1:
        return (w, 1, 1), epilogue.upright()
    if epilogue.flat((h, w)):
        return (c, 1, h * w), epilogue.flattened()
    return shape, epilogue


def border(op: ops.Pad, site: Site) -> KernelCall:
    """Return a copy with a border."""
    _, height, width = site.result
    top, left, _, _ = op.pads
    plan = Staging(site.source, height, width, 1, 1, 1, top, left, op.value)
    return site.call(BorderKernel(plan))


def channel_border(op: ops.Border | integer.QPad, site: Site) -> KernelCall:
    """Return a copy with a border of what each channel has."""
    channels, height, width = site.result
    top, left, _, _ = op.padding
    held = op.levels if isinstance(op, integer.QPad) else op.values
    values = np.broadcast_to(np.array(held, site.dtype), channels)
    plan = Staging(site.source, height, width, 1, 1, 1, top, left, 0.0, dtype=site.dtype)
    return site.call(BorderKernel(plan, by_channel=True), KernelWeights(values))


def looked_up(_op: integer.Table, site: Site) -> KernelCall:
    """Return a lookup of bytes: what the table says of each level's bits."""
    (table,) = site.tensors
    low, _ = site.read.limits
    least, _ = site.group.anchor.type.limits
    # A signed level's bits, read as an unsigned index, are 128 further on: the table is turned by
    # that.
    by_bits = np.roll(table.astype(np.int16) + least, low).astype(site.group.anchor.type.dtype)
    return site.call(Lookup(site.read.elements), KernelWeights(by_bits))


def elementwise(_op: ops.Op, site: Site) -> KernelCall:
    """Return element-wise operations that follow no other anchor."""
    epilogue, operands = fused(site.graph, site.weights, site.group.nodes, "")
    shape = site.result
    plane: Pair = shape[1:]
    if epilogue.flat(plane):
        shape, epilogue = (shape[0], 1, plane[0] * plane[1]), epilogue.flattened()
    kernel = ElementwiseKernel(shape, epilogue, 2 * site.machine.tile[1])
    return KernelCall(kernel, operands, site.group.result.name)


RULES: Mapping[type[ops.Op], Rule] = {
    ops.Conv: float_choice.convolution,
    ops.ConvTranspose: transposed,
    ops.Linear: matrix,
    ops.MaxPool: window_max,
    ops.AvgPool: window_mean,
    ops.GlobalMaxPool: channel_max,
    ops.GlobalAvgPool: channel_mean,
    ops.Softmax: softmax,
    ops.LayerNorm: layer_norm,
    ops.Resize: resize,
    ops.Slice: channels_taken,
    ops.ChannelShuffle: channels_dealt,
    ops.Pad: border,
    ops.Border: channel_border,
    integer.QConv: micro_choice.quantized,
    integer.RealConv: micro_choice.real,
    integer.QAvgPool: window_levels,
    integer.QGlobalAvgPool: channel_levels,
    integer.RealGlobalAvgPool: channel_real,
    integer.QPad: channel_border,
    integer.Table: looked_up,
    **dict.fromkeys(POINTWISE, elementwise),
}
"""Every operation that takes a kernel."""


def select(site: Site) -> KernelCall:
    """Return the call that computes a group."""
    op = site.group.anchor.op
    return RULES[type(op)](op, site)
