"""Change an ONNX file: its fields, its bytes and its network."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from foreign_weights import (
    FLOATS,
    HUGE,
    KINDS,
    cast_weight,
    choose_weight,
    replace_data,
    replace_dims,
)
from onnx import AttributeProto, ModelProto, NodeProto, helper, numpy_helper

OPERATORS = (
    "Relu", "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "Identity", "Dropout", "Clip", "HardSwish",
    "HardSigmoid", "LeakyRelu", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Neg", "Abs",
    "Exp", "Transpose", "Shape", "Squeeze", "Sum", "Mean", "Max", "Min", "Loop", "If", "Scan",
    "LSTM", "QuantizeLinear", "DequantizeLinear", "Cast", "Upsample", "Softplus", "LRN",
    "Constant", "",
)  # fmt: skip
PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "SAME", "")

Change = Callable[[ModelProto, Random], None]


def _choose_node(model: ModelProto, numbers: Random) -> NodeProto:
    nodes: list[NodeProto] = list(model.graph.node)
    return numbers.choice(nodes) if nodes else model.graph.node.add(op_type="Relu")


def _list_values(model: ModelProto) -> list[str]:
    graph = model.graph
    value_names = [name for node in graph.node for name in (*node.input, *node.output)]
    return sorted({*value_names, *(t.name for t in graph.initializer), "", "x"})


def replace_window(model: ModelProto, numbers: Random) -> None:
    """Give a pooling or a convolution another padding, stride or kernel, as an exporter might."""
    nodes = [n for n in model.graph.node if n.op_type.endswith(("Pool", "Conv", "ConvTranspose"))]
    if not nodes:
        return
    node = numbers.choice(nodes)
    attributes: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    name = numbers.choice(
        (
            "pads",
            "strides",
            "auto_pad",
            "ceil_mode",
            "count_include_pad",
            "dilations",
            "kernel_shape",
        )
    )
    replacements: dict[str, Any] = {
        "pads": [numbers.randrange(3) for _ in range(4)],
        "auto_pad": numbers.choice(PADS),
        "ceil_mode": 1,
        "count_include_pad": 1,
    }
    attributes[name] = replacements.get(name, [numbers.randrange(1, 4) for _ in range(2)])
    if name == "auto_pad":
        attributes.pop("pads", None)
    if name == "pads":
        attributes.pop("auto_pad", None)
    _set_attributes(
        node, [helper.make_attribute(key, setting) for key, setting in attributes.items()]
    )


def _set_attributes(node: NodeProto, attributes: Sequence[AttributeProto]) -> None:
    del node.attribute[:]
    node.attribute.extend(attributes)


def replace_attribute(model: ModelProto, numbers: Random) -> None:
    """Remove, repeat or change an attribute, or its type."""
    node = _choose_node(model, numbers)
    if not node.attribute:
        names = ("axis", "perm", "alpha", "to", "axes", "value", "epsilon", "keepdims", "é\0")
        setting = numbers.choice((*HUGE, *FLOATS, "", "text"))
        node.attribute.append(helper.make_attribute(numbers.choice(names), setting))
        return
    at = numbers.randrange(len(node.attribute))
    picked_attribute = node.attribute[at]
    match numbers.randrange(5):
        case 0:
            del node.attribute[at]
        case 1:
            node.attribute.append(picked_attribute)
        case 2:
            picked_attribute.type = numbers.choice(AttributeProto.AttributeType.values())
        case 3:
            picked_attribute.ints[:] = [numbers.choice(HUGE) for _ in range(numbers.randrange(6))]
            picked_attribute.i, picked_attribute.f = numbers.choice(HUGE), numbers.choice(FLOATS)
        case _:
            node.attribute[at].CopyFrom(helper.make_attribute(picked_attribute.name, [1.5, 2.5]))


def replace_wiring(model: ModelProto, numbers: Random) -> None:
    """Connect a value to another place: in a cycle, twice, or nowhere."""
    node, value_names = _choose_node(model, numbers), _list_values(model)
    match numbers.randrange(5):
        case 0 if node.input:
            node.input[numbers.randrange(len(node.input))] = numbers.choice(value_names)
        case 1 if node.output:
            node.output[numbers.randrange(len(node.output))] = numbers.choice(value_names)
        case 2:
            node.input.append(numbers.choice(value_names))
        case 3 if node.input:
            del node.input[numbers.randrange(len(node.input))]
        case _:
            choose_weight(model, numbers).name = numbers.choice(value_names)


def replace_nodes(model: ModelProto, numbers: Random) -> None:
    """Drop, repeat, move or rename an operator."""
    graph_nodes = list(model.graph.node)
    at = numbers.randrange(len(graph_nodes)) if graph_nodes else 0
    match numbers.randrange(5):
        case 0:
            del graph_nodes[at : at + 1]
        case 1:
            graph_nodes[at:at] = graph_nodes[at : at + 1]
        case 2:
            numbers.shuffle(graph_nodes)
        case 3:
            _choose_node(model, numbers).op_type = numbers.choice(OPERATORS)
            return
        case _:
            node = _choose_node(model, numbers)
            node.domain = numbers.choice(("ai.onnx", "com.microsoft", "own", "é"))
            return
    copies = [NodeProto.FromString(node.SerializeToString()) for node in graph_nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def insert_node(model: ModelProto, numbers: Random) -> None:
    """Insert an operator between two others; the result may be valid."""
    graph_nodes = list(model.graph.node)
    at = numbers.randrange(len(graph_nodes)) if graph_nodes else 0
    if not graph_nodes or not graph_nodes[at].output:
        return
    value_name = graph_nodes[at].output[0]
    choices: tuple[tuple[str, dict[str, Any]], ...] = (
        *((name, {}) for name in OPERATORS), ("Cast", {"to": 1}), ("Cast", {"to": 10}),
        ("Flatten", {"axis": numbers.randrange(-2, 5)}), ("Transpose", {"perm": [0, 1, 3, 2]}),
        ("Softmax", {"axis": numbers.randrange(-2, 4)}), ("Elu", {}),
        ("ReduceMean", {"axes": [numbers.randrange(4)]}),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": numbers.choice(PADS[1:3])}),
        ("AveragePool", {"kernel_shape": [3, 2], "auto_pad": numbers.choice(PADS[1:3])}),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}),
        ("HardSigmoid", {"alpha": numbers.random(), "beta": numbers.random()}),
    )  # fmt: skip
    op, attributes = numbers.choice(choices)
    graph_nodes[at].output[0] = f"{value_name} before"
    inserted_node = helper.make_node(op, [f"{value_name} before"], [value_name], **attributes)
    model.graph.node.insert(at + 1, inserted_node)


def replace_versions(model: ModelProto, numbers: Random) -> None:
    """Change the versions of the format and of the operators."""
    match numbers.randrange(4):
        case 0:
            model.ir_version = numbers.choice(HUGE)
        case 1 | 2:
            version = numbers.choice(
                (0, -1, 6, 7, 8, 9, 10, 11, 12, 13, 15, 18, 21, 22, 24, 26, 1 << 40)
            )
            model.opset_import[0].version = version
        case _:
            model.opset_import.add(
                domain=numbers.choice(("", "ai.onnx", "own")), version=numbers.randrange(30)
            )


def replace_graph_io(model: ModelProto, numbers: Random) -> None:
    """Change the inputs and outputs of the graph."""
    graph = model.graph
    kind = numbers.choice((graph.input, graph.output))
    if not kind:
        return
    graph_value = kind[0]
    match numbers.randrange(5):
        case 0:
            graph_value.type.tensor_type.elem_type = numbers.choice(KINDS)
        case 1:
            sizes = graph_value.type.tensor_type.shape.dim
            if sizes:
                sizes[numbers.randrange(len(sizes))].dim_value = numbers.choice(HUGE)
        case 2:
            graph_value.name = numbers.choice(_list_values(model))
        case 3:
            kind.add().CopyFrom(graph_value)
        case _:
            graph_value.type.tensor_type.shape.dim.add(dim_param="more")


def add_wide_value(model: ModelProto, numbers: Random) -> None:
    """Compute a constant or a value with very many elements."""
    graph = model.graph
    if numbers.random() < 0.5:
        shape, op, inputs = [1 << numbers.randrange(14, 40)] * 2, "ConstantOfShape", ["shape"]
    else:
        shape, op, inputs = [1, 3, 1 << 14, 1 << 14], "Expand", ["x", "shape"]
    graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), "shape"))
    if graph.node and graph.node[0].input:
        graph.node[0].input[0] = "much"
    graph.node.insert(0, helper.make_node(op, inputs, ["much"]))


def add_nested_graphs(model: ModelProto, numbers: Random) -> None:
    """Nest subgraphs in subgraphs."""
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(numbers.choice((3, 60, 300))):
        node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "inner", [], [])
        if inner.ByteSize() > 1 << 20:
            break
    model.graph.node.extend(inner.node)


def rename_to_long(model: ModelProto, numbers: Random) -> None:
    """Rename something to a very long name."""
    name = "long" * (1 << numbers.randrange(4, 18))
    _choose_node(model, numbers).name = name
    choose_weight(model, numbers).name = name


def add_recursive_functions(model: ModelProto, _: Random) -> None:
    """Let two functions call each other."""
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for name, callee in (("a", "b"), ("b", "a")):
        body = [helper.make_node(callee, ["i"], ["o"], domain="own")]
        model.functions.append(helper.make_function("own", name, ["i"], ["o"], body, domains))
    model.opset_import.append(domains[1])
    model.graph.node.insert(0, helper.make_node("a", ["x"], ["unused"], domain="own"))


def insert_many_nodes(model: ModelProto, numbers: Random) -> None:
    """Insert very many operators before the others."""
    for number in range(numbers.choice((100, 3000))):
        input_name = "x" if not number else f"turn {number}"
        model.graph.node.insert(
            number, helper.make_node("Relu", [input_name], [f"turn {number + 1}"])
        )


CHANGES: tuple[Change, ...] = (
    replace_dims,
    replace_data,
    cast_weight,
    cast_weight,
    replace_window,
    replace_window,
    replace_attribute,
    replace_attribute,
    replace_wiring,
    replace_nodes,
    insert_node,
    insert_node,
    insert_node,
    replace_versions,
    replace_graph_io,
    add_wide_value,
    add_nested_graphs,
    rename_to_long,
    add_recursive_functions,
    insert_many_nodes,
)


def replace_bytes(content: bytes, numbers: Random) -> bytes:
    """Return bytes with some of them changed, cut, repeated or moved."""
    changed_bytes = bytearray(content)
    for _ in range(numbers.choice((1, 1, 3, 20))):
        at = numbers.randrange(len(changed_bytes) or 1)
        match numbers.randrange(5):
            case 0 | 1 if changed_bytes:
                changed_bytes[at] ^= 1 << numbers.randrange(8)
            case 2:
                changed_bytes = changed_bytes[:at]
            case 3:
                changed_bytes[at:at] = changed_bytes[at : at + 64]
            case _:
                changed_bytes[at:at] = bytes([numbers.randrange(256)] * numbers.randrange(1, 9))
    return bytes(changed_bytes)
