"""The constants and scales of a TFLite file beside those of the file that the network gives."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from tcc.backends.tflite import file_inspection
from tcc.backends.tflite.writer import TYPES
from tcc.compiler.ir.constant_checker import ConstantCheck, ConstantComparison


def compare(file: str, expected: bytes, actual: bytes, *, same_tools: bool) -> ConstantCheck:
    """Return how a file compares with the one that the network gives.

    Tensors have the same places in both: those of small integers have no names.

    Args:
        file: What the file is called in what is reported.
        expected: The file that the network gives.
        actual: The artifact's file.
        same_tools: Whether the same releases wrote both.
    """
    try:
        file_inspection.read(actual)
        actual_model = _unpack(actual)
        return _compare(file, (expected, actual), actual_model, same_tools=same_tools)
    except (ValueError, IndexError, TypeError, OverflowError, AttributeError, struct.error):
        return ConstantCheck(file, problem="it is no TFLite file, or a damaged one")


def _compare(
    file: str, contents: tuple[bytes, bytes], actual_model: Any, *, same_tools: bool
) -> ConstantCheck:
    comparison, expected_model = ConstantComparison(file), _unpack(contents[0])
    graph, actual_graph = expected_model.subgraphs[0], actual_model.subgraphs[0]
    if len(graph.tensors) != len(actual_graph.tensors):
        counts = f"{len(actual_graph.tensors):,} tensors, not {len(graph.tensors):,}"
        comparison.fail(f"it has {counts}")
    layers = _find_readers(graph)
    pairs = enumerate(zip(graph.tensors, actual_graph.tensors, strict=False))
    for index, (tensor, actual) in pairs:
        layer, name = layers.get(index, _get_name(tensor)), _get_name(tensor) or f"tensor {index}"
        _compare_values(
            comparison,
            layer,
            name,
            (_read_values(expected_model, tensor), _read_values(actual_model, actual)),
        )
        for field_name in ("scale", "zeroPoint"):
            numbers = [_read_quantization(params, field_name) for params in (tensor, actual)]
            if numbers[0].size or numbers[1].size:
                comparison.compare(layer, f"{name}: {field_name}", numbers[0], numbers[1])
    for operator, actual_operator in zip(graph.operators, actual_graph.operators, strict=False):
        if _describe_operator(operator) != _describe_operator(actual_operator):
            layer = _get_name(graph.tensors[operator.outputs[0]])
            comparison.fail(f"the operator of layer `{layer}` is another one")
    return comparison.finish(*contents, same_tools=same_tools)


def _compare_values(
    comparison: ConstantComparison, layer: str, name: str, values: tuple[Any, Any]
) -> None:
    expected, actual = values
    if expected is not None and actual is not None:
        comparison.compare(layer, name, expected, actual)
    elif expected is not None or actual is not None:
        comparison.fail(f"tensor `{name}` of layer `{layer}` has no values, or has some")


def _unpack(data: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(data, 0)


def _find_readers(graph: Any) -> Mapping[int, str]:
    """Return the layer that first reads each tensor; a tensor that is computed is its own."""
    layers: dict[int, str] = {}
    computed = {int(index) for operator in graph.operators for index in operator.outputs}
    # Backwards: what only makes floats of a constant is part of the layer that reads these.
    for operator in reversed(graph.operators):
        (result, *_) = map(int, operator.outputs)
        inputs = [int(index) for index in operator.inputs]
        is_constant = computed.isdisjoint(inputs) and not _has_graph_input(graph, inputs)
        layer = layers.get(result, "") if is_constant else ""
        layers.update({index: layer or _get_name(graph.tensors[result]) for index in inputs})
        if not is_constant:
            layers[result] = _get_name(graph.tensors[result])
    return layers


def _has_graph_input(graph: Any, indices: list[int]) -> bool:
    """Whether one of some tensors is an input of the network."""
    return not set(map(int, graph.inputs)).isdisjoint(indices)


def _get_name(tensor: Any) -> str:
    name = tensor.name or b""
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _read_values(model: Any, tensor: Any) -> Any:
    """Return a constant's values in its shape; None where it is computed."""
    data = model.buffers[tensor.buffer].data
    if data is None:
        return None
    from ai_edge_litert import schema_py_generated as schema

    type_names = {getattr(schema.TensorType, name): type_name for type_name, name in TYPES.items()}
    shape = () if tensor.shape is None else tuple(int(side) for side in tensor.shape)
    raw = np.asarray(data, np.uint8).tobytes()
    return np.frombuffer(raw, np.dtype(type_names[tensor.type]).newbyteorder("<")).reshape(shape)


def _read_quantization(tensor: Any, field_name: str) -> Any:
    numbers = getattr(tensor.quantization, field_name, None) if tensor.quantization else None
    kind = np.float32 if field_name == "scale" else np.int64
    return np.asarray([] if numbers is None else numbers, kind)


def _describe_operator(operator: Any) -> tuple[Any, ...]:
    options = operator.builtinOptions
    return (
        operator.opcodeIndex,
        tuple(map(int, operator.inputs)),
        tuple(map(int, operator.outputs)),
        {} if options is None else {key: str(params) for key, params in vars(options).items()},
    )
