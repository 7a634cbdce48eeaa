"""Running a file here, by LiteRT on one thread."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.tflite.writer import SIGNATURE
from tcc.compiler.graph import Input
from tcc.compiler.source import fail, whole_file

Array = NDArray[Any]


def infer(path: Path, source: Input, tensors: Sequence[Array]) -> list[dict[str, Array]]:
    """Run a file on tensors in the graph's layout; return outputs by name in that layout.

    Raises:
        UserError: It is no file that LiteRT can run on these (E0651).
    """
    runner = _runner(path)
    try:
        return [_run(runner, source, tensor) for tensor in tensors]
    except (RuntimeError, ValueError, KeyError) as error:
        raise _broken(path, error) from error


def _runner(path: Path) -> Any:
    """Return what runs a file's signature, with XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
        return interpreter.get_signature_runner(SIGNATURE)
    except Exception as error:  # the runtime documents no exception types
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> Exception:
    lines = str(error).splitlines() or [type(error).__name__]
    message = "LiteRT cannot run the model"
    return fail("E0651", message, whole_file(str(path)), label=lines[0][:160])


def _run(runner: Any, source: Input, tensor: Array) -> dict[str, Array]:
    details = runner.get_input_details()
    x = tensor[None] if tensor.ndim == 1 else tensor.transpose(1, 2, 0)[None]
    found = runner(**{source.name: x.astype(details[source.name]["dtype"])})
    outputs = runner.get_output_details()
    return {name: _value(found[name], outputs[name]) for name in outputs}


def _value(y: Array, detail: dict[str, Any]) -> Array:
    """Return an output in the graph's layout, in float."""
    scale, zero = detail["quantization"]
    if scale:
        y = (y.astype(np.float32) - np.float32(zero)) * np.float32(scale)
    return np.ascontiguousarray(y[0].transpose(2, 0, 1) if y.ndim == 4 else y[0])
