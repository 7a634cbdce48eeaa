"""What numbers an ONNX model of ours computes with."""

from collections.abc import Container, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tcc.compiler.ir.number_types import FloatTrace, Numbers, OperatorRole


def check(data: bytes) -> None:
    """Refuse a model with control flow: tcc writes none, and no limit of the runtime ends a loop.

    Raises:
        ValueError: It has some, in an operator with a graph of its own or a function.
        google.protobuf.message.DecodeError: It is no ONNX model.
    """
    model = onnx.load_model_from_string(data)
    # The type that is said and the field that is there are both looked at: a forged file may set
    # one without the other, and what reads it later may go by either.
    inner = {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
    for node in model.graph.node:
        if any(attribute.type in inner or attribute.HasField("g") for attribute in node.attribute):
            raise ValueError(f"it has control flow, `{node.op_type[:40]}`: no model of tcc has any")
    # Functions of a model may call each other, and unfold to any size.
    if model.functions:
        raise ValueError("it has functions of its own: no model of tcc has any")


PRODUCTS = frozenset({"QLinearConv", "ConvInteger"})
LEVELS = PRODUCTS | {"QuantizeLinear", "DequantizeLinear", "QLinearMatMul"}
"""Operators that only models with 8-bit levels between layers have."""
PASSED = frozenset({"Flatten", "Identity", "Reshape", "Transpose"})
"""What leaves floats as they are: flattening, shuffling of channels, and their opposites."""
_FLOAT = onnx.TensorProto.FLOAT
INTEGERS, FLOATS = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8), (_FLOAT,)
"""What of a model is looked into: values of 8-bit integers, or of float32."""
WIDE = ":wide"
"""Ends the name of a value with zeros beside the channels of the value that is called the rest."""
Kinds = tuple[int, ...]


def numbers(data: bytes) -> Numbers:
    """Return what a model computes with.

    Floats that are levels, by `Cast` or a marked `DequantizeLinear` at scale 1, belong to the
    definition of an operation on integers; those of an input, or of another, are a layer's own.

    Raises:
        google.protobuf.message.DecodeError: It is no ONNX model.
    """
    # What the manifest says of a file is not believed: these are the file's own operators
    # (docs/decisions/0012-bundles-with-goldens.md).
    graph = onnx.load_model_from_string(data).graph
    kinds = {node.op_type for node in graph.node}
    trace = FloatTrace({i.name for i in graph.input if i.type.tensor_type.elem_type == _FLOAT})
    ones = {one.name for one in graph.initializer if _is_one(one)}
    in_float = [n.name for n in graph.node if trace.step(_role(n, ones), n.input, n.output)]
    return Numbers(
        integers=bool(kinds & LEVELS),
        products=bool(kinds & PRODUCTS),
        floats=bool(trace.computed),
        stored=frozenset(_stored(graph)),
        outputs={output.name: trace.reach(output.name) for output in graph.output},
        in_float=frozenset(in_float),
    )


def with_inner_values(data: bytes, kinds: Kinds) -> tuple[bytes, tuple[str, ...]]:
    """Return a model that gives all its values of some types too, and their names.

    Raises:
        google.protobuf.message.DecodeError: It is no ONNX model.
    """
    graph = onnx.load_model_from_string(data).graph
    # As further outputs of a network that is otherwise the same: keeping all values would be
    # another way to run it (docs/decisions/0029-saturation.md). Repeated fields go on where
    # a message is followed by another of its kind.
    return data + inner_outputs(data, kinds), tuple(one.name for one in _inner(graph, kinds))


def inner_outputs(data: bytes, kinds: Kinds = INTEGERS) -> bytes:
    """Return what makes outputs of a model's values of some types when it is appended.

    Raises:
        google.protobuf.message.DecodeError: It is no ONNX model.
    """
    graph = onnx.load_model_from_string(data).graph
    given, made = {output.name for output in graph.output}, _made(graph)
    more = onnx.ModelProto()
    for one in _inner(graph, kinds):
        if one.name not in made:
            _narrow(one, made[f"{one.name}{WIDE}"], more.graph)
        if one.name not in given:
            more.graph.output.append(one)
    found: bytes = more.SerializeToString(deterministic=True)
    return found


def _inner(graph: onnx.GraphProto, kinds: Kinds) -> list[onnx.ValueInfoProto]:
    made = _made(graph)
    known = (
        one
        for one in (*graph.value_info, *graph.output)
        if one.name in made
        or (f"{one.name}{WIDE}" in made and len(one.type.tensor_type.shape.dim) > 1)
    )
    return [one for one in known if one.type.tensor_type.elem_type in kinds]


def _made(graph: onnx.GraphProto) -> Mapping[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _narrow(value: onnx.ValueInfoProto, wide: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    """Add what makes a declared value where there is one with zeros beside its channels."""
    if wide.op_type == "Concat":
        # Of declared values in their turn, whose channels are zeros apart in it.
        inputs = [name.removesuffix(WIDE) for name in wide.input]
        graph.node.append(helper.make_node("Concat", inputs, [value.name], value.name, axis=1))
        return
    channels = value.type.tensor_type.shape.dim[1].dim_value
    bounds = {"first": 0, "end": channels, "axis": 1}
    names = [f"{value.name}:{word}" for word in bounds]
    for name, number in zip(names, bounds.values(), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.array([number], np.int64), name))
    inputs = [f"{value.name}{WIDE}", *names]
    graph.node.append(helper.make_node("Slice", inputs, [value.name], value.name))


def _is_one(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == _FLOAT and not tensor.dims and numpy_helper.to_array(tensor) == 1


def _role(node: onnx.NodeProto, ones: Container[str]) -> OperatorRole:
    match node.op_type:
        case "DequantizeLinear":
            # Of a function on levels (`ops.integer.base.floats`), or a layer's real numbers.
            levels = node.input[1] in ones and any(
                a.name == "axis" and a.i == 0 for a in node.attribute
            )
            return OperatorRole.COMPUTE if levels else OperatorRole.REAL
        case "QuantizeLinear":
            return OperatorRole.ROUND
        case word if word in PASSED:
            return OperatorRole.MOVE
    return OperatorRole.COMPUTE


def _stored(graph: onnx.GraphProto) -> Iterator[str]:
    # Constants that `compact` filled by operators are stored as well, as one number each.
    fills = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    for tensor in (*graph.initializer, *fills):
        if tensor.data_type in helper.get_all_tensor_dtypes():
            yield str(helper.tensor_dtype_to_np_dtype(tensor.data_type))
