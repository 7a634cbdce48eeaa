"""Direct convolutions: of floats or int8, transposed ones, and linear layers."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.backends.arm.kernels.base import KernelArgument, KernelCall, KernelWeights, Scratch
from tcc.backends.arm.kernels.conv import FLOATS, ConvNumbers, DirectConv, get_integer_numbers
from tcc.backends.arm.kernels.epilogue import Epilogue
from tcc.backends.arm.kernels.pointwise import DequantizeSum, Requantize
from tcc.backends.arm.kernels.window import Window
from tcc.backends.arm.schedule.kernel_candidates import KernelCandidate, choose_cheapest
from tcc.backends.arm.schedule.partition import Site
from tcc.compiler import ops
from tcc.compiler.ops import integer, integer_arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray


def list_direct(op: ops.Conv, site: Site) -> Iterator[KernelCandidate]:
    """Yield a direct convolution for each tile."""
    return _list_convolutions(site, _create_window(op, site), op.groups, *site.build_epilogue())


def _create_window(op: ops.Conv, site: Site) -> Window:
    _, height, width = site.output_shape
    return Window(site.input_shape, (height, width), op.kernel, op.stride, op.dilation, op.pads)


def list_quantized(op: integer.QConv, site: Site) -> Iterator[KernelCandidate]:
    """Yield a direct int8 convolution with requantized sums, for each tile."""
    weight, scales, bias = site.tensors
    output_type = op.make_type(site.group.anchor.type.shape)
    factor = integer_arithmetic.compute_multiplier(site.input_type, scales, output_type)
    fused_epilogue = site.build_epilogue(Requantize(op.low, op.high), factor)
    return _list_integer(op.conv, site, fused_epilogue, weight, bias)


def list_dequantized(op: integer.RealConv, site: Site) -> Iterator[KernelCandidate]:
    """Yield a direct int8 convolution with dequantized sums, for each tile."""
    weight, factor, bias = site.tensors
    return _list_integer(op.conv, site, site.build_epilogue(DequantizeSum(), factor), weight, bias)


def _list_integer(
    conv: ops.Conv,
    site: Site,
    fused_epilogue: tuple[Epilogue, tuple[KernelArgument, ...]],
    *tensors: "NDArray[Any]",
) -> Iterator[KernelCandidate]:
    numbers = get_integer_numbers(site.dtype)
    return _list_convolutions(
        site, _create_window(conv, site), conv.groups, *fused_epilogue, tensors, numbers
    )


def call_transposed(op: ops.ConvTranspose, site: Site) -> KernelCall:
    """Return a transposed convolution as a convolution of the input with zeros between pixels.

    It also multiplies the zeros: stride**2 times the necessary products. In return, one kernel
    serves both, with all its attributes and epilogues.
    """
    _, height, width = site.output_shape
    # The padding of the full result, minus the part that `padding` removes.
    pad_top, pad_left = (
        d * (k - 1) - p for d, k, p in zip(op.dilation, op.kernel, op.padding, strict=True)
    )
    window = Window(
        site.input_shape,
        (height, width),
        op.kernel,
        (1, 1),
        op.dilation,
        (pad_top, pad_left, pad_top, pad_left),
        spread=op.stride,
    )
    weight, *bias = site.tensors
    channels, group_filters, kh, kw = weight.shape
    # The equivalent convolution reads the transposed kernel backwards.
    flipped = weight.reshape(op.groups, channels // op.groups, group_filters, kh, kw)[
        ..., ::-1, ::-1
    ]
    conv_weight = flipped.swapaxes(1, 2).reshape(op.groups * group_filters, -1, kh, kw)
    epilogue, operands = site.build_epilogue()
    candidates = _list_convolutions(
        site, window, op.groups, epilogue, operands, (conv_weight, *bias)
    )
    return choose_cheapest(candidates, site.machine).call()


def call_linear(_op: ops.Linear, site: Site) -> KernelCall:
    """Return a linear layer as a convolution of a map with one pixel."""
    epilogue, operands = site.build_epilogue()
    # Features become channels of one pixel, so that vectors are along the units.
    window = Window((site.input_shape[2], 1, 1), (1, 1), (1, 1))
    candidates = _list_convolutions(site, window, 1, epilogue.to_map(), operands)
    return choose_cheapest(candidates, site.machine).call()


def _list_convolutions(
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

    def create_call(kernel: DirectConv) -> KernelCall:
        constants = kernel.pack_weights(weight), kernel.pack_bias(offsets)
        scratch = map(Scratch, kernel.scratch)
        return site.call(kernel, *map(KernelWeights, constants), *operands, *scratch)

    for tile in site.machine.costs.list_tiles("loops" if numbers == FLOATS else "level_loops"):
        unflattened = DirectConv(window, filters, groups, tile, False, epilogue, numbers)
        kernel = unflattened.flatten()
        yield KernelCandidate(kernel, partial(create_call, kernel))
