"""Write a wrong layer as a reproducer: a spec of this layer alone, for two runtimes.

Its int8 model equals the layer bit for bit: weights, scales and clamp. A layer with several inputs
reads slices of one input; identity 1x1 convolutions convert each to its scale. A float32 layer
keeps the network's weights.
"""

import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler import passes
from tcc.compiler.bundle import float_check
from tcc.compiler.bundle.float_check import FloatDivergence
from tcc.compiler.bundle.manifest import WeightsOrigin
from tcc.compiler.bundle.program_check import Divergence
from tcc.compiler.data import dataset, weights
from tcc.compiler.driver.pipeline import describe_network
from tcc.compiler.importers.onnx_import import spec_rebuild
from tcc.compiler.importers.onnx_import.options import ImportOptions
from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output, make_node, verify
from tcc.compiler.ir.op import Op
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import Add, Conv, GlobalAvgPool, GlobalMaxPool, Mul, Pad, Relu, Relu6, Slice
from tcc.compiler.ops.integer import (
    QAdd,
    QAvgPool,
    QConv,
    QGlobalAvgPool,
    QMul,
    QPad,
    QuantizedOp,
    Table,
)
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibration import Calibration, Range, RoundedWeights
from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import UserError

Array = NDArray[Any]


class UnsupportedLayerError(Exception):
    """The spec language cannot express a layer."""


def _name_values(nodes: Sequence[Node], inputs: Sequence[str]) -> dict[str, str]:
    """Return names for the values of a segment; paths are not valid names in a spec."""
    names = {value: f"input_{i}" for i, value in enumerate(inputs)}
    return names | {node.name: f"step_{i}" for i, node in enumerate(nodes)}


def _find_segment(
    graph: Graph, name: str, observed_names: frozenset[str]
) -> tuple[list[Node], list[str]]:
    """Return the nodes from the last correct observed values to a node, and these values."""
    node_by_name = {node.name: node for node in graph.nodes}
    nodes: dict[str, Node] = {}
    segment_inputs: dict[str, None] = {}
    waiting = [name]
    while waiting:
        value = waiting.pop()
        if value in nodes:
            continue
        if value not in node_by_name or (value in observed_names and value != name):
            segment_inputs[value] = None
            continue
        nodes[value] = node_by_name[value]
        waiting += node_by_name[value].inputs
    order = [node for node in graph.nodes if node.name in nodes]
    return order, [value for value in graph.types if value in segment_inputs]


@dataclass(frozen=True)
class LayerSpecBuilder:
    """Builds the float graph of a layer, and the scales that reproduce its integers."""

    spec_names: Mapping[str, str]
    types: dict[str, TensorType]
    inputs: list[Input] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)
    rounded: dict[str, RoundedWeights] = field(default_factory=dict)

    def add_input(self, name: str, shape: tuple[int, ...], value_range: Range) -> None:
        """Add the input."""
        self.inputs.append(Input(name, TensorType(shape)))
        self.types[name] = self.inputs[0].type
        self.ranges[name] = value_range

    def add(
        self, name: str, op: Op, inputs: Sequence[str], value_range: Range | None = None
    ) -> Node:
        """Add a node, with the range of its value if it has one."""
        types = tuple(self.types[value] for value in inputs)
        node = make_node(name, op, tuple(inputs), types)
        if node is None:
            raise UnsupportedLayerError
        self.nodes.append(node)
        self.types[name] = node.type
        if value_range:
            self.ranges[name] = value_range
        return node

    def add_conv(
        self, name: str, op: Conv, source: str, input_scale: float, rounded_weights: RoundedWeights
    ) -> None:
        """Add a convolution with integer weights; `input_scale` is the scale of its input."""
        node = self.add(name, replace(op, bias=True), [source])
        real = rounded_weights.weight * rounded_weights.scale.reshape(-1, 1, 1, 1)
        bias = rounded_weights.bias * (np.float32(input_scale) * rounded_weights.scale)
        arrays = (real.astype(np.float32), bias.astype(np.float32))
        self.weights.update(zip(node.params, arrays, strict=True))
        self.rounded[name] = rounded_weights


