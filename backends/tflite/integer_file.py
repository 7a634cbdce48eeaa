"""From an integer program to the description of its file: 8-bit integers in and out."""

from dataclasses import replace

from tcc.backends.tflite.float_file import finished
from tcc.backends.tflite.float_operators import FLOAT
from tcc.backends.tflite.integer_draft import IntegerDraft, meaning
from tcc.backends.tflite.integer_operators import INTEGER_OPERATORS
from tcc.backends.tflite.writer import File
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.rewrite import eliminate_dead
from tcc.compiler.ir.types import DType
from tcc.compiler.ops.integer import Dequantize, Quantize


def described(model: Model) -> File:
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
