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

from tcc.compiler.foreign.onnx_import.conversion import ConvertedModel
from tcc.compiler.foreign.onnx_import.options import ModelRunner
from tcc.compiler.foreign.onnx_import.tensor_view import View
from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output
from tcc.compiler.ops import Resize
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

FED_PREFIX = "fed to "
"""What stands before the name of a value that is given instead of computed."""
OLDEST_IR = 4
"""The first version of the format in which a constant need not be an input."""


@dataclass(frozen=True)
class GraphCut:
    """`model` as it was converted, and what it became."""

    model: ModelProto
    found: ConvertedModel

    @cached_property
    def views(self) -> Mapping[str, View]:
        """Return the values in which both are cut, by what the file calls them."""
        here = {value.name for value in self._graph.input} | self.makers.keys()
        # Cleaning may have removed what conversion still knew of the file: both have to have the
        # value.
        views = self.found.views.items()
        return {name: v for name, v in views if name in here and not self._spread(v.value)}

    @cached_property
    def makers(self) -> Mapping[str, NodeProto]:
        """Return the operator that makes each value of the file."""
        return {name: node for node in self._graph.node for name in node.output if name}

    def needed(self, name: str) -> frozenset[str]:
        """Return the values, in which the graph is cut, that a value is computed from."""
        return frozenset(self._walked([name])[1])

    def theirs(self, names: Sequence[str]) -> ModelProto:
        """Return the part of the file that computes some values; inputs are `FED_PREFIX` others."""
        makers, fed = self._walked(names)
        # By identity: protobuf's messages can be no elements of a set.
        nodes = [node for node in self._graph.node if id(node) in makers]
        read = {name for node in nodes for name in node.input}
        # Sorted, so that the same file gives the same part.
        inputs = (
            helper.make_tensor_value_info(FED_PREFIX + n, TensorProto.FLOAT, self.views[n].shape)
            for n in sorted(fed)
        )
        body = GraphProto(name="part")
        body.node.extend(_fed(node, fed) for node in nodes)
        body.initializer.extend(t for t in self._graph.initializer if t.name in read)
        body.input.extend(inputs)
        body.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
        # Older files list their constants among the inputs, which the part leaves out.
        version = max(self.model.ir_version, OLDEST_IR)
        return helper.make_model(body, opset_imports=self.model.opset_import, ir_version=version)

    def ours(self, values: Iterable[str]) -> Model:
        """Return the steps that compute some values; its inputs are `FED_PREFIX` others.

        Its outputs bear the values' names.
        """
        # Backwards from what is wanted, up to the nearest values that both sides know: every
        # operator is run once with inputs that are equal on both sides, so that errors do not add
        # up.
        pending, wanted = [*values], dict.fromkeys(values)
        taken: set[str] = set()
        fed: dict[str, None] = {}
        while pending:
            node = self.nodes[pending.pop()]
            if node.name not in taken:
                taken.add(node.name)
                fed |= dict.fromkeys(v for v in node.inputs if v in self._known)
                pending += (v for v in node.inputs if v not in self._known)
        whole = self.found.model.graph
        nodes = (_renamed(self.nodes[n], fed) for n in self.nodes if n in taken)
        inputs = tuple(Input(FED_PREFIX + value, whole.types[value]) for value in fed)
        outputs = tuple(Output(value, value) for value in wanted)
        return Model(Graph("part", inputs, tuple(nodes), outputs), self.found.model.weights)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """Return the steps by what they make."""
        return {node.name: node for node in self.found.model.graph.nodes}

    @cached_property
    def maps(self) -> Mapping[str, str]:
        """Return the vectors among the known values that were made a second time, as maps."""
        values = {view.value for view in self.views.values()}
        both = self.found.maps.items()
        return {v: m for v, m in both if v in values and m not in values}

    @property
    def _graph(self) -> GraphProto:
        return self.model.graph

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset({view.value for view in self.views.values()} | {*self.maps.values()})

    def _spread(self, value: str) -> bool:
        """Whether a value is one pixel laid over all, in whose place that pixel may be read."""
        node = self.nodes.get(value)
        if node is None or not isinstance(node.op, Resize):
            return False
        return self.found.model.graph.types[node.inputs[0]].shape[1:] == (1, 1)

    def _walked(self, names: Sequence[str]) -> tuple[set[int], set[str]]:
        """Return the operators, by identity, that compute values, and the known ones they read."""
        makers: set[int] = set()
        fed: set[str] = set()
        pending = [*names]
        while pending:
            node = self.makers[pending.pop()]
            if id(node) not in makers:
                makers.add(id(node))
                fed.update(name for name in node.input if name in self.views)
                pending += (n for n in node.input if n in self.makers and n not in self.views)
        return makers, fed


def _fed(node: NodeProto, fed: set[str]) -> NodeProto:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.input[:] = [FED_PREFIX + name if name in fed else name for name in node.input]
    return made


def _renamed(node: Node, fed: Mapping[str, None]) -> Node:
    inputs = tuple(FED_PREFIX + value if value in fed else value for value in node.inputs)
    return Node(node.name, node.op, inputs, node.params, node.type)


TOLERANCE = 1e-3
"""Largest difference of a value, relative to the largest of its channel.

Of 3,572 operators of the tests' files 81 differed at all, means the most, by 9.0e-5: rounding stays
an order below this, and a misread attribute is orders above."""
SMALLEST = 1e-2
"""What a channel's largest value counts as at least, relative to the largest of all channels: one
that is nearly zero has rounding errors of what cancelled in it."""
SPREAD = 4.0
"""Standard deviation of the random numbers: they pass the bounds of relu6 and hard swish."""
ROOM = 1 << 24
"""Elements of the values that are looked at together."""
Tensor = NDArray[np.float32]


