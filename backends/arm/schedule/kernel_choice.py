"""Which kernel computes which operation.

For each kind of anchor the rules stand in order of preference; the first that takes a group
makes its call, and the last takes any. To add an operation: its rule here, or its line in
`kernels.pointwise`. To add a faster kernel: its rule, before the ones there are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.backends.arm.kernels.base import (
    Kernel,
    KernelArgument,
    KernelCall,
    KernelWeights,
    Scratch,
    Shape3,
    Value,
)
from tcc.backends.arm.kernels.channels import LayerNormKernel, SoftmaxKernel
from tcc.backends.arm.kernels.conv import FLOATS, Arithmetic, DirectConv, integers
from tcc.backends.arm.kernels.epilogue import Epilogue, Finish, fused, shape3
from tcc.backends.arm.kernels.map import (
    Bilinear,
    BorderKernel,
    ChannelGather,
    ElementwiseKernel,
    Lookup,
    Nearest,
)
from tcc.backends.arm.kernels.pointwise import POINTWISE, PointwiseOp, Requantize, ToReal
from tcc.backends.arm.kernels.pool import ChannelPool, Reduction, WindowPool, mean_factors
from tcc.backends.arm.kernels.window import Staging, Window
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.schedule.partition import FusionGroup
from tcc.compiler import ops
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.types import Pair, TensorType
from tcc.compiler.ops import integer, integer_arithmetic
from tcc.compiler.support.unhandled import UnhandledError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Site:
    """A group where it stands: all that a rule may look at."""

    graph: Graph
    weights: "Mapping[str, NDArray[Any]]"
    machine: Machine
    group: FusionGroup

    @property
    def read(self) -> TensorType:
        """The type of the anchor's first input."""
        return self.graph.types[self.group.anchor.inputs[0]]

    @property
    def source(self) -> Shape3:
        """The shape of the anchor's first input."""
        return shape3(self.read.shape)

    @property
    def dtype(self) -> str:
        """The type of numbers in the anchor's first input."""
        return self.read.dtype.value

    @property
    def result(self) -> Shape3:
        """The shape of the group's value."""
        return shape3(self.group.result.type.shape)

    @property
    def tensors(self) -> "list[NDArray[Any]]":
        """The anchor's weights."""
        return [self.weights[name] for name in self.group.anchor.params]

    def epilogue(
        self, finish: PointwiseOp | None = None, factor: "NDArray[Any] | None" = None
    ) -> tuple[Epilogue, tuple[KernelArgument, ...]]:
        """Return what is fused behind the anchor, and its operands.

        `finish`, if given, comes first, and reads `factor`, which broadcasts.
        """
        first, *rest = self.group.nodes
        before = None if finish is None or factor is None else Finish(finish, factor)
        return fused(self.graph, self.weights, rest, first.name, before)

    def call(self, kernel: Kernel, *arguments: KernelArgument) -> KernelCall:
        """Return the call of a kernel that reads the anchor's input and then these."""
        first = Value(self.group.anchor.inputs[0])
        return KernelCall(kernel, (first, *arguments), self.group.result.name)


Rule = Callable[[Any, Site], KernelCall | None]
"""Returns the call that computes a group with that anchor, or None to leave it to the next."""


def direct(op: ops.Conv, site: Site) -> KernelCall:
    """Return a direct convolution."""
    return _convolution(site, _slid(op, site), op.groups, *site.epilogue())


def _slid(op: ops.Conv, site: Site) -> Window:
    _, height, width = site.result
    return Window(site.source, (height, width), op.kernel, op.stride, op.dilation, op.pads)


def quantized(op: integer.QConv, site: Site) -> KernelCall:
    """Return a direct convolution of levels, whose sums are requantised."""
    weight, scales, bias = site.tensors
    y = op.typed(site.group.anchor.type.shape)
    factor = integer_arithmetic.multiplier(site.read, scales, y)
    ended = site.epilogue(Requantize(op.low, op.high), factor)
    return _levels(op.conv, site, ended, weight, bias)


def real(op: integer.RealConv, site: Site) -> KernelCall:
    """Return a direct convolution of levels, whose sums become real numbers."""
    weight, factor, bias = site.tensors
    return _levels(op.conv, site, site.epilogue(ToReal(), factor), weight, bias)


def _levels(
    conv: ops.Conv,
    site: Site,
    ended: tuple[Epilogue, tuple[KernelArgument, ...]],
    *tensors: "NDArray[Any]",
) -> KernelCall:
    numbers = integers(site.dtype)
    return _convolution(site, _slid(conv, site), conv.groups, *ended, tensors, numbers)


