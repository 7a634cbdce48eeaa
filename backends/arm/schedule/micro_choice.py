"""Selects the kernels of int8 convolutions."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.backends.arm.kernels.base import (
    KernelArgument,
    KernelCall,
    KernelWeights,
    Scratch,
    get_dtype,
    get_size,
)
from tcc.backends.arm.kernels.epilogue import Epilogue, fuse_nodes
from tcc.backends.arm.kernels.micro import (
    MicroDepthwise,
    MicroKernelCaller,
    MicroMatrix,
    MicroVector,
    ResultForm,
)
from tcc.backends.arm.kernels.micro_winograd import MicroQuantizedWinograd
from tcc.backends.arm.micro.cores import CORES
from tcc.backends.arm.micro.records import (
    Depthwise,
    FloatDepthwise,
    FloatMatrix,
    Matrix,
    Vector,
    shift_bias,
)
from tcc.backends.arm.micro.window import MicroWindow
from tcc.backends.arm.micro.winograd import QuantizedWinograd, WinogradTiles
from tcc.backends.arm.schedule import convolutions
from tcc.backends.arm.schedule.kernel_candidates import KernelCandidate, choose_cheapest
from tcc.backends.arm.schedule.partition import Site
from tcc.compiler import ops
from tcc.compiler.ir.types import DType, Pair
from tcc.compiler.ops import integer, integer_arithmetic
from tcc.compiler.support.diagnostics import UnhandledError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Constants = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    """Weights, biases and factors."""

L1_BAND_ELEMENTS = 1 << 13
"""Largest depthwise band that stays in the first-level cache, in elements."""


def call_quantized(op: integer.QConv, site: Site) -> KernelCall:
    """Return the call of the cheapest kernel of a convolution with requantized sums."""
    constants = _collect_constants(op, site)
    return choose_cheapest(
        (
            *_list_winograd(op, site, constants),
            *_list_micro_kernels(op.conv, site, (op.low, op.high), constants),
            *convolutions.list_quantized(op, site),
        ),
        site.machine,
    ).call()


def call_dequantized(op: integer.RealConv, site: Site) -> KernelCall:
    """Return the call of the cheapest kernel of a convolution with dequantized sums."""
    weight, factor, bias = site.tensors
    candidates = _list_micro_kernels(op.conv, site, None, (weight, bias, factor))
    return choose_cheapest(
        (*candidates, *convolutions.list_dequantized(op, site)), site.machine
    ).call()


def _list_winograd(
    op: integer.QConv, site: Site, constants: "Constants"
) -> Iterator[KernelCandidate]:
    """Yield the int8 kernel for Winograd's method, if it is supported and exact."""
    record = next((r for r in CORES[site.machine.core] if isinstance(r, QuantizedWinograd)), None)
    window, (weight, bias, factor) = create_window(op.conv, site), constants
    conv_dtype, epilogue, operands = _split_epilogue(site)
    # Until fused ops are applied, 8-bit values are in the result's buffer: both must be bytes.
    if record is None or op.conv.groups > 1 or get_size(epilogue.dtype) > 1:
        return
    if not epilogue.can_flatten(window.out) or not record.supports_window(window):
        return
    phases_per_sum = record.find_phases_per_sum(weight, window)
    kernel = MicroQuantizedWinograd(
        record,
        window,
        len(weight),
        phases_per_sum,
        conv_dtype,
        (op.low, op.high),
        epilogue.flatten(),
    )

    def create_call() -> KernelCall:
        # Only called for the chosen candidate, so that no other constants are packed.
        packed = (
            record.pack_weights(weight),
            record.pad_filters(bias),
            record.pad_filters(factor),
            window.build_table(),
        )
        scratch = Scratch(kernel.points_space)
        return site.call(kernel, *map(KernelWeights, packed), scratch, *operands)

    yield KernelCandidate(kernel, create_call)


def _collect_constants(op: integer.QConv, site: Site) -> "Constants":
    weight, scales, bias = site.tensors
    output_type = op.make_type(site.group.anchor.type.shape)
    return weight, bias, integer_arithmetic.compute_multiplier(site.input_type, scales, output_type)


def _split_epilogue(site: Site) -> tuple[str, Epilogue, tuple[KernelArgument, ...]]:
    """Return the type of a convolution's results, and the fused ops with their operands."""
    conv_node, *following_nodes = site.group.nodes
    epilogue, operands = fuse_nodes(site.graph, site.weights, following_nodes, conv_node.name)
    return get_dtype(conv_node.type), epilogue, operands


