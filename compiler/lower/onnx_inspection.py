"""Inspect ONNX models that tcc wrote: number types, and intermediate outputs."""

from collections.abc import Container, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tcc.compiler.ir.number_types import FloatTracer, NumberTypes, OperatorRole


def check_control_flow(data: bytes) -> None:
    """Refuse a model with control flow: tcc writes none, and the runtime does not limit loops.

    Raises:
        ValueError: It has an operator with a graph, or a function.
        google.protobuf.message.DecodeError: It is not an ONNX model.
    """
    model = onnx.load_model_from_string(data)
    # The declared type and the field are both checked: a forged file may set one without the other,
    # and a later reader may use either.
    inner = {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
    for node in model.graph.node:
        if any(attribute.type in inner or attribute.HasField("g") for attribute in node.attribute):
            raise ValueError(f"it has control flow (`{node.op_type[:40]}`): tcc writes none")
    # Functions of a model may call each other, and unfold to any size.
    if model.functions:
        raise ValueError("it defines functions: tcc writes none")


PRODUCT_OPS = frozenset({"QLinearConv", "ConvInteger"})
QUANTIZED_OPS = PRODUCT_OPS | {"QuantizeLinear", "DequantizeLinear", "QLinearMatMul"}
"""Operators that only models with 8-bit values between layers have."""
MOVE_OPS = frozenset({"Flatten", "Identity", "Reshape", "Transpose"})
"""Operators that only move floats: flattening, channel shuffling, and their inverses."""
_FLOAT = onnx.TensorProto.FLOAT
INTEGERS, FLOATS = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8), (_FLOAT,)
"""Element types that can be traced: 8-bit integers, or float32."""
WIDE_SUFFIX = ":wide"
"""The suffix of a padded value, after the name of the original value."""
ElementTypes = tuple[int, ...]


def find_number_types(data: bytes) -> NumberTypes:
    """Return the number types that a model computes with.

    Floats that carry quantized values, from `Cast` or a marked `DequantizeLinear` with scale 1, are
    part of an integer op's definition. Those of an input, or of another `DequantizeLinear`, are
    float values.

    Raises:
        google.protobuf.message.DecodeError: It is not an ONNX model.
    """
    # The manifest's statements about a file are not trusted: these are the file's own operators
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
    """Return a model that also outputs all its values of some types, and their names.

    Raises:
        google.protobuf.message.DecodeError: It is not an ONNX model.
    """
    graph = onnx.load_model_from_string(data).graph
    # They become outputs of an unchanged network: keeping all values would be another way to run it
    # (docs/decisions/0029-saturation.md). In protobuf, appending a second message extends the
    # repeated fields of the first.
    return data + build_inner_outputs(data, kinds), tuple(
        inner_value.name for inner_value in _list_inner_values(graph, kinds)
    )


def build_inner_outputs(data: bytes, kinds: ElementTypes = INTEGERS) -> bytes:
    """Return bytes that, appended to a model, make its values of some types outputs.

    Raises:
        google.protobuf.message.DecodeError: It is not an ONNX model.
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
    """Add the operator that computes a declared value from its padded form."""
    if wide.op_type == "Concat":
        # From its declared inputs, because zeros separate their channels in the padded concat.
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
            # Marked as part of an integer op (`ops.integer.base.floats`), or a float of a layer.
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
    # Constants that `merge_constants` made fills are stored too, as one number each.
    fills = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    for tensor in (*graph.initializer, *fills):
        if tensor.data_type in helper.get_all_tensor_dtypes():
            yield str(helper.tensor_dtype_to_np_dtype(tensor.data_type))
