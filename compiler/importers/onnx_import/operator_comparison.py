"""Each operator of a file by itself, held against the step that it became.

What a network makes of an image hides much: a softmax that saturates, features that are all zero,
outputs that do not depend on the input. So every value between operators is replaced by random
numbers, in the file as in the steps, and what each operator makes of them is compared.
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
"""What stands before the name of a value that is given instead of computed."""
MIN_IR_VERSION = 4
"""The first version of the format in which a constant need not be an input."""


@dataclass(frozen=True)
class GraphCut:
    """`model` as it was converted, and what it became."""

    model: ModelProto
    converted: ConvertedModel

    @cached_property
    def views(self) -> Mapping[str, View]:
        """Return the values in which both are cut, by what the file calls them."""
        file_values = {value.name for value in self._graph.input} | self.producers.keys()
        # Cleaning may have removed what conversion still knew of the file: both have to have the
        # value.
        views = self.converted.views.items()
        return {
            name: v
            for name, v in views
            if name in file_values and not self._is_expanded_pixel(v.value)
        }

    @cached_property
    def producers(self) -> Mapping[str, NodeProto]:
        """Return the operator that makes each value of the file."""
        return {name: node for node in self._graph.node for name in node.output if name}

    def find_needed(self, name: str) -> frozenset[str]:
        """Return the values, in which the graph is cut, that a value is computed from."""
        return frozenset(self._walk_back([name])[1])

    def build_file_part(self, names: Sequence[str]) -> ModelProto:
        """Return the part of the file that computes some values; inputs are `FED_PREFIX` others."""
        operator_ids, fed = self._walk_back(names)
        # By identity: protobuf's messages can be no elements of a set.
        nodes = [node for node in self._graph.node if id(node) in operator_ids]
        read_names = {name for node in nodes for name in node.input}
        # Sorted, so that the same file gives the same part.
        inputs = (
            helper.make_tensor_value_info(FED_PREFIX + n, TensorProto.FLOAT, self.views[n].shape)
            for n in sorted(fed)
        )
        body = GraphProto(name="part")
        body.node.extend(_rename_fed_inputs(node, fed) for node in nodes)
        body.initializer.extend(t for t in self._graph.initializer if t.name in read_names)
        body.input.extend(inputs)
        body.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
        # Older files list their constants among the inputs, which the part leaves out.
        version = max(self.model.ir_version, MIN_IR_VERSION)
        return helper.make_model(body, opset_imports=self.model.opset_import, ir_version=version)

    def build_spec_part(self, value_names: Iterable[str]) -> Model:
        """Return the steps that compute some values; its inputs are `FED_PREFIX` others.

        Its outputs bear the values' names.
        """
        # Backwards from what is wanted, up to the nearest values that both sides know: every
        # operator is run once with inputs that are equal on both sides, so that errors do not add
        # up.
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
        """Return the steps by what they make."""
        return {node.name: node for node in self.converted.model.graph.nodes}

    @cached_property
    def maps(self) -> Mapping[str, str]:
        """Return the vectors among the known values that were made a second time, as maps."""
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
        """Whether a value is one pixel laid over all, in whose place that pixel may be read."""
        node = self.nodes.get(value)
        if node is None or not isinstance(node.op, Resize):
            return False
        return self.converted.model.graph.types[node.inputs[0]].shape[1:] == (1, 1)

    def _walk_back(self, names: Sequence[str]) -> tuple[set[int], set[str]]:
        """Return the operators, by identity, that compute values, and the known ones they read."""
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
"""Largest difference of a value, relative to the largest of its channel.

