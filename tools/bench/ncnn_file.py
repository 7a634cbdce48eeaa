"""A fused graph of ours as ncnn's two files: what ncnn's own tools would make of it.

Activations are fused into what they follow. As integers, convolutions and linear layers are int8,
with scales from the weights, and activations reach from -6 to 6: speed does not depend on that.
"""

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler import ops
from tcc.compiler.ir.graph import Graph, Model, Node

MAGIC, INT8 = 7767517, 0x000D4B38
LEVELS, REACH = 127, 6
FLOAT_WEIGHTS = b"\0\0\0\0"
NcnnParameters = dict[int, object]
Array = NDArray[Any]


@dataclass
class NcnnLayer:
    """A layer with the values that it reads and gives; `weight` and `bias` of what has them."""

    kind: str
    inputs: list[str]
    output: str
    parameters: NcnnParameters = field(default_factory=dict)
    weight: Array | None = None
    bias: Array | None = None
    plain: bytes = b""
    """Weights of layers that are the same in every form."""


def files(model: Model, *, integers: bool) -> tuple[str, bytes]:
    """Return the text that describes the network, and its weights.

    Raises:
        ValueError: It has an operation that is not known here.
    """
    listed = layers(model)
    uses = Counter(value for each in listed for value in each.inputs)
    lines: list[str] = []
    data = bytearray()
    names, given = _Names(), Counter[str]()
    for each in listed:
        read = []
        for value in each.inputs:
            read.append(names.part(value, given[value]) if uses[value] > 1 else names.of(value))
            given[value] += 1
        requantised = integers and _only_integers(listed, each.output)
        data += _weights(each, integers, requantised)
        out = names.of(each.output)
        lines.append(_line(each.kind, len(lines), read, [out], each.parameters))
        if uses[each.output] > 1:
            parts = [names.part(each.output, index) for index in range(uses[each.output])]
            lines.append(_line("Split", len(lines), [out], parts, {}))
    blobs = sum(int(line.split()[3]) for line in lines)
    return f"{MAGIC}\n{len(lines)} {blobs}\n" + "\n".join(lines) + "\n", bytes(data)


class _Names:
    """Short names of values, and of the parts into which those are split that several read."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, value: str) -> str:
        return self._known.setdefault(value, f"b{len(self._known)}")

    def part(self, value: str, index: int) -> str:
        return f"{self.of(value)}_{index}"


def _line(
    kind: str, index: int, read: Sequence[str], made: Sequence[str], parameters: NcnnParameters
) -> str:
    words = [kind, f"layer_{index}", str(len(read)), str(len(made)), *read, *made]
    return " ".join([*words, *(f"{key}={value}" for key, value in parameters.items())])


def _only_integers(listed: Sequence[NcnnLayer], value: str) -> bool:
    readers = [each for each in listed if value in each.inputs]
    return bool(readers) and all(each.weight is not None for each in readers)


def _weights(layer: NcnnLayer, integers: bool, requantised: bool) -> bytes:
    """Return a layer's weights, and have its parameters say of which form they are."""
    if layer.weight is None:
        return layer.plain
    bias = b"" if layer.bias is None else layer.bias.astype("<f4").tobytes()
    weight = layer.weight.astype("<f4")
    if not integers:
        return FLOAT_WEIGHTS + weight.tobytes() + bias
    depthwise = layer.kind == "ConvolutionDepthWise"
    layer.parameters[8] = (1 if depthwise else 2) + (100 if requantised else 0)
    rows = weight.reshape(len(weight), -1)
    scales = (LEVELS / np.maximum(np.abs(rows).max(1), 1e-9)).astype("<f4")
    levels = np.rint(rows * scales[:, None]).clip(-LEVELS, LEVELS).astype(np.int8).tobytes()
    levels += bytes(-len(levels) % 4)
    reach = np.float32(LEVELS / REACH).tobytes() * (2 if requantised else 1)
    return b"".join((struct.pack("<I", INT8), levels, bias, scales.tobytes(), reach))


def layers(model: Model) -> list[NcnnLayer]:
    """Return the layers of a network, activations fused.

    Raises:
        ValueError: It has an operation that is not known here.
    """
    graph = model.graph
    (source,) = graph.inputs
    channels, height, width = source.type.shape
    found = [NcnnLayer("Input", [], source.name, {0: width, 1: height, 2: channels})]
    same: dict[str, str] = {}
    uses = Counter(value for node in graph.nodes for value in node.inputs)
    for node in graph.nodes:
        inputs = [same.get(value, value) for value in node.inputs]
        anchor = found[-1]
        fuses = anchor.weight is not None and anchor.output == inputs[0]
        if isinstance(node.op, ops.Flatten):
            same[node.name] = inputs[0]
        elif type(node.op) in ACTIVATIONS and fuses and uses[node.inputs[0]] == 1:
            anchor.parameters |= ACTIVATIONS[type(node.op)]
            same[node.name] = anchor.output
        else:
            found.append(_layer(graph, model.weights, node, inputs))
    return found


