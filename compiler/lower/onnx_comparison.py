"""The constants of an ONNX file beside those of the file that the network gives."""

from collections.abc import Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tcc.compiler.ir.constant_checker import ConstantCheck, ConstantComparison


def compare(file: str, expected: bytes, stored: bytes, *, same_tools: bool) -> ConstantCheck:
    """Return how a file compares with the one that the network gives.

    Args:
        file: What the file is called in what is reported.
        expected: The file that the network gives.
        stored: The artifact's file.
        same_tools: Whether the same releases wrote both.
    """
    comparison = ConstantComparison(file)
    right = onnx.load_model_from_string(expected).graph
    try:
        found = onnx.load_model_from_string(stored).graph
    except Exception:  # protobuf has exception types of its own
        return ConstantCheck(file, problem="it is no ONNX file")
    layers, constants = _readers(right), {tensor.name: tensor for tensor in found.initializer}
    for tensor in right.initializer:
        layer = layers.get(tensor.name, tensor.name)
        if tensor.name not in constants:
            comparison.fail(f"tensor `{tensor.name}` of layer `{layer}` is not there")
            continue
        other = _read(constants.pop(tensor.name))
        if other is None:
            comparison.fail(f"tensor `{tensor.name}` of layer `{layer}` cannot be read")
            continue
        comparison.compare(layer, tensor.name, numpy_helper.to_array(tensor), other)
    for name in constants:
        comparison.fail(f"it has a tensor `{name[:40]}` that the network has not")
    _compare_operators(comparison, right, found)
    return comparison.finish(expected, stored, same_tools=same_tools)


def _compare_operators(
    comparison: ConstantComparison, expected: onnx.GraphProto, stored: onnx.GraphProto
) -> None:
    """Compare operators in their order, with the numbers that they hold themselves."""
    for right, found in zip(expected.node, stored.node, strict=False):
        layer = _layer(right)
        if right != found:
            _compare_attributes(comparison, layer, right, found)
    if len(expected.node) != len(stored.node):
        counts = f"{len(stored.node):,} operators, not {len(expected.node):,}"
        comparison.fail(f"it has {counts}")


def _compare_attributes(
    comparison: ConstantComparison, layer: str, right: onnx.NodeProto, found: onnx.NodeProto
) -> None:
    """Compare the tensors in an operator's attributes; anything else is another operator."""
    others = {one.name: one for one in found.attribute}
    before = len(comparison.differences)
    for one in right.attribute:
        other = others.get(one.name)
        if one.HasField("t") and other and other.HasField("t"):
            array = _read(other.t)
            if array is not None:
                comparison.compare(layer, one.name, numpy_helper.to_array(one.t), array)
    if len(comparison.differences) == before:
        comparison.fail(f"operator {right.op_type} of layer `{layer}` is another one")


def _readers(graph: onnx.GraphProto) -> Mapping[str, str]:
    """Return the layer that first reads each value."""
    layers: dict[str, str] = {}
    for node in graph.node:
        for value in node.input:
            layers.setdefault(value, _layer(node))
    return layers


def _layer(node: onnx.NodeProto) -> str:
    return str(node.output[0]) if node.output else str(node.name)


def _read(tensor: onnx.TensorProto) -> NDArray[Any] | None:
    """Return a tensor's values; None where it has none, or says that they are in another file."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
