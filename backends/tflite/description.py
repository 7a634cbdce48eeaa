"""Describe a float model or an integer program as a TFLite file."""

import json
from collections import Counter
from dataclasses import replace

from tcc.backends.tflite.file_draft import FileDraft
from tcc.backends.tflite.float_operators import FLOAT
from tcc.backends.tflite.integer_draft import IntegerDraft, build_quantization
from tcc.backends.tflite.integer_operators import INTEGER_OPERATORS
from tcc.backends.tflite.writer import File, FileTensor, Operator
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.rewrite import eliminate_dead, extract_inference_graph
from tcc.compiler.ir.types import DType
from tcc.compiler.ops.integer import Dequantize, Quantize
from tcc.compiler.support import json_records

METADATA = "tcc"
"""Name of the metadata that describe inputs and outputs."""
CLAMP_OPERATORS = {"RELU", "RELU6"}


def describe_floats(model: Model) -> File:
    """Return the file of a float model in float32, without train-only parts."""
    net = FileDraft(Model(extract_inference_graph(model.graph), model.weights))
    for node in net.graph.nodes:
        net.values[node.name] = FLOAT[type(node.op)](net, node, node.op)
    return finish_file(net)


def finish_file(net: FileDraft) -> File:
    """Return the file of a complete draft: fuse clamps, name inputs and outputs."""
    graph = net.graph
    inputs = {network_input.name: net.values[network_input.name] for network_input in graph.inputs}
    used_tensors = set(inputs.values())
    outputs: dict[str, str] = {}
    for output in graph.outputs:
        tensor_name = net.values[output.value]
        if tensor_name in used_tensors:  # each output needs a tensor of its own
            tensor_name = net.add_reshape(
                tensor_name, f"{output.name}/copy", net.tensors[tensor_name].shape
            )
        used_tensors.add(tensor_name)
        outputs[output.name] = tensor_name
    operators = fuse_clamps(tuple(net.operators), frozenset(outputs.values()))
    referenced_names = {
        *inputs.values(),
        *(referenced for op in operators for referenced in (*op.inputs, *op.outputs)),
    }
    tensors = tuple(tensor for tensor in net.tensors.values() if tensor.name in referenced_names)
    return File(graph.name, tensors, operators, inputs, outputs, {METADATA: encode_metadata(graph)})


def fuse_clamps(operators: tuple[Operator, ...], outputs: frozenset[str]) -> tuple[Operator, ...]:
    """Fuse each clamp into the operator before it, if nothing else reads that result."""
    # A value that one operator reads twice counts twice, so it is not fused.
    readers = Counter(tensor_name for op in operators for tensor_name in op.inputs)
    fused: list[Operator] = []
    producer_by_tensor: dict[str, int] = {}
    for op in operators:
        source = op.inputs[0]
        producer_index = producer_by_tensor.get(source)
        if op.code in CLAMP_OPERATORS and producer_index is not None and readers[source] == 1:
            producer = fused[producer_index]
            if producer.options.get("fusedActivationFunction") == "NONE" and source not in outputs:
                options = {**producer.options, "fusedActivationFunction": op.code}
                fused[producer_index] = replace(producer, outputs=op.outputs, options=options)
                producer_by_tensor[op.outputs[0]] = producer_index
                continue
        producer_by_tensor[op.outputs[0]] = len(fused)
        fused.append(op)
    return tuple(fused)


def encode_metadata(graph: Graph) -> bytes:
    """Return a file's metadata in JSON: the inputs' contracts, and the labels."""
    document = {
        "model": graph.name,
        "inputs": [
            {
                "name": network_input.name,
                "layout": "NHWC" if len(network_input.type.shape) == 3 else "NC",
                "preprocess": json_records.encode(network_input.preprocess)
                if network_input.preprocess
                else None,
            }
            for network_input in graph.inputs
        ],
        "outputs": [
            {"name": o.name, "activation": o.activation, "labels": list(o.labels)}
            for o in graph.outputs
        ],
    }
    # Sorted, for reproducible bytes.
    return json.dumps(document, sort_keys=True, ensure_ascii=False).encode()


def find_constants(file: File) -> dict[str, FileTensor]:
    """Return the tensors of a file that have values, by name."""
    return {tensor.name: tensor for tensor in file.tensors if tensor.data is not None}


def describe_integers(model: Model) -> File:
    """Return the file of an integer program; quantized inputs and outputs are int8.

    The user of the file quantizes inputs and dequantizes outputs, with the scales of the tensors.
    """
    model = eliminate_dead(Model(_remove_dequantize(model.graph), model.weights))
    draft = IntegerDraft(model)
    graph, net = model.graph, draft.net
    for network_input in graph.inputs:
        if network_input.type.dtype is not DType.F32:
            name = net.values[network_input.name]
            quantization = build_quantization(network_input.type)
            draft.tensors[name] = replace(
                draft.tensors[name], dtype="int8", quantization=quantization
            )
    for node in graph.nodes:
        kinds = (*graph.get_input_types(node), node.type)
        if all(kind.dtype is DType.F32 for kind in kinds):
            net.values[node.name] = FLOAT[type(node.op)](net, node, node.op)
        # Quantized input: it is int8 with a scale, and the user's program quantizes.
        elif isinstance(node.op, Quantize) and _is_direct_input(graph, node.inputs[0]):
            net.values[node.inputs[0]] = draft.add_value(node.name, node.type)
        else:
            INTEGER_OPERATORS[type(node.op)](draft, node)
    return finish_file(net)


def _is_direct_input(graph: Graph, input_name: str) -> bool:
    """Whether a value is an input with one reader: then its quantized form can be the input."""
    return (
        any(input_name == graph_input.name for graph_input in graph.inputs)
        and graph.find_sole_reader(input_name) is not None
    )


def _remove_dequantize(graph: Graph) -> Graph:
    """Return a program with quantized outputs, without the final dequantize nodes."""
    quantized_by_output = {
        node.name: node.inputs[0] for node in graph.nodes if isinstance(node.op, Dequantize)
    }
    input_names = {network_input.name for network_input in graph.inputs}
    outputs = (
        replace(output, value=source_name)
        # An output that is also an input keeps a tensor of its own.
        if (source_name := quantized_by_output.get(output.value, output.value)) not in input_names
        else output
        for output in graph.outputs
    )
    return replace(graph, outputs=tuple(outputs))
