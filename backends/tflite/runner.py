"""Run a file on this machine with LiteRT on one thread."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.tflite import file_inspection
from tcc.backends.tflite.writer import SIGNATURE
from tcc.compiler.ir import in_process
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import Measurement, Workload
from tcc.compiler.ir.number_types import NumberTypes
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.progress import Progress

Array = NDArray[Any]
STDERR = 2


def infer(path: Path, network_input: Input, tensors: Sequence[Array]) -> list[dict[str, Array]]:
    """Run a file on tensors in the graph's layout; return outputs by name in that layout.

    Raises:
        UserError: LiteRT cannot run it on these tensors (E0651).
    """
    runner = _create_runner(path)
    try:
        return [_run(runner, network_input, tensor) for tensor in tensors]
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
        raise build_run_error(path, error) from error


def read_numbers(path: Path) -> NumberTypes:
    """Return the number types that a file computes with.

    Raises:
        UserError: It is not a TFLite file, or not one that tcc writes (E0651).
    """
    try:
        with regular_files.open_file(path) as file:
            return file_inspection.read_numbers(file.read())
    except (OSError, ValueError) as error:
        raise build_run_error(path, error) from error


def measure(
    path: Path, network_input: Input, workload: Workload, progress: Progress
) -> Measurement:
    """Time a file, including the copies of inputs and outputs that every user needs.

    Raises:
        UserError: LiteRT cannot run it (E0651).
    """
    count = f"{workload.threads} threads" if workload.threads > 1 else "one thread"
    method = f"LiteRT {version('ai-edge-litert')} with XNNPACK, {count}"
    try:
        load = partial(_load_workload, path, workload)
        return in_process.measure(
            method, path, network_input, load, _run_loaded, (workload, progress)
        )
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
        raise build_run_error(path, error) from error


def prepare_input(tensor: Array, details: dict[str, Any]) -> Array:
    """Return a tensor in the graph's layout as an input of a file."""
    return _quantize_input(_to_channels_last(tensor), details)


def _load_workload(path: Path, workload: Workload) -> tuple[Any, Array]:
    """Return an interpreter for a file, and its input."""
    interpreter = load_interpreter(path, workload.threads)
    (details,) = interpreter.get_input_details()
    return interpreter, prepare_input(workload.tensor, details)


def _run_loaded(loaded: tuple[Any, Array]) -> list[Array]:
    interpreter, x = loaded
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [
        interpreter.get_tensor(output_details["index"])
        for output_details in interpreter.get_output_details()
    ]


def _create_runner(path: Path) -> Any:
    """Return a runner for a file's signature, with XNNPACK."""
    try:
        return load_interpreter(path).get_signature_runner(SIGNATURE)
    except ValueError as error:
        raise build_run_error(path, error) from error


def load_interpreter(path: Path, threads: int = 1) -> Any:
    """Return an interpreter for a file, with XNNPACK.

    Raises:
        UserError: LiteRT cannot load it (E0651).
    """
    try:
        with regular_files.open_file(path) as file:
            content = file.read()
        return create_interpreter(content, threads)
    except Exception as error:  # the runtime documents no exception types
        raise build_run_error(path, error) from error


def create_interpreter(content: bytes, threads: int = 1) -> Any:
    """Return an interpreter for the bytes of a file, with XNNPACK.

    Args:
        content: The bytes.
        threads: Number of threads.

    Raises:
        Exception: tcc did not write the file, or LiteRT cannot load it; it documents no types.
    """
    from ai_edge_litert.interpreter import Interpreter

    file_inspection.read_graph(content)
    with _ignore_stderr():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


@contextmanager
def _ignore_stderr() -> Iterator[None]:
    """Hide what the runtime prints to standard error while it loads; it has no setting for this."""
    sys.stderr.flush()
    saved_stderr = os.dup(STDERR)
    null_device = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null_device, STDERR)
        yield
    finally:
        os.dup2(saved_stderr, STDERR)
        os.close(saved_stderr)
        os.close(null_device)


