"""Compare the constants of an ONNX file with those of the file that the network gives."""

from collections.abc import Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tcc.compiler.ir.constant_checker import ConstantCheck, ConstantComparison


def compare(file: str, expected: bytes, actual: bytes, *, same_tools: bool) -> ConstantCheck:
    """Return the comparison of a file with the one that the network gives.

    Args:
        file: The file's name in the report.
        expected: The file that the network gives.
        actual: The artifact's file.
        same_tools: Whether the same tool versions wrote both.
    """
    comparison = ConstantComparison(file)
    expected_graph = onnx.load_model_from_string(expected).graph
    try:
        actual_graph = onnx.load_model_from_string(actual).graph
    except Exception:  # protobuf has exception types of its own
        return ConstantCheck(file, problem="it is not an ONNX file")
    layers = _find_readers(expected_graph)
    constants = {tensor.name: tensor for tensor in actual_graph.initializer}
    for tensor in expected_graph.initializer:
        layer = layers.get(tensor.name, tensor.name)
        if tensor.name not in constants:
            comparison.fail(f"tensor `{tensor.name}` of layer `{layer}` is missing")
            continue
        actual_values = _decode_tensor(constants.pop(tensor.name))
        if actual_values is None:
            comparison.fail(f"tensor `{tensor.name}` of layer `{layer}` cannot be read")
            continue
        comparison.compare(layer, tensor.name, numpy_helper.to_array(tensor), actual_values)
    for name in constants:
        comparison.fail(f"it has a tensor `{name[:40]}` that the network does not have")
    _compare_operators(comparison, expected_graph, actual_graph)
    return comparison.finish(expected, actual, same_tools=same_tools)


def _compare_operators(
    comparison: ConstantComparison, expected: onnx.GraphProto, actual: onnx.GraphProto
) -> None:
    """Compare operators in order, including the numbers in their attributes."""
    for expected_node, actual_node in zip(expected.node, actual.node, strict=False):
        layer = _get_layer(expected_node)
        if expected_node != actual_node:
            _compare_attributes(comparison, layer, expected_node, actual_node)
    if len(expected.node) != len(actual.node):
        counts = f"{len(actual.node):,} operators, not {len(expected.node):,}"
        comparison.fail(f"it has {counts}")


def _compare_attributes(
    comparison: ConstantComparison,
    layer: str,
    expected_node: onnx.NodeProto,
    actual_node: onnx.NodeProto,
) -> None:
    """Compare the tensors in an operator's attributes; any other difference is a problem."""
    actual_attributes = {attribute.name: attribute for attribute in actual_node.attribute}
    known_differences = len(comparison.differences)
    for attribute in expected_node.attribute:
        actual_values = actual_attributes.get(attribute.name)
        if attribute.HasField("t") and actual_values and actual_values.HasField("t"):
            array = _decode_tensor(actual_values.t)
            if array is not None:
                comparison.compare(layer, attribute.name, numpy_helper.to_array(attribute.t), array)
    if len(comparison.differences) == known_differences:
        comparison.fail(f"operator {expected_node.op_type} of layer `{layer}` differs")


def _find_readers(graph: onnx.GraphProto) -> Mapping[str, str]:
    """Return the layer that first reads each value."""
    layers: dict[str, str] = {}
    for node in graph.node:
        for value in node.input:
            layers.setdefault(value, _get_layer(node))
    return layers


def _get_layer(node: onnx.NodeProto) -> str:
    return str(node.output[0]) if node.output else str(node.name)


def _decode_tensor(tensor: onnx.TensorProto) -> NDArray[Any] | None:
    """Return a tensor's values; None if it has none, or refers to another file."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