def _get_range(tensor_type: TensorType) -> Range:
    if tensor_type.scale is None:
        raise UnsupportedLayerError
    return Range(tensor_type.scale, tensor_type.dtype is DType.I8, tensor_type.zero_point)


def _add_int8_inputs(
    builder: LayerSpecBuilder,
    graph: Graph,
    input_names: Sequence[str],
    expected: Mapping[str, Array],
) -> Array:
    """Add the input of a layer, or one input with slices for several; return its tensor."""
    kinds = [graph.types[value] for value in input_names]
    if len(input_names) == 1:
        builder.add_input(builder.spec_names[input_names[0]], kinds[0].shape, _get_range(kinds[0]))
        scale = np.float32(kinds[0].scale or 0)
        return np.asarray(expected[input_names[0]].astype(np.float32) * scale)
    # A calibration has one input, so several values are concatenated as its channels.
    if {len(kind.shape) for kind in kinds} != {3}:
        raise UnsupportedLayerError
    height, width = (max(kind.shape[axis] for kind in kinds) for axis in (1, 2))
    unit_range = Range(1.0, signed=False)
    builder.add_input("parts", (sum(kind.shape[0] for kind in kinds), height, width), unit_range)
    rows, start = [], 0
    for index, (value, kind) in enumerate(zip(input_names, kinds, strict=True)):
        value_range, channels = _get_range(kind), kind.shape[0]
        if kind.shape[1:] not in ((1, 1), (height, width)):
            raise UnsupportedLayerError
        part = f"part_{index}"
        builder.add(part, Slice(start, start + channels), ["parts"], unit_range)
        # A broadcast value fills its whole slice, and pooling makes it one value again.
        if kind.shape[1:] != (height, width):
            builder.add(f"{part}_pool", GlobalMaxPool(), [part], unit_range)
            part = f"{part}_pool"
        # All slices are unsigned: the bias subtracts the offset.
        offset = -value_range.limits[0]
        integers = RoundedWeights(
            np.ones((channels, 1, 1, 1), np.int8),
            np.full(channels, value_range.scale, np.float32),
            np.full(channels, -offset, np.int32),
        )
        builder.add_conv(
            builder.spec_names[value], Conv(channels, (1, 1), groups=channels), part, 1.0, integers
        )
        builder.ranges[builder.spec_names[value]] = value_range
        quantized = expected[value].astype(np.float32) + np.float32(offset)
        rows.append(np.broadcast_to(quantized, (channels, height, width)))
        start += channels
    return np.concatenate(rows)


def _add_node(builder: LayerSpecBuilder, program: Model, node: Node) -> None:
    """Add the float form of an integer node, with its clamp."""
    value_range, op = _get_range(node.type), node.op
    clamp = _find_clamp(op, value_range) if isinstance(op, QuantizedOp) else None
    output_name, inputs = (
        builder.spec_names[node.name],
        [builder.spec_names[value] for value in node.inputs],
    )
    name = f"{output_name}_sum" if clamp else output_name
    if isinstance(op, QConv):
        weight, scale, bias = (program.weights[param] for param in node.params)
        input_scale = program.graph.types[node.inputs[0]].scale or 0
        builder.add_conv(name, op.conv, inputs[0], input_scale, RoundedWeights(weight, scale, bias))
    else:
        builder.add(name, _to_float_op(op, value_range), inputs)
    if clamp:
        builder.add(output_name, clamp, [name])
    builder.ranges[output_name] = value_range


