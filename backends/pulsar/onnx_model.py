"""The ONNX models for a toolchain: the float model, and the QDQ model."""

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
"""Pulsar2's nearest mode. For whole scale factors no output pixel is equally far from two input
pixels, so this mode selects the same pixels as rounding down."""


def build_npu_onnx(model: Model, chip: Chip) -> onnx.ModelProto:
    """Return the ONNX model for the chip's toolchain, from a model after its passes; batch 1.

    Raises:
        UserError: The weights are too large for an ONNX file (E0450).
    """
    return _normalize_attributes(lower(model, chip.opset, batch=1), chip)


def build_npu_outline(graph: Graph, chip: Chip) -> onnx.ModelProto:
    """Return the same model for a graph without weights; its constants have no values."""
    return _normalize_attributes(lower_without_weights(graph, chip.opset, batch=1), chip)


def _normalize_attributes(model: onnx.ModelProto, chip: Chip) -> onnx.ModelProto:
    """Write attributes with several equivalent forms in the toolchain's form; in place."""
    for node in model.graph.node:
        attributes = {
            attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute
        }
        normalized = dict(_iterate_attributes(node.op_type, attributes, chip.toolchain))
        if normalized != attributes:
            del node.attribute[:]
            node.attribute.extend(
                # Sorted by name, for reproducible bytes.
                helper.make_attribute(name, normalized[name])
                for name in sorted(normalized)
            )
    return model


def _iterate_attributes(
    kind: str, attributes: Mapping[str, Any], toolchain: Toolchain
) -> Iterator[tuple[str, Any]]:
    """Yield an operator's attributes in the toolchain's form.

    Without padding, the mean of a window does not depend on `count_include_pad`.
    """
    match kind, toolchain:
        # Pulsar's list has no `count_include_pad`; without padding it has no effect.
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
    """Return an int8 model as an ONNX QDQ file: activations in uint8, weights in int8.

    The format is the documented one: one scale per activation tensor with a zero point of 0 or
    128; one scale per filter, with quantized weights from -127 to 127. Linear layers are already
    convolutions: the tool fails where the weights of a MatMul come from a DequantizeLinear.
    """
    onnx_model = merge_constants(
        build_npu_onnx(convert_to_qdq(convert_to_float_input(program), integer_means=False), chip),
        fill=False,
    )
    content: bytes = onnx_model.SerializeToString(deterministic=True)
    return content


def convert_to_float_input(program: Model) -> Model:
    """Return a program with float input; its first node quantizes 8-bit pixels with scale 1.

    The tool puts its own image preprocessing, whose result is float, before the network.
    """
    graph = program.graph
    (network_input,) = graph.inputs
    kind = network_input.type
    if kind.dtype is DType.F32:
        return program
    float_input = Input(network_input.name, TensorType(kind.shape), network_input.preprocess)
    name = f"{network_input.name}:levels"
    # A scale of 1 for pixel values: rounding does not change whole numbers.
    quantize = Quantize(float(kind.scale or 1), kind.dtype is DType.I8, *kind.limits)
    quantize_node = Node(
        name, quantize, (network_input.name,), (), quantize.infer(float_input.type)
    )

    def replace_input(input_name: str) -> str:
        return name if input_name == network_input.name else input_name

    nodes = tuple(
        replace(node, inputs=tuple(map(replace_input, node.inputs))) for node in graph.nodes
    )
    outputs = tuple(replace(output, value=replace_input(output.value)) for output in graph.outputs)
    return Model(
        Graph(graph.name, (float_input,), (quantize_node, *nodes), outputs), program.weights
    )


MAX_WEIGHT = 127


def round_weights(model: Model) -> Model:
    """Return a model whose convolution weights have 255 values per filter: an experiment.

    Pulsar accepts no scales and rounds the weights itself. Weights that are already multiples of
    their filter's largest magnitude / 127 can keep their values. Whether the tool finds that
    scale is not documented; only a build shows it.
    """
    weights = dict(model.weights)
    for node in model.graph.nodes:
        if isinstance(node.op, Conv):
            weight = model.weights[node.params[0]].astype(np.float64)
            largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
            scale = np.where(largest > 0, largest, 1.0) / MAX_WEIGHT
            weights[node.params[0]] = (np.rint(weight / scale) * scale).astype(np.float32)
    return Model(model.graph, weights)
