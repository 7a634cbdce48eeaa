"""The layers of a network by their paths in the spec, and what is in them for an image."""

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
"""Layers that an error lists."""


@dataclass(frozen=True)
class QuantizedNetwork:
    """A network ready for integers, and the integer program of it."""

    lowered_model: Model
    program: Model
    calibration: Calibration


def find_value(graph: Graph, path: str, network_name: str) -> str:
    """Return the value of a layer's path.

    Args:
        graph: The network.
        path: The path of a step of the spec.
        network_name: What the network is called in errors.

    Raises:
        UserError: There is none (E1281); the nearest is named, or those below the path.
    """
    inference_graph = extract_inference_graph(graph)
    names = [node.name for node in inference_graph.nodes]
    if path in names:
        return path
    nested_names = [name for name in names if name.startswith(f"{path}.")]
    suggestion = find_nearest_name(path, set(names))
    if nested_names:
        help = f"below it are {', '.join(nested_names[:MAX_LISTED])}"
    elif suggestion:
        help = f"did you mean `{suggestion}`?"
    else:
        help = f"it has {', '.join(names[:MAX_LISTED])}{', ...' if len(names) > MAX_LISTED else ''}"
    help += "; `tcc show` lists them"
    raise fail(
        "E1281", f"there is no layer `{path[:120]}`", make_file_span(network_name), help=help
    )


def find_last_map(graph: Graph, network_name: str) -> str:
    """Return the last value that is a map.

    Raises:
        UserError: There is none (E1281).
    """
    nodes = extract_inference_graph(graph).nodes
    maps = [node.name for node in nodes if is_map(node.type.shape)]
    if not maps:
        raise fail("E1281", "this network has no feature maps", make_file_span(network_name))
    return maps[-1]


def is_map(shape: Shape) -> bool:
    """Whether values have places: one that is 1x1 has none."""
    return len(shape) == 3 and shape[1:] != (1, 1)


def select_convolutions(graph: Graph, network_name: str) -> tuple[Node, ...]:
    """Return the first and the last convolution, or the only one.

    Raises:
        UserError: There is none (E1281).
    """
    conv_nodes = [node for node in graph.nodes if isinstance(node.op, Conv)]
    if not conv_nodes:
        raise fail("E1281", "this network has no convolution", make_file_span(network_name))
    return tuple(dict.fromkeys((conv_nodes[0], conv_nodes[-1])))


def create_float_runner(model: Model, value_name: str) -> Callable[[FloatArray], FloatArray]:
    """Return what gives a value of a network for an input tensor."""
    graph = replace(model.graph, outputs=(Output("plotted", value_name),))
    run = float_program.create_runner(eliminate_dead(Model(graph, model.weights)))
    return lambda tensor: np.asarray(run(tensor)["plotted"])


def compute_int8_values(
    quantized: QuantizedNetwork, tensor: FloatArray
) -> Mapping[str, FloatArray]:
    """Return every value of an integer program, as real numbers; its input is the ready model's."""
    (computed,) = integer_program.run(quantized.program, [tensor], keep_all=True)
    types = quantized.program.graph.types
    return {
        name: _dequantize(array, types[name].scale, quantized.calibration.factors.get(name))
        for name, array in computed.items()
    }


def _dequantize(
    quantized_values: NDArray[np.generic], scale: float | None, factor: FloatArray | None
) -> FloatArray:
    real_values = quantized_values.astype(np.float32) * np.float32(scale or 1)
    if factor is not None:  # of channels that were equalised
        real_values = real_values * factor.reshape(-1, *(1 for _ in real_values.shape[1:]))
    return real_values


def find_folded_conv(graph: Graph, quantized: QuantizedNetwork, node: Node) -> str:
    """Return the convolution that integers compute in place of one: what follows is folded in."""
    conv_names = {
        lowered_node.name
        for lowered_node in quantized.lowered_model.graph.nodes
        if isinstance(lowered_node.op, Conv)
    }
    return _follow(graph, node.name, conv_names)


def find_compared_value(graph: Graph, quantized: QuantizedNetwork, node: Node) -> str:
    """Return the first value after a convolution that both floats and integers have."""
    types = quantized.program.graph.types
    common_names = {
        name for name in quantized.lowered_model.graph.types if name in types and types[name].scale
    }
    return _follow(graph, node.name, common_names)


def _follow(graph: Graph, name: str, target_names: Collection[str]) -> str:
    while name not in target_names:
        readers = graph.readers[name]
        if not readers:
            raise fail(
                "E1281", f"integers have no layer `{name[:120]}`", make_file_span(graph.name)
            )
        name = readers[0].name
    return name


def get_filters(quantized: QuantizedNetwork, name: str) -> tuple[FloatArray, FloatArray | None]:
    """Return a convolution's weights in float, and as the integers have them in real numbers.

    The integers' are None where the layer stays in float.

    Args:
        quantized: The network in both forms.
        name: The convolution, as `find_folded_conv` names it.
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
    ):  # of a last layer, its input's as well
        scale = scale / np.float32(quantized.program.graph.types[int8_node.inputs[0]].scale)
    int8_weights = weight.astype(np.float32)
    return float_weights, _remove_equalization(
        quantized, int8_node, int8_weights * scale.reshape(-1, *(1 for _ in int8_weights.shape[1:]))
    )


def _remove_equalization(quantized: QuantizedNetwork, node: Node, weight: FloatArray) -> FloatArray:
    """Return a convolution's weights between real channels, where channels were equalised."""
    output_factors, input_factors = (
        quantized.calibration.factors.get(name) for name in (node.name, node.inputs[0])
    )
    kernel_axes = (1 for _ in weight.shape[2:])
    if output_factors is not None:
        weight = weight * output_factors.reshape(-1, 1, *(1 for _ in weight.shape[2:]))
    if input_factors is not None:
        # Of grouped convolutions each filter reads the channels of its own group alone.
        groups = input_factors.size // weight.shape[1]
        group_factors = np.repeat(input_factors.reshape(groups, -1), len(weight) // groups, axis=0)
        weight = weight / group_factors.reshape(*weight.shape[:2], *kernel_axes)
    return weight


def to_image(source: Input, tensor: FloatArray) -> NDArray[np.float32]:
    """Return an input as a picture, (height, width, 3) from 0 to 1."""
    image: NDArray[Any] = tensor.astype(np.float32)
    contract = source.preprocess
    if contract is not None and contract.raw:
        image = image / 255
    elif contract is not None:
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (contract.mean, contract.std))
        # The contract's last steps backwards.
        image = image * std + mean
    else:
        low, high = float(image.min()), float(image.max())
        image = (image - low) / (high - low or 1)
    if contract is not None and contract.color == "bgr":
        image = image[::-1]
    if image.shape[0] != 3:
        image = np.repeat(image[:1], 3, axis=0)
    return np.clip(image, 0, 1).transpose(1, 2, 0).astype(np.float32)
