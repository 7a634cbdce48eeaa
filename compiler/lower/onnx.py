"""A model as ONNX: named by the spec's paths, byte for byte the same every time."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ir.op import Const
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.lower.onnx_inspection import WIDE_SUFFIX
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.version import __version__

MIN_OPSET, MAX_OPSET = 11, 21
"""Opsets that can be asked for: from the one the ops are written for to the last that every ONNX
Runtime the project allows (1.25 on) loads."""
MIN_INTEGER_OPSET = 13
"""The first opset whose operators all take 8-bit integers."""
MAX_WEIGHT_BYTES = (1 << 31) - (1 << 24)
"""Most bytes of weights: a protobuf file stays below 2 GiB, and the rest needs room as well."""

ONNX_TYPES = {DType.I8: "uint8"}
"""Values of another type in ONNX: signed 8-bit integers are unsigned with the zero point 128."""


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
    """Return the same of a graph whose weights nobody has yet: tensors of a shape, without numbers.

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
    # An output bears the spec's name for it in the file; the value behind it takes that name too,
    # so that no operator is needed where one value is one output.
    outputs = {
        o.name: create_value_info(o.name, graph.types[o.value], batch) for o in graph.outputs
    }
    literals: list[onnx.TensorProto] = []
    nodes = [
        onnx_node
        for node in graph.nodes
        for onnx_node in _lower_node(graph, node, names, opset, literals)
    ]
    # A value may be several outputs, or an input be one: each name needs an operator then.
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
    # IR version and opset are two numbers: onnx would write the newest of the first whatever the
    # second is.
    # The oldest IR version that has the opset, so that no runtime refuses a file for its envelope.
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
    # Told before a tensor is copied: protobuf fails only once it has put the message together.
    size = sum(p.dtype.size * int(np.prod(p.shape)) for p in graph.params.values())
    if size > MAX_WEIGHT_BYTES:
        message = f"{graph.name} is too large for an ONNX file"
        label = (
            f"its weights take {size / 1e9:.2f} GB; a file holds {MAX_WEIGHT_BYTES / 1e9:.2f} GB"
        )
        raise fail("E0450", message, make_file_span(graph.name), label=label)


def declare_narrow(lowered: onnx.ModelProto, graph: Graph) -> None:
    """Have a model declare the values of a program that it has only with zeros beside them.

    Without operators that compute them, which would run for nothing; `onnx_inspection` adds these.

    Args:
        lowered: The model of the program with wide channels.
        graph: The program without.
    """
    declared_names = {declared_value.name for declared_value in lowered.graph.value_info}
    lowered.graph.value_info.extend(
        create_value_info(node.name, node.type)
        for node in graph.nodes
        if node.name not in declared_names and f"{node.name}{WIDE_SUFFIX}" in declared_names
    )


def compute_value_names(graph: Graph) -> Mapping[str, str]:
    """Return what each value is called: an output's name, or its own where that is free."""
    # ONNX has one space of names for all values of a graph, a spec has one for steps and one for
    # outputs. Outputs and inputs, which users of a file ask for, keep theirs.
    reserved_names = {*(o.name for o in graph.outputs), *(i.name for i in graph.inputs)}
    names = {i.name: i.name for i in graph.inputs}
    for output in graph.outputs:
        names.setdefault(output.value, output.name)
    for node in graph.nodes:
        names.setdefault(
            node.name, f"{node.name}:value" if node.name in reserved_names else node.name
        )
    return names


def _lower_node(
    graph: Graph,
    node: Node,
    names: Mapping[str, str],
    opset: int,
    literals: list[onnx.TensorProto],
) -> Iterator[onnx.NodeProto]:
    """Yield the operators of one node; its literal tensors join `literals`."""
    types = graph.get_input_types(node)
    # Ops say their operators with roles and places (`weight`, `x0`); here they become the graph's
    # names. What lies between two operators of one node is called after it.
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
                    # ONNX's way to leave out an optional input that others follow.
                    inputs.append("")
                case str():
                    inputs.append(local[argument])
                case Const():
                    inputs.append(f"{node.name}:{call.output}.{position}")
                    # Literals become initialisers beside the weights: a file has its constants in
                    # one form.
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
        # Raw bytes in little-endian order, which is one form for every type and the same every
        # time.
        yield numpy_helper.from_array(np.ascontiguousarray(model.weights[name]), name)


def _iterate_unfilled_initializers(graph: Graph) -> Iterator[onnx.TensorProto]:
    for name, param in graph.params.items():
        # Said to lie in another file, which inferring shapes does not open.
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(param.dtype.value))
        yield onnx.TensorProto(
            name=name, dims=param.shape, data_type=kind, data_location=onnx.TensorProto.EXTERNAL
        )


def create_value_info(name: str, kind: TensorType, batch: int | None = None) -> onnx.ValueInfoProto:
    """Return what a model says of a value: its name and its type, in batches.

    Args:
        name: The value's name in the file.
        kind: Its type for one image.
        batch: The size of the batch axis; None leaves it open, called `N`.
    """
    element_type = helper.np_dtype_to_tensor_dtype(
        np.dtype(ONNX_TYPES.get(kind.dtype, kind.dtype.value))
    )
    # A name and no empty dimension: all values with it are then known to have batches of one size.
    axis = "N" if batch is None else batch
    return helper.make_tensor_value_info(name, element_type, [axis, *kind.shape])
