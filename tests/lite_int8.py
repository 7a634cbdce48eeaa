"""TFLite files of integer programs: written, run with LiteRT, and compared value by value."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from lite import create_interpreter

from tcc.backends.tflite.backend import FILE, TfLite
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import integer_program
from tcc.testing.int8_models import (
    add_node_outputs,
    calibrate_on_input,
    lower_for_int8,
    sample_input,
)

Array = np.ndarray
BACKEND = TfLite()
(TARGET,) = BACKEND.targets


def quantize_graph(graph: Graph, weights: Mapping[str, Array], stretch: float = 1.0) -> Model:
    """Return the integer program of a float graph, with 8-bit outputs."""
    model = lower_for_int8(graph, weights)
    ranges = calibrate_on_input(model, sample_input(model.graph), stretch)
    return quantize(model, replace(ranges, float_io=False))


def emit_int8(program: Model, precision: str = "int8") -> bytes:
    """Return the file of an integer program."""
    return BACKEND.emit(TARGET, program, TARGET.find_precision(precision)).files[FILE]


def run(data: bytes, x: Array, kernels: str = "xnnpack") -> dict[str, tuple[Array, float, int]]:
    """Return each output of a file in the layout of the graph, with its scale and zero point."""
    runner = create_interpreter(data, kernels).get_signature_runner("serving_default")
    ((name, detail),) = runner.get_input_details().items()
    (scale, zero), dtype = detail["quantization"], detail["dtype"]
    batch = (x if x.ndim == 1 else x.transpose(1, 2, 0))[None].astype(np.float32)
    if scale:
        limits = np.iinfo(dtype)
        quantized = np.rint(batch / np.float32(scale)) + zero
        batch = np.clip(quantized, limits.min, limits.max)
    batched_outputs = runner(**{name: batch.astype(dtype)})
    details = runner.get_output_details()
    return {
        k: (y[0] if y.ndim == 2 else y[0].transpose(2, 0, 1), *details[k]["quantization"])
        for k, y in batched_outputs.items()
    }


def count_differing_elements(
    program: Model, x: Array, kernels: str = "xnnpack", precision: str = "int8"
) -> Mapping[str, int]:
    """Return how many elements of each value differ from the reference executor.

    `x` (C, H, W) is the float input. Every value of the graph is compared bit for bit. The outputs
    of an unmodified file are compared too. Values without differences are omitted.
    """
    return _count_differences(
        Model(add_node_outputs(program.graph), program.weights), x, kernels, precision
    ) | (_count_differences(program, x, kernels, precision))


def _count_differences(model: Model, x: Array, kernels: str, precision: str) -> dict[str, int]:
    (expected,) = integer_program.run(model, [x])
    file_outputs = run(emit_int8(model, precision), x, kernels)
    assert file_outputs.keys() == expected.keys()
    counts = {}
    for name, y in expected.items():
        actual = _to_reference_form(*file_outputs[name], y.dtype)
        assert actual.shape == y.shape, name
        if (actual != y).any():
            counts[name] = int((actual != y).sum())
    return counts


def _to_reference_form(y: Array, scale: float, zero: int, dtype: Any) -> Array:
    """Return quantized values in the form of the reference, or the real values they represent."""
    if y.dtype == np.float32:
        return y
    quantized = y.astype(np.int32) - zero
    return quantized if dtype != np.float32 else quantized.astype(np.float32) * np.float32(scale)


def compute_max_steps(program: Model, x: Array, kernels: str) -> float:
    """Return the largest output difference from the reference executor, in quantization steps."""
    (expected,) = integer_program.run(program, [x])
    file_outputs = run(emit_int8(program), x, kernels)
    return max(
        float(
            np.abs(_to_reference_form(*file_outputs[name], y.dtype) - y).max()
            / (file_outputs[name][1] or 1.0)
        )
        for name, y in expected.items()
    )


def is_fully_delegated(data: bytes) -> bool:
    """Whether XNNPACK runs the complete file as one node."""
    model_interpreter = create_interpreter(data)
    nodes = [op for op in model_interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    inputs = {detail["index"] for detail in model_interpreter.get_input_details()}
    outputs = {detail["index"] for detail in model_interpreter.get_output_details()}
    return (
        len(nodes) == 1
        and inputs <= {int(i) for i in nodes[0]["inputs"]}
        and outputs == {int(i) for i in nodes[0]["outputs"]}
    )
