"""Run a page's own code in Node, except for the parts that need a window."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.guard import guard_document
from tcc.compiler.ir.graph import Input
from tcc.compiler.support import atomic_files, bounded_process, json_records, regular_files
from tcc.compiler.support.bounded_process import HangsError
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

Array = NDArray[Any]
DRIVER_FILE = Path(__file__).resolve().parent / "headless.mjs"
MODEL_FILE = "model.onnx"
MAX_BATCH, MAX_TRACE_BATCH = 64, 8
"""Maximum number of inputs per process; smaller with inner values, which are many outputs."""
START_SECONDS, SECONDS_PER_INPUT = 120, 120
"""Time limit of a process in seconds: to start, and per input. It only ends processes that hang."""
MAX_OUTPUT_BYTES = 1 << 30
"""Maximum number of bytes that a process may write."""
NUMPY_TYPES = {"float32": "<f4", "float64": "<f8", "uint8": "u1", "int8": "i1"}


def infer(folder: Path, network_input: Input, tensors: Sequence[Array]) -> list[dict[str, Array]]:
    """Return the raw outputs for each tensor of the input's shape.

    Raises:
        UserError: The page's code fails (E0651).
    """
    return list(
        _run_batches(
            folder, _build_task(network_input), _encode_tensors(network_input, tensors), MAX_BATCH
        )
    )


def trace_quantized_values(
    folder: Path, network_input: Input, tensors: Iterable[Array]
) -> Iterator[Mapping[str, Array]]:
    """Yield the quantized values that the network computes for each tensor; errors as above."""
    task = {**_build_task(network_input), "levels": True}
    for outputs in _run_batches(
        folder, task, _encode_tensors(network_input, tensors), MAX_TRACE_BATCH
    ):
        yield {name: array for name, array in outputs.items() if array.dtype.itemsize == 1}


def trace_float_values(
    folder: Path, network_input: Input, tensors: Iterable[Array]
) -> Iterator[Mapping[str, Array]]:
    """Yield the float values that the network computes for each tensor; errors as above."""
    task = {**_build_task(network_input), "values": True}
    return _run_batches(folder, task, _encode_tensors(network_input, tensors), MAX_TRACE_BATCH)


def run(folder: Path, images: Sequence[Array]) -> list[dict[str, Array]]:
    """Return the raw outputs for each image, uint8 (height, width, 3); errors as above."""
    inputs = ((np.ascontiguousarray(image, np.uint8), image.shape[:2]) for image in images)
    return list(_run_batches(folder, {}, inputs, MAX_BATCH))


def run_guard(folder: Path, network_input: Input, pixels: Sequence[Array]) -> list[Array]:
    """Return the numbers of the page's guard for the images of one stream, int64 (numbers,) each.

    Args:
        folder: The artifact, whose bundle has a guard.
        network_input: Its input.
        pixels: uint8 (height, width, channels) each, of the input's size.

    Raises:
        UserError: The page's code fails (E0651), or the guard is damaged (E0740).
    """
    guard = json_records.encode(guard_document.read_guard(folder.parent / "guard.json"))
    task = {**_build_task(network_input), "levels": True, "guard": guard}
    tensors = [image.transpose(2, 0, 1) for image in pixels]
    # One process, because the guard has the state of the stream.
    batches = _run_batches(folder, task, _encode_tensors(network_input, tensors), len(tensors))
    return [outputs["guard"].astype(np.int64) for outputs in batches]


def _build_task(network_input: Input) -> dict[str, Any]:
    kind = network_input.type
    return {"input": {"name": network_input.name, "shape": kind.shape, "dtype": kind.dtype.value}}


def _encode_tensors(network_input: Input, tensors: Iterable[Array]) -> Iterator[tuple[Array, None]]:
    for tensor in tensors:
        if tensor.shape != network_input.type.shape:
            raise AssertionError(
                f"the network needs the shape {network_input.type.shape}, not {tensor.shape}"
            )
        yield np.ascontiguousarray(tensor, "<f4"), None


def _run_batches(
    folder: Path, task: Mapping[str, Any], inputs: Iterable[tuple[Array, Any]], batch_size: int
) -> Iterator[dict[str, Array]]:
    pending_inputs = iter(inputs)
    _check(folder / MODEL_FILE)
    with atomic_files.create_scratch_folder() as temporary:
        while batch := list(islice(pending_inputs, batch_size)):
            input_path = temporary / "inputs.bin"
            input_path.write_bytes(b"".join(array.tobytes() for array, _ in batch))
            if "values" in task:
                (temporary / "values.bin").write_bytes(_build_float_outputs(folder / MODEL_FILE))
            sizes = [size for _, size in batch]
            yield from _run_node(folder, temporary, {**task, "inputs": sizes})


def _build_float_outputs(path: Path) -> bytes:
    """Return the bytes that, appended to a network's file, make outputs of its float values."""
    from tcc.compiler.lower import onnx_inspection

    with regular_files.open_file(path) as file:
        return onnx_inspection.build_inner_outputs(file.read(), onnx_inspection.FLOATS)


