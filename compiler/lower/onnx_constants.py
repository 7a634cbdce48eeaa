"""Constants of an ONNX file written once: equal ones, and those of one number."""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

MIN_FILL_BYTES = 512
"""From so many bytes on, a constant of one number is larger than an operator that fills a shape."""


def merge_constants(model: onnx.ModelProto, *, fill: bool) -> onnx.ModelProto:
    """Return a file in which equal constants are one; of those the first keeps its name.

    With `fill`, operators fill large constants of one number. Runtimes do so when they load the
    file, and what reads them reads what it read before.
    """
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    # Linear: constants are compared by their bytes in a dictionary, operators are renamed in one
    # walk.
    graph = merged.graph
    constants, names = _find_distinct(graph.initializer, _find_unmergeable(graph))
    fills = (
        [(tensor, _create_shape(tensor)) for tensor in _iterate_fillable(constants)] if fill else []
    )
    shapes, shape_names = _find_distinct(shape for _, shape in fills)
    filled = {tensor.name for tensor, _ in fills}
    # Fills stand first: they read constants alone, and everything may read them.
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
    """Return the constants of int8, and the scales with which they are made floats.

    ONNX Runtime makes them unsigned where a processor needs it, names the results after them, and
    does not load a file in which it would do so twice.
    """
    signed = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    dequantized_inputs = (
        n.input for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in signed
    )
    return frozenset(signed.union(*dequantized_inputs))


def _find_distinct(
    tensors: Iterable[onnx.TensorProto], unmergeable: frozenset[str] = frozenset()
) -> tuple[list[onnx.TensorProto], dict[str, str]]:
    """Return the first of equal tensors, in order, and its name by the others' names."""
    distinct_tensors: list[onnx.TensorProto] = []
    tensors_by_content: dict[bytes, onnx.TensorProto] = {}
    names: dict[str, str] = {}
    for tensor in tensors:
        bare = onnx.TensorProto()
        bare.CopyFrom(tensor)
        bare.ClearField("name")
        representative = tensor
        if tensor.name not in unmergeable:
            # The whole message but for its name: two constants of equal bytes and other shapes or
            # types stay apart.
            representative = tensors_by_content.setdefault(
                bare.SerializeToString(deterministic=True), tensor
            )
        if representative is tensor:
            distinct_tensors.append(tensor)
        else:
            names[tensor.name] = representative.name
    return distinct_tensors, names


def _iterate_fillable(tensors: Iterable[onnx.TensorProto]) -> Iterator[onnx.TensorProto]:
    """Yield large constants of one number; of equal ones of int8 the first alone.

    ONNX Runtime makes one of equal fills, and does not load a file in which it would then make
    one constant unsigned twice.
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
    # By bits: 0.0 is not -0.0, and NaN is itself.
    elements = np.frombuffer(values.tobytes(), np.uint8).reshape(values.size, -1)
    return bool((elements == elements[0]).all())


def _create_shape(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(tensor.dims, np.int64), f"{tensor.name}:shape")


def _create_fill(tensor: onnx.TensorProto, shape: str) -> onnx.NodeProto:
    fill_tensor = numpy_helper.from_array(numpy_helper.to_array(tensor).reshape(-1)[:1].copy())
    return helper.make_node("ConstantOfShape", [shape], [tensor.name], value=fill_tensor)
