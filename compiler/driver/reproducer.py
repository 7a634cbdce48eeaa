"""A layer that an artifact computes otherwise, by itself: a spec that both runtimes can run.

Its integers are those of the layer to the bit: weights, scales and clamp. A layer of several inputs
reads parts of one, which 1x1 convolutions by 1 bring to the scale of each. A layer of float32 keeps
the weights that the network has.
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
from tcc.compiler.driver.pipeline import network
from tcc.compiler.foreign.onnx_import import spec_rebuild
from tcc.compiler.foreign.onnx_import.options import ImportOptions
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
    Quantized,
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
OFFSET = 128


class UnspokenError(Exception):
    """The language has no words for a layer."""


def _name_values(nodes: Sequence[Node], inputs: Sequence[str]) -> dict[str, str]:
    """Return names for the values of a segment: paths are no names that a spec may give."""
    names = {value: f"input_{i}" for i, value in enumerate(inputs)}
    return names | {node.name: f"step_{i}" for i, node in enumerate(nodes)}


def _segment(graph: Graph, name: str, shown: frozenset[str]) -> tuple[list[Node], list[str]]:
    """Return the nodes from the last values that were seen to be right up to one, and these."""
    made = {node.name: node for node in graph.nodes}
    nodes: dict[str, Node] = {}
    ends: dict[str, None] = {}
    waiting = [name]
    while waiting:
        value = waiting.pop()
        if value in nodes:
            continue
        if value not in made or (value in shown and value != name):
            ends[value] = None
            continue
        nodes[value] = made[value]
        waiting += made[value].inputs
    order = [node for node in graph.nodes if node.name in nodes]
    return order, [value for value in graph.types if value in ends]


@dataclass(frozen=True)
class SpokenLayer:
    """The float graph of a layer while it grows, and the scales that make its integers of it."""

    said: Mapping[str, str]
    types: dict[str, TensorType]
    inputs: list[Input] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)
    rounded: dict[str, RoundedWeights] = field(default_factory=dict)

    def enter(self, name: str, shape: tuple[int, ...], own: Range) -> None:
        """Begin with an input."""
        self.inputs.append(Input(name, TensorType(shape)))
        self.types[name] = self.inputs[0].type
        self.ranges[name] = own

    def add(self, name: str, op: Op, inputs: Sequence[str], own: Range | None = None) -> Node:
        """Add a node; its value is kept with a range, if it has one."""
        types = tuple(self.types[value] for value in inputs)
        node = make_node(name, op, tuple(inputs), types)
        if node is None:
            raise UnspokenError
        self.nodes.append(node)
        self.types[name] = node.type
        if own:
            self.ranges[name] = own
        return node

    def conv(self, name: str, op: Conv, source: str, x: float, own: RoundedWeights) -> None:
        """Add a convolution of integer weights, whose input has the scale `x`."""
        node = self.add(name, replace(op, bias=True), [source])
        real = own.weight * own.scale.reshape(-1, 1, 1, 1)
        bias = own.bias * (np.float32(x) * own.scale)
        values = (real.astype(np.float32), bias.astype(np.float32))
        self.weights.update(zip(node.params, values, strict=True))
        self.rounded[name] = own


def _range(kind: TensorType) -> Range:
    if kind.scale is None:
        raise UnspokenError
    return Range(kind.scale, kind.dtype is DType.I8)


def _enter_levels(
    made: SpokenLayer, graph: Graph, ends: Sequence[str], right: Mapping[str, Array]
) -> Array:
    """Add the input of a layer, or parts of one; return the tensor that goes in."""
    kinds = [graph.types[value] for value in ends]
    if len(ends) == 1:
        made.enter(made.said[ends[0]], kinds[0].shape, _range(kinds[0]))
        scale = np.float32(kinds[0].scale or 0)
        return np.asarray(right[ends[0]].astype(np.float32) * scale)
    # A calibration is of one input: several values lie side by side as its channels.
    if {len(kind.shape) for kind in kinds} != {3}:
        raise UnspokenError
    height, width = (max(kind.shape[axis] for kind in kinds) for axis in (1, 2))
    plain = Range(1.0, signed=False)
    made.enter("parts", (sum(kind.shape[0] for kind in kinds), height, width), plain)
    rows, start = [], 0
    for index, (value, kind) in enumerate(zip(ends, kinds, strict=True)):
        own, channels = _range(kind), kind.shape[0]
        if kind.shape[1:] not in ((1, 1), (height, width)):
            raise UnspokenError
        part = f"part_{index}"
        made.add(part, Slice(start, start + channels), ["parts"], plain)
        # A value that is broadcast stands in every pixel of its part, and is pooled to one again.
        if kind.shape[1:] != (height, width):
            made.add(f"{part}_pool", GlobalMaxPool(), [part], plain)
            part = f"{part}_pool"
        # All parts are unsigned: the bias takes off what was added.
        offset = OFFSET if own.signed else 0
        integers = RoundedWeights(
            np.ones((channels, 1, 1, 1), np.int8),
            np.full(channels, own.scale, np.float32),
            np.full(channels, -offset, np.int32),
        )
        made.conv(made.said[value], Conv(channels, (1, 1), groups=channels), part, 1.0, integers)
        made.ranges[made.said[value]] = own
        levels = right[value].astype(np.float32) + np.float32(offset)
        rows.append(np.broadcast_to(levels, (channels, height, width)))
        start += channels
    return np.concatenate(rows)


def _place(made: SpokenLayer, program: Model, node: Node) -> None:
    """Add the float form of an integer node, and its clamp."""
    own, op = _range(node.type), node.op
    clamp = _clamp(op, own) if isinstance(op, Quantized) else None
    last, inputs = made.said[node.name], [made.said[value] for value in node.inputs]
    name = f"{last}_sum" if clamp else last
    if isinstance(op, QConv):
        weight, scale, bias = (program.weights[param] for param in node.params)
        x = program.graph.types[node.inputs[0]].scale or 0
        made.conv(name, op.conv, inputs[0], x, RoundedWeights(weight, scale, bias))
    else:
        made.add(name, _word(op, own), inputs)
    if clamp:
        made.add(last, clamp, [name])
    made.ranges[last] = own


def _word(op: Op, own: Range) -> Op:  # noqa: PLR0911 - one a kind
    """Return the float operation that an integer one stands for."""
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
            return Pad(op.padding, op.levels[0] * own.scale)
        case _ if op.moves:
            return op
        case _:
            raise UnspokenError


def _clamp(op: Quantized, own: Range) -> Op | None:
    """Return the activation that narrowed the levels of an operation, if one did."""
    low, high = own.limits
    if (op.low, op.high) == (low, high):
        return None
    if op.high == high and op.low == 0:
        return Relu()
    if op.low == max(low, 0) and op.high == min(high, int(np.rint(6 / np.float64(own.scale)))):
        return Relu6()
    raise UnspokenError


def _float_sources(found: FloatDivergence, network: Model, target: str) -> tuple[str, bytes, Array]:
    """Return the spec's text, its weights as a file, and the tensor that goes in.

    Args:
        found: Where an artifact differs from its network.
        network: The network, for inference.
        target: What the artifact is built for.

    Raises:
        UnspokenError: The language has no words for the layer.
        UserError: It has none for its shapes or weights.
    """
    graph, name = network.graph, found.layer.name
    nodes, ends = _segment(graph, name, found.shown - {name})
    said = _name_values(nodes, ends)
    made = SpokenLayer(said, {})
    tensor = _enter_floats(made, graph, ends, found.right)
    for node in nodes:
        own = made.add(said[node.name], node.op, [said[value] for value in node.inputs])
        values = [network.weights[param] for param in node.params]
        made.weights.update(zip(own.params, values, strict=True))
    output = Output("values", said[name])
    lean = verify(Graph("layer", tuple(made.inputs), tuple(made.nodes), (output,)))
    label = Path(f"the layer {name.replace('/', '.')} for {target}")
    spoken = spec_rebuild.rebuild(Model(lean, made.weights), label, ImportOptions())
    (given,) = float_program.run(Model(spoken.spec.graph, spoken.weights), [tensor])
    right = found.right[name]
    # A spec that gives other values would accuse the wrong layer.
    off = float_check.FloatLayerAgreement(name).plus(right, next(iter(given.values())))
    if not off.holds:
        raise UnspokenError
    return spoken.text, weights.encode(spoken.weights), tensor


def _enter_floats(
    made: SpokenLayer, graph: Graph, ends: Sequence[str], right: Mapping[str, Array]
) -> Array:
    """Add the input of a layer, or parts of one; return the tensor that goes in."""
    shapes = [graph.types[value].shape for value in ends]
    if len(ends) == 1:
        _begin_floats(made, made.said[ends[0]], shapes[0])
        return np.asarray(right[ends[0]], np.float32)
    # Data is of one input: several values lie side by side as its channels.
    if {len(shape) for shape in shapes} != {3}:
        raise UnspokenError
    height, width = (max(shape[axis] for shape in shapes) for axis in (1, 2))
    _begin_floats(made, "parts", (sum(shape[0] for shape in shapes), height, width))
    rows, start = [], 0
    for value, (channels, *size) in zip(ends, shapes, strict=True):
        if tuple(size) not in ((1, 1), (height, width)):
            raise UnspokenError
        last, part = made.said[value], Slice(start, start + channels)
        # A value that is broadcast stands in every pixel of its part, and is pooled to one again.
        if tuple(size) == (height, width):
            made.add(last, part, ["parts"])
        else:
            made.add(f"{last}_part", part, ["parts"])
            made.add(last, GlobalMaxPool(), [f"{last}_part"])
        rows.append(np.broadcast_to(right[value], (channels, height, width)))
        start += channels
    return np.concatenate(rows).astype(np.float32)


def _begin_floats(made: SpokenLayer, name: str, shape: tuple[int, ...]) -> None:
    made.inputs.append(Input(name, TensorType(shape)))
    made.types[name] = made.inputs[0].type


ABOUT = "reproducer.json"
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
    """A folder that was written, and the command that runs it; none where no spec can say it."""

    folder: Path
    layer: str
    command: str


def write(
    found: Divergence | FloatDivergence, network: Model, target: str, out: Path
) -> Reproducer:
    """Write a reproducer of a layer into a folder of its own below `out`.

    Args:
        found: Where an artifact differs from what it is built from.
        network: The integer program, or the network in floats.
        target: What the artifact is built for.
        out: The folder around it.

    Raises:
        UserError: The path cannot be written, or holds something else.
    """
    graph, name = network.graph, found.layer.name
    # Cut, as a path may be longer than a file's name may be.
    folder = out / f"{graph.name}-{target}-{name.replace('/', '.').replace(':', '.')}"[:120]
    right = found.right[name]
    about = {
        **asdict(found.layer), "target": target, "golden": found.golden,
        "dtype": right.dtype.name, "shape": list(right.shape),
    }  # fmt: skip
    files = {
        "expected.bin": np.ascontiguousarray(right).tobytes(),
        "found.bin": np.ascontiguousarray(found.found).tobytes(),
        ABOUT: (json.dumps(about, indent=2) + "\n").encode(),
    }
    command = ""
    try:
        files |= _of_kind(found, network, target)
        command = _command(folder, found)
        here = _command(Path(), found)
        files["README.txt"] = f"{_ABOUT.format(layer=name, command=here)}\n".encode()
    except (UnspokenError, UserError):
        # Without a spec the levels themselves are left for others to look at.
        inputs = [value for value in _of(graph, name).inputs if value in found.right]
        arrays = {f"input_{i}": found.right[value] for i, value in enumerate(inputs)}
        files[INPUT] = _npz(**arrays)
    atomic_files.write_tree(folder, files, frozenset(), _replaceable)
    return Reproducer(folder, name, command)


_ABOUT = """The layer `{layer}` by itself. expected.bin is what its definition gives for input.npz,
found.bin what the artifact gave: numbers, row by row, as reproducer.json says. To run it on both
runtimes, in this folder, and compare each with the definition:

    {command}