def build_run_error(path: Path, error: Exception) -> Exception:
    """Return the error of a file that cannot be run, with the runtime's reason."""
    lines = str(error).splitlines() or [type(error).__name__]
    message, help = "LiteRT cannot run the model", "build the bundle again"
    return fail("E0651", message, make_file_span(str(path)), label=lines[0][:160], help=help)


def _run(runner: Any, network_input: Input, tensor: Array) -> dict[str, Array]:
    details = runner.get_input_details()
    x = _to_channels_last(tensor)
    expected_shape = tuple(int(n) for n in details[network_input.name]["shape"])
    if x.shape != expected_shape:  # the runtime would resize the complete network
        raise ValueError(
            f"its input has shape {_describe_shape(expected_shape)},"
            f" but the tensor has {_describe_shape(x.shape)}"
        )
    raw_outputs = runner(**{network_input.name: _quantize_input(x, details[network_input.name])})
    outputs = runner.get_output_details()
    return {name: _to_float_output(raw_outputs[name], outputs[name]) for name in outputs}


def _describe_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"


def _to_channels_last(tensor: Array) -> Array:
    """Return a tensor as a batch of one, channels last."""
    return tensor[None] if tensor.ndim == 1 else tensor.transpose(1, 2, 0)[None]


def _quantize_input(x: Array, detail: dict[str, Any]) -> Array:
    """Return an input in the file's type; if it has a scale, quantized with ties to even."""
    (scale, zero), dtype = detail["quantization"], detail["dtype"]
    if scale:
        limits = np.iinfo(dtype)
        steps = np.rint(x.astype(np.float32) / np.float32(scale)) + np.float32(zero)
        # Outside the limits a cast would wrap around.
        x = np.clip(steps, limits.min, limits.max)
    return x.astype(dtype)


def _to_float_output(y: Array, detail: dict[str, Any]) -> Array:
    """Return an output in the graph's layout, in float."""
    scale, zero = detail["quantization"]
    if scale:
        y = (y.astype(np.float32) - np.float32(zero)) * np.float32(scale)
    if y.ndim == 0 or len(y) != 1:
        raise ValueError(f"an output of shape {_describe_shape(y.shape)} is not a batch of one")
    return np.ascontiguousarray(y[0].transpose(2, 0, 1) if y.ndim == 4 else y[0])


def run_with_inner_values(
    path: Path, tensors: Iterable[Array], kinds: frozenset[str] = file_inspection.QUANTIZED_TYPES
) -> Iterator[Mapping[str, Array]]:
    """Yield the values of some types that a file computes for each tensor, by name.

    They become outputs of the graph, so that XNNPACK computes them with its usual kernels. An
    interpreter that keeps all tensors would use other kernels, which round differently.

    Raises:
        UserError: LiteRT cannot run it on these tensors (E0651).
    """
    try:
        with regular_files.open_file(path) as file:
            content, index_by_name = _add_inner_outputs(file.read(), kinds)
        loaded = create_interpreter(content)
    except Exception as error:  # the runtime documents no exception types
        raise build_run_error(path, error) from error
    (details,) = loaded.get_input_details()
    for tensor in tensors:
        try:
            loaded.set_tensor(details["index"], _quantize_input(_to_channels_last(tensor), details))
            loaded.invoke()
            arrays = {
                name: _to_channels_first(loaded.get_tensor(index))
                for name, index in index_by_name.items()
            }
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
            raise build_run_error(path, error) from error
        yield arrays


def _to_channels_first(array: Array) -> Array:
    """Return a value in the graph's layout: files store maps with channels last."""
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def _add_inner_outputs(content: bytes, kinds: frozenset[str]) -> tuple[bytes, Mapping[str, int]]:
    """Return a file with all values of some types as outputs, and their indices by name."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    graph_info = file_inspection.read_graph(content)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    (graph,) = model.subgraphs
    # Only computed tensors: constants are weights.
    computed = {index for step in graph_info.steps for index in step.outputs}
    inner = [i for i in sorted(computed) if graph_info.types[i] in kinds]
    output_indices = [int(index) for index in graph.outputs]
    graph.outputs = np.array(
        [*output_indices, *(i for i in inner if i not in output_indices)], np.int32
    )
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), {graph.tensors[i].name.decode(): i for i in inner}
