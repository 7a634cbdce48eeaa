"""What numbers an ONNX model of ours computes with."""

from collections.abc import Iterator

import onnx
from onnx import helper

from tcc.compiler.ir.number_types import FloatTrace, Numbers, OperatorRole

PRODUCTS = frozenset({"QLinearConv", "ConvInteger"})
LEVELS = PRODUCTS | {"QuantizeLinear", "DequantizeLinear", "QLinearMatMul"}
"""Operators that only models with 8-bit levels between layers have."""
PASSED = frozenset({"Flatten", "Identity", "Reshape", "Transpose"})
"""What leaves floats as they are: flattening, shuffling of channels, and their opposites."""
_FLOAT = onnx.TensorProto.FLOAT
INTEGERS, FLOATS = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8), (_FLOAT,)
"""What of a model is looked into: values of 8-bit integers, or of float32."""
Kinds = tuple[int, ...]


def numbers(data: bytes) -> Numbers:
    """Return what a model computes with.

    Floats that come from levels by `Cast` belong to the definition of an operation on integers;
    those of an input, or that `DequantizeLinear` gives, are a layer's own.

    Raises:
        google.protobuf.message.DecodeError: It is no ONNX model.
    """
    # What the manifest says of a file is not believed: these are the file's own operators
    # (docs/decisions/0012-bundles-with-goldens.md).
    graph = onnx.load_model_from_string(data).graph
    kinds = {node.op_type for node in graph.node}
    trace = FloatTrace({i.name for i in graph.input if i.type.tensor_type.elem_type == _FLOAT})
    in_float = [n.name for n in graph.node if trace.step(_role(n), n.input, n.output)]
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
    given = {output.name for output in graph.output}
    more = onnx.ModelProto()
    more.graph.output.extend(one for one in _inner(graph, kinds) if one.name not in given)
    found: bytes = more.SerializeToString(deterministic=True)
    return found


def _inner(graph: onnx.GraphProto, kinds: Kinds) -> list[onnx.ValueInfoProto]:
    made = {name for node in graph.node for name in node.output}
    known = [one for one in (*graph.value_info, *graph.output) if one.name in made]
    return [one for one in known if one.type.tensor_type.elem_type in kinds]


def _role(node: onnx.NodeProto) -> OperatorRole:
    match node.op_type:
        case "DequantizeLinear":
            return OperatorRole.REAL
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
