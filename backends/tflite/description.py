"""From a float model, or an integer program, to the description of its file."""

import json
from collections import Counter
from dataclasses import replace

from tcc.backends.tflite.file_draft import FileDraft
from tcc.backends.tflite.float_operators import FLOAT
from tcc.backends.tflite.integer_draft import IntegerDraft, meaning
from tcc.backends.tflite.integer_operators import INTEGER_OPERATORS
from tcc.backends.tflite.writer import File, FileTensor, Operator
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.rewrite import eliminate_dead, for_inference
from tcc.compiler.ir.types import DType
from tcc.compiler.ops.integer import Dequantize, Quantize
from tcc.compiler.support import json_records

METADATA = "tcc"
"""The name of the metadata that say what goes in and what comes out."""
CLAMPS = {"RELU", "RELU6"}


def describe_floats(model: Model) -> File:
    """Return the file of a float model in float32, without what only training needs."""
    net = FileDraft(Model(for_inference(model.graph), model.weights))
    for node in net.graph.nodes:
        net.values[node.name] = FLOAT[type(node.op)](net, node, node.op)
    return finished(net)


def finished(net: FileDraft) -> File:
    """Return the file of a net that is complete: clamps fused, named inputs and outputs."""
    graph = net.graph
    inputs = {source.name: net.values[source.name] for source in graph.inputs}
    taken = set(inputs.values())
    outputs: dict[str, str] = {}
    for output in graph.outputs:
        value = net.values[output.value]
        if value in taken:  # a tensor leaves once, and never as it came
            value = net.reshaped(value, f"{output.name}/copy", net.tensors[value].shape)
        taken.add(value)
        outputs[output.name] = value
    operators = clamped(tuple(net.operators), frozenset(outputs.values()))
    used = {*inputs.values(), *(v for op in operators for v in (*op.inputs, *op.outputs))}
    tensors = tuple(tensor for tensor in net.tensors.values() if tensor.name in used)
    return File(graph.name, tensors, operators, inputs, outputs, {METADATA: about(graph)})


def clamped(operators: tuple[Operator, ...], outputs: frozenset[str]) -> tuple[Operator, ...]:
    """Make a clamp part of the operator before it, where nothing else reads that one's result."""
    # A value that one operator reads twice counts twice, and is nobody's alone.
    readers = Counter(value for op in operators for value in op.inputs)
    result: list[Operator] = []
    makers: dict[str, int] = {}
    for op in operators:
        source = op.inputs[0]
        maker = makers.get(source)
        if op.code in CLAMPS and maker is not None and readers[source] == 1:
            before = result[maker]
            if before.options.get("fusedActivationFunction") == "NONE" and source not in outputs:
                options = {**before.options, "fusedActivationFunction": op.code}
                result[maker] = replace(before, outputs=op.outputs, options=options)
                makers[op.outputs[0]] = maker
                continue
        makers[op.outputs[0]] = len(result)
        result.append(op)
    return tuple(result)


def about(graph: Graph) -> bytes:
    """Return what a file says of itself in JSON: the inputs' contracts, and the labels."""
    document = {
        "model": graph.name,
        "inputs": [
            {
                "name": source.name,
                "layout": "NHWC" if len(source.type.shape) == 3 else "NC",
                "preprocess": json_records.encode(source.preprocess) if source.preprocess else None,
            }
            for source in graph.inputs
        ],
        "outputs": [
            {"name": o.name, "activation": o.activation, "labels": list(o.labels)}
            for o in graph.outputs
        ],
    }
    # Sorted, for equal bytes.
    return json.dumps(document, sort_keys=True, ensure_ascii=False).encode()


def constants(file: File) -> dict[str, FileTensor]:
    """Return the tensors of a file that have values, by name."""
    return {tensor.name: tensor for tensor in file.tensors if tensor.data is not None}


def describe_integers(model: Model) -> File:
    """Return the file of an integer program, whose inputs and outputs are int8 where it has any.

    Whoever runs it does what a `quantize` of an input and a `dequantize` to an output would: the
    tensors say by which scale.
    """
    model = eliminate_dead(Model(_bare(model.graph), model.weights))
    draft = IntegerDraft(model)
    graph, net = model.graph, draft.net
    for source in graph.inputs:
        if source.type.dtype is not DType.F32:
            name = net.values[source.name]
            kept = meaning(source.type)
            draft.tensors[name] = replace(draft.tensors[name], dtype="int8", quantization=kept)
    for node in graph.nodes:
        kinds = (*graph.input_types(node), node.type)
        if all(kind.dtype is DType.F32 for kind in kinds):
            net.values[node.name] = FLOAT[type(node.op)](net, node, node.op)
        # The file begins with levels: its input is int8 with a scale, which a program fills.
        elif isinstance(node.op, Quantize) and _enters(graph, node.inputs[0]):
            net.values[node.inputs[0]] = draft.value(node.name, node.type)
        else:
            INTEGER_OPERATORS[type(node.op)](draft, node)
    return finished(net)


def _enters(graph: Graph, value: str) -> bool:
    """Whether a value is an input that one node reads: then its levels can be the input."""
    return any(value == i.name for i in graph.inputs) and graph.sole_reader(value) is not None


def _bare(graph: Graph) -> Graph:
    """Return a program whose outputs are the levels, where real numbers are made of them last."""
    last = {node.name: node.inputs[0] for node in graph.nodes if isinstance(node.op, Dequantize)}
    entering = {source.name for source in graph.inputs}
    outputs = (
        replace(output, value=value)
        # An output that is an input as well keeps a tensor of its own.
        if (value := last.get(output.value, output.value)) not in entering
        else output
        for output in graph.outputs
    )
    return replace(graph, outputs=tuple(outputs))
