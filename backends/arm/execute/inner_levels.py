"""What a program computes between its layers, as its runner writes it: planar, by layer."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.arm.execute import runner
from tcc.backends.arm.execute.runner import Calls
from tcc.backends.arm.machine import Machine
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.types import DType
from tcc.compiler.support import atomic_files, regular_files

LEVELS, FLOATS = frozenset({"uint8", "int8"}), frozenset({"float32"})
MOST = 1 << 32
"""Most bytes of the layers of one run that are read."""
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """A layer as the program describes it; a `copy` is only part of a value that others join."""

    name: str
    dtype: str
    size: int
    copied: bool


def of_program(
    machine: Machine,
    folder: Path,
    source: Input,
    tensors: "Iterable[np.ndarray]",
    kinds: frozenset[str] = LEVELS,
) -> Iterator[Mapping[str, Array]]:
    """Yield the values of some types that the program in `folder` computes, flat, by name.

    Raises:
        UserError: The program fails, or writes something else than it describes (E0652).
    """
    kind = "u1" if source.type.dtype is DType.U8 else "<f4"
    with atomic_files.scratch_folder() as temporary:
        program = runner.find_runnable(machine, folder, temporary)
        calls = Calls(machine, program, temporary)
        layers = _described(calls)
        size = sum(layer.size for layer in layers)
        given, written = temporary / "input.bin", temporary / "layers"
        for tensor in tensors:
            given.write_bytes(np.ascontiguousarray(tensor, kind).tobytes())
            # What an earlier run wrote must not pass for this one's.
            written.unlink(missing_ok=True)
            words = ("--quiet", "--layers", str(written), "--tensor", str(given))
            calls.execute(*words, inputs=1, written=size)
            found = _read(calls, written, layers, size)
            yield {name: values for name, values in found.items() if str(values.dtype) in kinds}


def _described(calls: Calls) -> Sequence[WrittenLayer]:
    said = calls.execute("--describe", inputs=0, written=0)
    try:
        listed = json.loads(said)["layers"]
        found = [
            WrittenLayer(str(x["name"]), str(x["type"]), int(x["bytes"]), x["kernel"] == "copy")
            for x in listed
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise calls.wrong("the program does not say what its layers are") from None
    if any(layer.size < 0 for layer in found) or sum(layer.size for layer in found) > MOST:
        raise calls.wrong("the program's layers are too large")
    return found


def _read(
    calls: Calls, written: Path, layers: Sequence[WrittenLayer], size: int
) -> Mapping[str, Array]:
    try:
        with regular_files.opened(written) as file:
            data = file.read(size + 1)
    except OSError:
        raise calls.wrong("the program did not write its layers") from None
    if len(data) != size:
        raise calls.wrong("the program wrote layers of another size")
    found: dict[str, Array] = {}
    at = 0
    for layer in layers:
        if layer.dtype in LEVELS | FLOATS and not layer.copied:
            count = layer.size // np.dtype(layer.dtype).itemsize
            found[layer.name] = np.frombuffer(data, layer.dtype, count, at)
        at += layer.size
    return found