def transposed(op: ops.ConvTranspose, site: Site) -> KernelCall:
    """Return a transposed convolution as a convolution of the input's pixels spread out.

    It multiplies the zeros in between too, stride**2 times the products that are needed; in return
    one kernel serves both, with all its attributes and epilogues.
    """
    _, height, width = site.result
    top, left = (
        d * (k - 1) - p for d, k, p in zip(op.dilation, op.kernel, op.padding, strict=True)
    )
    window = Window(
        site.source, (height, width), op.kernel, (1, 1), op.dilation, (top, left, top, left),
        spread=op.stride,
    )  # fmt: skip
    weight, *bias = site.tensors
    channels, own, kh, kw = weight.shape
    apart = weight.reshape(op.groups, channels // op.groups, own, kh, kw)[..., ::-1, ::-1]
    turned = apart.swapaxes(1, 2).reshape(op.groups * own, -1, kh, kw)
    epilogue, operands = site.epilogue()
    return _convolution(site, window, op.groups, epilogue, operands, (turned, *bias))


def matrix(_op: ops.Linear, site: Site) -> KernelCall:
    """Return a linear layer as a convolution of a map of one pixel."""
    epilogue, operands = site.epilogue()
    window = Window((site.source[2], 1, 1), (1, 1), (1, 1))
    return _convolution(site, window, 1, epilogue.upright(), operands)


def _convolution(
    site: Site,
    window: Window,
    groups: int,
    epilogue: Epilogue,
    operands: tuple[KernelArgument, ...],
    tensors: "Sequence[NDArray[Any]] | None" = None,
    numbers: Arithmetic = FLOATS,
) -> KernelCall:
    weight, *bias = tensors or site.tensors
    filters = weight.shape[0]
    plain = DirectConv(window, filters, groups, site.machine.tile, False, epilogue, numbers)
    kernel = plain.flattened()
    offsets = bias[0] if bias else np.zeros(filters, np.float32)
    constants = (KernelWeights(kernel.packed(weight)), KernelWeights(kernel.packed_bias(offsets)))
    return site.call(kernel, *constants, *operands, *map(Scratch, kernel.scratch))


def _scratch(staging: Staging | None) -> tuple[Scratch, ...]:
    return (Scratch(staging.space),) if staging else ()


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
    epilogue, operands = site.epilogue()
    count, tile = sum(f.data.size for f in factors), site.machine.tile[1]
    kernel = WindowPool(_pooled(op, site), reduction, count, tile, epilogue, site.dtype)
    return site.call(kernel, *factors, *operands, *_scratch(kernel.staging))


def window_levels(op: integer.QAvgPool, site: Site) -> KernelCall:
    """Return a mean of levels over windows, each with a factor of its own."""
    _, factors = site.tensors
    epilogue, operands = site.epilogue(Requantize(op.low, op.high), factors)
    window = replace(_pooled(op.pool, site), pads=op.padding(site.read))
    tile = site.machine.tile[1]
    kernel = WindowPool(window, Reduction.MEAN, 0, tile, epilogue, site.dtype)
    return site.call(kernel, *operands, *_scratch(kernel.staging))


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


RULES: Mapping[type[ops.Op], tuple[Rule, ...]] = {
    ops.Conv: (direct,),
    ops.ConvTranspose: (transposed,),
    ops.Linear: (matrix,),
    ops.MaxPool: (window_max,),
    ops.AvgPool: (window_mean,),
    ops.GlobalMaxPool: (channel_max,),
    ops.GlobalAvgPool: (channel_mean,),
    ops.Softmax: (softmax,),
    ops.LayerNorm: (layer_norm,),
    ops.Resize: (resize,),
    ops.Slice: (channels_taken,),
    ops.ChannelShuffle: (channels_dealt,),
    ops.Pad: (border,),
    ops.Border: (channel_border,),
    integer.QConv: (quantized,),
    integer.RealConv: (real,),
    integer.QAvgPool: (window_levels,),
    integer.QGlobalAvgPool: (channel_levels,),
    integer.RealGlobalAvgPool: (channel_real,),
    integer.QPad: (channel_border,),
    integer.Table: (looked_up,),
    **dict.fromkeys(POINTWISE, (elementwise,)),
}
"""Every operation that takes a kernel."""


def select(site: Site) -> KernelCall:
    """Return the call of the first rule that takes a group."""
    op = site.group.anchor.op
    return next(call for rule in RULES[type(op)] if (call := rule(op, site)))
