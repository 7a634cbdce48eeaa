"""A model as ONNX: names are paths of the spec, and the bytes are reproducible."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ir.op import Const
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.lower.onnx_inspection import WIDE_SUFFIX
from tcc.compiler.ops import AvgPool, MaxPool, Pad
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.version import __version__

MIN_OPSET, MAX_OPSET = 11, 21
"""Opsets that can be requested: from the one that the ops are written for to the last that all
supported releases of ONNX Runtime (1.25 on) load."""
MIN_INTEGER_OPSET = 13
"""The first opset with 8-bit integers in all operators."""
MAX_WEIGHT_BYTES = (1 << 31) - (1 << 24)
"""Size limit of the weights: a protobuf file must be below 2 GiB, including everything else."""

ONNX_TYPES = {DType.I8: "uint8"}
"""Types that differ in ONNX: signed 8-bit integers are unsigned with the zero point 128."""


def lower(model: Model, opset: int = 17, batch: int | None = None) -> onnx.ModelProto:
    """Return the inference part of a model as ONNX; weights keep their names.

    Args:
        model: The graph, of floats or of integers, with its weights.
        opset: The version of ONNX's operators, from 11 on.
        batch: The size of the batch axis; None leaves it open, called `N`.

    Returns:
        A model whose inputs and outputs are (batch, *shape), under the graph's names.

    Raises:
        UserError: The opset is not supported (E0650), or the weights exceed 2 GB (E0450).
    """
    graph = extract_inference_graph(model.graph)
    return _lower_graph(graph, _iterate_initializers(model, graph), opset, batch)


def lower_without_weights(
    graph: Graph, opset: int = 17, batch: int | None = None
) -> onnx.ModelProto:
    """Return the same for a graph without weights: tensors have shapes but no values.

    Args:
        graph: The network, of floats or of integers.
        opset: The version of ONNX's operators, from 11 on.
        batch: The size of the batch axis; None leaves it open, called `N`.

    Raises:
        UserError: As for `lower`.
    """
    inference_graph = extract_inference_graph(graph)
    return _lower_graph(
        inference_graph, _iterate_unfilled_initializers(inference_graph), opset, batch
    )


def _lower_graph(
    graph: Graph, weights: Iterable[onnx.TensorProto], opset: int, batch: int | None
) -> onnx.ModelProto:
    _check_limits(graph, opset)
    names = compute_value_names(graph)
    types = {names[value]: kind for value, kind in graph.types.items()}
    # An output has its name from the spec; the value it reads gets the same name, so that no
    # operator is needed if the value is only one output.
    outputs = {
        o.name: create_value_info(o.name, graph.types[o.value], batch) for o in graph.outputs
    }
    literals: list[onnx.TensorProto] = []
    pooled_values = {value for n in graph.nodes if isinstance(n.op, POOLS) for value in n.inputs}
    nodes = [
        onnx_node
        for node in graph.nodes
        for onnx_node in _lower_node(
            graph, _mark_pooled_border(node, pooled_values), names, opset, literals
        )
    ]
    # A value may be several outputs, or an input may be one: each name then needs an operator.
    nodes += [
        helper.make_node("Identity", [names[o.value]], [o.name], o.name)
        for o in graph.outputs
        if names[o.value] != o.name
    ]
    declared_names = {*outputs, *(i.name for i in graph.inputs)}
    body = helper.make_graph(
        nodes,
        graph.name,
        [create_value_info(i.name, i.type, batch) for i in graph.inputs],
        list(outputs.values()),
        [*weights, *literals],
        value_info=[
            create_value_info(n, t, batch) for n, t in types.items() if n not in declared_names
        ],
    )
    return _create_model(body, opset)


def _create_model(body: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", opset)]
    # IR version and opset are separate numbers, and onnx would write its newest IR version. The
    # oldest one with this opset is used, so that no runtime refuses the file for its IR version.
    return helper.make_model(
        body,
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
        producer_name="tcc",
        producer_version=__version__,
    )


def _check_limits(graph: Graph, opset: int) -> None:
    has_8bit = any(kind.dtype in {DType.I8, DType.U8} for kind in graph.types.values())
    min_opset = MIN_INTEGER_OPSET if has_8bit else MIN_OPSET
    if not min_opset <= opset <= MAX_OPSET:
        is_known = MIN_OPSET <= opset < min_opset
        problem = "has no operators for 8-bit integers" if is_known else "is not supported"
        help = f"choose one from {min_opset} to {MAX_OPSET}; 17 is the default"
        raise fail("E0650", f"ONNX opset {opset} {problem}", make_file_span(graph.name), help=help)
    # Checked before tensors are copied: protobuf would fail only after building the message.
    size = sum(p.dtype.size * int(np.prod(p.shape)) for p in graph.params.values())
    if size > MAX_WEIGHT_BYTES:
        message = f"{graph.name} is too large for an ONNX file"
        label = (
            f"its weights take {size / 1e9:.2f} GB; the limit is {MAX_WEIGHT_BYTES / 1e9:.2f} GB"
        )
        help = "build a smaller network, or use a precision that takes fewer bytes"
        raise fail("E0450", message, make_file_span(graph.name), label=label, help=help)


def declare_narrow(lowered: onnx.ModelProto, graph: Graph) -> None:
    """Declare the original values of a program that a model computes only in padded form.

    No operators compute them, because they would run for nothing; `onnx_inspection` adds those.

    Args:
        lowered: The model of the program with padded channels.
        graph: The original program.
    """
    declared_names = {declared_value.name for declared_value in lowered.graph.value_info}
    lowered.graph.value_info.extend(
        create_value_info(node.name, node.type)
        for node in graph.nodes
        if node.name not in declared_names and f"{node.name}{WIDE_SUFFIX}" in declared_names
    )


def compute_value_names(graph: Graph) -> Mapping[str, str]:
    """Return each value's name in the file: an output's name, or its own if that is unused."""
    # ONNX has one namespace for all values of a graph; a spec has one for steps and one for
    # outputs. Outputs and inputs, which users of a file refer to, keep their names.
    reserved_names = {*(o.name for o in graph.outputs), *(i.name for i in graph.inputs)}
    names = {i.name: i.name for i in graph.inputs}
    for output in graph.outputs:
        names.setdefault(output.value, output.name)
    for node in graph.nodes:
        names.setdefault(
            node.name, f"{node.name}:value" if node.name in reserved_names else node.name
        )
    return names


POOLS = (AvgPool, MaxPool)
"""Poolings that ONNX Runtime merges with a border of zeros."""


def _mark_pooled_border(node: Node, pooled_values: Container[str]) -> Node:
    """Write the zeros of a border before a pooling as -0.0, an equal number.

    ONNX Runtime makes a border of +0.0 the padding of the pooling (PadFusion, which compares
    bytes). But a maximum ignores padding, a mean may not count it, and padding as wide as the
    window does not load.
    """
    if node.name in pooled_values and isinstance(node.op, Pad) and node.op.value == 0:
        return replace(node, op=replace(node.op, value=-0.0))
    return node


def _lower_node(
    graph: Graph,
    node: Node,
    names: Mapping[str, str],
    opset: int,
    literals: list[onnx.TensorProto],
) -> Iterator[onnx.NodeProto]:
    """Yield the operators of one node; its literal tensors are appended to `literals`."""
    types = graph.get_input_types(node)
    # Ops define their operators with roles and positions (`weight`, `x0`), which are replaced by
    # the graph's names. Values between two operators of a node are named after the node.
    roles = (param.role for param in node.op.params(*types))
    local = {f"x{i}": names[value] for i, value in enumerate(node.inputs)}
    local |= dict(zip(roles, node.params, strict=True))
    for call in node.op.onnx(*types, opset=opset):
        output_names = {name: f"{node.name}:{name}" for name in (call.output, *call.extra_outputs)}
        if call.output == "y":
            output_names["y"] = names[node.name]
        first_output, *other_outputs = output_names.values()
        inputs = []
        for position, argument in enumerate(call.inputs):
            match argument:
                case None:
                    # In ONNX, an empty name omits an optional input before others.
                    inputs.append("")
                case str():
                    inputs.append(local[argument])
                case Const():
                    inputs.append(f"{node.name}:{call.output}.{position}")
                    # Literals become initializers like the weights, so that a file has one kind of
                    # constants.
                    literals.append(_create_literal(argument, inputs[-1]))
        local |= output_names
        yield helper.make_node(
            call.function, inputs, [first_output, *other_outputs], first_output, **call.attributes
        )


def _create_literal(const: Const, name: str) -> onnx.TensorProto:
    array = np.array(const.elements, const.dtype)
    return numpy_helper.from_array(array.reshape(()) if const.scalar else array, name)


def _iterate_initializers(model: Model, graph: Graph) -> Iterator[onnx.TensorProto]:
    for name in graph.params:
        # Raw little-endian bytes: one reproducible form for every type.
        yield numpy_helper.from_array(np.ascontiguousarray(model.weights[name]), name)


def _iterate_unfilled_initializers(graph: Graph) -> Iterator[onnx.TensorProto]:
    for name, param in graph.params.items():
        # Declared as external data, which shape inference does not open.
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(param.dtype.value))
        yield onnx.TensorProto(
            name=name, dims=param.shape, data_type=kind, data_location=onnx.TensorProto.EXTERNAL
        )


def create_value_info(
    name: str, tensor_type: TensorType, batch: int | None = None
) -> onnx.ValueInfoProto:
    """Return a model's declaration of a value: its name and its type, with a batch axis.

    Args:
        name: The value's name in the file.
        tensor_type: Its type for one image.
        batch: The size of the batch axis; None leaves it open, called `N`.
    """
    element_type = helper.np_dtype_to_tensor_dtype(
        np.dtype(ONNX_TYPES.get(tensor_type.dtype, tensor_type.dtype.value))
    )
    # A named dimension, not an empty one: all values with that name have the same batch size.
    axis = "N" if batch is None else batch
    return helper.make_tensor_value_info(name, element_type, [axis, *tensor_type.shape])
