"""Reads the layer outputs that the runner program writes: planar, by layer."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.arm.execute import runner
from tcc.backends.arm.execute.runner import RunnerProcess
from tcc.backends.arm.kernels.base import get_memory_dtype, get_zero_point
from tcc.backends.arm.machine import Machine
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.types import DType
from tcc.compiler.support import atomic_files, regular_files

QUANTIZED_TYPES, FLOAT_TYPES = frozenset({"uint8", "int8"}), frozenset({"float32"})
MAX_LAYER_BYTES = 1 << 32
"""Largest number of bytes of one run's layers."""
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class LayerDescription:
    """A layer in the program's description; a `copy` writes only a part of a joined value."""

    name: str
    dtype: str
    size: int
    is_copy: bool


def trace_layers(
    machine: Machine,
    folder: Path,
    network_input: Input,
    tensors: "Iterable[np.ndarray]",
    kinds: frozenset[str] = QUANTIZED_TYPES,
) -> Iterator[Mapping[str, Array]]:
    """Yield the values of some types that the program in `folder` computes, flat, by name.

    Raises:
        UserError: The program fails, or its output does not match its description (E0652).
    """
    kind = "u1" if network_input.type.dtype is DType.U8 else "<f4"
    with atomic_files.create_scratch_folder() as temporary:
        program = runner.find_runnable(machine, folder, temporary)
        process = RunnerProcess(machine, program, temporary)
        layers = _read_descriptions(process)
        size = sum(layer.size for layer in layers)
        input_path, layers_path = temporary / "input.bin", temporary / "layers"
        for tensor in tensors:
            input_path.write_bytes(np.ascontiguousarray(tensor, kind).tobytes())
            # Remove an earlier run's file, so that it is not read as this run's.
            layers_path.unlink(missing_ok=True)
            options = ("--quiet", "--layers", str(layers_path), "--tensor", str(input_path))
            process.execute(*options, inputs=1, max_bytes=size)
            arrays_by_name = _read_layers(process, layers_path, layers, size)
            yield {
                name: array for name, array in arrays_by_name.items() if str(array.dtype) in kinds
            }


def _read_descriptions(process: RunnerProcess) -> Sequence[LayerDescription]:
    output = process.execute("--describe", inputs=0, max_bytes=0)
    try:
        records = json.loads(output)["layers"]
        layers = [
            LayerDescription(
                str(record["name"]),
                str(record["type"]),
                int(record["bytes"]),
                record["kernel"] == "copy",
            )
            for record in records
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise process.create_error("`--describe` of the program lists no valid layers") from None
    if (
        any(layer.size < 0 for layer in layers)
        or sum(layer.size for layer in layers) > MAX_LAYER_BYTES
    ):
        raise process.create_error("the program's layers are too large")
    return layers


def _read_layers(
    process: RunnerProcess, layers_path: Path, layers: Sequence[LayerDescription], size: int
) -> Mapping[str, Array]:
    try:
        with regular_files.open_file(layers_path) as file:
            content = file.read(size + 1)
    except OSError:
        raise process.create_error("the program did not write its layers") from None
    if len(content) != size:
        raise process.create_error(
            "the size of the program's layer file is wrong",
            f"{len(content):,} bytes instead of {size:,}" if len(content) < size else "",
        )
    arrays_by_name: dict[str, Array] = {}
    at = 0
    for layer in layers:
        dtype = get_memory_dtype(layer.dtype)
        if dtype in QUANTIZED_TYPES | FLOAT_TYPES and not layer.is_copy:
            count = layer.size // np.dtype(dtype).itemsize
            array = np.frombuffer(content, dtype, count, at)
            # The low 8 bits of values are stored; adding the zero point gives unsigned bytes.
            zero_point = get_zero_point(layer.dtype)
            arrays_by_name[layer.name] = array + np.uint8(zero_point) if zero_point else array
        at += layer.size
    return arrays_by_name