def _check(path: Path) -> None:
    """Refuse a network with control flow, which no page of tcc has, before it runs."""
    from tcc.compiler.lower import onnx_inspection

    try:
        with regular_files.open_file(path) as file:
            onnx_inspection.check_control_flow(file.read())
    except Exception as error:  # protobuf has exception types of its own
        raise _create_error(path, str(error)) from None


def _run_node(folder: Path, temporary: Path, task: Mapping[str, Any]) -> list[dict[str, Array]]:
    """Return the outputs of one process for the inputs in `inputs.bin`."""
    (temporary / "task.json").write_text(json.dumps({**task, "page": str(folder.resolve())}))
    count = len(task["inputs"])
    command = ["node", str(DRIVER_FILE), str(temporary)]
    try:
        outcome = bounded_process.execute(
            command, temporary, START_SECONDS + SECONDS_PER_INPUT * count, MAX_OUTPUT_BYTES
        )
    except HangsError as error:
        raise _create_error(folder, f"it {error}") from None
    except OSError as error:
        if atomic_files.is_machine_error(error):
            raise
        raise _create_error(folder, str(error.strerror)) from None
    if outcome.code:
        error_lines = [
            line for line in outcome.err.decode(errors="replace").splitlines() if line.strip()
        ]
        raise _create_error(
            folder,
            next(
                (error_line for error_line in error_lines if "Error" in error_line),
                f"status {outcome.code}",
            ),
        )
    try:
        with regular_files.open_file(temporary / "outputs.bin") as file:
            return _decode_outputs(json.loads(outcome.out), file.read(MAX_OUTPUT_BYTES), count)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _create_error(folder, str(error)) from None


def _decode_outputs(description: Any, content: bytes, count: int) -> list[dict[str, Array]]:
    """Return the outputs of `count` inputs, stored in sequence in the layout of a description."""
    all_outputs: list[dict[str, Array]] = []
    offset = 0
    for _ in range(count):
        input_outputs: dict[str, Array] = {}
        for record in description["outputs"]:
            batch_size, *shape = record["dims"]
            kind = np.dtype(NUMPY_TYPES[record["type"]])
            end_offset = offset + prod(shape) * kind.itemsize
            tensor = np.frombuffer(content[offset:end_offset], kind).reshape(shape)
            if batch_size != 1:
                raise ValueError(f"output {record['name'][:80]} is not a batch of one")
            input_outputs[record["name"]], offset = (
                tensor.astype(kind.newbyteorder("=")),
                end_offset,
            )
        all_outputs.append(input_outputs)
    if offset != len(content):
        raise ValueError("it wrote more than its outputs")
    return all_outputs


def _create_error(path: Path, label: str) -> UserError:
    message = "the page's code failed in Node"
    return fail("E0651", message, make_file_span(str(path)), label=" ".join(label.split())[:160])
