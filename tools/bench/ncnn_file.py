"""Write a fused graph as ncnn's two files, equivalent to the output of ncnn's own tools.

Activations are fused into the preceding layers. In int8, convolutions and linear layers have scales
from the weights, and activations a range from -6 to 6: speed does not depend on it.
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
MAX_LEVEL, ACTIVATION_RANGE = 127, 6
FLOAT_WEIGHTS = b"\0\0\0\0"
NcnnParameters = dict[int, object]
Array = NDArray[Any]


@dataclass
class NcnnLayer:
    """A layer with its input and output values; `weight` and `bias` if it has them."""

    kind: str
    inputs: list[str]
    output: str
    parameters: NcnnParameters = field(default_factory=dict)
    weight: Array | None = None
    bias: Array | None = None
    constant_bytes: bytes = b""
    """Weights of layers that are equal in every form."""


def write_files(model: Model, *, integers: bool) -> tuple[str, bytes]:
    """Return the text of the network description, and the bytes of its weights.

    Raises:
        ValueError: The network has an unsupported operation.
    """
    ncnn_layers = list_layers(model)
    uses = Counter(blob for layer in ncnn_layers for blob in layer.inputs)
    lines: list[str] = []
    weight_bytes = bytearray()
    names, uses_so_far = _BlobNames(), Counter[str]()
    for layer in ncnn_layers:
        input_names = []
        for blob in layer.inputs:
            input_names.append(
                names.get_part_name(blob, uses_so_far[blob])
                if uses[blob] > 1
                else names.get_name(blob)
            )
            uses_so_far[blob] += 1
        requantised = integers and _feeds_int8_only(ncnn_layers, layer.output)
        weight_bytes += _pack_weights(layer, integers, requantised)
        output_name = names.get_name(layer.output)
        lines.append(
            _format_line(layer.kind, len(lines), input_names, [output_name], layer.parameters)
        )
        if uses[layer.output] > 1:
            parts = [
                names.get_part_name(layer.output, index) for index in range(uses[layer.output])
            ]
            lines.append(_format_line("Split", len(lines), [output_name], parts, {}))
    blobs = sum(int(line.split()[3]) for line in lines)
    return f"{MAGIC}\n{len(lines)} {blobs}\n" + "\n".join(lines) + "\n", bytes(weight_bytes)


class _BlobNames:
    """Assigns short names to values, and to the parts of a value with several readers."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def get_name(self, blob: str) -> str:
        return self._names.setdefault(blob, f"b{len(self._names)}")

    def get_part_name(self, blob: str, index: int) -> str:
        return f"{self.get_name(blob)}_{index}"


def _format_line(
    kind: str,
    index: int,
    input_names: Sequence[str],
    output_names: Sequence[str],
    parameters: NcnnParameters,
) -> str:
    fields = [
        kind,
        f"layer_{index}",
        str(len(input_names)),
        str(len(output_names)),
        *input_names,
        *output_names,
    ]
    return " ".join([*fields, *(f"{key}={parameter}" for key, parameter in parameters.items())])


def _feeds_int8_only(ncnn_layers: Sequence[NcnnLayer], blob: str) -> bool:
    readers = [layer for layer in ncnn_layers if blob in layer.inputs]
    return bool(readers) and all(layer.weight is not None for layer in readers)


def _pack_weights(layer: NcnnLayer, integers: bool, requantised: bool) -> bytes:
    """Return a layer's weights; set the parameters that state their form."""
    if layer.weight is None:
        return layer.constant_bytes
    bias = b"" if layer.bias is None else layer.bias.astype("<f4").tobytes()
    weight = layer.weight.astype("<f4")
    if not integers:
        return FLOAT_WEIGHTS + weight.tobytes() + bias
    depthwise = layer.kind == "ConvolutionDepthWise"
    layer.parameters[8] = (1 if depthwise else 2) + (100 if requantised else 0)
    filters = weight.reshape(len(weight), -1)
    scales = (MAX_LEVEL / np.maximum(np.abs(filters).max(1), 1e-9)).astype("<f4")
    levels = (
        np.rint(filters * scales[:, None]).clip(-MAX_LEVEL, MAX_LEVEL).astype(np.int8).tobytes()
    )
    levels += bytes(-len(levels) % 4)
    activation_scales = np.float32(MAX_LEVEL / ACTIVATION_RANGE).tobytes() * (
        2 if requantised else 1
    )
    return b"".join((struct.pack("<I", INT8), levels, bias, scales.tobytes(), activation_scales))


def list_layers(model: Model) -> list[NcnnLayer]:
    """Return the layers of a network, with fused activations.

    Raises:
        ValueError: The network has an unsupported operation.
    """
    graph = model.graph
    (source,) = graph.inputs
    channels, height, width = source.type.shape
    ncnn_layers = [NcnnLayer("Input", [], source.name, {0: width, 1: height, 2: channels})]
    aliases: dict[str, str] = {}
    uses = Counter(blob for node in graph.nodes for blob in node.inputs)
    for node in graph.nodes:
        inputs = [aliases.get(blob, blob) for blob in node.inputs]
        anchor = ncnn_layers[-1]
        fuses = anchor.weight is not None and anchor.output == inputs[0]
        if isinstance(node.op, ops.Flatten):
            aliases[node.name] = inputs[0]
        elif type(node.op) in ACTIVATIONS and fuses and uses[node.inputs[0]] == 1:
            anchor.parameters |= ACTIVATIONS[type(node.op)]
            aliases[node.name] = anchor.output
        else:
            ncnn_layers.append(_make_layer(graph, model.weights, node, inputs))
    return ncnn_layers


