"""Selects the kernels of float convolutions."""

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
from tcc.backends.arm.schedule.kernel_candidates import KernelCandidate, choose_cheapest
from tcc.backends.arm.schedule.micro_choice import create_window
from tcc.backends.arm.schedule.partition import Site
from tcc.compiler import ops

if TYPE_CHECKING:
    from numpy.typing import NDArray


def call_convolution(op: ops.Conv, site: Site) -> KernelCall:
    """Return the call of the cheapest kernel."""
    return choose_candidate(op, site).call()


def choose_candidate(op: ops.Conv, site: Site) -> KernelCandidate:
    """Return the cheapest kernel."""
    return choose_cheapest(list_candidates(op, site), site.machine)


def list_candidates(op: ops.Conv, site: Site) -> Iterator[KernelCandidate]:
    """Yield the kernels that can compute a float convolution."""
    epilogue, _ = site.build_epilogue()
    _, height, width = site.output_shape
    if epilogue.dtype == "float32" and epilogue.can_flatten((height, width)):
        yield from _list_winograd(op, site)
        yield from _list_depthwise(op, site)
        yield from _list_matrix(op, site)
    yield from convolutions.list_direct(op, site)


def _list_winograd(op: ops.Conv, site: Site) -> Iterator[KernelCandidate]:
    """Yield the kernel for Winograd's method, if it is supported."""
    record = next((r for r in CORES[site.machine.core] if isinstance(r, Winograd)), None)
    window, (weight, bias) = create_window(op, site), _get_tensors(site)
    if record is None or site.machine.direct or op.groups > 1 or not record.supports_window(window):
        return
    low, high, remaining, operands = _split_epilogue(site)
    kernel = MicroWinograd(record, window, len(weight), low > -math.inf, high < math.inf, remaining)

    def create_call() -> KernelCall:
        constants = (
            record.pack_weights(weight), record.pad_filters(bias), window.build_table(),
            np.array([low, high], np.float32),
        )  # fmt: skip
        scratch = Scratch(kernel.points_space)
        return site.call(kernel, *map(KernelWeights, constants), *operands, scratch)

    yield KernelCandidate(kernel, create_call)


def _list_depthwise(op: ops.Conv, site: Site) -> Iterator[KernelCandidate]:
    """Yield the depthwise kernel, if it is supported."""
    record = next((r for r in CORES[site.machine.core] if isinstance(r, FloatDepthwise)), None)
    window = create_window(op, site)
    if record is None or not record.supports_window(window):
        return
    weight, bias = _get_tensors(site)
    low, high, remaining, operands = _split_epilogue(site)
    kernel = MicroFloatDepthwise(
        record, window, len(weight), op.groups, low > -math.inf, high < math.inf, remaining
    )

    def create_call() -> KernelCall:
        bounds = np.array([low, high], np.float32)
        constants = record.pack_weights(weight), bias, window.build_table(), bounds
        return site.call(kernel, *map(KernelWeights, constants), *operands)

    yield KernelCandidate(kernel, create_call)


def _list_matrix(op: ops.Conv, site: Site) -> Iterator[KernelCandidate]:
    """Yield the matrix product kernel, if it is supported."""
    record = next((r for r in CORES[site.machine.core] if isinstance(r, FloatMatrix)), None)
    window, (weight, bias) = create_window(op, site), _get_tensors(site)
    if record is None or not record.supports_window(window):
        return
    # ReLU and ReLU6 are two instructions on sums in registers. Other fused ops read the result
    # again.
    low, high, remaining, operands = _split_epilogue(site)
    kernel = MicroFloatMatrix(
        record,
        window.flatten(),
        len(weight),
        op.groups,
        low > -math.inf,
        high < math.inf,
        remaining,
    )

    def create_call() -> KernelCall:
        # Per group, because a block of filters must not extend into the next group, which reads
        # other channels.
        by_group = (np.split(tensor, op.groups) for tensor in (weight, bias))
        packed = [
            (record.pack_weights(w), record.pad_filters(b)) for w, b in zip(*by_group, strict=True)
        ]
        joined = (np.concatenate(column) for column in zip(*packed, strict=True))
        constants = *joined, kernel.window.build_table(), np.array([low, high], np.float32)
        return site.call(kernel, *map(KernelWeights, constants), *operands)

    yield KernelCandidate(kernel, create_call)


def _get_tensors(site: Site) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
    """Return weights and biases; missing biases are zero."""
    weight, *optional_bias = site.tensors
    return weight, optional_bias[0] if optional_bias else np.zeros(len(weight), np.float32)


def _split_epilogue(site: Site) -> tuple[float, float, Epilogue, tuple[KernelArgument, ...]]:
    """Return the bounds that results are first clamped to, then the other ops and operands."""
    epilogue, operands = site.build_epilogue()
    return *_extract_bounds(epilogue.flatten()), operands


def _extract_bounds(epilogue: Epilogue) -> tuple[float, float, Epilogue]:
    """Return the bounds that an epilogue first clamps values to, and the remaining epilogue."""
    match epilogue.steps:
        case (FusedOp(ops.Relu(), (number,)), *remaining) if number == RUNNING:
            low, high = 0.0, math.inf
        case (FusedOp(ops.Relu6(), (number,)), *remaining) if number == RUNNING:
            low, high = 0.0, 6.0
        case _:
            return -math.inf, math.inf, epilogue
    return low, high, Epilogue(tuple(remaining), epilogue.operands, epilogue.dtype)
