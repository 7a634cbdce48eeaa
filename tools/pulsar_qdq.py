"""Compare the int8 model for Pulsar2 with the reference, in ONNX Runtime.

Each layer of the file runs separately on the reference executor's inputs, and the complete file
runs from the input on. Differences are counted in quantization steps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.reference import integer_program

if TYPE_CHECKING:
    import onnxruntime

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """The differences of a file from the reference: layer by layer, and end to end.

    `max_layer_steps` is the largest difference of a layer on the reference's inputs, in
    quantization steps. `real` is that of float outputs, relative to their largest value. In the
    complete file, `differing` of `level_count` values differ, by at most `max_steps`, and `changed`
    of `rows` predictions change.
    """

    layers: int
    max_layer_steps: int
    real: float
    level_count: int
    differing: int
    max_steps: int
    rows: int
    changed: int

    @property
    def row(self) -> str:
        """The row of the table after the network's name."""
        share = f"{self.differing / max(1, self.level_count):.3%}"
        classes = f"{self.changed} of {self.rows} change"
        return f"{self.layers} | {self.max_layer_steps} | {share} | {self.max_steps} | {classes} |"


def measure_difference(program: Model, tensors: list[Array], model_bytes: bytes) -> Difference:
    """Return the differences of an integer program's file from its reference on some tensors."""
    file = onnx.load_from_string(model_bytes)
    kinds = program.graph.types
    expected_values = integer_program.run(program, tensors, keep_all=True)
    cuts = {
        part.output[0]: part.output[0]
        for part in _list_quantizers(file.graph)
        if part.output[0] in kinds
    }
    source = next(iter(program.graph.inputs))
    if kinds[source.name].dtype is not DType.F32:
        cuts[f"{source.name}:levels"] = source.name
    outputs = {part.name: part.value for part in program.graph.outputs}
    layer_differences = [
        _compare_layers(file, kinds, cuts, part, outputs) for part in expected_values
    ]
    network_differences = [
        _compare_network(file, kinds, cuts, part, source.name) for part in expected_values
    ]
    rows = [
        bool(np.argmax(part[o.value]) == np.argmax(computed[o.name]))
        for part, (_, computed) in zip(expected_values, network_differences, strict=True)
        for o in program.graph.outputs
        if len(kinds[o.value].shape) == 1
    ]
    step_differences = np.concatenate([steps for steps, _ in network_differences])
    return Difference(
        len(cuts),
        max(steps for steps, _ in layer_differences),
        max(real for _, real in layer_differences),
        step_differences.size,
        int(np.count_nonzero(step_differences)),
        int(step_differences.max(initial=0)),
        len(rows),
        rows.count(False),
    )


def _list_quantizers(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    return (node for node in graph.node if node.op_type == "QuantizeLinear")


def _to_file_levels(levels: Array, kind: TensorType) -> Array:
    """Return quantized values in the file's form: uint8, with the zero point added."""
    return (levels.astype(np.int16) - kind.limits[0]).astype(np.uint8)[None]


def _compare_layers(
    file: onnx.ModelProto,
    kinds: Mapping[str, TensorType],
    cuts: Mapping[str, str],
    expected_values: Mapping[str, Array],
    outputs: Mapping[str, str],
) -> tuple[int, float]:
    """Return the largest difference of layers on the reference's inputs, and of float outputs."""
    made_by = {name: node for node in file.graph.node for name in node.output}
    steps, real = 0, 0.0
    for name in [*cuts, *(o.name for o in file.graph.output)]:
        part, inputs = _extract_layer(file, made_by, cuts, name)
        if not inputs:
            continue
        (computed,) = _open_session(part).run(
            [name],
            {
                input_name: _to_file_levels(
                    expected_values[cuts[input_name]], kinds[cuts[input_name]]
                )
                for input_name in inputs
            },
        )
        if name in cuts:
            expected = _to_file_levels(expected_values[cuts[name]], kinds[cuts[name]])
            steps = max(
                steps, int(np.abs(computed.astype(np.int16) - expected.astype(np.int16)).max())
            )
        else:
            float_values = expected_values[outputs[name]]
            if float_values.dtype == np.float32:
                largest = max(float(np.abs(float_values).max()), 1e-12)
                real = max(real, float(np.abs(computed[0] - float_values).max()) / largest)
    return steps, real


def _extract_layer(
    file: onnx.ModelProto,
    made_by: Mapping[str, onnx.NodeProto],
    cuts: Mapping[str, str],
    name: str,
) -> tuple[onnx.ModelProto, list[str]]:
    """Return the part of a file that computes a value from cuts, and the names of these cuts."""
    constants = {part.name: part for part in file.graph.initializer}
    nodes: dict[str, onnx.NodeProto] = {}
    inputs: dict[str, None] = {}
    used: dict[str, onnx.TensorProto] = {}

    def visit(value_name: str) -> None:
        node = made_by.get(value_name)
        if node is None or node.output[0] in nodes:
            return
        for input_name in node.input:
            if input_name in constants:
                used[input_name] = constants[input_name]
            elif input_name in cuts:
                inputs[input_name] = None
            elif input_name:
                visit(input_name)
        nodes[node.output[0]] = node

    visit(name)
    feeds = [
        onnx.helper.make_tensor_value_info(part, onnx.TensorProto.UINT8, None) for part in inputs
    ]
    output_info = onnx.helper.make_empty_tensor_value_info(name)
    body = onnx.helper.make_graph(
        list(nodes.values()), "layer", feeds, [output_info], list(used.values())
    )
    layer_model = onnx.helper.make_model(
        body, opset_imports=file.opset_import, ir_version=file.ir_version
    )
    return layer_model, [] if any(
        part.name in _list_inputs(nodes) for part in file.graph.input
    ) else list(inputs)


def _list_inputs(nodes: Mapping[str, onnx.NodeProto]) -> set[str]:
    return {value_name for node in nodes.values() for value_name in node.input}


def _open_session(file: onnx.ModelProto) -> "onnxruntime.InferenceSession":
    import onnxruntime  # after tcc, which switches its telemetry off

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file.SerializeToString(), options)


def _compare_network(
    file: onnx.ModelProto,
    kinds: Mapping[str, TensorType],
    cuts: Mapping[str, str],
    expected_values: Mapping[str, Array],
    source: str,
) -> tuple[Array, Mapping[str, Array]]:
    """Return the differences of the complete file's quantized values in steps, and its outputs."""
    probed_model = onnx.ModelProto()
    probed_model.CopyFrom(file)
    output_names = {part.name for part in file.graph.output}
    probed_model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(part) for part in cuts if part not in output_names
    )
    names = [part.name for part in probed_model.graph.output]
    feed = {source: expected_values[source].astype(np.float32)[None]}
    computed = dict(zip(names, _open_session(probed_model).run(names, feed), strict=True))
    step_differences = [
        np.abs(
            computed[part].astype(np.int16)
            - _to_file_levels(expected_values[level_name], kinds[level_name]).astype(np.int16)
        ).reshape(-1)
        for part, level_name in cuts.items()
    ]
    return np.concatenate(step_differences), computed
