"""Layers of a network by their paths in the spec, and their values for one image."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output
from tcc.compiler.ir.rewrite import eliminate_dead, extract_inference_graph
from tcc.compiler.ir.types import Shape
from tcc.compiler.ops import Conv
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support.diagnostics import fail, find_nearest_name, make_file_span

FloatArray = NDArray[np.float32]
MAX_LISTED = 12
"""Maximum layers that an error lists."""


@dataclass(frozen=True)
class QuantizedNetwork:
    """A lowered model, its int8 program and its calibration."""

    lowered_model: Model
    program: Model
    calibration: Calibration


def find_value(graph: Graph, path: str, network_name: str) -> str:
    """Return the value of the layer at a path.

    Args:
        graph: The network.
        path: The layer's path in the spec.
        network_name: The network's name in errors.

    Raises:
        UserError: There is no such layer (E1281). The error suggests similar or nested names.
    """
    inference_graph = extract_inference_graph(graph)
    names = [node.name for node in inference_graph.nodes]
    if path in names:
        return path
    nested_names = [name for name in names if name.startswith(f"{path}.")]
    suggestion = find_nearest_name(path, set(names))
    if nested_names:
        help = f"this path contains {', '.join(nested_names[:MAX_LISTED])}"
    elif suggestion:
        help = f"did you mean `{suggestion}`?"
    else:
        ellipsis = ", ..." if len(names) > MAX_LISTED else ""
        help = f"the layers are {', '.join(names[:MAX_LISTED])}{ellipsis}"
    help += "; `tcc show` lists all layers"
    raise fail(
        "E1281", f"there is no layer `{path[:120]}`", make_file_span(network_name), help=help
    )


def find_last_map(graph: Graph, network_name: str) -> str:
    """Return the last layer that has feature maps.

    Raises:
        UserError: There is none (E1281).
    """
    nodes = extract_inference_graph(graph).nodes
    maps = [node.name for node in nodes if is_map(node.type.shape)]
    if not maps:
        message = "this plot shows feature maps, and the network has none"
        raise fail("E1281", message, make_file_span(network_name))
    return maps[-1]


def is_map(shape: Shape) -> bool:
    """Whether a shape is a feature map with more than one position."""
    return len(shape) == 3 and shape[1:] != (1, 1)


def select_convolutions(graph: Graph, network_name: str) -> tuple[Node, ...]:
    """Return the first and the last convolution, or the only one.

    Raises:
        UserError: There is none (E1281).
    """
    conv_nodes = [node for node in graph.nodes if isinstance(node.op, Conv)]
    if not conv_nodes:
        message = "this plot shows convolutions, and the network has none"
        raise fail("E1281", message, make_file_span(network_name))
    return tuple(dict.fromkeys((conv_nodes[0], conv_nodes[-1])))


def create_float_runner(model: Model, value_name: str) -> Callable[[FloatArray], FloatArray]:
    """Return a function that computes one value of a network from an input tensor."""
    graph = replace(model.graph, outputs=(Output("plotted", value_name),))
    run = float_program.create_runner(eliminate_dead(Model(graph, model.weights)))
    return lambda tensor: np.asarray(run(tensor)["plotted"])


def compute_int8_values(
    quantized: QuantizedNetwork, tensor: FloatArray
) -> Mapping[str, FloatArray]:
    """Return every value of the int8 program, dequantized.

    Args:
        quantized: The network.
        tensor: An input of the lowered model, after preprocessing.
    """
    (quantized_values,) = integer_program.run(quantized.program, [tensor], keep_all=True)
    types = quantized.program.graph.types
    return {
        name: _dequantize(array, types[name].scale, quantized.calibration.factors.get(name))
        for name, array in quantized_values.items()
    }


def _dequantize(
    quantized_values: NDArray[np.generic], scale: float | None, factor: FloatArray | None
) -> FloatArray:
    real_values = quantized_values.astype(np.float32) * np.float32(scale or 1)
    if factor is not None:  # the channels were equalized
        real_values = real_values * factor.reshape(-1, *(1 for _ in real_values.shape[1:]))
    return real_values


def find_folded_conv(graph: Graph, quantized: QuantizedNetwork, node: Node) -> str:
    """Return the lowered convolution of a spec convolution, with following layers folded in."""
    conv_names = {
        lowered_node.name
        for lowered_node in quantized.lowered_model.graph.nodes
        if isinstance(lowered_node.op, Conv)
    }
    return _follow(graph, node.name, conv_names)


def find_compared_value(graph: Graph, quantized: QuantizedNetwork, node: Node) -> str:
    """Return the first value after a convolution that both the fp32 and the int8 model have."""
    types = quantized.program.graph.types
    common_names = {
        name for name in quantized.lowered_model.graph.types if name in types and types[name].scale
    }
    return _follow(graph, node.name, common_names)


def _follow(graph: Graph, name: str, target_names: Collection[str]) -> str:
    while name not in target_names:
        readers = graph.readers[name]
        if not readers:
            message = f"the int8 model has no layer `{name[:120]}`"
            help = "`tcc plot features --layer LAYER` draws another layer"
            raise fail("E1281", message, make_file_span(graph.name), help=help)
        name = readers[0].name
    return name


def get_filters(quantized: QuantizedNetwork, name: str) -> tuple[FloatArray, FloatArray | None]:
    """Return a convolution's fp32 weights and its dequantized int8 weights.

    The int8 weights are None if the layer is not quantized.

    Args:
        quantized: The network as a lowered model and as an int8 program.
        name: The convolution, as `find_folded_conv` returns it.
    """
    (node,) = (
        candidate for candidate in quantized.lowered_model.graph.nodes if candidate.name == name
    )
    float_weights = quantized.lowered_model.weights[node.params[0]].astype(np.float32)
    convs = {
        candidate.name: candidate
        for candidate in quantized.program.graph.nodes
        if len(candidate.params) > 1
    }
    int8_node = convs.get(
        _follow(
            quantized.lowered_model.graph,
            name,
            {*convs, *(o.value for o in quantized.lowered_model.graph.outputs)},
        )
    )
    if (
        int8_node is None
        or quantized.program.weights[int8_node.params[0]].shape != float_weights.shape
    ):
        return float_weights, None
    weight, factor, _ = (quantized.program.weights[candidate] for candidate in int8_node.params)
    scale = factor.astype(np.float32)
    if (
        quantized.program.graph.types[int8_node.name].scale is None
    ):  # the factor of a last layer includes the input's scale
        scale = scale / np.float32(quantized.program.graph.types[int8_node.inputs[0]].scale)
    int8_weights = weight.astype(np.float32)
    return float_weights, _remove_equalization(
        quantized, int8_node, int8_weights * scale.reshape(-1, *(1 for _ in int8_weights.shape[1:]))
    )


def _remove_equalization(quantized: QuantizedNetwork, node: Node, weight: FloatArray) -> FloatArray:
    """Return a convolution's weights with channel equalization undone."""
    output_factors, input_factors = (
        quantized.calibration.factors.get(name) for name in (node.name, node.inputs[0])
    )
    kernel_axes = (1 for _ in weight.shape[2:])
    if output_factors is not None:
        weight = weight * output_factors.reshape(-1, 1, *(1 for _ in weight.shape[2:]))
    if input_factors is not None:
        # In a grouped convolution, each filter reads only the channels of its group.
        groups = input_factors.size // weight.shape[1]
        group_factors = np.repeat(input_factors.reshape(groups, -1), len(weight) // groups, axis=0)
        weight = weight / group_factors.reshape(*weight.shape[:2], *kernel_axes)
    return weight


def to_image(network_input: Input, tensor: FloatArray) -> NDArray[np.float32]:
    """Return an input tensor as an RGB image, (height, width, 3), from 0 to 1."""
    image: NDArray[Any] = tensor.astype(np.float32)
    contract = network_input.preprocess
    if contract is not None and contract.raw:
        image = image / 255
    elif contract is not None:
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (contract.mean, contract.std))
        # Undo the normalization of the preprocessing contract.
        image = image * std + mean
    else:
        low, high = float(image.min()), float(image.max())
        image = (image - low) / (high - low or 1)
    if contract is not None and contract.color == "bgr":
        image = image[::-1]
    if image.shape[0] != 3:
        image = np.repeat(image[:1], 3, axis=0)
    return np.clip(image, 0, 1).transpose(1, 2, 0).astype(np.float32)
