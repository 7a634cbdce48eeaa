"""What numbers an ONNX model of ours computes with."""

from collections.abc import Iterator

import onnx
from onnx import helper

from tcc.compiler.ir.number_types import Numbers

PRODUCTS = frozenset({"QLinearConv", "ConvInteger"})
LEVELS = PRODUCTS | {"QuantizeLinear", "DequantizeLinear", "QLinearMatMul"}
"""Operators that only models with 8-bit levels between layers have."""
PASSED = frozenset({"Flatten", "Identity"})
"""What leaves floats as they are."""


def numbers(data: bytes) -> Numbers:
    """Return what a model computes with.

    Floats that come from levels by `Cast` belong to the definition of an operation on integers;
    those of an input, or that `DequantizeLinear` gives, are a layer's own.

    Raises:
        google.protobuf.message.DecodeError: It is no ONNX model.
    """
    graph = onnx.load_model_from_string(data).graph
    kinds = {node.op_type for node in graph.node}
    return Numbers(
        integers=bool(kinds & LEVELS),
        products=bool(kinds & PRODUCTS),
        floats=_floats(graph),
        stored=frozenset(_stored(graph)),
    )


def _floats(graph: onnx.GraphProto) -> bool:
    real = {i.name for i in graph.input if i.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            real.update(node.output)
        elif real.isdisjoint(node.input) or node.op_type == "QuantizeLinear":
            continue
        elif node.op_type not in PASSED:
            return True
        else:
            real.update(node.output)
    return False


def _stored(graph: onnx.GraphProto) -> Iterator[str]:
    fills = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    for tensor in (*graph.initializer, *fills):
        if tensor.data_type in helper.get_all_tensor_dtypes():
            yield str(helper.tensor_dtype_to_np_dtype(tensor.data_type))
