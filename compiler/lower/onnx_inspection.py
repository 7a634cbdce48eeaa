"""What numbers an ONNX model of ours computes with."""

from collections.abc import Container, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tcc.compiler.ir.number_types import FloatTracer, NumberTypes, OperatorRole


def check_control_flow(data: bytes) -> None:
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


PRODUCT_OPS = frozenset({"QLinearConv", "ConvInteger"})
QUANTIZED_OPS = PRODUCT_OPS | {"QuantizeLinear", "DequantizeLinear", "QLinearMatMul"}
"""Operators that only models with 8-bit levels between layers have."""
MOVE_OPS = frozenset({"Flatten", "Identity", "Reshape", "Transpose"})
"""What leaves floats as they are: flattening, shuffling of channels, and their opposites."""
_FLOAT = onnx.TensorProto.FLOAT
INTEGERS, FLOATS = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8), (_FLOAT,)
"""What of a model is looked into: values of 8-bit integers, or of float32."""
WIDE_SUFFIX = ":wide"
"""Ends the name of a value with zeros beside the channels of the value that is called the rest."""
ElementTypes = tuple[int, ...]


def find_number_types(data: bytes) -> NumberTypes:
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
    trace = FloatTracer({i.name for i in graph.input if i.type.tensor_type.elem_type == _FLOAT})
    ones = {constant.name for constant in graph.initializer if _is_one(constant)}
    in_float = [n.name for n in graph.node if trace.step(_get_role(n, ones), n.input, n.output)]
    return NumberTypes(
        integers=bool(kinds & QUANTIZED_OPS),
        products=bool(kinds & PRODUCT_OPS),
        floats=bool(trace.computed),
        constant_types=frozenset(_iterate_stored_types(graph)),
        outputs={output.name: trace.get_influence(output.name) for output in graph.output},
        float_operators=frozenset(in_float),
    )


def add_inner_outputs(data: bytes, kinds: ElementTypes) -> tuple[bytes, tuple[str, ...]]:
    """Return a model that gives all its values of some types too, and their names.

    Raises:
        google.protobuf.message.DecodeError: It is no ONNX model.
    """
    graph = onnx.load_model_from_string(data).graph
    # As further outputs of a network that is otherwise the same: keeping all values would be
    # another way to run it (docs/decisions/0029-saturation.md). Repeated fields go on where
    # a message is followed by another of its kind.
    return data + build_inner_outputs(data, kinds), tuple(
        inner_value.name for inner_value in _list_inner_values(graph, kinds)
    )


def build_inner_outputs(data: bytes, kinds: ElementTypes = INTEGERS) -> bytes:
    """Return what makes outputs of a model's values of some types when it is appended.

    Raises:
        google.protobuf.message.DecodeError: It is no ONNX model.
    """
    graph = onnx.load_model_from_string(data).graph
    output_names, producers = {output.name for output in graph.output}, _index_producers(graph)
    extension = onnx.ModelProto()
    for inner_value in _list_inner_values(graph, kinds):
        if inner_value.name not in producers:
            _add_narrow_value(
                inner_value, producers[f"{inner_value.name}{WIDE_SUFFIX}"], extension.graph
            )
        if inner_value.name not in output_names:
            extension.graph.output.append(inner_value)
    serialized: bytes = extension.SerializeToString(deterministic=True)
    return serialized


def _list_inner_values(graph: onnx.GraphProto, kinds: ElementTypes) -> list[onnx.ValueInfoProto]:
    producers = _index_producers(graph)
    declared_values = (
        declared_value
        for declared_value in (*graph.value_info, *graph.output)
        if declared_value.name in producers
        or (
            f"{declared_value.name}{WIDE_SUFFIX}" in producers
            and len(declared_value.type.tensor_type.shape.dim) > 1
        )
    )
    return [
        declared_value
        for declared_value in declared_values
        if declared_value.type.tensor_type.elem_type in kinds
    ]


def _index_producers(graph: onnx.GraphProto) -> Mapping[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _add_narrow_value(
    value: onnx.ValueInfoProto, wide: onnx.NodeProto, graph: onnx.GraphProto
) -> None:
    """Add what makes a declared value where there is one with zeros beside its channels."""
    if wide.op_type == "Concat":
        # Of declared values in their turn, whose channels are zeros apart in it.
        inputs = [name.removesuffix(WIDE_SUFFIX) for name in wide.input]
        graph.node.append(helper.make_node("Concat", inputs, [value.name], value.name, axis=1))
        return
    channels = value.type.tensor_type.shape.dim[1].dim_value
    bounds = {"first": 0, "end": channels, "axis": 1}
    names = [f"{value.name}:{suffix}" for suffix in bounds]
    for name, number in zip(names, bounds.values(), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.array([number], np.int64), name))
    inputs = [f"{value.name}{WIDE_SUFFIX}", *names]
    graph.node.append(helper.make_node("Slice", inputs, [value.name], value.name))


def _is_one(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == _FLOAT and not tensor.dims and numpy_helper.to_array(tensor) == 1


def _get_role(node: onnx.NodeProto, ones: Container[str]) -> OperatorRole:
    match node.op_type:
        case "DequantizeLinear":
            # Of a function on levels (`ops.integer.base.floats`), or a layer's real numbers.
            is_quantized = node.input[1] in ones and any(
                a.name == "axis" and a.i == 0 for a in node.attribute
            )
            return OperatorRole.COMPUTE if is_quantized else OperatorRole.REAL
        case "QuantizeLinear":
            return OperatorRole.ROUND
        case op_type if op_type in MOVE_OPS:
            return OperatorRole.MOVE
    return OperatorRole.COMPUTE


def _iterate_stored_types(graph: onnx.GraphProto) -> Iterator[str]:
    # Constants that `compact` filled by operators are stored as well, as one number each.
    fills = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    for tensor in (*graph.initializer, *fills):
        if tensor.data_type in helper.get_all_tensor_dtypes():
            yield str(helper.tensor_dtype_to_np_dtype(tensor.data_type))
