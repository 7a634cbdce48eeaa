"""Reads and runs TFLite files in tests, independent of the code under test."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

Array = np.ndarray
TensorType = schema.TensorType
KERNELS = {
    "xnnpack": OpResolverType.BUILTIN,
    "optimised": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def create_interpreter(data: bytes, kernels: str = "xnnpack") -> Any:
    """Return an interpreter of a file with allocated tensors."""
    kind = KERNELS[kernels]
    interpreter = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    return interpreter


def run_tflite(data: bytes, x: Array, kernels: str = "xnnpack") -> dict[str, Array]:
    """Return the outputs for one input. Both are channels first without a batch axis."""
    runner = create_interpreter(data, kernels).get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    batched_outputs = runner(**{name: (x if x.ndim == 1 else x.transpose(1, 2, 0))[None]})
    return {k: y[0] if y.ndim == 2 else y[0].transpose(2, 0, 1) for k, y in batched_outputs.items()}


def parse_tflite(data: bytes) -> Any:
    """Return the content of a file as schema objects."""
    return schema.ModelT.InitFromPackedBuf(data)


def list_operators(data: bytes) -> list[tuple[str, int]]:
    """Return name and version of each operator in order."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = parse_tflite(data)
    codes = [(names[code.builtinCode], code.version) for code in model.operatorCodes]
    return [codes[op.opcodeIndex] for op in model.subgraphs[0].operators]


def count_delegates(data: bytes) -> int:
    """Return how many partitions of a file XNNPACK runs."""
    details = create_interpreter(data)._get_ops_details()
    return [op["op_name"] for op in details].count("DELEGATE")


def compute_difference(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Return the largest difference, relative to the largest output value but at least 1."""
    assert actual.keys() == expected.keys()
    assert all(actual[name].shape == y.shape for name, y in expected.items())
    return max(
        float(np.abs(actual[name] - y).max() / max(1.0, np.abs(y).max()))
        for name, y in expected.items()
    )