def _layer(graph: Graph, weights: Mapping[str, Array], node: Node, inputs: list[str]) -> NcnnLayer:
    make = LAYERS.get(type(node.op))
    if make is None:
        raise ValueError(f"{node.name}: no {node.op.keyword} for ncnn")
    tensors = [weights[name] for name in node.params]
    made = make(Site(node.op, graph.types[node.inputs[0]].shape, tensors))
    made.inputs, made.output = inputs, node.name
    return made


@dataclass(frozen=True)
class Site:
    """An operation, the shape of its input, and its tensors."""

    op: Any
    shape: Sequence[int]
    tensors: Sequence[Array]

    def layer(self, kind: str, parameters: NcnnParameters, *plain: Array) -> NcnnLayer:
        """Return a layer; what is plain stays float as integers too."""
        data = b"".join(each.astype("<f4").tobytes() for each in plain)
        return NcnnLayer(kind, [], "", parameters, plain=data)

    def weighted(self, kind: str, parameters: NcnnParameters) -> NcnnLayer:
        """Return a layer with a weight and, if the operation has one, a bias."""
        weight, *bias = self.tensors
        return NcnnLayer(kind, [], "", parameters, weight, bias[0] if bias else None)


def _conv(at: Site) -> NcnnLayer:
    op: ops.Conv = at.op
    top, left, bottom, right = op.pads
    parameters: NcnnParameters = {
        0: op.filters, 1: op.kernel[1], 11: op.kernel[0], 2: op.dilation[1], 12: op.dilation[0],
        3: op.stride[1], 13: op.stride[0], 4: left, 14: top, 15: right, 16: bottom,
        5: int(op.bias), 6: at.tensors[0].size,
    }  # fmt: skip
    if op.groups == 1:
        return at.weighted("Convolution", parameters)
    return at.weighted("ConvolutionDepthWise", parameters | {7: op.groups})


def _linear(at: Site) -> NcnnLayer:
    op: ops.Linear = at.op
    return at.weighted("InnerProduct", {0: op.units, 1: int(op.bias), 2: at.tensors[0].size})


def _pool(at: Site) -> NcnnLayer:
    op: ops.MaxPool | ops.AvgPool = at.op
    top, left, bottom, right = op.pads
    border = {6: int(op.count_include_pad)} if isinstance(op, ops.AvgPool) else {}
    parameters: NcnnParameters = {
        0: int(isinstance(op, ops.AvgPool)), 1: op.kernel[1], 11: op.kernel[0],
        2: op.step[1], 12: op.step[0], 3: left, 13: top, 14: right, 15: bottom,
        5: 0 if op.ceil else 1,
    }  # fmt: skip
    return at.layer("Pooling", parameters | border)


def _slice(at: Site) -> NcnnLayer:
    start, stop, step = slice(at.op.start, at.op.stop, at.op.step).indices(at.shape[0])
    if step != 1:
        raise ValueError("no slices with steps for ncnn")
    return at.layer("Crop", {-23309: f"1,{start}", -23310: f"1,{stop}", -23311: "1,0"})


ACTIVATIONS: Mapping[type[ops.Op], NcnnParameters] = {
    ops.Relu: {9: 1},
    ops.Relu6: {9: 3, -23310: "2,0.0,6.0"},
}
"""What an activation is as a parameter of the layer before it."""
LAYERS: Mapping[type[ops.Op], Callable[[Site], NcnnLayer]] = {
    ops.Conv: _conv,
    ops.Linear: _linear,
    ops.MaxPool: _pool,
    ops.AvgPool: _pool,
    ops.Slice: _slice,
    ops.ScaleShift: lambda at: at.layer("Scale", {0: at.shape[0], 1: 1}, *at.tensors),
    ops.Relu: lambda at: at.layer("ReLU", {}),
    ops.Relu6: lambda at: at.layer("Clip", {0: 0.0, 1: 6.0}),
    ops.Concat: lambda at: at.layer("Concat", {0: 0}),
    ops.Add: lambda at: at.layer("BinaryOp", {0: 0}),
    ops.GlobalAvgPool: lambda at: at.layer("Pooling", {0: 1, 4: 1}),
    ops.ChannelShuffle: lambda at: at.layer("ShuffleChannel", {0: at.op.groups}),
}
"""ncnn's layer by operation."""
