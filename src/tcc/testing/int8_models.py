"""Int8 programs of small graphs, with the ranges of one input."""

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
from tcc.compiler.quant.scale_groups import compute_minmax_ranges, list_unfused_values
from tcc.compiler.reference import float_program

Array = NDArray[Any]


def lower_for_int8(graph: Graph, weights: Mapping[str, Array]) -> Model:
    """Return a float model that can be quantized."""
    return run(Model(graph, weights), INT8)


def sample_input(graph: Graph, seed: int = 0) -> Array:
    """Return one random input: grey values for a raw image, otherwise numbers around zero."""
    network_input, random = graph.inputs[0], np.random.default_rng(seed)
    if network_input.preprocess is not None and network_input.preprocess.raw:
        return random.integers(0, 256, network_input.type.shape).astype(np.float32)
    return random.standard_normal(network_input.type.shape, np.float32)


def add_node_outputs(graph: Graph) -> Graph:
    """Return the graph with each node's value as an extra output, named `<name>!`."""
    node_outputs = (Output(f"{node.name}!", node.name) for node in graph.nodes)
    return replace(graph, outputs=(*graph.outputs, *node_outputs))


def calibrate_on_input(model: Model, tensor: Array, stretch: float = 1.0) -> Calibration:
    """Return the ranges of a lowered model's values on one input, multiplied by `stretch`."""
    (outputs,) = float_program.run(Model(add_node_outputs(model.graph), model.weights), [tensor])
    arrays_by_name = {name[:-1]: y for name, y in outputs.items() if name.endswith("!")}
    arrays_by_name[model.graph.inputs[0].name] = tensor
    limits = {
        name: (
            float(arrays_by_name[name].min()) * stretch,
            float(arrays_by_name[name].max()) * stretch,
        )
        for name in list_unfused_values(model.graph)
    }
    return Calibration(compute_minmax_ranges(model, limits))


def build_int8_model(graph: Graph, weights: Mapping[str, Array], seed: int = 0) -> Model:
    """Return the int8 program of a float graph."""
    model = lower_for_int8(graph, weights)
    return quantize(model, calibrate_on_input(model, sample_input(model.graph, seed)))


def create_quantized_type(
    shape: tuple[int, ...], scale: float, signed: bool, zero_point: int = 0
) -> TensorType:
    """Return the type of quantized values."""
    dtype = DType.I8 if signed else DType.U8
    return TensorType(shape, dtype, float(np.float32(scale)), zero_point)


def sample_quantized(tensor_type: TensorType, batch: int, seed: int = 0) -> Array:
    """Return random quantized values (batch, *shape) that include both limits of the range."""
    low, high = tensor_type.limits
    samples = np.random.default_rng(seed).integers(low, high + 1, (batch, *tensor_type.shape))
    flat = samples.reshape(-1)
    flat[:2] = (low, high)[: len(flat)]
    return samples.astype(tensor_type.array_dtype)