def check(path: Path, model: ModelProto, found: ConvertedModel, runner: ModelRunner) -> None:
    """Compare each operator of a model with what it became.

    Args:
        path: The file, for diagnostics.
        model: What was converted, cleaned.
        found: What it became.
        runner: What runs the operators.

    Raises:
        UserError: One computes something else (E0920), or cannot be run (E0921).
    """
    cut = GraphCut(model, found)
    # In groups, since each run starts a process: one for each of 6,000 operators would take
    # minutes.
    for names in _parts(cut):
        _compare(path, cut, names, runner)


def unrun(path: Path, why: str) -> UserError:
    """Return the refusal of a file that cannot be run, so that nothing is known of its spec."""
    return fail(
        "E0921",
        "ONNX Runtime cannot run this file, so nothing shows that a spec computes the same",
        whole_file(str(path)),
        label=why,
        help="export the network again, with opset 17 say, and try the file in ONNX Runtime",
    )


def distance(own: NDArray[np.floating], other: NDArray[np.floating], scale: object) -> float:
    """Return the largest difference of two tensors relative to a scale.

    It is infinite where they are of different shapes, or one of two elements is not finite.

    Args:
        own: One tensor.
        other: The other.
        scale: What the difference is divided by: a number, or an array that broadcasts.
    """
    if own.shape != other.shape:
        return float("inf")
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # In float64, where the difference of two float32 numbers is not rounded to nothing.
        apart = np.abs(own.astype(np.float64) - other) / scale
    # Infinities that are equal, and NaN in the same place, are no difference.
    same = (own == other) | (np.isnan(own) & np.isnan(other))
    apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    return float(apart.max(initial=0.0))


def _parts(cut: GraphCut) -> Iterator[list[str]]:
    """Yield values of the file in groups of bounded size, with what they are computed from."""
    group: list[str] = []
    size = 0
    for name in cut.makers:
        if name not in cut.views:
            continue
        more = sum(_elements(cut.views[n]) for n in (name, *cut.needed(name)))
        if group and size + more > ROOM:
            yield group
            group, size = [], 0
        group.append(name)
        size += more
    if group:
        yield group


def _elements(view: View) -> int:
    return int(np.prod(view.shape, dtype=np.int64))


def _compare(path: Path, cut: GraphCut, names: list[str], runner: ModelRunner) -> None:
    part = cut.theirs(names)
    fed = [value.name.removeprefix(FED_PREFIX) for value in part.graph.input]
    numbers = _Numbers(cut)
    feed = {FED_PREFIX + n: numbers.shown(cut.views[n]) for n in fed}
    found, done = runner.outputs(part, [feed])
    if not found:
        raise unrun(path, done.problem)
    computed = _computed(cut, names, numbers)
    for name in names:
        view = cut.views[name]
        # An operator that only moves elements has no step: what it gives are its input's numbers.
        # Such an operator is compared too: an element that it puts elsewhere is another number.
        moved = any(cut.views[n].value == view.value for n in cut.needed(name))
        given = [numbers.of(view.value)] if moved else computed[view.value]
        their = np.asarray(found[0][name])
        for own in given:
            _judge(path, cut, name, own.ravel()[view.positions()], their)


class _Numbers:
    """Random numbers in place of values, the same for each value every time."""

    def __init__(self, cut: GraphCut) -> None:
        self.types = cut.found.model.graph.types

    def of(self, value: str) -> Tensor:
        """Return a value's."""
        # By a checksum, since Python's own hash of a text is another in each run.
        random = np.random.default_rng(crc32(value.encode()))
        return random.standard_normal(self.types[value].shape, np.float32) * np.float32(SPREAD)

    def shown(self, view: View) -> Tensor:
        """Return a value's as the file has it."""
        return np.ascontiguousarray(self.of(view.value).ravel()[view.positions()])


def _computed(cut: GraphCut, names: list[str], numbers: _Numbers) -> Mapping[str, list[Tensor]]:
    """Return what the steps make of random numbers, by value; a vector that is a map too is two."""
    maps = cut.maps
    values = dict.fromkeys(cut.views[n].value for n in names if cut.views[n].value in cut.nodes)
    twins = {value: [value, *([maps[value]] if value in maps else [])] for value in values}
    model = cut.ours([v for both in twins.values() for v in both])
    vectors = {twin: value for value, twin in maps.items()}
    feeds = {}
    for source in model.graph.inputs:
        value = source.name.removeprefix(FED_PREFIX)
        tensor = numbers.of(vectors.get(value, value))
        feeds[source.name] = tensor.reshape(1, *source.type.shape)
    found = float_program.evaluate(model, feeds) if values else {}
    return {value: [found[twin] for twin in both] for value, both in twins.items()}


def _judge(path: Path, cut: GraphCut, name: str, own: Tensor, their: Tensor) -> None:
    # By channel: the weights of a batch norm may make one a thousand times another, and what is
    # wrong in the small one has to show.
    axes = tuple(axis for axis in range(their.ndim) if axis != 1)
    largest = np.abs(np.where(np.isfinite(their), their, 0)).max(axes, keepdims=True, initial=0)
    scale = np.maximum(largest, SMALLEST * largest.max(initial=0))
    far = distance(own, their, np.maximum(scale, 1e-30))
    if far <= TOLERANCE:
        return
    node = cut.makers[name]
    found = f"differs by {far:.2g} of the largest on random inputs"
    place = whole_file(f"{path}: node `{(node.name or name)[:80]}`")
    raise fail(
        "E0920",
        "the spec would not compute what the file does",
        place,
        label=f"the step for this {node.op_type} {found}",
        help="please report this with the file; nothing was written",
    )