def _list_micro_kernels(
    conv: ops.Conv, site: Site, bounds: Pair | None, constants: "Constants"
) -> Iterator[KernelCandidate]:
    """Yield the core's micro-kernels that can compute a convolution without Winograd's method."""
    conv_dtype, epilogue, operands = _split_epilogue(site)
    _, height, width = site.output_shape
    # Two products of values (up to 128) and weights (up to 127) are added in 16 bits; a weight of
    # -128 would overflow.
    if not epilogue.can_flatten((height, width)) or constants[0].min() < -127:
        return
    form = ResultForm(conv_dtype, bounds, epilogue.flatten())
    window = create_window(conv, site)
    for record in CORES[site.machine.core]:
        match record:
            case Depthwise():
                packed_kernel = _match_depthwise(record, conv.groups, window, form, constants)
            case Vector():
                packed_kernel = _match_vector(record, conv.groups, window, form, constants)
            case Matrix():
                packed_kernel = _match_matrix(record, conv.groups, window, form, constants)
            case FloatMatrix() | FloatDepthwise() | WinogradTiles():
                packed_kernel = None
            case _:
                raise UnhandledError("micro-kernel", record.name)
        if packed_kernel:
            yield KernelCandidate(
                packed_kernel[0], partial(_call_packed, site, packed_kernel, operands)
            )


def _call_packed(
    site: Site, packed_kernel: "PackedKernel", operands: tuple[KernelArgument, ...]
) -> KernelCall:
    kernel, pack_constants = packed_kernel
    scratch = map(Scratch, kernel.scratch)
    return site.call(kernel, *map(KernelWeights, pack_constants()), *operands, *scratch)


def create_window(conv: ops.Conv, site: Site) -> MicroWindow:
    """Return the window of one group."""
    channels, *size = site.input_shape
    _, *out = site.output_shape
    pad_top, pad_left, _, _ = conv.pads
    is_float = site.input_type.dtype is DType.F32
    low = 0 if is_float else site.input_type.limits[0]
    return MicroWindow(
        channels // conv.groups, (size[0], size[1]), (out[0], out[1]), conv.kernel, conv.stride,
        conv.dilation, (pad_top, pad_left), low=low,
    )  # fmt: skip


PackedKernel = tuple[MicroKernelCaller, Callable[[], tuple["NDArray[Any]", ...]]]
"""A kernel, and a function that packs its constants."""


def _match_depthwise(
    record: Depthwise, groups: int, window: MicroWindow, form: ResultForm, constants: "Constants"
) -> PackedKernel | None:
    weight, bias, factor = constants
    if window.channels != 1 or form.bounds is None or form.epilogue.steps:
        return None
    # Rows come in pairs, which share their loads (`c/depthwise.c`).
    rows = window.out[0] + window.out[0] % 2
    bands = (replace(window, band=n) for n in range(rows, 0, -2))
    band_window = next(
        (w for w in bands if w.band_elements <= L1_BAND_ELEMENTS), replace(window, band=2)
    )
    if not record.supports_window(band_window):
        return None
    has_uniform_weights = bool((weight.max(axis=(1, 2, 3)) == weight.min(axis=(1, 2, 3))).all())
    kernel = MicroDepthwise(record, band_window, len(weight), groups, form, has_uniform_weights)
    return kernel, lambda: (record.pack_weights(weight), bias, factor, band_window.build_table())


def _match_vector(
    record: Vector, groups: int, window: MicroWindow, form: ResultForm, constants: "Constants"
) -> PackedKernel | None:
    if groups > 1 or not record.supports_window(window):
        return None
    weight, bias, factor = constants

    def pack_constants() -> "Constants":
        shifted_bias = shift_bias(bias, weight, window.offset)
        return (
            record.pack_weights(weight),
            record.pad_filters(shifted_bias),
            record.pad_filters(factor),
        )

    return MicroVector(record, window, len(weight), form), pack_constants


def _match_matrix(
    record: Matrix, groups: int, window: MicroWindow, form: ResultForm, constants: "Constants"
) -> PackedKernel | None:
    if not record.supports_window(window):
        return None
    flat_window = window.flatten()

    def pack_constants() -> tuple["NDArray[Any]", ...]:
        parts = [
            (
                record.pack_weights(w),
                record.pad_filters(shift_bias(b, w, record.get_shift(window))),
                record.pad_filters(f),
            )
            for w, b, f in zip(*(np.split(t, groups) for t in constants), strict=True)
        ]
        joined = (np.concatenate(column) for column in zip(*parts, strict=True))
        return *joined, flat_window.build_table()

    return MicroMatrix(record, flat_window, len(constants[0]), groups, form), pack_constants