def _to_float_op(op: Op, value_range: Range) -> Op:  # noqa: PLR0911 - one return per type
    """Return the float operation of an integer one."""
    match op:
        case Table():
            return op.function
        case QAvgPool():
            return op.pool
        case QGlobalAvgPool():
            return GlobalAvgPool()
        case QAdd():
            return Add()
        case QMul():
            return Mul()
        case QPad() if len(set(op.levels)) == 1:
            return Pad(op.padding, op.levels[0] * value_range.scale)
        case _ if op.moves:
            return op
        case _:
            raise UnsupportedLayerError


def _find_clamp(op: QuantizedOp, value_range: Range) -> Op | None:
    """Return the activation that limits the quantized values of an operation, if any."""
    low, high = value_range.limits
    if (op.low, op.high) == (low, high):
        return None
    if op.high == high and op.low == 0:
        return Relu()
    if op.low == max(low, 0) and op.high == min(
        high, int(np.rint(6 / np.float64(value_range.scale)))
    ):
        return Relu6()
    raise UnsupportedLayerError


def _build_float_sources(
    divergence: FloatDivergence, network: Model, target: str
) -> tuple[str, bytes, Array]:
    """Return the spec's text, its weights as a file, and the input tensor.

    Args:
        divergence: Where an artifact differs from its network.
        network: The network, for inference.
        target: Name of the artifact's target.

    Raises:
        UnsupportedLayerError: A spec cannot express the layer.
        UserError: A spec cannot express its shapes or weights.
    """
    graph, name = network.graph, divergence.layer.name
    nodes, input_names = _find_segment(graph, name, divergence.visible_names - {name})
    spec_names = _name_values(nodes, input_names)
    builder = LayerSpecBuilder(spec_names, {})
    tensor = _add_float_inputs(builder, graph, input_names, divergence.expected)
    for node in nodes:
        float_node = builder.add(
            spec_names[node.name], node.op, [spec_names[value] for value in node.inputs]
        )
        arrays = [network.weights[param] for param in node.params]
        builder.weights.update(zip(float_node.params, arrays, strict=True))
    output = Output("values", spec_names[name])
    layer_graph = verify(Graph("layer", tuple(builder.inputs), tuple(builder.nodes), (output,)))
    label = Path(f"the layer {name.replace('/', '.')} for {target}")
    rebuilt_spec = spec_rebuild.build_spec(
        Model(layer_graph, builder.weights), label, ImportOptions()
    )
    (outputs,) = float_program.run(Model(rebuilt_spec.spec.graph, rebuilt_spec.weights), [tensor])
    expected = divergence.expected[name]
    # A spec with other values would blame the wrong layer.
    layer_agreement = float_check.FloatLayerAgreement(name).add_input(
        expected, next(iter(outputs.values()))
    )
    if not layer_agreement.holds:
        raise UnsupportedLayerError
    return rebuilt_spec.text, weights.encode(rebuilt_spec.weights), tensor


def _add_float_inputs(
    builder: LayerSpecBuilder,
    graph: Graph,
    input_names: Sequence[str],
    expected: Mapping[str, Array],
) -> Array:
    """Add the input of a layer, or one input with slices for several; return its tensor."""
    shapes = [graph.types[value].shape for value in input_names]
    if len(input_names) == 1:
        _add_float_input(builder, builder.spec_names[input_names[0]], shapes[0])
        return np.asarray(expected[input_names[0]], np.float32)
    # A dataset has one input, so several values are concatenated as its channels.
    if {len(shape) for shape in shapes} != {3}:
        raise UnsupportedLayerError
    height, width = (max(shape[axis] for shape in shapes) for axis in (1, 2))
    _add_float_input(builder, "parts", (sum(shape[0] for shape in shapes), height, width))
    rows, start = [], 0
    for value, (channels, *size) in zip(input_names, shapes, strict=True):
        if tuple(size) not in ((1, 1), (height, width)):
            raise UnsupportedLayerError
        output_name, part = builder.spec_names[value], Slice(start, start + channels)
        # A broadcast value fills its whole slice, and pooling makes it one value again.
        if tuple(size) == (height, width):
            builder.add(output_name, part, ["parts"])
        else:
            builder.add(f"{output_name}_part", part, ["parts"])
            builder.add(output_name, GlobalMaxPool(), [f"{output_name}_part"])
        rows.append(np.broadcast_to(expected[value], (channels, height, width)))
        start += channels
    return np.concatenate(rows).astype(np.float32)


