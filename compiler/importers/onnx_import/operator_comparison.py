"""Compare each operator of a file with the step that it became.

Outputs of the network hide errors: a saturated softmax, features that are all zero, outputs that
do not depend on the input. So every value between operators is replaced by random numbers, in
the file and in the steps, and the results of each operator are compared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zlib import crc32

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from tcc.compiler.importers.onnx_import.conversion import ConvertedModel
from tcc.compiler.importers.onnx_import.options import ModelRunner
from tcc.compiler.importers.onnx_import.tensor_view import View
from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output
from tcc.compiler.ops import Resize
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

FED_PREFIX = "fed to "
"""Prefix of the name of a value that is fed instead of computed."""
MIN_IR_VERSION = 4
"""First IR version in which a constant need not be a graph input."""


@dataclass(frozen=True)
class GraphCut:
    """`model`, cut into single operators, and the converted model."""

    model: ModelProto
    converted: ConvertedModel

    @cached_property
    def views(self) -> Mapping[str, View]:
        """Return the values at which both models are cut, by their names in the file."""
        file_values = {value.name for value in self._graph.input} | self.producers.keys()
        # Cleaning may have removed values that conversion recorded: only those in both models
        # count.
        views = self.converted.views.items()
        return {
            name: v
            for name, v in views
            if name in file_values and not self._is_expanded_pixel(v.value)
        }

    @cached_property
    def producers(self) -> Mapping[str, NodeProto]:
        """Return the operator that computes each value of the file."""
        return {name: node for node in self._graph.node for name in node.output if name}

    def find_needed(self, name: str) -> frozenset[str]:
        """Return the cut values that a value is computed from."""
        return frozenset(self._walk_back([name])[1])

    def build_file_part(self, names: Sequence[str]) -> ModelProto:
        """Return the part of the file that computes `names`; fed inputs have `FED_PREFIX`."""
        operator_ids, fed = self._walk_back(names)
        # By identity: protobuf messages are not hashable.
        nodes = [node for node in self._graph.node if id(node) in operator_ids]
        read_names = {name for node in nodes for name in node.input}
        # Sorted, so that the same file always gives the same part.
        inputs = (
            helper.make_tensor_value_info(FED_PREFIX + n, TensorProto.FLOAT, self.views[n].shape)
            for n in sorted(fed)
        )
        body = GraphProto(name="part")
        body.node.extend(_rename_fed_inputs(node, fed) for node in nodes)
        body.initializer.extend(t for t in self._graph.initializer if t.name in read_names)
        body.input.extend(inputs)
        body.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
        # Older files list their constants among the inputs; the part omits these.
        version = max(self.model.ir_version, MIN_IR_VERSION)
        return helper.make_model(body, opset_imports=self.model.opset_import, ir_version=version)

    def build_spec_part(self, value_names: Iterable[str]) -> Model:
        """Return the steps that compute some values; fed inputs have `FED_PREFIX`.

        Its outputs have the names of the values.
        """
        # Walk back from the requested values to the nearest values that both models know. Each
        # operator then gets equal inputs in both models, so errors do not add up.
        pending, output_values = [*value_names], dict.fromkeys(value_names)
        included: set[str] = set()
        fed: dict[str, None] = {}
        while pending:
            node = self.nodes[pending.pop()]
            if node.name not in included:
                included.add(node.name)
                fed |= dict.fromkeys(v for v in node.inputs if v in self._known_values)
                pending += (v for v in node.inputs if v not in self._known_values)
        full_graph = self.converted.model.graph
        nodes = (_rename_step_inputs(self.nodes[n], fed) for n in self.nodes if n in included)
        inputs = tuple(Input(FED_PREFIX + value, full_graph.types[value]) for value in fed)
        outputs = tuple(Output(value, value) for value in output_values)
        return Model(Graph("part", inputs, tuple(nodes), outputs), self.converted.model.weights)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """Return the steps by the values that they compute."""
        return {node.name: node for node in self.converted.model.graph.nodes}

    @cached_property
    def maps(self) -> Mapping[str, str]:
        """Return the map that duplicates each known vector."""
        known_values = {view.value for view in self.views.values()}
        both = self.converted.maps.items()
        return {v: m for v, m in both if v in known_values and m not in known_values}

    @property
    def _graph(self) -> GraphProto:
        return self.model.graph

    @cached_property
    def _known_values(self) -> frozenset[str]:
        return frozenset({view.value for view in self.views.values()} | {*self.maps.values()})

    def _is_expanded_pixel(self, value: str) -> bool:
        """Whether a value is one pixel expanded to all pixels; steps may read that pixel."""
        node = self.nodes.get(value)
        if node is None or not isinstance(node.op, Resize):
            return False
        return self.converted.model.graph.types[node.inputs[0]].shape[1:] == (1, 1)

    def _walk_back(self, names: Sequence[str]) -> tuple[set[int], set[str]]:
        """Return the operators (by identity) that compute values, and the known inputs."""
        operator_ids: set[int] = set()
        fed: set[str] = set()
        pending = [*names]
        while pending:
            node = self.producers[pending.pop()]
            if id(node) not in operator_ids:
                operator_ids.add(id(node))
                fed.update(name for name in node.input if name in self.views)
                pending += (n for n in node.input if n in self.producers and n not in self.views)
        return operator_ids, fed


def _rename_fed_inputs(node: NodeProto, fed: set[str]) -> NodeProto:
    renamed = onnx.NodeProto()
    renamed.CopyFrom(node)
    renamed.input[:] = [FED_PREFIX + name if name in fed else name for name in node.input]
    return renamed


def _rename_step_inputs(node: Node, fed: Mapping[str, None]) -> Node:
    inputs = tuple(FED_PREFIX + value if value in fed else value for value in node.inputs)
    return Node(node.name, node.op, inputs, node.params, node.type)


TOLERANCE = 1e-3
"""Maximum difference of a value, relative to the largest value of its channel.

