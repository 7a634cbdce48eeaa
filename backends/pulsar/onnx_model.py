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
from tcc.compiler.lower.onnx import lower, outline
from tcc.compiler.lower.onnx_constants import compact
from tcc.compiler.lower.qdq import simulated
from tcc.compiler.ops import Conv
from tcc.compiler.ops.integer import Quantize
from tcc.compiler.support.diagnostics import UnhandledError

HALF_PIXEL = {
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_ceil",
}
"""Nearest pixels as Pulsar2 has them. Enlarged by a whole number, a pixel's middle is never as far
from one of the input as from another, so that they are those that rounding down finds."""


def npu_onnx(model: Model, chip: Chip) -> onnx.ModelProto:
    """Return a model after the chip's passes as its toolchain reads it: a batch of one image.

    Raises:
        UserError: The weights exceed what an ONNX file holds (E0450).
    """
    return _spelled(lower(model, chip.opset, batch=1), chip)


def npu_outline(graph: Graph, chip: Chip) -> onnx.ModelProto:
    """Return the same of a graph whose weights nobody has yet; they have no numbers."""
    return _spelled(outline(graph, chip.opset, batch=1), chip)


def _spelled(model: onnx.ModelProto, chip: Chip) -> onnx.ModelProto:
    """Write attributes that mean the same in several ways in that of a toolchain; in place."""
    for node in model.graph.node:
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        spelled = dict(_attributes(node.op_type, given, chip.toolchain))
        if spelled != given:
            del node.attribute[:]
            node.attribute.extend(
                # In the order of names, for equal bytes.
                helper.make_attribute(name, spelled[name])
                for name in sorted(spelled)
            )
    return model


def _attributes(
    kind: str, given: Mapping[str, Any], toolchain: Toolchain
) -> Iterator[tuple[str, Any]]:
    """Yield an operator's attributes as a toolchain has them.

    Without a border, the mean of a window is the same whether that counts or not.
    """
    match kind, toolchain:
        # Pulsar's list has no `count_include_pad`; without a border it would say nothing.
        case "AveragePool", Toolchain.PULSAR if not (
            any(given["pads"]) and given.get("count_include_pad")
        ):
            yield from ((k, v) for k, v in given.items() if k != "count_include_pad")
        case "AveragePool", Toolchain.PULSAR2 if not any(given["pads"]):
            yield from {**given, "count_include_pad": 1}.items()
        case "Resize", Toolchain.PULSAR2 if given["mode"] == b"nearest":
            yield from {**given, **HALF_PIXEL}.items()
        case _, Toolchain.PULSAR | Toolchain.PULSAR2:
            yield from given.items()
        case _:
            raise UnhandledError("toolchain", toolchain.value)


def qdq_onnx(program: Model, chip: Chip) -> bytes:
    """Return an ONNX file of an integer program: activations in uint8, weights in int8.

    It is the documented grid: activations of a tensor have one scale and a zero point of 0 or 128,
    weights a scale a filter and levels from -127 to 127. Linear layers are convolutions already:
    the tool fails where the weights of a MatMul come from a dequantise operator.
    """
    made = compact(npu_onnx(simulated(from_floats(program), plain=False), chip), fill=False)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def from_floats(program: Model) -> Model:
    """Return a program whose input is floats: grey levels are quantised with the scale that is 1.

    The tool puts what it makes of an image, which is floats, in front of the network.
    """
    graph = program.graph
    (source,) = graph.inputs
    kind = source.type
    if kind.dtype is DType.F32:
        return program
    floats = Input(source.name, TensorType(kind.shape), source.preprocess)
    name = f"{source.name}:levels"
    # A scale of 1 for grey levels: the rounding changes nothing of a whole number.
    quantize = Quantize(float(kind.scale or 1), kind.dtype is DType.I8, *kind.limits)
    first = Node(name, quantize, (source.name,), (), quantize.infer(floats.type))

    def read(value: str) -> str:
        return name if value == source.name else value

    nodes = tuple(replace(node, inputs=tuple(map(read, node.inputs))) for node in graph.nodes)
    outputs = tuple(replace(each, value=read(each.value)) for each in graph.outputs)
    return Model(Graph(graph.name, (floats,), (first, *nodes), outputs), program.weights)


LARGEST = 127


def rounded_weights(model: Model) -> Model:
    """Return a model whose convolutions have weights of 255 levels a filter: an experiment.

    Pulsar takes no scales, but rounds weights by itself. Those that are multiples of their filter's
    largest magnitude / 127 already can be rounded to what they are. Whether the tool finds that
    scale is not documented, and takes a build to see.
    """
    made = dict(model.weights)
    for node in model.graph.nodes:
        if isinstance(node.op, Conv):
            weight = model.weights[node.params[0]].astype(np.float64)
            largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
            scale = np.where(largest > 0, largest, 1.0) / LARGEST
            made[node.params[0]] = (np.rint(weight / scale) * scale).astype(np.float32)
    return Model(model.graph, made)
