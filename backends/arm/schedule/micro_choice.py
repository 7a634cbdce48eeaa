"""Which kernels compute convolutions of levels, and how."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.backends.arm.kernels.base import (
    SIZES,
    KernelArgument,
    KernelCall,
    KernelWeights,
    Scratch,
)
from tcc.backends.arm.kernels.epilogue import Epilogue, fused
from tcc.backends.arm.kernels.micro import (
    MicroDepthwise,
    MicroKernelCaller,
    MicroMatrix,
    MicroVector,
    ResultForm,
)
from tcc.backends.arm.kernels.micro_winograd import MicroLevelWinograd
from tcc.backends.arm.micro.cores import CORES
from tcc.backends.arm.micro.records import (
    Depthwise,
    FloatDepthwise,
    FloatMatrix,
    Matrix,
    Vector,
    shifted,
)
from tcc.backends.arm.micro.window import MicroWindow
from tcc.backends.arm.micro.winograd import LevelWinograd, WinogradTiles
from tcc.backends.arm.schedule import convolutions
from tcc.backends.arm.schedule.kernel_candidates import KernelCandidate, cheapest
from tcc.backends.arm.schedule.partition import Site
from tcc.compiler import ops
from tcc.compiler.ir.types import Pair
from tcc.compiler.ops import integer, integer_arithmetic
from tcc.compiler.support.diagnostics import UnhandledError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Constants = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    """Weights, biases and factors."""

BAND = 1 << 13
"""Elements of a depthwise band that lie well in a core's first cache."""


def quantized(op: integer.QConv, site: Site) -> KernelCall:
    """Return the call of the cheapest kernel of a convolution whose sums are requantised."""
    constants = _constants(op, site)
    return cheapest(
        (
            *_winograd(op, site, constants),
            *_micro(op.conv, site, (op.low, op.high), constants),
            *convolutions.quantized(op, site),
        ),
        site.machine,
    ).call()


def real(op: integer.RealConv, site: Site) -> KernelCall:
    """Return the call of the cheapest kernel of a convolution whose sums become real numbers."""
    weight, factor, bias = site.tensors
    found = _micro(op.conv, site, None, (weight, bias, factor))
    return cheapest((*found, *convolutions.real(op, site)), site.machine).call()


def _winograd(op: integer.QConv, site: Site, constants: "Constants") -> Iterator[KernelCandidate]:
    """Yield a convolution of levels by Winograd's method, where it is exact."""
    record = next((r for r in CORES[site.machine.core] if isinstance(r, LevelWinograd)), None)
    window, (weight, bias, factor) = slid(op.conv, site), constants
    first, epilogue, operands = _followed(site)
    # Levels lie where the result will until all that follows is done to them: both are bytes.
    if record is None or op.conv.groups > 1 or SIZES[epilogue.result] > 1:
        return
    if not epilogue.flat(window.out) or not record.takes(window):
        return
    part = record.part(weight, window)
    kernel = MicroLevelWinograd(
        record, window, len(weight), part, first, (op.low, op.high), epilogue.flattened()
    )

    def call() -> KernelCall:
        packed = record.packed(weight), record.filled(bias), record.filled(factor), window.table()
        scratch = Scratch(kernel.transformed)
        return site.call(kernel, *map(KernelWeights, packed), scratch, *operands)

    yield KernelCandidate(kernel, call)


def _constants(op: integer.QConv, site: Site) -> "Constants":
    weight, scales, bias = site.tensors
    y = op.typed(site.group.anchor.type.shape)
    return weight, bias, integer_arithmetic.multiplier(site.read, scales, y)


def _followed(site: Site) -> tuple[str, Epilogue, tuple[KernelArgument, ...]]:
    """Return the type of what a convolution gives, and what is done to it, with its operands."""
    first, *rest = site.group.nodes
    epilogue, operands = fused(site.graph, site.weights, rest, first.name)
    return first.type.dtype.value, epilogue, operands