Of 3,572 operators in the test files, 81 differed at all, mostly means, by at most 9.0e-5. Rounding
errors are an order of magnitude below this limit, and a misread attribute is orders above."""
MIN_CHANNEL_SCALE = 1e-2
"""Lower bound of a channel's largest value, relative to the largest of all channels. A channel
near zero has rounding errors from cancellation."""
RANDOM_SCALE = 4.0
"""Standard deviation of the random numbers: they exceed the bounds of relu6 and hard swish."""
MAX_GROUP_ELEMENTS = 1 << 24
"""Maximum number of elements compared in one group."""
Tensor = NDArray[np.float32]


def check(path: Path, model: ModelProto, converted: ConvertedModel, runner: ModelRunner) -> None:
    """Compare each operator of a model with the step that it became.

    Args:
        path: The file, for diagnostics.
        model: The cleaned model that was converted.
        converted: The converted model.
        runner: Runs the operators.

    Raises:
        UserError: A step computes different values (E0920), or the file cannot be run (E0921).
    """
    cut = GraphCut(model, converted)
    # In groups, because each run starts a process: one per operator takes minutes for 6,000
    # operators.
    for names in _iterate_groups(cut):
        _compare(path, cut, names, runner)


def make_run_error(path: Path, reason: str) -> UserError:
    """Return the error of a file that cannot be run, so that its spec cannot be checked."""
    return fail(
        "E0921",
        "ONNX Runtime cannot run this file, so the spec cannot be compared with it",
        make_file_span(str(path)),
        label=reason,
        help="export the network again, for example with opset 17, and run it in ONNX Runtime",
    )


def measure_distance(
    actual: NDArray[np.floating], expected: NDArray[np.floating], scale: object
) -> float:
    """Return the largest difference of two tensors, relative to a scale.

    It is infinite if their shapes differ, or if only one of two elements is finite.

    Args:
        actual: One tensor.
        expected: The other tensor.
        scale: Divisor of the difference: a number, or an array that broadcasts.
    """
    if actual.shape != expected.shape:
        return float("inf")
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # In float64, so that the difference of two float32 numbers is not rounded to zero.
        difference = np.abs(actual.astype(np.float64) - expected) / scale
    # Equal infinities, and NaN at the same position, count as equal.
    is_equal = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    difference = np.where(is_equal, 0.0, np.where(np.isnan(difference), np.inf, difference))
    return float(difference.max(initial=0.0))


def _iterate_groups(cut: GraphCut) -> Iterator[list[str]]:
    """Yield values of the file in groups of bounded size, counting the inputs they need."""
    group: list[str] = []
    size = 0
    for name in cut.producers:
        if name not in cut.views:
            continue
        group_elements = sum(_count_elements(cut.views[n]) for n in (name, *cut.find_needed(name)))
        if group and size + group_elements > MAX_GROUP_ELEMENTS:
            yield group
            group, size = [], 0
        group.append(name)
        size += group_elements
    if group:
        yield group


def _count_elements(view: View) -> int:
    return int(np.prod(view.shape, dtype=np.int64))


def _compare(path: Path, cut: GraphCut, names: list[str], runner: ModelRunner) -> None:
    part = cut.build_file_part(names)
    fed = [value.name.removeprefix(FED_PREFIX) for value in part.graph.input]
    random_tensors = _RandomTensors(cut)
    feed = {FED_PREFIX + n: random_tensors.generate_view(cut.views[n]) for n in fed}
    outputs, task_result = runner.run(part, [feed])
    if not outputs:
        raise make_run_error(path, task_result.problem)
    computed = _run_steps(cut, names, random_tensors)
    for name in names:
        view = cut.views[name]
        # An operator that only moves elements has no step: its outputs are elements of its input.
        # It is compared too, because a wrong position gives a different number.
        is_moved = any(cut.views[n].value == view.value for n in cut.find_needed(name))
        spec_tensors = [random_tensors.generate(view.value)] if is_moved else computed[view.value]
        file_tensor = np.asarray(outputs[0][name])
        for spec_tensor in spec_tensors:
            _check_difference(
                path, cut, name, spec_tensor.ravel()[view.compute_positions()], file_tensor
            )


class _RandomTensors:
    """Random numbers for each value, always the same for the same value."""

    def __init__(self, cut: GraphCut) -> None:
        self.types = cut.converted.model.graph.types

    def generate(self, value: str) -> Tensor:
        """Return the random tensor of a value."""
        # By a checksum, because Python's own hash of a text changes with each run.
        random = np.random.default_rng(crc32(value.encode()))
        return random.standard_normal(self.types[value].shape, np.float32) * np.float32(
            RANDOM_SCALE
        )

    def generate_view(self, view: View) -> Tensor:
        """Return the random tensor of a value in the file's layout."""
        return np.ascontiguousarray(self.generate(view.value).ravel()[view.compute_positions()])


