"""Selects the kernel of each operation.

A rule per kind of anchor makes the call. To add an operation, add a rule here or a line in
`kernels.pointwise`. For convolutions the cheapest candidate is called: to add a faster kernel,
see `float_choice` or `micro_choice`, and measure its costs.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.backends.arm.kernels.base import (
    KernelCall,
    KernelWeights,
    Scratch,
    Shape3,
    get_memory_dtype,
)
from tcc.backends.arm.kernels.epilogue import Epilogue, fuse_nodes
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
from tcc.backends.arm.kernels.pointwise import POINTWISE, DequantizeSum, PointwiseOp, Requantize
from tcc.backends.arm.kernels.pool import ChannelPool, Reduction, WindowPool, compute_mean_factors
from tcc.backends.arm.kernels.window import Staging, Window
from tcc.backends.arm.schedule import float_choice, micro_choice
from tcc.backends.arm.schedule.convolutions import call_linear, call_transposed
from tcc.backends.arm.schedule.partition import Site
from tcc.compiler import ops
from tcc.compiler.ir.types import Pair
from tcc.compiler.ops import integer
from tcc.compiler.support.diagnostics import UnhandledError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rule = Callable[[Any, Site], KernelCall]
"""Returns the call that computes a group with this anchor."""


def call_window_max(op: ops.MaxPool, site: Site) -> KernelCall:
    """Return the call of a maximum over windows."""
    return _call_window_pool(op, site, Reduction.MAX, ())


def call_window_mean(op: ops.AvgPool, site: Site) -> KernelCall:
    """Return the call of a mean over windows."""
    factors = compute_mean_factors(_create_pool_window(op, site), count_border=op.count_include_pad)
    return _call_window_pool(op, site, Reduction.MEAN, (KernelWeights(factors),))


def _create_pool_window(op: ops.MaxPool | ops.AvgPool, site: Site) -> Window:
    _, height, width = site.output_shape
    return Window(site.input_shape, (height, width), op.kernel, op.step, pads=op.pads)


def _call_window_pool(
    op: ops.MaxPool | ops.AvgPool,
    site: Site,
    reduction: Reduction,
    factors: tuple[KernelWeights, ...],
) -> KernelCall:
    (prologue, prologue_operands), (epilogue, operands) = (
        site.build_prologue(),
        site.build_epilogue(),
    )
    count, tile = sum(f.tensor.size for f in factors), site.machine.tile[1]
    window = _create_pool_window(op, site)
    kernel = WindowPool(window, reduction, count, tile, epilogue, site.dtype, prologue)
    return site.call(kernel, *prologue_operands, *factors, *operands, *map(Scratch, kernel.scratch))


def call_quantized_window_mean(op: integer.QAvgPool, site: Site) -> KernelCall:
    """Return the call of a mean of 8-bit values over windows, with one factor per window."""
    _, factors = site.tensors
    epilogue, operands = site.build_epilogue(Requantize(op.low, op.high), factors)
    window = replace(_create_pool_window(op.pool, site), pads=op.compute_padding(site.input_type))
    tile = site.machine.tile[1]
    kernel = WindowPool(window, Reduction.MEAN, 0, tile, epilogue, site.dtype)
    return site.call(kernel, *operands, *map(Scratch, kernel.scratch))


def call_channel_max(_op: ops.GlobalMaxPool, site: Site) -> KernelCall:
    """Return the call of a maximum of each channel."""
    return _call_channel_pool(site, Reduction.MAX)


def call_channel_mean(_op: ops.GlobalAvgPool, site: Site) -> KernelCall:
    """Return the call of a mean of each channel."""
    return _call_channel_pool(site, Reduction.MEAN)


def call_quantized_channel_mean(op: integer.QGlobalAvgPool, site: Site) -> KernelCall:
    """Return the call of a mean of each channel, of 8-bit values."""
    finish = Requantize(op.low, op.high)
    return _call_channel_pool(
        site, Reduction.MEAN, finish, np.asarray(op.compute_factor(site.input_type))
    )


def call_dequantized_channel_mean(op: integer.RealGlobalAvgPool, site: Site) -> KernelCall:
    """Return the call of a mean of each channel of 8-bit values, as floats."""
    return _call_channel_pool(
        site, Reduction.MEAN, DequantizeSum(), np.asarray(op.compute_factor(site.input_type))
    )


def _call_channel_pool(
    site: Site,
    reduction: Reduction,
    finish: PointwiseOp | None = None,
    factor: "NDArray[Any] | None" = None,
) -> KernelCall:
    epilogue, operands = site.build_epilogue(finish, factor)
    channels, height, width = site.input_shape
    kernel = ChannelPool(channels, height * width, reduction, epilogue, site.dtype)
    return site.call(kernel, *operands)


def call_softmax(_op: ops.Softmax, site: Site) -> KernelCall:
    """Return the call of a softmax over the channels."""
    epilogue, operands = site.build_epilogue()
    shape, epilogue = _flatten_rows(site, site.output_shape, epilogue)
    return site.call(SoftmaxKernel(shape, epilogue), *operands)


def call_layer_norm(op: ops.LayerNorm, site: Site) -> KernelCall:
    """Return the call of a layer normalization over the channels of each pixel."""
    epilogue, operands = site.build_epilogue()
    shape, epilogue = _flatten_rows(site, site.output_shape, epilogue)
    constants = (KernelWeights(tensor.ravel()) for tensor in site.tensors)
    return site.call(LayerNormKernel(shape, op.eps, epilogue), *constants, *operands)


def call_resize(op: ops.Resize, site: Site) -> KernelCall:
    """Return the call of a resize."""
    epilogue, operands = site.build_epilogue()
    match op.mode:
        case "nearest":
            kernel = Nearest(site.input_shape, site.output_shape, epilogue, site.dtype)
            return site.call(kernel, *operands)
        case "bilinear":
            axes = zip(site.input_shape[1:], site.output_shape[1:], strict=True)
            tables = (KernelWeights(Bilinear.compute_table(n, out)) for n, out in axes)
            return site.call(
                Bilinear(site.input_shape, site.output_shape, epilogue), *tables, *operands
            )
        case _:
            raise UnhandledError("resize mode", op.mode)


def call_channel_slice(op: ops.Slice, site: Site) -> KernelCall:
    """Return the call of a slice of channels."""
    no_epilogue = Epilogue(dtype=site.dtype)
    source, _ = _flatten_rows(site, site.input_shape, no_epilogue)
    output, _ = _flatten_rows(site, site.output_shape, no_epilogue)
    start, _, step = slice(op.start, op.stop, op.step).indices(source[0])
    tile, run = site.machine.tile[1], output[0]
    return site.call(
        ChannelGather(source, output, start, step, run, 0, tile, no_epilogue, site.dtype)
    )


def call_channel_shuffle(op: ops.ChannelShuffle, site: Site) -> KernelCall:
    """Return a channel shuffle: channel j * groups + i is i * (channels / groups) + j."""
    epilogue, operands = site.build_epilogue()
    shape, epilogue = _flatten_rows(site, site.output_shape, epilogue)
    tile, run = site.machine.tile[1], op.groups
    step = shape[0] // run
    kernel = ChannelGather(shape, shape, 0, step, run, 1, tile, epilogue, site.dtype)
    return site.call(kernel, *operands)


def _flatten_rows(site: Site, shape: Shape3, epilogue: Epilogue) -> tuple[Shape3, Epilogue]:
    """Return a shape and epilogue with a vector's features as channels, and with joined rows."""
    c, h, w = shape
    if len(site.group.anchor.type.shape) == 1:
        return (w, 1, 1), epilogue.to_map()
    if epilogue.can_flatten((h, w)):
        return (c, 1, h * w), epilogue.flatten()
    return shape, epilogue


