"""Running a file here, by LiteRT on one thread."""

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
from tcc.compiler.ir.number_types import Numbers
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress

Array = NDArray[Any]
STDERR = 2


def infer(path: Path, source: Input, tensors: Sequence[Array]) -> list[dict[str, Array]]:
    """Run a file on tensors in the graph's layout; return outputs by name in that layout.

    Raises:
        UserError: It is no file that LiteRT can run on these (E0651).
    """
    runner = _runner(path)
    try:
        return [_run(runner, source, tensor) for tensor in tensors]
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
        raise broken(path, error) from error


def numbers(path: Path) -> Numbers:
    """Return what a file computes with.

    Raises:
        UserError: It is no TFLite file, or one that tcc does not write (E0651).
    """
    try:
        with regular_files.opened(path) as file:
            return file_inspection.numbers(file.read())
    except (OSError, ValueError) as error:
        raise broken(path, error) from error


def measure(path: Path, source: Input, workload: Workload, progress: Progress) -> Measurement:
    """Time a file; what it is given and what it gives are copied, as any user of it must.

    Raises:
        UserError: It is no file that LiteRT can run on this (E0651).
    """
    count = f"{workload.threads} threads" if workload.threads > 1 else "one thread"
    how = f"LiteRT {version('ai-edge-litert')} with XNNPACK, {count}"
    try:
        load = partial(_loaded, path, workload)
        return in_process.measure(how, path, source, load, _timed, (workload, progress))
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
        raise broken(path, error) from error


def stored(tensor: Array, details: dict[str, Any]) -> Array:
    """Return a tensor in the graph's layout as an input of a file takes it."""
    return _stored(_last(tensor), details)


def _loaded(path: Path, workload: Workload) -> tuple[Any, Array]:
    """Return what runs a file, and the input as it wants it."""
    made = interpreter_of(path, workload.threads)
    (details,) = made.get_input_details()
    return made, stored(workload.tensor, details)


def _timed(loaded: tuple[Any, Array]) -> list[Array]:
    interpreter, x = loaded
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]


def _runner(path: Path) -> Any:
    """Return what runs a file's signature, with XNNPACK."""
    try:
        return interpreter_of(path).get_signature_runner(SIGNATURE)
    except ValueError as error:
        raise broken(path, error) from error


def interpreter_of(path: Path, threads: int = 1) -> Any:
    """Return what runs a file, with XNNPACK.

    Raises:
        UserError: It is no file that LiteRT can load (E0651).
    """
    try:
        with regular_files.opened(path) as file:
            data = file.read()
        return interpreter(data, threads)
    except Exception as error:  # the runtime documents no exception types
        raise broken(path, error) from error


def interpreter(data: bytes, threads: int = 1) -> Any:
    """Return what runs the bytes of a file, with XNNPACK.

    Args:
        data: The bytes.
        threads: How many share a run.

    Raises:
        Exception: It is no file of tcc, or none that LiteRT can load; it documents no types.
    """
    from ai_edge_litert.interpreter import Interpreter

    file_inspection.read(data)
    with _silent():
        made = Interpreter(model_content=data, num_threads=threads)
        made.allocate_tensors()
    return made


@contextmanager
def _silent() -> Iterator[None]:
    """Keep from standard error what the runtime says as it loads; no setting of its own does."""
    sys.stderr.flush()
    kept = os.dup(STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDERR)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)
        os.close(nowhere)


def broken(path: Path, error: Exception) -> Exception:
    """Return the error of a file that cannot be run, by the runtime's."""
    lines = str(error).splitlines() or [type(error).__name__]
    message = "LiteRT cannot run the model"
    return fail("E0651", message, whole_file(str(path)), label=lines[0][:160])


def _run(runner: Any, source: Input, tensor: Array) -> dict[str, Array]:
    details = runner.get_input_details()
    x = _last(tensor)
    wanted = tuple(int(n) for n in details[source.name]["shape"])
    if x.shape != wanted:  # the runtime would give the whole network another size
        raise ValueError(f"its input is {_spell(wanted)}, not {_spell(x.shape)}")
    found = runner(**{source.name: _stored(x, details[source.name])})
    outputs = runner.get_output_details()
    return {name: _value(found[name], outputs[name]) for name in outputs}


def _spell(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _last(tensor: Array) -> Array:
    """Return a batch of one of a tensor, channels last."""
    return tensor[None] if tensor.ndim == 1 else tensor.transpose(1, 2, 0)[None]


def _stored(x: Array, detail: dict[str, Any]) -> Array:
    """Return an input as the file wants it: levels, ties to even, where it has a scale."""
    (scale, zero), dtype = detail["quantization"], detail["dtype"]
    if scale:
        limits = np.iinfo(dtype)
        steps = np.rint(x.astype(np.float32) / np.float32(scale)) + np.float32(zero)
        # Beyond the ends a cast would wrap around.
        x = np.clip(steps, limits.min, limits.max)
    return x.astype(dtype)


def _value(y: Array, detail: dict[str, Any]) -> Array:
    """Return an output in the graph's layout, in float."""
    scale, zero = detail["quantization"]
    if scale:
        y = (y.astype(np.float32) - np.float32(zero)) * np.float32(scale)
    if y.ndim == 0 or len(y) != 1:
        raise ValueError(f"an output of shape {_spell(y.shape)} is no batch of one")
    return np.ascontiguousarray(y[0].transpose(2, 0, 1) if y.ndim == 4 else y[0])


def of_file(
    path: Path, tensors: Iterable[Array], kinds: frozenset[str] = file_inspection.LEVELS
) -> Iterator[Mapping[str, Array]]:
    """Yield the values of some types that a file computes for each tensor, by name.

    With outputs of a graph XNNPACK writes them, as ever by its own kernels; an interpreter that
    keeps all tensors would run others, which round elsewhere.

    Raises:
        UserError: It is no file that LiteRT can run on these (E0651).
    """
    try:
        with regular_files.opened(path) as file:
            data, places = _opened_up(file.read(), kinds)
        loaded = interpreter(data)
    except Exception as error:  # the runtime documents no exception types
        raise broken(path, error) from error
    (details,) = loaded.get_input_details()
    for tensor in tensors:
        try:
            loaded.set_tensor(details["index"], _stored(_last(tensor), details))
            loaded.invoke()
            found = {name: _planar(loaded.get_tensor(place)) for name, place in places.items()}
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
            raise broken(path, error) from error
        yield found


def _planar(values: Array) -> Array:
    """Return a value in the graph's layout: maps lie with their channels last in a file."""
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values


def _opened_up(data: bytes, kinds: frozenset[str]) -> tuple[bytes, Mapping[str, int]]:
    """Return a file that gives all its values of some types, and their places by name."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    found = file_inspection.read(data)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    (graph,) = model.subgraphs
    # Only what operators make: constants are weights.
    made = {place for step in found.steps for place in step.outputs}
    inner = [i for i in sorted(made) if found.types[i] in kinds]
    given = [int(place) for place in graph.outputs]
    graph.outputs = np.array([*given, *(i for i in inner if i not in given)], np.int32)
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), {graph.tensors[i].name.decode(): i for i in inner}
