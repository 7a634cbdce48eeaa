"""Integer programs in ONNX Runtime, compared with the reference."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.lower.integer_variants import convert_to_unsigned
from tcc.compiler.lower.onnx import lower
from tcc.compiler.reference import integer_program
from tcc.compiler.support import cpu
from tcc.testing.int8_models import add_node_outputs

Array = NDArray[Any]
SATURATES = cpu.select_product_types(cpu.read_features()).unsigned
"""Whether products of this processor saturate unless weights are unsigned."""
MAKE_UNSIGNED = ("ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
"""Optimization levels at which ONNX Runtime makes weights unsigned on request."""
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", *MAKE_UNSIGNED)
EXACT_LEVELS = MAKE_UNSIGNED if SATURATES else LEVELS
"""Optimization levels at which a file is exact here. At others, products saturate."""


def open_session(
    proto: ModelProto, level: str = "ORT_ENABLE_ALL", threads: int = 1, exact: bool = SATURATES
) -> onnxruntime.InferenceSession:
    """Return a session of one model. `exact` avoids saturating products on this processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers)


def to_onnx_values(x: Array, kind: TensorType) -> Array:
    """Return quantized values as stored in ONNX: unsigned, with the zero point added."""
    return x if kind.dtype is DType.F32 else (x.astype(np.int16) - kind.limits[0]).astype(np.uint8)


def count_differing_elements(
    model: Model, x: Array, level: str = "ORT_ENABLE_ALL", threads: int = 1, opset: int = 17
) -> Mapping[str, int]:
    """Return how many elements of each value differ from the reference executor.

    `x` (C, H, W) is the float input. Every value of the graph is compared bit for bit. Values
    without differences are omitted.
    """
    source = model.graph.inputs[0]
    (expected,) = integer_program.run(model, [x], keep_all=True)
    probed_model = Model(add_node_outputs(model.graph), model.weights)
    if SATURATES and level not in MAKE_UNSIGNED:
        probed_model = convert_to_unsigned(probed_model)
    onnx_session = open_session(lower(probed_model, opset), level, threads)
    names = [f"{node.name}!" for node in model.graph.nodes]
    session_outputs = onnx_session.run(
        names, {source.name: x[None].astype(source.type.dtype.value)}
    )
    counts = {}
    for name, batch in zip(names, session_outputs, strict=True):
        y = to_onnx_values(expected[name[:-1]], model.graph.types[name[:-1]])
        assert (batch[0].shape, batch.dtype) == (y.shape, y.dtype), name
        if batch[0].tobytes() != y.tobytes():
            counts[name[:-1]] = int((batch[0] != y).sum())
    return counts
