"""The constants and scales of a TFLite file beside those of the file that the network gives."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from tcc.backends.tflite import file_inspection
from tcc.backends.tflite.writer import TYPES
from tcc.compiler.ir.constant_checker import ConstantCheck, ConstantComparison


def compare(file: str, expected: bytes, stored: bytes, *, same_tools: bool) -> ConstantCheck:
    """Return how a file compares with the one that the network gives.

    Tensors have the same places in both: those of small integers have no names.

    Args:
        file: What the file is called in what is reported.
        expected: The file that the network gives.
        stored: The artifact's file.
        same_tools: Whether the same releases wrote both.
    """
    try:
        file_inspection.read(stored)
        found = _unpack(stored)
        return _compare(file, (expected, stored), found, same_tools=same_tools)
    except (ValueError, IndexError, TypeError, OverflowError, AttributeError, struct.error):
        return ConstantCheck(file, problem="it is no TFLite file, or a damaged one")


def _compare(
    file: str, contents: tuple[bytes, bytes], found: Any, *, same_tools: bool
) -> ConstantCheck:
    comparison, right = ConstantComparison(file), _unpack(contents[0])
    graph, other = right.subgraphs[0], found.subgraphs[0]
    if len(graph.tensors) != len(other.tensors):
        counts = f"{len(other.tensors):,} tensors, not {len(graph.tensors):,}"
        comparison.fail(f"it has {counts}")
    layers = _readers(graph)
    pairs = enumerate(zip(graph.tensors, other.tensors, strict=False))
    for place, (tensor, stored) in pairs:
        layer, name = layers.get(place, _name(tensor)), _name(tensor) or f"tensor {place}"
        _compare_values(comparison, layer, name, (_values(right, tensor), _values(found, stored)))
        for what in ("scale", "zeroPoint"):
            numbers = [_quantization(one, what) for one in (tensor, stored)]
            if numbers[0].size or numbers[1].size:
                comparison.compare(layer, f"{name}: {what}", numbers[0], numbers[1])
    for operator, same in zip(graph.operators, other.operators, strict=False):
        if _plain(operator) != _plain(same):
            layer = _name(graph.tensors[operator.outputs[0]])
            comparison.fail(f"the operator of layer `{layer}` is another one")
    return comparison.finish(*contents, same_tools=same_tools)


def _compare_values(
    comparison: ConstantComparison, layer: str, name: str, values: tuple[Any, Any]
) -> None:
    expected, stored = values
    if expected is not None and stored is not None:
        comparison.compare(layer, name, expected, stored)
    elif expected is not None or stored is not None:
        comparison.fail(f"tensor `{name}` of layer `{layer}` has no values, or has some")


def _unpack(data: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(data, 0)


def _readers(graph: Any) -> Mapping[int, str]:
    """Return the layer that first reads each tensor; a tensor that is computed is its own."""
    layers: dict[int, str] = {}
    computed = {int(place) for operator in graph.operators for place in operator.outputs}
    # Backwards: what only makes floats of a constant is part of the layer that reads these.
    for operator in reversed(graph.operators):
        (result, *_) = map(int, operator.outputs)
        inputs = [int(place) for place in operator.inputs]
        stored = computed.isdisjoint(inputs) and not _enters(graph, inputs)
        layer = layers.get(result, "") if stored else ""
        layers.update({place: layer or _name(graph.tensors[result]) for place in inputs})
        if not stored:
            layers[result] = _name(graph.tensors[result])
    return layers


def _enters(graph: Any, places: list[int]) -> bool:
    """Whether one of some tensors is an input of the network."""
    return not set(map(int, graph.inputs)).isdisjoint(places)


def _name(tensor: Any) -> str:
    name = tensor.name or b""
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _values(model: Any, tensor: Any) -> Any:
    """Return a constant's values in its shape; None where it is computed."""
    data = model.buffers[tensor.buffer].data
    if data is None:
        return None
    from ai_edge_litert import schema_py_generated as schema

    words = {getattr(schema.TensorType, name): word for word, name in TYPES.items()}
    shape = () if tensor.shape is None else tuple(int(side) for side in tensor.shape)
    raw = np.asarray(data, np.uint8).tobytes()
    return np.frombuffer(raw, np.dtype(words[tensor.type]).newbyteorder("<")).reshape(shape)


def _quantization(tensor: Any, what: str) -> Any:
    numbers = getattr(tensor.quantization, what, None) if tensor.quantization else None
    kind = np.float32 if what == "scale" else np.int64
    return np.asarray([] if numbers is None else numbers, kind)


def _plain(operator: Any) -> tuple[Any, ...]:
    options = operator.builtinOptions
    return (
        operator.opcodeIndex,
        tuple(map(int, operator.inputs)),
        tuple(map(int, operator.outputs)),
        {} if options is None else {key: str(one) for key, one in vars(options).items()},
    )