Of 3,572 operators of the tests' files 81 differed at all, means the most, by 9.0e-5: rounding stays
an order below this, and a misread attribute is orders above."""
MIN_CHANNEL_SCALE = 1e-2
"""What a channel's largest value counts as at least, relative to the largest of all channels: one
that is nearly zero has rounding errors of what cancelled in it."""
RANDOM_SCALE = 4.0
"""Standard deviation of the random numbers: they pass the bounds of relu6 and hard swish."""
MAX_GROUP_ELEMENTS = 1 << 24
"""Elements of the values that are looked at together."""
Tensor = NDArray[np.float32]


def check(path: Path, model: ModelProto, converted: ConvertedModel, runner: ModelRunner) -> None:
    """Compare each operator of a model with what it became.

    Args:
        path: The file, for diagnostics.
        model: What was converted, cleaned.
        converted: What it became.
        runner: What runs the operators.

    Raises:
        UserError: One computes something else (E0920), or cannot be run (E0921).
    """
    cut = GraphCut(model, converted)
    # In groups, since each run starts a process: one for each of 6,000 operators would take
    # minutes.
    for names in _iterate_groups(cut):
        _compare(path, cut, names, runner)


def make_run_error(path: Path, reason: str) -> UserError:
    """Return the refusal of a file that cannot be run, so that nothing is known of its spec."""
    return fail(
        "E0921",
        "ONNX Runtime cannot run this file, so nothing shows that a spec computes the same",
        make_file_span(str(path)),
        label=reason,
        help="export the network again, with opset 17 say, and try the file in ONNX Runtime",
    )


def measure_distance(
    actual: NDArray[np.floating], expected: NDArray[np.floating], scale: object
) -> float:
    """Return the largest difference of two tensors relative to a scale.

    It is infinite where they are of different shapes, or one of two elements is not finite.

    Args:
        actual: One tensor.
        expected: The other.
        scale: What the difference is divided by: a number, or an array that broadcasts.
    """
    if actual.shape != expected.shape:
        return float("inf")
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # In float64, where the difference of two float32 numbers is not rounded to nothing.
        difference = np.abs(actual.astype(np.float64) - expected) / scale
    # Infinities that are equal, and NaN in the same place, are no difference.
    is_equal = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    difference = np.where(is_equal, 0.0, np.where(np.isnan(difference), np.inf, difference))
    return float(difference.max(initial=0.0))


def _iterate_groups(cut: GraphCut) -> Iterator[list[str]]:
    """Yield values of the file in groups of bounded size, with what they are computed from."""
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
        # An operator that only moves elements has no step: what it gives are its input's numbers.
        # Such an operator is compared too: an element that it puts elsewhere is another number.
        is_moved = any(cut.views[n].value == view.value for n in cut.find_needed(name))
        spec_tensors = [random_tensors.generate(view.value)] if is_moved else computed[view.value]
        file_tensor = np.asarray(outputs[0][name])
        for spec_tensor in spec_tensors:
            _check_difference(
                path, cut, name, spec_tensor.ravel()[view.compute_positions()], file_tensor
            )


class _RandomTensors:
    """Random numbers in place of values, the same for each value every time."""

    def __init__(self, cut: GraphCut) -> None:
        self.types = cut.converted.model.graph.types

    def generate(self, value: str) -> Tensor:
        """Return a value's."""
        # By a checksum, since Python's own hash of a text is another in each run.
        random = np.random.default_rng(crc32(value.encode()))
        return random.standard_normal(self.types[value].shape, np.float32) * np.float32(
            RANDOM_SCALE
        )

    def generate_view(self, view: View) -> Tensor:
        """Return a value's as the file has it."""
        return np.ascontiguousarray(self.generate(view.value).ravel()[view.compute_positions()])


def _run_steps(
    cut: GraphCut, names: list[str], random_tensors: _RandomTensors
) -> Mapping[str, list[Tensor]]:
    """Return what the steps make of random numbers, by value; a vector that is a map too is two."""
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
    for source in model.graph.inputs:
        value = source.name.removeprefix(FED_PREFIX)
        tensor = random_tensors.generate(vectors.get(value, value))
        feeds[source.name] = tensor.reshape(1, *source.type.shape)
    outputs = float_program.evaluate(model, feeds) if step_values else {}
    return {
        value: [outputs[copy_name] for copy_name in copy_names]
        for value, copy_names in copies_by_value.items()
    }


def _check_difference(
    path: Path, cut: GraphCut, name: str, actual: Tensor, expected: Tensor
) -> None:
    # By channel: the weights of a batch norm may make one a thousand times another, and what is
    # wrong in the small one has to show.
    axes = tuple(axis for axis in range(expected.ndim) if axis != 1)
    largest = np.abs(np.where(np.isfinite(expected), expected, 0)).max(
        axes, keepdims=True, initial=0
    )
    scale = np.maximum(largest, MIN_CHANNEL_SCALE * largest.max(initial=0))
    difference = measure_distance(actual, expected, np.maximum(scale, 1e-30))
    if difference <= TOLERANCE:
        return
    node = cut.producers[name]
    description = f"differs by {difference:.2g} of the largest on random inputs"
    span = make_file_span(f"{path}: node `{(node.name or name)[:80]}`")
    raise fail(
        "E0920",
        "the spec would not compute what the file does",
        span,
        label=f"the step for this {node.op_type} {description}",
        help="please report this with the file; nothing was written",
    )
