"""What an ONNX model of ours never has: control flow."""

import onnx


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