def _add_float_input(builder: LayerSpecBuilder, name: str, shape: tuple[int, ...]) -> None:
    builder.inputs.append(Input(name, TensorType(shape)))
    builder.types[name] = builder.inputs[0].type


REPORT_FILE = "reproducer.json"
SPEC, WEIGHTS, CALIBRATION, INPUT = (
    "spec.yaml", "weights.safetensors", "calibration.json", "input.npz",
)  # fmt: skip
PRECISION = "int8-i8"
NO_FLOOR = (
    "--floor min_cosine=0 --floor max_drop=1 --floor min_correlation=0 --floor max_error=1e9"
    " --allow-few"
)


@dataclass(frozen=True, slots=True)
class Reproducer:
    """The written folder, and the command that runs it; empty if no spec can express the layer."""

    folder: Path
    layer: str
    command: str


def write(
    divergence: Divergence | FloatDivergence, network: Model, target: str, out: Path
) -> Reproducer:
    """Write a reproducer of a layer into its own folder below `out`.

    Args:
        divergence: Where an artifact differs from its source.
        network: The integer program, or the float network.
        target: Name of the artifact's target.
        out: The parent folder.

    Raises:
        UserError: The path cannot be written, or has something else than a reproducer.
    """
    graph, name = network.graph, divergence.layer.name
    # Shortened, because a path may be too long for a file name.
    folder = out / f"{graph.name}-{target}-{name.replace('/', '.').replace(':', '.')}"[:120]
    expected = divergence.expected[name]
    details = {
        **asdict(divergence.layer), "target": target, "golden": divergence.golden,
        "dtype": expected.dtype.name, "shape": list(expected.shape),
    }  # fmt: skip
    files = {
        "expected.bin": np.ascontiguousarray(expected).tobytes(),
        "found.bin": np.ascontiguousarray(divergence.actual).tobytes(),
        REPORT_FILE: (json.dumps(details, indent=2) + "\n").encode(),
    }
    command = ""
    try:
        files |= _build_sources(divergence, network, target)
        command = _format_command(folder, divergence)
        here = _format_command(Path(), divergence)
        files["README.txt"] = f"{_README.format(layer=name, command=here)}\n".encode()
    except (UnsupportedLayerError, UserError):
        # Without a spec, the layer's inputs are stored for inspection.
        inputs = [value for value in _find_node(graph, name).inputs if value in divergence.expected]
        arrays = {f"input_{i}": divergence.expected[value] for i, value in enumerate(inputs)}
        files[INPUT] = _encode_npz(**arrays)
    atomic_files.write_tree(folder, files, frozenset(), _check_replaceable)
    return Reproducer(folder, name, command)


_README = """This folder reproduces the layer `{layer}`. expected.bin has its correct output for
input.npz, found.bin the artifact's output. Both are row-major arrays; reproducer.json has their
type and shape. To run the layer on two runtimes and compare both with its definition, run in this
folder:

    {command}

If both runtimes agree with the definition, the artifact is damaged. If one does not, its runtime or
the code for it is wrong."""


def _format_command(folder: Path, divergence: Divergence | FloatDivergence) -> str:
    spec, file, scales, input_file, built = (
        shlex.quote(str(folder / name)) for name in (SPEC, WEIGHTS, CALIBRATION, INPUT, "built")
    )
    integers = f" --calibration {scales} --precision {PRECISION} --passes plain {NO_FLOOR}"
    int8_options = integers if isinstance(divergence, Divergence) else ""
    return (
        f"tcc build {spec} --weights {file} --data {input_file} --agree 1{int8_options}"
        f" --target onnxruntime,tflite -o {built}"
    )


