"""Which convolutions of floats micro-kernels compute, and how."""

import math
from typing import TYPE_CHECKING

import numpy as np

from tcc.backends.arm.kernels.base import KernelCall, KernelWeights, Scratch
from tcc.backends.arm.kernels.epilogue import RUNNING, Epilogue, FusedOp
from tcc.backends.arm.kernels.micro_float import MicroFloatDepthwise, MicroFloatMatrix
from tcc.backends.arm.kernels.micro_winograd import MicroWinograd
from tcc.backends.arm.micro.cores import CORES
from tcc.backends.arm.micro.records import FloatDepthwise, FloatMatrix
from tcc.backends.arm.micro.winograd import Winograd
from tcc.backends.arm.schedule.micro_choice import slid
from tcc.backends.arm.schedule.site import Site
from tcc.compiler import ops

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_FILLING = 4 / 3
"""Filters with those that fill blocks, of those without, from which plain loops take fewer cycles:
1.7 a product on a Cortex-A7, 1.2 here."""
LEAST_PIXELS = 4
"""Pixels from which vectors run along them."""
MOST_OF_A_CHANNEL = 2
"""Filters that read one channel of a group: more fill the blocks of products."""
LEAST_SAVED = 0.1
"""Share of the cycles for which results may be rounded in more steps."""


def winograd(op: ops.Conv, site: Site) -> KernelCall | None:
    """Return a convolution of floats by Winograd's method, where it is known to be faster."""
    record = next((r for r in CORES[site.machine.cpu] if isinstance(r, Winograd)), None)
    epilogue, operands = site.epilogue()
    if record is None or site.machine.direct or op.groups > 1 or not _flat(epilogue, site):
        return None
    window, (weight, bias) = slid(op, site), _tensors(site)
    filters = len(weight)
    if not record.takes(window) or record.saved(window, filters) < LEAST_SAVED:
        return None
    low, high, rest = _bounds(epilogue.flattened())
    kernel = MicroWinograd(record, window, filters, low > -math.inf, high < math.inf, rest)
    constants = (
        record.packed(weight), record.filled(bias), window.table(),
        np.array([low, high], np.float32),
    )  # fmt: skip
    scratch = Scratch(kernel.transformed)
    return site.call(kernel, *map(KernelWeights, constants), *operands, scratch)


def depthwise(op: ops.Conv, site: Site) -> KernelCall | None:
    """Return a depthwise convolution of floats, if a micro-kernel computes it."""
    record = next((r for r in CORES[site.machine.cpu] if isinstance(r, FloatDepthwise)), None)
    epilogue, operands = site.epilogue()
    window = slid(op, site)
    if record is None or not _flat(epilogue, site) or not record.takes(window):
        return None
    weight, bias = _tensors(site)
    if len(weight) > MOST_OF_A_CHANNEL * op.groups:
        return None
    low, high, rest = _bounds(epilogue.flattened())
    kernel = MicroFloatDepthwise(
        record, window, len(weight), op.groups, low > -math.inf, high < math.inf, rest
    )
    bounds = np.array([low, high], np.float32)
    constants = record.packed(weight), bias, window.table(), bounds
    return site.call(kernel, *map(KernelWeights, constants), *operands)


def products(op: ops.Conv, site: Site) -> KernelCall | None:
    """Return a convolution of floats, if a micro-kernel computes it."""
    record = next((r for r in CORES[site.machine.cpu] if isinstance(r, FloatMatrix)), None)
    epilogue, operands = site.epilogue()
    _, height, width = site.result
    if record is None or not _flat(epilogue, site):
        return None
    window, (weight, bias) = slid(op, site), _tensors(site)
    filters = len(weight)
    # ReLU and ReLU6 are two instructions on sums that are in registers; anything else reads the
    # result again.
    low, high, rest = _bounds(epilogue.flattened())
    kernel = MicroFloatMatrix(
        record, window.flattened(), filters, op.groups, low > -math.inf, high < math.inf, rest
    )
    filling = record.multiplied(kernel.own) / kernel.own
    if not record.takes(window) or filling > MOST_FILLING or height * width < LEAST_PIXELS:
        return None
    # Group by group, since blocks of filters must not reach into the next group, which reads other
    # channels.
    by_group = (np.split(tensor, op.groups) for tensor in (weight, bias))
    packed = [(record.packed(w), record.filled(b)) for w, b in zip(*by_group, strict=True)]
    joined = (np.concatenate(column) for column in zip(*packed, strict=True))
    constants = *joined, kernel.window.table(), np.array([low, high], np.float32)
    return site.call(kernel, *map(KernelWeights, constants), *operands)


def _flat(epilogue: Epilogue, site: Site) -> bool:
    """Whether rows need no telling apart in what follows, and give floats."""
    _, height, width = site.result
    return epilogue.result == "float32" and epilogue.flat((height, width))


def _tensors(site: Site) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
    """Return weights and biases, which are zero where there are none."""
    weight, *given = site.tensors
    return weight, given[0] if given else np.zeros(len(weight), np.float32)


def _bounds(epilogue: Epilogue) -> tuple[float, float, Epilogue]:
    """Return what an epilogue first bounds values by, and what it does then."""
    match epilogue.steps:
        case (FusedOp(ops.Relu(), (number,)), *rest) if number == RUNNING:
            low, high = 0.0, math.inf
        case (FusedOp(ops.Relu6(), (number,)), *rest) if number == RUNNING:
            low, high = 0.0, 6.0
        case _:
            return -math.inf, math.inf, epilogue
    return low, high, Epilogue(tuple(rest), epilogue.operands, epilogue.result)
