"""Running a page's own code in Node: all of it but what needs a window."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Input
from tcc.compiler.support import atomic_files, bounded_process, regular_files
from tcc.compiler.support.bounded_process import HangsError
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

Array = NDArray[Any]
DRIVER = Path(__file__).resolve().parent / "headless.mjs"
MODEL = "model.onnx"
BATCH, LEVELS_BATCH = 64, 8
"""Most inputs of one process; of those whose inner levels are asked for, whose outputs are many."""
START, EACH = 120, 120
"""Seconds that a process may take: to start, and for each input. This only ends what hangs."""
MOST = 1 << 30
"""Most bytes that a process may write."""
TYPES = {"float32": "<f4", "uint8": "u1", "int8": "i1"}


def infer(folder: Path, source: Input, tensors: Sequence[Array]) -> list[dict[str, Array]]:
    """Return the raw outputs for each tensor of the input's shape.

    Raises:
        UserError: The page's code fails (E0651).
    """
    return list(_batches(folder, _task(source), _encoded(source, tensors), BATCH))


def inner_levels(
    folder: Path, source: Input, tensors: Iterable[Array]
) -> Iterator[Mapping[str, Array]]:
    """Yield the 8-bit integers that the network computes for each tensor; errors as above."""
    task = {**_task(source), "levels": True}
    for found in _batches(folder, task, _encoded(source, tensors), LEVELS_BATCH):
        yield {name: value for name, value in found.items() if value.dtype.itemsize == 1}


def inner_values(
    folder: Path, source: Input, tensors: Iterable[Array]
) -> Iterator[Mapping[str, Array]]:
    """Yield the floats that the network computes for each tensor; errors as above."""
    task = {**_task(source), "values": True}
    return _batches(folder, task, _encoded(source, tensors), LEVELS_BATCH)


def run(folder: Path, images: Sequence[Array]) -> list[dict[str, Array]]:
    """Return the raw outputs for each image, uint8 (height, width, 3); errors as above."""
    inputs = ((np.ascontiguousarray(image, np.uint8), image.shape[:2]) for image in images)
    return list(_batches(folder, {}, inputs, BATCH))


def _task(source: Input) -> dict[str, Any]:
    kind = source.type
    return {"input": {"name": source.name, "shape": kind.shape, "dtype": kind.dtype.value}}


def _encoded(source: Input, tensors: Iterable[Array]) -> Iterator[tuple[Array, None]]:
    for tensor in tensors:
        if tensor.shape != source.type.shape:
            raise AssertionError(f"the network takes {source.type.shape}")
        yield np.ascontiguousarray(tensor, "<f4"), None


def _batches(
    folder: Path, task: Mapping[str, Any], inputs: Iterable[tuple[Array, Any]], most: int
) -> Iterator[dict[str, Array]]:
    waiting = iter(inputs)
    _check(folder / MODEL)
    with atomic_files.scratch_folder() as temporary:
        while batch := list(islice(waiting, most)):
            given = temporary / "inputs.bin"
            given.write_bytes(b"".join(data.tobytes() for data, _ in batch))
            if "values" in task:
                (temporary / "values.bin").write_bytes(_float_outputs(folder / MODEL))
            sizes = [size for _, size in batch]
            yield from _called(folder, temporary, {**task, "inputs": sizes})


def _float_outputs(path: Path) -> bytes:
    """Return what makes outputs of a network's floats when it is appended to its file."""
    from tcc.compiler.lower import onnx_inspection

    with regular_files.opened(path) as file:
        return onnx_inspection.inner_outputs(file.read(), onnx_inspection.FLOATS)


def _check(path: Path) -> None:
    """Refuse a network that no page of tcc has, before it runs."""
    from tcc.compiler.lower import onnx_inspection

    try:
        with regular_files.opened(path) as file:
            onnx_inspection.check(file.read())
    except Exception as error:  # protobuf has exception types of its own
        raise _broken(path, str(error)) from None


def _called(folder: Path, temporary: Path, task: Mapping[str, Any]) -> list[dict[str, Array]]:
    """Return what one process gives for the inputs in `inputs.bin`."""
    (temporary / "task.json").write_text(json.dumps({**task, "page": str(folder.resolve())}))
    count = len(task["inputs"])
    command = ["node", str(DRIVER), str(temporary)]
    try:
        done = bounded_process.execute(command, temporary, START + EACH * count, MOST)
    except HangsError as error:
        raise _broken(folder, f"it {error}") from None
    except OSError as error:
        if atomic_files.is_machine(error):
            raise
        raise _broken(folder, str(error.strerror)) from None
    if done.code:
        last = [line for line in done.err.decode(errors="replace").splitlines() if line.strip()]
        raise _broken(folder, next((x for x in last if "Error" in x), f"status {done.code}"))
    try:
        with regular_files.opened(temporary / "outputs.bin") as file:
            return _outputs(json.loads(done.out), file.read(MOST), count)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(folder, str(error)) from None


def _outputs(about: Any, data: bytes, count: int) -> list[dict[str, Array]]:
    """Return the outputs of `count` inputs, one after the other, as a description says them."""
    found: list[dict[str, Array]] = []
    at = 0
    for _ in range(count):
        given: dict[str, Array] = {}
        for one in about["outputs"]:
            batch, *shape = one["dims"]
            kind = np.dtype(TYPES[one["type"]])
            end = at + prod(shape) * kind.itemsize
            values = np.frombuffer(data[at:end], kind).reshape(shape)
            if batch != 1:
                raise ValueError(f"output {one['name'][:80]} is no batch of one")
            given[one["name"]], at = values.astype(kind.newbyteorder("=")), end
        found.append(given)
    if at != len(data):
        raise ValueError("it wrote more than its outputs")
    return found


def _broken(place: Path, label: str) -> UserError:
    message = "the page's code does not run in Node"
    return fail("E0651", message, whole_file(str(place)), label=" ".join(label.split())[:160])