Where both agree with it, it is the artifact that is damaged; where one does not, its runtime or
the code for it is wrong."""


def _command(folder: Path, found: Divergence | FloatDivergence) -> str:
    spec, file, scales, given, built = (
        shlex.quote(str(folder / name)) for name in (SPEC, WEIGHTS, CALIBRATION, INPUT, "built")
    )
    integers = f" --calibration {scales} --precision {PRECISION} --passes plain {NO_FLOOR}"
    more = integers if isinstance(found, Divergence) else ""
    return (
        f"tcc build {spec} --weights {file} --data {given} --agree 1{more}"
        f" --target onnxruntime,tflite -o {built}"
    )


def _replaceable(folder: Path) -> str | None:
    if not folder.is_dir():
        return "it is not a folder"
    held = {path.name for path in folder.iterdir()}
    return None if not held or ABOUT in held else "it is no reproducer"


def _of_kind(
    found: Divergence | FloatDivergence, network: Model, target: str
) -> Mapping[str, bytes]:
    if isinstance(found, Divergence):
        return _sources(found, network, target)
    spec, file, tensor = _float_sources(found, network, target)
    return {SPEC: spec.encode(), WEIGHTS: file, INPUT: _npz(tensors=tensor[None])}


def _sources(found: Divergence, program: Model, target: str) -> Mapping[str, bytes]:
    """Return spec, weights, calibration and input, which give the expected levels."""
    graph, name = program.graph, found.layer.name
    nodes, ends = _segment(graph, name, found.shown - {name})
    said = _name_values(nodes, ends)
    made = SpokenLayer(said, {})
    tensor = _enter_levels(made, graph, ends, found.right)
    for node in nodes:
        _place(made, program, node)
    output = Output("levels", said[name])
    lean = verify(Graph("layer", tuple(made.inputs), tuple(made.nodes), (output,)))
    label = Path(f"the layer {name.replace('/', '.')} for {target}")
    spoken = spec_rebuild.rebuild(Model(lean, made.weights), label, ImportOptions())
    paths = spoken.paths
    calibration = Calibration(
        {paths[value]: own for value, own in made.ranges.items()},
        {paths[node]: own for node, own in made.rounded.items()},
        real_ends=False,
    )
    ready = passes.run(Model(spoken.spec.graph, spoken.weights), passes.PLAIN)
    integers = quantize(ready, calibration)
    (given,) = integer_program.run(integers, [tensor], every=True)
    # What it is for is these very levels: a spec that gives others would accuse the wrong layer.
    if not np.array_equal(given[paths[said[name]]], found.right[name]):
        raise UnspokenError
    data = _npz(tensors=tensor[None])
    origin = WeightsOrigin("file", weights.digest(spoken.weights), None, None, None)
    about = calibration_file.Provenance(
        "reproducer", "any", passes.spell(passes.PLAIN), network(spoken.spec), origin
    )
    with_data = _data(data)
    result = CalibrationResult(calibration, {}, "reproducer")
    document = calibration_file.document(about, ready, result, with_data)
    return {
        SPEC: spoken.text.encode(),
        WEIGHTS: weights.encode(spoken.weights),
        CALIBRATION: calibration_document.encode(document),
        INPUT: data,
    }


def _data(data: bytes) -> dataset.DataSet:
    from tcc.compiler.support import atomic_files

    with atomic_files.scratch_folder() as folder:
        (folder / INPUT).write_bytes(data)
        return dataset.read(folder / INPUT)


def _npz(**arrays: Array) -> bytes:
    """Return arrays as an .npz file, whose bytes are the same each time."""
    file = io.BytesIO()
    # numpy opens the entries of an archive without the time.
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _of(graph: Graph, name: str) -> Node:
    return next(node for node in graph.nodes if node.name == name)
