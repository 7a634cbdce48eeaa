"""Integer programs of small graphs, by the ranges that one input shows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.passes import INT8, run
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import kept_values, minmax_ranges
from tcc.compiler.reference import float_program

Array = NDArray[Any]


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