def _check_replaceable(folder: Path) -> str | None:
    if not folder.is_dir():
        return "it is not a folder"
    file_names = {path.name for path in folder.iterdir()}
    return None if not file_names or REPORT_FILE in file_names else "it is not a reproducer"


def _build_sources(
    divergence: Divergence | FloatDivergence, network: Model, target: str
) -> Mapping[str, bytes]:
    if isinstance(divergence, Divergence):
        return _build_int8_sources(divergence, network, target)
    spec, file, tensor = _build_float_sources(divergence, network, target)
    return {SPEC: spec.encode(), WEIGHTS: file, INPUT: _encode_npz(tensors=tensor[None])}


def _build_int8_sources(divergence: Divergence, program: Model, target: str) -> Mapping[str, bytes]:
    """Return spec, weights, calibration and input that give the expected quantized values."""
    graph, name = program.graph, divergence.layer.name
    nodes, input_names = _find_segment(graph, name, divergence.visible_names - {name})
    spec_names = _name_values(nodes, input_names)
    builder = LayerSpecBuilder(spec_names, {})
    tensor = _add_int8_inputs(builder, graph, input_names, divergence.expected)
    for node in nodes:
        _add_node(builder, program, node)
    output = Output("levels", spec_names[name])
    layer_graph = verify(Graph("layer", tuple(builder.inputs), tuple(builder.nodes), (output,)))
    label = Path(f"the layer {name.replace('/', '.')} for {target}")
    rebuilt_spec = spec_rebuild.build_spec(
        Model(layer_graph, builder.weights), label, ImportOptions()
    )
    paths = rebuilt_spec.paths
    calibration = Calibration(
        {paths[value]: quantization for value, quantization in builder.ranges.items()},
        {paths[node]: quantization for node, quantization in builder.rounded.items()},
        float_io=False,
    )
    lowered_model = passes.run(Model(rebuilt_spec.spec.graph, rebuilt_spec.weights), passes.PLAIN)
    integers = quantize(lowered_model, calibration)
    (computed,) = integer_program.run(integers, [tensor], keep_all=True)
    # A spec with other values would blame the wrong layer.
    if not np.array_equal(computed[paths[spec_names[name]]], divergence.expected[name]):
        raise UnsupportedLayerError
    input_bytes = _encode_npz(tensors=tensor[None])
    origin = WeightsOrigin("file", weights.digest(rebuilt_spec.weights), None, None, None)
    provenance = calibration_file.Provenance(
        "reproducer",
        "any",
        passes.format_pipeline(passes.PLAIN),
        describe_network(rebuilt_spec.spec),
        origin,
    )
    with_data = _read_dataset(input_bytes)
    calibration_result = CalibrationResult(calibration, {}, "reproducer")
    document = calibration_file.build_document(
        provenance, lowered_model, calibration_result, with_data
    )
    return {
        SPEC: rebuilt_spec.text.encode(),
        WEIGHTS: weights.encode(rebuilt_spec.weights),
        CALIBRATION: calibration_document.encode(document),
        INPUT: input_bytes,
    }


def _read_dataset(content: bytes) -> dataset.DataSet:
    from tcc.compiler.support import atomic_files

    with atomic_files.create_scratch_folder() as folder:
        (folder / INPUT).write_bytes(content)
        return dataset.read_dataset(folder / INPUT)


def _encode_npz(**arrays: Array) -> bytes:
    """Return arrays as an .npz file, with the same bytes each time."""
    file = io.BytesIO()
    # NumPy writes the entries of an archive without a time stamp.
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _find_node(graph: Graph, name: str) -> Node:
    return next(node for node in graph.nodes if node.name == name)