def _make_layer(
    graph: Graph, weights: Mapping[str, Array], node: Node, inputs: list[str]
) -> NcnnLayer:
    make = LAYERS.get(type(node.op))
    if make is None:
        raise ValueError(f"{node.name}: {node.op.keyword} is not supported for ncnn")
    tensors = [weights[name] for name in node.params]
    layer = make(LayerSite(node.op, graph.types[node.inputs[0]].shape, tensors))
    layer.inputs, layer.output = inputs, node.name
    return layer


@dataclass(frozen=True)
class LayerSite:
    """An operation, its input shape and its tensors."""

    op: Any
    shape: Sequence[int]
    tensors: Sequence[Array]

    def make_layer(self, kind: str, parameters: NcnnParameters, *constants: Array) -> NcnnLayer:
        """Return a layer; layers without weights stay fp32 in int8 too."""
        constant_bytes = b"".join(array.astype("<f4").tobytes() for array in constants)
        return NcnnLayer(kind, [], "", parameters, constant_bytes=constant_bytes)

    def make_weighted_layer(self, kind: str, parameters: NcnnParameters) -> NcnnLayer:
        """Return a layer with a weight and, if the operation has one, a bias."""
        weight, *bias = self.tensors
        return NcnnLayer(kind, [], "", parameters, weight, bias[0] if bias else None)


def _make_conv(site: LayerSite) -> NcnnLayer:
    op: ops.Conv = site.op
    pad_top, pad_left, pad_bottom, pad_right = op.pads
    parameters: NcnnParameters = {
        0: op.filters, 1: op.kernel[1], 11: op.kernel[0], 2: op.dilation[1], 12: op.dilation[0],
        3: op.stride[1], 13: op.stride[0], 4: pad_left, 14: pad_top, 15: pad_right, 16: pad_bottom,
        5: int(op.bias), 6: site.tensors[0].size,
    }  # fmt: skip
    if op.groups == 1:
        return site.make_weighted_layer("Convolution", parameters)
    return site.make_weighted_layer("ConvolutionDepthWise", parameters | {7: op.groups})


def _make_linear(site: LayerSite) -> NcnnLayer:
    op: ops.Linear = site.op
    return site.make_weighted_layer(
        "InnerProduct", {0: op.units, 1: int(op.bias), 2: site.tensors[0].size}
    )


def _make_pool(site: LayerSite) -> NcnnLayer:
    op: ops.MaxPool | ops.AvgPool = site.op
    pad_top, pad_left, pad_bottom, pad_right = op.pads
    border = {6: int(op.count_include_pad)} if isinstance(op, ops.AvgPool) else {}
    parameters: NcnnParameters = {
        0: int(isinstance(op, ops.AvgPool)), 1: op.kernel[1], 11: op.kernel[0],
        2: op.step[1], 12: op.step[0], 3: pad_left, 13: pad_top, 14: pad_right, 15: pad_bottom,
        5: 0 if op.ceil else 1,
    }  # fmt: skip
    return site.make_layer("Pooling", parameters | border)


def _make_slice(site: LayerSite) -> NcnnLayer:
    start, stop, step = slice(site.op.start, site.op.stop, site.op.step).indices(site.shape[0])
    if step != 1:
        raise ValueError("slices with steps are not supported for ncnn")
    return site.make_layer("Crop", {-23309: f"1,{start}", -23310: f"1,{stop}", -23311: "1,0"})


ACTIVATIONS: Mapping[type[ops.Op], NcnnParameters] = {
    ops.Relu: {9: 1},
    ops.Relu6: {9: 3, -23310: "2,0.0,6.0"},
}
"""The parameters of the preceding layer for a fused activation."""
LAYERS: Mapping[type[ops.Op], Callable[[LayerSite], NcnnLayer]] = {
    ops.Conv: _make_conv,
    ops.Linear: _make_linear,
    ops.MaxPool: _make_pool,
    ops.AvgPool: _make_pool,
    ops.Slice: _make_slice,
    ops.ScaleShift: lambda at: at.make_layer("Scale", {0: at.shape[0], 1: 1}, *at.tensors),
    ops.Relu: lambda at: at.make_layer("ReLU", {}),
    ops.Relu6: lambda at: at.make_layer("Clip", {0: 0.0, 1: 6.0}),
    ops.Concat: lambda at: at.make_layer("Concat", {0: 0}),
    ops.Add: lambda at: at.make_layer("BinaryOp", {0: 0}),
    ops.GlobalAvgPool: lambda at: at.make_layer("Pooling", {0: 1, 4: 1}),
    ops.ChannelShuffle: lambda at: at.make_layer("ShuffleChannel", {0: at.op.groups}),
}
"""The ncnn layer of each operation."""
