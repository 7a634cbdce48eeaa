"""Which convolutions of floats a micro-kernel computes."""

import math

import numpy as np

from tcc.backends.arm.kernels.base import KernelCall, KernelWeights
from tcc.backends.arm.kernels.epilogue import RUNNING, Epilogue, FusedOp
from tcc.backends.arm.kernels.micro_float import MicroFloatMatrix
from tcc.backends.arm.micro.cores import CORES
from tcc.backends.arm.micro.records import FloatMatrix
from tcc.backends.arm.schedule.micro_choice import slid
from tcc.backends.arm.schedule.site import Site
from tcc.compiler import ops

MOST_FILLING = 4 / 3
"""Filters with those that fill blocks, of those without, from which plain loops take fewer cycles:
1.7 a product on a Cortex-A7, 1.2 here."""
LEAST_PIXELS = 4
"""Pixels from which vectors run along them."""


def products(op: ops.Conv, site: Site) -> KernelCall | None:
    """Return a convolution of floats, if a micro-kernel computes it."""
    record = next((r for r in CORES[site.machine.cpu] if isinstance(r, FloatMatrix)), None)
    epilogue, operands = site.epilogue()
    _, height, width = site.result
    if record is None or epilogue.result != "float32" or not epilogue.flat((height, width)):
        return None
    weight, *given = site.tensors
    filters = len(weight)
    bias = given[0] if given else np.zeros(filters, np.float32)
    window = slid(op, site)
    # ReLU and ReLU6 are two instructions on sums that are in registers; anything else reads the
    # result again.
    low, high, rest = _bounds(epilogue.flattened())
    kernel = MicroFloatMatrix(
        record, window.flattened(), filters, op.groups, low > -math.inf, high < math.inf, rest
    )
    filling = kernel.padded / kernel.own
    if not record.takes(window) or filling > MOST_FILLING or height * width < LEAST_PIXELS:
        return None
    # Group by group, since blocks of filters must not reach into the next group, which reads other
    # channels.
    by_group = (np.split(tensor, op.groups) for tensor in (weight, bias))
    packed = [(record.packed(w), record.filled(b)) for w, b in zip(*by_group, strict=True)]
    joined = (np.concatenate(column) for column in zip(*packed, strict=True))
    constants = *joined, kernel.window.table(), np.array([low, high], np.float32)
    return site.call(kernel, *map(KernelWeights, constants), *operands)


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
