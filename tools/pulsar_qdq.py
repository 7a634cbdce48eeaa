"""How the integers that Pulsar2 is given differ from the reference's, in ONNX Runtime.

Each layer of the file by itself is fed with what the reference executor has in front of it, and the
whole file runs from the input on. Differences are counted in steps of the integers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import DType
from tcc.compiler.reference import integer_program

if TYPE_CHECKING:
    import onnxruntime

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """How a file's integers differ from the reference's: by layer, and from the input on.

    `alone` is the largest difference in steps of a layer that has the reference's inputs, and
    `real` that of real outputs, relative to their largest; `differing` of `values` differ in the
    whole file, by `apart` steps at most; `changed` of `rows` rows of classes have another first.
    """

    layers: int
    alone: int
    real: float
    values: int
    differing: int
    apart: int
    rows: int
    changed: int

    @property
    def row(self) -> str:
        """The row of the table, behind the network."""
        share = f"{self.differing / max(1, self.values):.3%}"
        classes = f"{self.changed} of {self.rows} change"
        return f"{self.layers} | {self.alone} | {share} | {self.apart} | {classes} |"


def difference(program: Model, tensors: list[Array], data: bytes) -> Difference:
    """Return how the file of an integer program differs from its reference over tensors."""
    file = onnx.load_from_string(data)
    kinds = program.graph.types
    wanted = integer_program.run(program, tensors, keep_all=True)
    cuts = {
        each.output[0]: each.output[0] for each in _quantised(file.graph) if each.output[0] in kinds
    }
    first = next(iter(program.graph.inputs))
    if kinds[first.name].dtype is not DType.F32:
        cuts[f"{first.name}:levels"] = first.name
    outputs = {each.name: each.value for each in program.graph.outputs}
    alone = [_alone(file, cuts, each, outputs) for each in wanted]
    whole = [_whole(file, cuts, each, first.name) for each in wanted]
    rows = [
        bool(np.argmax(each[o.value]) == np.argmax(found[o.name]))
        for each, (_, found) in zip(wanted, whole, strict=True)
        for o in program.graph.outputs
        if len(kinds[o.value].shape) == 1
    ]
    apart = np.concatenate([steps for steps, _ in whole])
    return Difference(
        len(cuts),
        max(steps for steps, _ in alone),
        max(real for _, real in alone),
        apart.size,
        int(np.count_nonzero(apart)),
        int(apart.max(initial=0)),
        len(rows),
        rows.count(False),
    )


def _quantised(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    return (node for node in graph.node if node.op_type == "QuantizeLinear")


def _held(levels: Array) -> Array:
    """Return levels as the file has them: in uint8, signed ones with the zero point 128."""
    shift = 128 if levels.dtype == np.int8 else 0
    return (levels.astype(np.int16) + shift).astype(np.uint8)[None]


def _alone(
    file: onnx.ModelProto,
    cuts: Mapping[str, str],
    wanted: Mapping[str, Array],
    outputs: Mapping[str, str],
) -> tuple[int, float]:
    """Return the largest difference of layers that are fed by the reference, and of outputs."""
    made_by = {name: node for node in file.graph.node for name in node.output}
    steps, real = 0, 0.0
    for name in [*cuts, *(o.name for o in file.graph.output)]:
        part, inputs = _layer(file, made_by, cuts, name)
        if not inputs:
            continue
        (found,) = _session(part).run([name], {each: _held(wanted[cuts[each]]) for each in inputs})
        if name in cuts:
            expected = _held(wanted[cuts[name]]).astype(np.int16)
            steps = max(steps, int(np.abs(found.astype(np.int16) - expected).max()))
        else:
            values = wanted[outputs[name]]
            if values.dtype == np.float32:
                most = max(float(np.abs(values).max()), 1e-12)
                real = max(real, float(np.abs(found[0] - values).max()) / most)
    return steps, real


def _layer(
    file: onnx.ModelProto,
    made_by: Mapping[str, onnx.NodeProto],
    cuts: Mapping[str, str],
    name: str,
) -> tuple[onnx.ModelProto, list[str]]:
    """Return the part of a file between cuts that makes a value, and the cuts that it reads."""
    constants = {each.name: each for each in file.graph.initializer}
    nodes: dict[str, onnx.NodeProto] = {}
    inputs: dict[str, None] = {}
    used: dict[str, onnx.TensorProto] = {}

    def visit(value: str) -> None:
        node = made_by.get(value)
        if node is None or node.output[0] in nodes:
            return
        for each in node.input:
            if each in constants:
                used[each] = constants[each]
            elif each in cuts:
                inputs[each] = None
            elif each:
                visit(each)
        nodes[node.output[0]] = node

    visit(name)
    feeds = [
        onnx.helper.make_tensor_value_info(each, onnx.TensorProto.UINT8, None) for each in inputs
    ]
    result = onnx.helper.make_empty_tensor_value_info(name)
    body = onnx.helper.make_graph(
        list(nodes.values()), "layer", feeds, [result], list(used.values())
    )
    made = onnx.helper.make_model(body, opset_imports=file.opset_import, ir_version=file.ir_version)
    return made, [] if any(each.name in _read(nodes) for each in file.graph.input) else list(inputs)


def _read(nodes: Mapping[str, onnx.NodeProto]) -> set[str]:
    return {value for node in nodes.values() for value in node.input}


def _session(file: onnx.ModelProto) -> "onnxruntime.InferenceSession":
    import onnxruntime  # after tcc, which switches its telemetry off

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file.SerializeToString(), options)


def _whole(
    file: onnx.ModelProto,
    cuts: Mapping[str, str],
    wanted: Mapping[str, Array],
    source: str,
) -> tuple[Array, Mapping[str, Array]]:
    """Return the steps that each integer of the whole file is off, and its outputs."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(file)
    known = {each.name for each in file.graph.output}
    tapped.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(each) for each in cuts if each not in known
    )
    names = [each.name for each in tapped.graph.output]
    feed = {source: wanted[source].astype(np.float32)[None]}
    found = dict(zip(names, _session(tapped).run(names, feed), strict=True))
    apart = [
        np.abs(found[each].astype(np.int16) - _held(wanted[value]).astype(np.int16)).reshape(-1)
        for each, value in cuts.items()
    ]
    return np.concatenate(apart), found
