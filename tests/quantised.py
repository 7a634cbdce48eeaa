"""Integer programs for tests: made with observed ranges, run by ONNX Runtime, and compared."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.lower.integer_variants import unsigned
from tcc.compiler.lower.onnx import lower
from tcc.compiler.passes import INT8, run
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import kept_values, minmax_ranges
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support import cpu

Array = NDArray[Any]
SATURATES = cpu.products(cpu.features()).unsigned
"""Whether products of this processor saturate unless weights are unsigned."""
MAKE_UNSIGNED = ("ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
"""Levels of optimisation at which ONNX Runtime makes them so, when it is asked to."""
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", *MAKE_UNSIGNED)
EXACT_LEVELS = MAKE_UNSIGNED if SATURATES else LEVELS
"""Levels at which a file is exact here as it is; at others this processor's products saturate."""


def ready(graph: Graph, weights: Mapping[str, Array]) -> Model:
    """Return the float model that integers can compute."""
    return run(Model(graph, weights), INT8)


def picture(graph: Graph, seed: int = 0) -> Array:
    """Return one random input: grey levels for a raw image, else numbers around zero."""
    source, random = graph.inputs[0], np.random.default_rng(seed)
    if source.preprocess is not None and source.preprocess.raw:
        return random.integers(0, 256, source.type.shape).astype(np.float32)
    return random.standard_normal(source.type.shape, np.float32)


def every(graph: Graph) -> Graph:
    """Return the graph with each of its nodes' values as an output more, called `<name>!`."""
    more = (Output(f"{node.name}!", node.name) for node in graph.nodes)
    return replace(graph, outputs=(*graph.outputs, *more))


def calibrated(model: Model, x: Array, stretch: float = 1.0) -> Calibration:
    """Return the ranges of a ready model's values on one input, each `stretch` times as wide."""
    (found,) = float_program.run(Model(every(model.graph), model.weights), [x])
    values = {name[:-1]: y for name, y in found.items() if name.endswith("!")}
    values[model.graph.inputs[0].name] = x
    limits = {
        name: (float(values[name].min()) * stretch, float(values[name].max()) * stretch)
        for name in kept_values(model.graph)
    }
    return Calibration(minmax_ranges(model, limits))


def int8(graph: Graph, weights: Mapping[str, Array], seed: int = 0) -> Model:
    """Return the integer program of a float graph."""
    model = ready(graph, weights)
    return quantize(model, calibrated(model, picture(model.graph, seed)))


def session(
    proto: ModelProto, level: str = "ORT_ENABLE_ALL", threads: int = 1, exact: bool = SATURATES
) -> onnxruntime.InferenceSession:
    """Return a session of one model; `exact` as where products saturate, which this may be."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers)


def held(x: Array) -> Array:
    """Return levels as ONNX holds them: signed ones are unsigned with the zero point 128."""
    return (x.astype(np.int16) + 128).astype(np.uint8) if x.dtype == np.int8 else x


def differing(
    model: Model, x: Array, level: str = "ORT_ENABLE_ALL", threads: int = 1, opset: int = 17
) -> Mapping[str, int]:
    """Return how many elements of each value differ from the reference executor's, where any do.

    `x` (C, H, W) is the float form of the input; every value of the graph is compared to the bit.
    """
    source = model.graph.inputs[0]
    (expected,) = integer_program.run(model, [x], every=True)
    whole = Model(every(model.graph), model.weights)
    if SATURATES and level not in MAKE_UNSIGNED:
        whole = unsigned(whole)
    made = session(lower(whole, opset), level, threads)
    names = [f"{node.name}!" for node in model.graph.nodes]
    got = made.run(names, {source.name: held(x[None].astype(source.type.dtype.value))})
    counts = {}
    for name, batch in zip(names, got, strict=True):
        y = held(expected[name[:-1]])
        assert (batch[0].shape, batch.dtype) == (y.shape, y.dtype), name
        if batch[0].tobytes() != y.tobytes():
            counts[name[:-1]] = int((batch[0] != y).sum())
    return counts


def typed(shape: tuple[int, ...], scale: float, signed: bool) -> TensorType:
    """Return the type of levels."""
    return TensorType(shape, DType.I8 if signed else DType.U8, float(np.float32(scale)))


def noise(kind: TensorType, batch: int, seed: int = 0) -> Array:
    """Return random levels (batch, *shape) with both ends of the range among them."""
    low, high = kind.limits
    x = np.random.default_rng(seed).integers(low, high + 1, (batch, *kind.shape))
    flat = x.reshape(-1)
    flat[:2] = (low, high)[: len(flat)]
    return x.astype(kind.dtype.value)