def call_border(op: ops.Pad, site: Site) -> KernelCall:
    """Return the call of a copy with padding."""
    _, height, width = site.output_shape
    pad_top, pad_left, _, _ = op.pads
    plan = Staging(site.input_shape, height, width, 1, 1, 1, pad_top, pad_left, op.value)
    return site.call(BorderKernel(plan))


def call_channel_border(op: ops.Border | integer.QPad, site: Site) -> KernelCall:
    """Return the call of a copy with padding by a value per channel."""
    channels, height, width = site.output_shape
    pad_top, pad_left, _, _ = op.padding
    border_values = op.levels if isinstance(op, integer.QPad) else op.values
    is_quantized = isinstance(op, integer.QPad)
    # The low 8 bits of a quantized value are stored, whatever its zero point.
    border_array = np.array(border_values, np.int16 if is_quantized else site.dtype)
    memory_dtype = get_memory_dtype(site.dtype)
    channel_values = np.broadcast_to(border_array.astype(memory_dtype), channels)
    plan = Staging(
        site.input_shape, height, width, 1, 1, 1, pad_top, pad_left, 0.0, dtype=site.dtype
    )
    return site.call(BorderKernel(plan, by_channel=True), KernelWeights(channel_values))


def call_lookup(_op: integer.Table, site: Site) -> KernelCall:
    """Return the call of a table lookup for each 8-bit value."""
    (table,) = site.tensors
    low, _ = site.input_type.limits
    output_low, _ = site.group.anchor.type.limits
    # The bits of a signed value, read as an unsigned index, are shifted by 128: rotate the table
    # to match.
    table_by_bits = np.roll(table.astype(np.int16) + output_low, low).astype(
        site.group.anchor.type.dtype
    )
    return site.call(Lookup(site.input_type.elements), KernelWeights(table_by_bits))


