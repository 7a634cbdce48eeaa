"""Compares the constants in an artifact's libraries and program with those of the network.

The constants are in one block, in the order in which kernels read them (`c_source.WeightsBlob`).
The block is located in a file by the position of most of its constants.
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
from tcc.backends.arm.machine import PROGRAM_SUFFIX, Machine
from tcc.backends.arm.schedule.program import build_program
from tcc.compiler.ir.constant_checker import ConstantCheck, ConstantComparison
from tcc.compiler.ir.graph import Model
from tcc.compiler.passes.drop_train_only import drop_train_only
from tcc.compiler.support import regular_files

Array = NDArray[Any]
MIN_DISTINCT_BYTES = 8
"""Least number of distinct bytes of a tensor that is searched for in a file."""


@dataclass(frozen=True, slots=True, eq=False)
class PlacedConstant:
    """A constant, with its first layer, its name, and its offset in the block."""

    layer: str
    name: str
    tensor: Array
    offset: int


def check(machine: Machine, folder: Path, model: Model) -> Iterator[ConstantCheck]:
    """Yield the comparison of the constants in each library and in the program with a model's.

    Args:
        machine: The machine of the artifact.
        folder: The artifact's folder.
        model: The model that it was built from.
    """
    constants, blob = place_constants(machine, model)
    file_names = sorted(path.name for path in folder.iterdir())
    for file_name in file_names:
        if file_name.endswith((".a", ".so", PROGRAM_SUFFIX)):
            with regular_files.open_file(folder / file_name) as file:
                yield _compare(file_name, file.read(), constants, blob)


def place_constants(machine: Machine, model: Model) -> tuple[list[PlacedConstant], bytes]:
    """Return a model's constants at the offsets of code generation, and the whole block."""
    model = drop_train_only(model)
    steps, blob = build_program(model.graph, model.weights, machine).steps, WeightsBlob()
    params = {node.name: node.params for node in model.graph.nodes}
    constants: list[PlacedConstant] = []
    for step in steps:
        if isinstance(step, KernelCall):
            tensors = [
                constant.tensor
                for constant in step.arguments
                if isinstance(constant, KernelWeights)
            ]
            params_of_layer = {name: model.weights[name] for name in params.get(step.output, ())}
            for index, tensor in enumerate(tensors):
                size = len(blob.content)
                offset = blob.add(tensor)
                if len(blob.content) > size:  # equal tensors are stored once
                    name = _find_param(tensor, params_of_layer) or f"constant {index} of its kernel"
                    constants.append(PlacedConstant(step.output, name, tensor, offset))
    return constants, bytes(blob.content)


def _find_param(kernel_tensor: Array, params: Mapping[str, Array]) -> str:
    """Return the parameter with the same values as a kernel's tensor, in any order."""
    sorted_elements = np.sort(kernel_tensor[kernel_tensor != 0], axis=None)
    for name, tensor in params.items():
        if np.array_equal(sorted_elements, np.sort(tensor[tensor != 0], axis=None)):
            return name
    return ""


def _compare(
    file: str, content: bytes, constants: list[PlacedConstant], blob: bytes
) -> ConstantCheck:
    comparison = ConstantComparison(file)
    start = content.find(blob)
    if start < 0:
        start = _locate(content, constants)
    if start < 0 or start + len(blob) > len(content):
        return ConstantCheck(file, problem="it does not contain the network's constants")
    for constant in constants:
        actual = np.frombuffer(
            content, constant.tensor.dtype, constant.tensor.size, start + constant.offset
        )
        comparison.compare(
            constant.layer, constant.name, constant.tensor, actual.reshape(constant.tensor.shape)
        )
    # Machine code is not compiled again: goldens and layer outputs check it.
    return comparison.finish(b"", b"", same_tools=False)


def _locate(content: bytes, constants: list[PlacedConstant]) -> int:
    """Return the start of the block in a file, by the constants that the file contains; or -1."""
    starts: Counter[int] = Counter()
    for constant in constants:
        tensor_bytes = constant.tensor.tobytes()
        # Halves: if one value of a tensor differs, its other half is still equal.
        for shift, part in (
            (0, tensor_bytes[: len(tensor_bytes) // 2]),
            (len(tensor_bytes) // 2, tensor_bytes[len(tensor_bytes) // 2 :]),
        ):
            if len(set(part)) >= MIN_DISTINCT_BYTES and (at := content.find(part)) >= 0:
                starts[at - shift - constant.offset] += len(part)
    likely = [start for start, _ in starts.most_common() if start >= 0]
    return likely[0] if likely else -1