def _run_steps(
    cut: GraphCut, names: list[str], random_tensors: _RandomTensors
) -> Mapping[str, list[Tensor]]:
    """Return each value's results for random inputs; a vector duplicated as a map has two."""
    maps = cut.maps
    step_values = dict.fromkeys(
        cut.views[n].value for n in names if cut.views[n].value in cut.nodes
    )
    copies_by_value = {
        value: [value, *([maps[value]] if value in maps else [])] for value in step_values
    }
    model = cut.build_spec_part([v for copy_names in copies_by_value.values() for v in copy_names])
    vectors = {copy_name: value for value, copy_name in maps.items()}
    feeds = {}
    for network_input in model.graph.inputs:
        value = network_input.name.removeprefix(FED_PREFIX)
        tensor = random_tensors.generate(vectors.get(value, value))
        feeds[network_input.name] = tensor.reshape(1, *network_input.type.shape)
    outputs = float_program.evaluate(model, feeds) if step_values else {}
    return {
        value: [outputs[copy_name] for copy_name in copy_names]
        for value, copy_names in copies_by_value.items()
    }


def _check_difference(
    path: Path, cut: GraphCut, name: str, actual: Tensor, expected: Tensor
) -> None:
    # Per channel: the weights of a batch norm may make one channel a thousand times larger than
    # another, and errors in the small one must be visible.
    axes = tuple(axis for axis in range(expected.ndim) if axis != 1)
    largest = np.abs(np.where(np.isfinite(expected), expected, 0)).max(
        axes, keepdims=True, initial=0
    )
    scale = np.maximum(largest, MIN_CHANNEL_SCALE * largest.max(initial=0))
    difference = measure_distance(actual, expected, np.maximum(scale, 1e-30))
    if difference <= TOLERANCE:
        return
    node = cut.producers[name]
    description = f"differs by {difference:.2g} of the channel's largest value on random inputs"
    span = make_file_span(f"{path}: node `{(node.name or name)[:80]}`")
    raise fail(
        "E0920",
        "the imported spec does not compute the same values as the file",
        span,
        label=f"the step for this {node.op_type} {description}; the limit is {TOLERANCE:g}",
        help="please report this with the file; nothing was written",
    )