def call_elementwise(_op: ops.Op, site: Site) -> KernelCall:
    """Return the call of element-wise operations without another anchor."""
    epilogue, operands = fuse_nodes(site.graph, site.weights, site.group.nodes, "")
    shape = site.output_shape
    plane: Pair = shape[1:]
    if epilogue.can_flatten(plane):
        shape, epilogue = (shape[0], 1, plane[0] * plane[1]), epilogue.flatten()
    kernel = ElementwiseKernel(shape, epilogue, 2 * site.machine.tile[1])
    return KernelCall(kernel, operands, site.group.output_node.name)


RULES: Mapping[type[ops.Op], Rule] = {
    ops.Conv: float_choice.call_convolution,
    ops.ConvTranspose: call_transposed,
    ops.Linear: call_linear,
    ops.MaxPool: call_window_max,
    ops.AvgPool: call_window_mean,
    ops.GlobalMaxPool: call_channel_max,
    ops.GlobalAvgPool: call_channel_mean,
    ops.Softmax: call_softmax,
    ops.LayerNorm: call_layer_norm,
    ops.Resize: call_resize,
    ops.Slice: call_channel_slice,
    ops.ChannelShuffle: call_channel_shuffle,
    ops.Pad: call_border,
    ops.Border: call_channel_border,
    integer.QConv: micro_choice.call_quantized,
    integer.RealConv: micro_choice.call_dequantized,
    integer.QAvgPool: call_quantized_window_mean,
    integer.QGlobalAvgPool: call_quantized_channel_mean,
    integer.RealGlobalAvgPool: call_dequantized_channel_mean,
    integer.QPad: call_channel_border,
    integer.Table: call_lookup,
    **dict.fromkeys(POINTWISE, call_elementwise),
}
"""The rules of all operations that need a kernel."""


def select(site: Site) -> KernelCall:
    """Return the call that computes a group."""
    op = site.group.anchor.op
    return RULES[type(op)](op, site)
