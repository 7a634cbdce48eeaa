"""The integer program as Pulsar2 reads one: floats between quantise and dequantise operators."""

from dataclasses import replace

from tcc.backends.pulsar.chips import Chip
from tcc.backends.pulsar.onnx_model import npu_onnx
from tcc.compiler.ir.graph import Graph, Input, Model, Node
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.lower.onnx_constants import compact
from tcc.compiler.lower.qdq import simulated
from tcc.compiler.ops.integer import Quantize


def qdq_onnx(program: Model, chip: Chip) -> bytes:
    """Return an ONNX file of an integer program: activations in uint8, weights in int8.

    It is the documented grid: activations of a tensor have one scale and a zero point of 0 or 128,
    weights a scale a filter and levels from -127 to 127. Linear layers are convolutions already:
    the tool fails where the weights of a MatMul come from a dequantise operator.
    """
    made = compact(npu_onnx(simulated(from_floats(program), plain=False), chip), fill=False)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def from_floats(program: Model) -> Model:
    """Return a program whose input is floats: grey levels are quantised with the scale that is 1.

    The tool puts what it makes of an image, which is floats, in front of the network.
    """
    graph = program.graph
    (source,) = graph.inputs
    kind = source.type
    if kind.dtype is DType.F32:
        return program
    floats = Input(source.name, TensorType(kind.shape), source.preprocess)
    name = f"{source.name}:levels"
    # A scale of 1 for grey levels: the rounding changes nothing of a whole number.
    quantize = Quantize(float(kind.scale or 1), kind.dtype is DType.I8, *kind.limits)
    first = Node(name, quantize, (source.name,), (), quantize.infer(floats.type))

    def read(value: str) -> str:
        return name if value == source.name else value

    nodes = tuple(replace(node, inputs=tuple(map(read, node.inputs))) for node in graph.nodes)
    outputs = tuple(replace(each, value=read(each.value)) for each in graph.outputs)
    return Model(Graph(graph.name, (floats,), (first, *nodes), outputs), program.weights)