def _micro(
    conv: ops.Conv, site: Site, bounds: Pair | None, constants: "Constants"
) -> Iterator[KernelCandidate]:
    """Yield the micro-kernels of the core that compute a convolution by its products."""
    first, epilogue, operands = _followed(site)
    _, height, width = site.result
    # Two products of levels, to 128, and weights, to 127, are added in 16 bits: -128 would
    # overflow.
    if not epilogue.flat((height, width)) or constants[0].min() < -127:
        return
    form = ResultForm(first, bounds, epilogue.flattened())
    window = slid(conv, site)
    for record in CORES[site.machine.core]:
        match record:
            case Depthwise():
                made = _depthwise(record, conv.groups, window, form, constants)
            case Vector():
                made = _vector(record, conv.groups, window, form, constants)
            case Matrix():
                made = _matrix(record, conv.groups, window, form, constants)
            case FloatMatrix() | FloatDepthwise() | WinogradTiles():
                made = None
            case _:
                raise UnhandledError("micro-kernel", record.word)
        if made:
            yield KernelCandidate(made[0], partial(_packed, site, made, operands))


def _packed(site: Site, made: "Made", operands: tuple[KernelArgument, ...]) -> KernelCall:
    kernel, packed = made
    scratch = map(Scratch, kernel.scratch)
    return site.call(kernel, *map(KernelWeights, packed()), *operands, *scratch)


def slid(conv: ops.Conv, site: Site) -> MicroWindow:
    """Return the window of one group."""
    channels, *size = site.source
    _, *out = site.result
    top, left, _, _ = conv.pads
    return MicroWindow(
        channels // conv.groups, (size[0], size[1]), (out[0], out[1]), conv.kernel, conv.stride,
        conv.dilation, (top, left), signed=site.dtype == "int8",
    )  # fmt: skip


Made = tuple[MicroKernelCaller, Callable[[], tuple["NDArray[Any]", ...]]]
"""A kernel, and what packs its constants."""


def _depthwise(
    record: Depthwise, groups: int, window: MicroWindow, form: ResultForm, constants: "Constants"
) -> Made | None:
    weight, bias, factor = constants
    if window.channels != 1 or form.bounds is None or form.epilogue.steps:
        return None
    # Rows come in pairs, which share what they read (`c/depthwise.c`).
    rows = window.out[0] + window.out[0] % 2
    bands = (replace(window, band=n) for n in range(rows, 0, -2))
    fit = next((w for w in bands if w.band_elements <= BAND), replace(window, band=2))
    if not record.takes(fit):
        return None
    means = bool((weight.max(axis=(1, 2, 3)) == weight.min(axis=(1, 2, 3))).all())
    kernel = MicroDepthwise(record, fit, len(weight), groups, form, means)
    return kernel, lambda: (record.packed(weight), bias, factor, fit.table())


def _vector(
    record: Vector, groups: int, window: MicroWindow, form: ResultForm, constants: "Constants"
) -> Made | None:
    if groups > 1 or not record.takes(window):
        return None
    weight, bias, factor = constants

    def packed() -> "Constants":
        moved = shifted(bias, weight, window.flip)
        return record.packed(weight), record.filled(moved), record.filled(factor)

    return MicroVector(record, window, len(weight), form), packed


def _matrix(
    record: Matrix, groups: int, window: MicroWindow, form: ResultForm, constants: "Constants"
) -> Made | None:
    if not record.takes(window):
        return None
    flat = window.flattened()

    def packed() -> tuple["NDArray[Any]", ...]:
        parts = [
            (record.packed(w), record.filled(shifted(b, w, record.shift(window))), record.filled(f))
            for w, b, f in zip(*(np.split(t, groups) for t in constants), strict=True)
        ]
        joined = (np.concatenate(column) for column in zip(*parts, strict=True))
        return *joined, flat.table()

    return MicroMatrix(record, flat, len(constants[0]), groups, form), packed
