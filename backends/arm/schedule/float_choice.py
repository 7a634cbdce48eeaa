"""Which kernels compute convolutions of floats, and how."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tcc.backends.arm.kernels.base import KernelArgument, KernelCall, KernelWeights, Scratch
from tcc.backends.arm.kernels.epilogue import RUNNING, Epilogue, FusedOp
from tcc.backends.arm.kernels.micro_float import MicroFloatDepthwise, MicroFloatMatrix
from tcc.backends.arm.kernels.micro_winograd import MicroWinograd
from tcc.backends.arm.micro.cores import CORES
from tcc.backends.arm.micro.records import FloatDepthwise, FloatMatrix
from tcc.backends.arm.micro.winograd import Winograd
from tcc.backends.arm.schedule import convolutions
from tcc.backends.arm.schedule.kernel_candidates import KernelCandidate, cheapest
from tcc.backends.arm.schedule.micro_choice import slid
from tcc.backends.arm.schedule.partition import Site
from tcc.compiler import ops

if TYPE_CHECKING:
    from numpy.typing import NDArray


def convolution(op: ops.Conv, site: Site) -> KernelCall:
    """Return the call of the kernel that costs least."""
    return chosen(op, site).call()


def chosen(op: ops.Conv, site: Site) -> KernelCandidate:
    """Return the kernel that costs least."""
    return cheapest(candidates(op, site), site.machine)


def candidates(op: ops.Conv, site: Site) -> Iterator[KernelCandidate]:
    """Yield the kernels that compute a convolution of floats."""
    epilogue, _ = site.epilogue()
    _, height, width = site.result
    if epilogue.result == "float32" and epilogue.flat((height, width)):
        yield from _winograd(op, site)
        yield from _depthwise(op, site)
        yield from _products(op, site)
    yield from convolutions.direct(op, site)


def _winograd(op: ops.Conv, site: Site) -> Iterator[KernelCandidate]:
    """Yield it by Winograd's method."""
    record = next((r for r in CORES[site.machine.core] if isinstance(r, Winograd)), None)
    window, (weight, bias) = slid(op, site), _tensors(site)
    if record is None or site.machine.direct or op.groups > 1 or not record.takes(window):
        return
    low, high, rest, operands = _followed(site)
    kernel = MicroWinograd(record, window, len(weight), low > -math.inf, high < math.inf, rest)

    def call() -> KernelCall:
        constants = (
            record.packed(weight), record.filled(bias), window.table(),
            np.array([low, high], np.float32),
        )  # fmt: skip
        scratch = Scratch(kernel.transformed)
        return site.call(kernel, *map(KernelWeights, constants), *operands, scratch)

    yield KernelCandidate(kernel, call)


def _depthwise(op: ops.Conv, site: Site) -> Iterator[KernelCandidate]:
    """Yield it plane by plane."""
    record = next((r for r in CORES[site.machine.core] if isinstance(r, FloatDepthwise)), None)
    window = slid(op, site)
    if record is None or not record.takes(window):
        return
    weight, bias = _tensors(site)
    low, high, rest, operands = _followed(site)
    kernel = MicroFloatDepthwise(
        record, window, len(weight), op.groups, low > -math.inf, high < math.inf, rest
    )

    def call() -> KernelCall:
        bounds = np.array([low, high], np.float32)
        constants = record.packed(weight), bias, window.table(), bounds
        return site.call(kernel, *map(KernelWeights, constants), *operands)

    yield KernelCandidate(kernel, call)


def _products(op: ops.Conv, site: Site) -> Iterator[KernelCandidate]:
    """Yield it as a product of matrices."""
    record = next((r for r in CORES[site.machine.core] if isinstance(r, FloatMatrix)), None)
    window, (weight, bias) = slid(op, site), _tensors(site)
    if record is None or not record.takes(window):
        return
    # ReLU and ReLU6 are two instructions on sums that are in registers; anything else reads the
    # result again.
    low, high, rest, operands = _followed(site)
    kernel = MicroFloatMatrix(
        record, window.flattened(), len(weight), op.groups, low > -math.inf, high < math.inf, rest
    )

    def call() -> KernelCall:
        # Group by group, since blocks of filters must not reach into the next group, which reads
        # other channels.
        by_group = (np.split(tensor, op.groups) for tensor in (weight, bias))
        packed = [(record.packed(w), record.filled(b)) for w, b in zip(*by_group, strict=True)]
        joined = (np.concatenate(column) for column in zip(*packed, strict=True))
        constants = *joined, kernel.window.table(), np.array([low, high], np.float32)
        return site.call(kernel, *map(KernelWeights, constants), *operands)

    yield KernelCandidate(kernel, call)


def _tensors(site: Site) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
    """Return weights and biases, which are zero where there are none."""
    weight, *given = site.tensors
    return weight, given[0] if given else np.zeros(len(weight), np.float32)


def _followed(site: Site) -> tuple[float, float, Epilogue, tuple[KernelArgument, ...]]:
    """Return what results are first bounded by, what is done to them then, and its operands."""
    epilogue, operands = site.epilogue()
    return *_bounds(epilogue.flattened()), operands


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
