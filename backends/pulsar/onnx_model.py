"""The ONNX models that a toolchain is given: floats, alone or between quantise operators."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tcc.backends.pulsar.chips import Chip, Toolchain
from tcc.compiler.ir.graph import Graph, Input, Model, Node
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.lower.onnx import lower, lower_without_weights
from tcc.compiler.lower.onnx_constants import merge_constants
from tcc.compiler.lower.qdq import convert_to_qdq
from tcc.compiler.ops import Conv
from tcc.compiler.ops.integer import Quantize
from tcc.compiler.support.diagnostics import UnhandledError

HALF_PIXEL = {
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_ceil",
}
"""Nearest pixels as Pulsar2 has them. Enlarged by a whole number, a pixel's middle is never as far
from one of the input as from another, so that they are those that rounding down finds."""


def build_npu_onnx(model: Model, chip: Chip) -> onnx.ModelProto:
    """Return a model after the chip's passes as its toolchain reads it: a batch of one image.

    Raises:
        UserError: The weights exceed what an ONNX file holds (E0450).
    """
    return _normalize_attributes(lower(model, chip.opset, batch=1), chip)


def build_npu_outline(graph: Graph, chip: Chip) -> onnx.ModelProto:
    """Return the same of a graph whose weights nobody has yet; they have no numbers."""
    return _normalize_attributes(lower_without_weights(graph, chip.opset, batch=1), chip)


def _normalize_attributes(model: onnx.ModelProto, chip: Chip) -> onnx.ModelProto:
    """Write attributes that mean the same in several ways in that of a toolchain; in place."""
    for node in model.graph.node:
        attributes = {
            attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute
        }
        normalized = dict(_iterate_attributes(node.op_type, attributes, chip.toolchain))
        if normalized != attributes:
            del node.attribute[:]
            node.attribute.extend(
                # In the order of names, for equal bytes.
                helper.make_attribute(name, normalized[name])
                for name in sorted(normalized)
            )
    return model


def _iterate_attributes(
    kind: str, attributes: Mapping[str, Any], toolchain: Toolchain
) -> Iterator[tuple[str, Any]]:
    """Yield an operator's attributes as a toolchain has them.

    Without a border, the mean of a window is the same whether that counts or not.
    """
    match kind, toolchain:
        # Pulsar's list has no `count_include_pad`; without a border it would say nothing.
        case "AveragePool", Toolchain.PULSAR if not (
            any(attributes["pads"]) and attributes.get("count_include_pad")
        ):
            yield from ((k, v) for k, v in attributes.items() if k != "count_include_pad")
        case "AveragePool", Toolchain.PULSAR2 if not any(attributes["pads"]):
            yield from {**attributes, "count_include_pad": 1}.items()
        case "Resize", Toolchain.PULSAR2 if attributes["mode"] == b"nearest":
            yield from {**attributes, **HALF_PIXEL}.items()
        case _, Toolchain.PULSAR | Toolchain.PULSAR2:
            yield from attributes.items()
        case _:
            raise UnhandledError("toolchain", toolchain.value)


def build_qdq_onnx(program: Model, chip: Chip) -> bytes:
    """Return an ONNX file of an integer program: activations in uint8, weights in int8.

    It is the documented grid: activations of a tensor have one scale and a zero point of 0 or 128,
    weights a scale a filter and levels from -127 to 127. Linear layers are convolutions already:
    the tool fails where the weights of a MatMul come from a dequantise operator.
    """
    onnx_model = merge_constants(
        build_npu_onnx(convert_to_qdq(convert_to_float_input(program), integer_means=False), chip),
        fill=False,
    )
    content: bytes = onnx_model.SerializeToString(deterministic=True)
    return content


def convert_to_float_input(program: Model) -> Model:
    """Return a program whose input is floats: grey levels are quantised with the scale that is 1.

    The tool puts what it makes of an image, which is floats, in front of the network.
    """
    graph = program.graph
    (source,) = graph.inputs
    kind = source.type
    if kind.dtype is DType.F32:
        return program
    float_input = Input(source.name, TensorType(kind.shape), source.preprocess)
    name = f"{source.name}:levels"
    # A scale of 1 for grey levels: the rounding changes nothing of a whole number.
    quantize = Quantize(float(kind.scale or 1), kind.dtype is DType.I8, *kind.limits)
    quantize_node = Node(name, quantize, (source.name,), (), quantize.infer(float_input.type))

    def replace_input(input_name: str) -> str:
        return name if input_name == source.name else input_name

    nodes = tuple(
        replace(node, inputs=tuple(map(replace_input, node.inputs))) for node in graph.nodes
    )
    outputs = tuple(replace(output, value=replace_input(output.value)) for output in graph.outputs)
    return Model(
        Graph(graph.name, (float_input,), (quantize_node, *nodes), outputs), program.weights
    )


MAX_WEIGHT = 127


def round_weights(model: Model) -> Model:
    """Return a model whose convolutions have weights of 255 levels a filter: an experiment.

    Pulsar takes no scales, but rounds weights by itself. Those that are multiples of their filter's
    largest magnitude / 127 already can be rounded to what they are. Whether the tool finds that
    scale is not documented, and takes a build to see.
    """
    weights = dict(model.weights)
    for node in model.graph.nodes:
        if isinstance(node.op, Conv):
            weight = model.weights[node.params[0]].astype(np.float64)
            largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
            scale = np.where(largest > 0, largest, 1.0) / MAX_WEIGHT
            weights[node.params[0]] = (np.rint(weight / scale) * scale).astype(np.float32)
    return Model(model.graph, weights)
