"""Store constants of an ONNX file once: equal ones, and those filled with one number."""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

MIN_FILL_BYTES = 512
"""Bytes from which on a constant with one number is larger than an operator that fills a shape."""


def merge_constants(model: onnx.ModelProto, *, fill: bool) -> onnx.ModelProto:
    """Return a file in which equal constants are merged; the first one's name is kept.

    With `fill`, operators fill large constants that have one number. Runtimes run them when they
    load the file, and readers get the same values as before.
    """
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    # Linear: constants are looked up by their bytes in a dictionary, and operators are renamed in
    # one walk.
    graph = merged.graph
    constants, names = _find_distinct(graph.initializer, _find_unmergeable(graph))
    fills = (
        [(tensor, _create_shape(tensor)) for tensor in _iterate_fillable(constants)] if fill else []
    )
    shapes, shape_names = _find_distinct(shape for _, shape in fills)
    filled = {tensor.name for tensor, _ in fills}
    # Fills come first: they read only constants, and every operator may read them.
    operators = [
        _create_fill(tensor, shape_names.get(shape.name, shape.name)) for tensor, shape in fills
    ]
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    operators += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*(t for t in constants if t.name not in filled), *shapes])
    graph.node.extend(operators)
    return merged


def _find_unmergeable(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the int8 constants, and the scales that dequantize them.

    ONNX Runtime makes them unsigned if the processor needs it, and names the results after them. A
    file in which it would do so twice for one constant does not load.
    """
    signed = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    dequantized_inputs = (
        n.input for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in signed
    )
    return frozenset(signed.union(*dequantized_inputs))


def _find_distinct(
    tensors: Iterable[onnx.TensorProto], unmergeable: frozenset[str] = frozenset()
) -> tuple[list[onnx.TensorProto], dict[str, str]]:
    """Return the distinct tensors in order, and a map from the other names to theirs."""
    distinct_tensors: list[onnx.TensorProto] = []
    tensors_by_content: dict[bytes, onnx.TensorProto] = {}
    names: dict[str, str] = {}
    for tensor in tensors:
        bare = onnx.TensorProto()
        bare.CopyFrom(tensor)
        bare.ClearField("name")
        representative = tensor
        if tensor.name not in unmergeable:
            # The entire message without its name: constants with equal bytes but other shapes or
            # types stay separate.
            representative = tensors_by_content.setdefault(
                bare.SerializeToString(deterministic=True), tensor
            )
        if representative is tensor:
            distinct_tensors.append(tensor)
        else:
            names[tensor.name] = representative.name
    return distinct_tensors, names


def _iterate_fillable(tensors: Iterable[onnx.TensorProto]) -> Iterator[onnx.TensorProto]:
    """Yield large constants with one number; of equal int8 ones only the first.

    ONNX Runtime merges equal fills. A file in which it would then make one constant unsigned twice
    does not load.
    """
    seen_keys = set()
    for tensor in filter(_is_one_number, tensors):
        key = (tuple(tensor.dims), numpy_helper.to_array(tensor).reshape(-1)[0].tobytes())
        if tensor.data_type != onnx.TensorProto.INT8 or key not in seen_keys:
            seen_keys.add(key)
            yield tensor


def _is_one_number(tensor: onnx.TensorProto) -> bool:
    """Whether all elements have the same bits, and there are enough of them."""
    values = numpy_helper.to_array(tensor)
    if values.nbytes < MIN_FILL_BYTES:
        return False
    # By bits: 0.0 differs from -0.0, and NaN equals itself.
    elements = np.frombuffer(values.tobytes(), np.uint8).reshape(values.size, -1)
    return bool((elements == elements[0]).all())


def _create_shape(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(tensor.dims, np.int64), f"{tensor.name}:shape")


def _create_fill(tensor: onnx.TensorProto, shape: str) -> onnx.NodeProto:
    fill_tensor = numpy_helper.from_array(numpy_helper.to_array(tensor).reshape(-1)[:1].copy())
    return helper.make_node("ConstantOfShape", [shape], [tensor.name], value=fill_tensor)
