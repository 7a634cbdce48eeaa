"""The constants in an artifact's libraries and program beside those that the network gives.

They lie there end to end, as `c_source.WeightsBlob` puts them, in the order in which kernels read
them. Their place in a file is where most of them are found.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.arm.codegen.c_source import WeightsBlob
from tcc.backends.arm.kernels.base import KernelCall, KernelWeights
from tcc.backends.arm.machine import PROGRAM, Machine
from tcc.backends.arm.schedule.program import program
from tcc.compiler.ir.constant_checker import ConstantCheck, ConstantComparison
from tcc.compiler.ir.graph import Model
from tcc.compiler.passes.drop_train_only import drop_train_only
from tcc.compiler.support import regular_files

Array = NDArray[Any]
LEAST_VALUES = 8
"""Different bytes that a tensor has at least if it is to be searched for in a file."""


@dataclass(frozen=True, slots=True, eq=False)
class PlacedConstant:
    """A constant: the layer that first reads it, its name, and where it lies among all."""

    layer: str
    name: str
    values: Array
    offset: int


def check(machine: Machine, folder: Path, model: Model) -> Iterator[ConstantCheck]:
    """Yield how the constants in each library and in the program compare with a model's.

    Args:
        machine: What the artifact is built for.
        folder: Where its files are.
        model: What it was built from.
    """
    constants, blob = place_constants(machine, model)
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        if name.endswith((".a", ".so", PROGRAM)):
            with regular_files.opened(folder / name) as file:
                yield _compare(name, file.read(), constants, blob)


def place_constants(machine: Machine, model: Model) -> tuple[list[PlacedConstant], bytes]:
    """Return a model's constants as code generation places them, and all their bytes."""
    model = drop_train_only(model)
    steps, blob = program(model.graph, model.weights, machine).steps, WeightsBlob()
    params = {node.name: node.params for node in model.graph.nodes}
    constants: list[PlacedConstant] = []
    for step in steps:
        if isinstance(step, KernelCall):
            tensors = [
                constant.data for constant in step.arguments if isinstance(constant, KernelWeights)
            ]
            params_of_layer = {name: model.weights[name] for name in params.get(step.result, ())}
            for number, values in enumerate(tensors):
                size = len(blob.data)
                offset = blob.add(values)
                if len(blob.data) > size:  # each different tensor is there once
                    name = (
                        _find_param(values, params_of_layer) or f"constant {number} of its kernel"
                    )
                    constants.append(PlacedConstant(step.result, name, values, offset))
    return constants, bytes(blob.data)


def _find_param(values: Array, params: Mapping[str, Array]) -> str:
    """Return the parameter whose values a kernel reads, in an order of its own."""
    kernel_values = np.sort(values[values != 0], axis=None)
    for name, tensor in params.items():
        if np.array_equal(kernel_values, np.sort(tensor[tensor != 0], axis=None)):
            return name
    return ""


def _compare(file: str, data: bytes, constants: list[PlacedConstant], blob: bytes) -> ConstantCheck:
    comparison = ConstantComparison(file)
    start = data.find(blob)
    if start < 0:
        start = _locate(data, constants)
    if start < 0 or start + len(blob) > len(data):
        return ConstantCheck(file, problem="it does not hold the network's constants")
    for constant in constants:
        actual = np.frombuffer(
            data, constant.values.dtype, constant.values.size, start + constant.offset
        )
        comparison.compare(
            constant.layer, constant.name, constant.values, actual.reshape(constant.values.shape)
        )
    # Machine code is compiled again by no check: goldens and layers are what it is judged by.
    return comparison.finish(b"", b"", same_tools=False)


def _locate(data: bytes, constants: list[PlacedConstant]) -> int:
    """Return where the constants begin in a file, by those of them that it has; or -1."""
    starts: Counter[int] = Counter()
    for constant in constants:
        raw = constant.values.tobytes()
        # Halves: a tensor of which one value differs has another half that does not.
        for shift, part in ((0, raw[: len(raw) // 2]), (len(raw) // 2, raw[len(raw) // 2 :])):
            if len(set(part)) >= LEAST_VALUES and (at := data.find(part)) >= 0:
                starts[at - shift - constant.offset] += len(part)
    likely = [start for start, _ in starts.most_common() if start >= 0]
    return likely[0] if likely else -1
