"""Which kernel computes which convolution: of floats or levels, transposed, or a matrix."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.backends.arm.kernels.base import KernelArgument, KernelCall, KernelWeights, Scratch
from tcc.backends.arm.kernels.conv import FLOATS, ConvNumbers, DirectConv, integers
from tcc.backends.arm.kernels.epilogue import Epilogue
from tcc.backends.arm.kernels.pointwise import Requantize, ToReal
from tcc.backends.arm.kernels.window import Window
from tcc.backends.arm.schedule.kernel_candidates import KernelCandidate, cheapest
from tcc.backends.arm.schedule.partition import Site
from tcc.compiler import ops
from tcc.compiler.ops import integer, integer_arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray


def direct(op: ops.Conv, site: Site) -> Iterator[KernelCandidate]:
    """Yield a direct convolution, with each tile."""
    return _convolution(site, _slid(op, site), op.groups, *site.epilogue())


def _slid(op: ops.Conv, site: Site) -> Window:
    _, height, width = site.result
    return Window(site.source, (height, width), op.kernel, op.stride, op.dilation, op.pads)


def quantized(op: integer.QConv, site: Site) -> Iterator[KernelCandidate]:
    """Yield a direct convolution of levels, whose sums are requantised, with each tile."""
    weight, scales, bias = site.tensors
    y = op.typed(site.group.anchor.type.shape)
    factor = integer_arithmetic.multiplier(site.read, scales, y)
    ended = site.epilogue(Requantize(op.low, op.high), factor)
    return _levels(op.conv, site, ended, weight, bias)


def real(op: integer.RealConv, site: Site) -> Iterator[KernelCandidate]:
    """Yield a direct convolution of levels, whose sums become real numbers, with each tile."""
    weight, factor, bias = site.tensors
    return _levels(op.conv, site, site.epilogue(ToReal(), factor), weight, bias)


def _levels(
    conv: ops.Conv,
    site: Site,
    ended: tuple[Epilogue, tuple[KernelArgument, ...]],
    *tensors: "NDArray[Any]",
) -> Iterator[KernelCandidate]:
    numbers = integers(site.dtype)
    return _convolution(site, _slid(conv, site), conv.groups, *ended, tensors, numbers)


def transposed(op: ops.ConvTranspose, site: Site) -> KernelCall:
    """Return a transposed convolution as a convolution of the input's pixels spread out.

    It multiplies the zeros in between too, stride**2 times the products that are needed; in return
    one kernel serves both, with all its attributes and epilogues.
    """
    _, height, width = site.result
    # The twin's border is what the whole result would take, less what the padding cuts off.
    top, left = (
        d * (k - 1) - p for d, k, p in zip(op.dilation, op.kernel, op.padding, strict=True)
    )
    window = Window(
        site.source, (height, width), op.kernel, (1, 1), op.dilation, (top, left, top, left),
        spread=op.stride,
    )  # fmt: skip
    weight, *bias = site.tensors
    channels, own, kh, kw = weight.shape
    # A transposed kernel is laid down from each pixel, so that its twin reads it backwards.
    apart = weight.reshape(op.groups, channels // op.groups, own, kh, kw)[..., ::-1, ::-1]
    turned = apart.swapaxes(1, 2).reshape(op.groups * own, -1, kh, kw)
    epilogue, operands = site.epilogue()
    found = _convolution(site, window, op.groups, epilogue, operands, (turned, *bias))
    return cheapest(found, site.machine).call()


def matrix(_op: ops.Linear, site: Site) -> KernelCall:
    """Return a linear layer as a convolution of a map of one pixel."""
    epilogue, operands = site.epilogue()
    # Features as channels of one pixel: vectors then run along the units.
    window = Window((site.source[2], 1, 1), (1, 1), (1, 1))
    found = _convolution(site, window, 1, epilogue.upright(), operands)
    return cheapest(found, site.machine).call()


def _convolution(
    site: Site,
    window: Window,
    groups: int,
    epilogue: Epilogue,
    operands: tuple[KernelArgument, ...],
    tensors: "Sequence[NDArray[Any]] | None" = None,
    numbers: ConvNumbers = FLOATS,
) -> Iterator[KernelCandidate]:
    weight, *bias = tensors or site.tensors
    filters = weight.shape[0]
    offsets = bias[0] if bias else np.zeros(filters, np.float32)

    def call(kernel: DirectConv) -> KernelCall:
        constants = kernel.packed(weight), kernel.packed_bias(offsets)
        scratch = map(Scratch, kernel.scratch)
        return site.call(kernel, *map(KernelWeights, constants), *operands, *scratch)

    for tile in site.machine.costs.tiles("loops" if numbers == FLOATS else "level_loops"):
        plain = DirectConv(window, filters, groups, tile, False, epilogue, numbers)
        kernel = plain.flattened()
        yield KernelCandidate(kernel, partial(call, kernel))
