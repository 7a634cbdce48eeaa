"""Integer programs that ONNX Runtime computes faster, or right, with the same results.

`wide` puts zeros beside few channels. `unsigned` has weights as uint8, right where products of
mixed signs saturate. `computed` has functions in floats in place of their tables: ONNX Runtime
computes them in half the time that it takes to gather entries.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Node, verify
from tcc.compiler.ir.target import Remark
from tcc.compiler.ir.types import TensorType
from tcc.compiler.lower.onnx_inspection import WIDE
from tcc.compiler.ops import Concat, Slice
from tcc.compiler.ops.integer import ComputedTable, QConv, Table, UnsignedQConv, WideQConv
from tcc.compiler.ops.integer.conv import WORD
from tcc.compiler.ops.integer.float_forms import ERRORS, function_scales


def computed(model: Model) -> Model:
    """Return the integer program with what tables hold computed where every level is the same."""
    nodes, weights = [], dict(model.weights)
    for node in model.graph.nodes:
        made = _computed(model, node)
        if made:
            del weights[node.params[0]]
        nodes.append(made or node)
    return Model(verify(replace(model.graph, nodes=tuple(nodes))), weights)


def _computed(model: Model, node: Node) -> Node | None:
    """Return the node without a table, if there is a form of it."""
    if not isinstance(node.op, Table):
        return None
    (x,) = model.graph.input_types(node)
    # A program that was read from a file may have other entries than its function.
    if not np.array_equal(model.weights[node.params[0]], node.op.entries(x)):
        return None
    form = computed_form(node.op, x)
    return replace(node, op=form, params=()) if form else None


def computed_form(op: Table, x: TensorType) -> ComputedTable | None:
    """Return what computes a table in floats; None where that may give another level.

    Args:
        op: The table, whose entries are its function's.
        x: The type of its input.
    """
    y = op.infer(x)
    if type(op.function) not in ERRORS or (op.low, op.high) != y.limits:
        return None
    levels = tuple(int(entry) + y.limits[0] for entry in op.entries(x))
    found = function_scales(op.function, x.like((1,)), y.like((1,)), levels)
    return found and ComputedTable(op.scale, op.signed, op.low, op.high, op.function, *found)


def unsigned(model: Model) -> Model:
    """Return the integer program with its weights as uint8 of zero point 128: the same results."""
    weights = dict(model.weights)
    nodes = []
    for node in model.graph.nodes:
        # Not by `isinstance`: what derives from it has a form of its own already.
        if type(node.op) is QConv:
            op = UnsignedQConv(**{f.name: getattr(node.op, f.name) for f in fields(QConv)})
            levels = np.asarray(model.weights[node.params[0]])
            # By way of int16, since int8 ends below 128. The instruction that saturates, AVX2's
            # `vpmaddubsw`, multiplies unsigned by signed bytes; where both are unsigned, ONNX
            # Runtime's kernels widen them to 16 bits first.
            weights[node.params[0]] = (levels.astype(np.int16) + 128).astype(np.uint8)
            node = replace(node, op=op)  # noqa: PLW2901
        nodes.append(node)
    return Model(verify(replace(model.graph, nodes=tuple(nodes))), weights)


LANES = 16
"""Filters that ONNX Runtime needs to multiply windows where their pixels lie, rather than copies of
them (`MlasConvSymPackWSize`). It multiplies 16 channels, each by its own filter, faster than 4."""
MOST = 64
"""Channels of branches that are joined with zeros between them: more would cost their reader more
than their own convolutions save."""


def wide(model: Model) -> Model:
    """Return the integer program whose convolutions have whole words of channels, and 16 filters.

    What has fewer filters gets others of zeros where the readers' weights can be zero beside them.
    Its value has `:wide` behind its name then; that of the program is made of it only for readers
    of another kind.
    """
    work = _Work(model.graph, model.weights, _lanes(model.graph))
    for node in model.graph.nodes:
        work.place(node)
    weights = {**model.weights, **work.changed}
    return Model(verify(replace(model.graph, nodes=tuple(work.nodes))), weights)


@dataclass
class _Work:
    """The program in the making; `lanes` are the values with zeros beside their channels.

    `places` says where the program's own channels are in these.
    """

    graph: Graph
    weights: Mapping[str, NDArray[Any]]
    lanes: frozenset[str]
    nodes: list[Node] = field(default_factory=list)
    changed: dict[str, NDArray[Any]] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)
    places: dict[str, NDArray[np.intp]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.types = {source.name: source.type for source in self.graph.inputs}

    def place(self, node: Node) -> None:
        """Add what a node becomes."""
        if node.name in self.lanes:
            if isinstance(node.op, Concat):
                self._joined(node)
                self._add(node)
            else:
                self._convolved(node, f"{node.name}{WIDE}")
                own = Slice(0, node.type.shape[0], 1)
                self._add(Node(node.name, own, (f"{node.name}{WIDE}",), (), node.type, node.at))
        elif _is_dense(node):
            self._convolved(node, node.name)
        else:
            self._add(node)

    def _add(self, node: Node) -> None:
        self.nodes.append(node)
        self.types[node.name] = node.type

    def _joined(self, node: Node) -> None:
        """Add the same of the inputs with zeros beside them."""
        names = tuple(f"{n}{WIDE}" if n in self.lanes else n for n in node.inputs)
        kinds = [self.types[name] for name in names]
        starts = np.cumsum([0, *(kind.shape[0] for kind in kinds)])
        own = (self.places.get(name, np.arange(self.types[name].shape[0])) for name in names)
        name = f"{node.name}{WIDE}"
        self.places[name] = np.concatenate([a + n for a, n in zip(own, starts[:-1], strict=True)])
        self._add(replace(node, name=name, inputs=names, type=node.op.infer(*kinds)))

    def _convolved(self, node: Node, name: str) -> None:
        """Add a convolution under a name, which says whether it gets filters of zeros."""
        assert isinstance(node.op, QConv)
        value, dense = node.inputs[0], _is_dense(node)
        if value in self.lanes:
            value = f"{value}{WIDE}"
        x, op, tensors = self.types[value], node.op, [self.weights[n] for n in node.params]
        weight, scale, bias = map(np.asarray, tensors)
        more = LANES - len(weight) if name != node.name else 0
        depth = x.shape[0] if dense else 1
        if more:
            conv = replace(op.conv, filters=LANES, groups=1 if dense else LANES)
            op = replace(op, conv=conv)
        if dense and _has_window(node) and x.shape[0] % WORD:
            op = WideQConv(**{f.name: getattr(op, f.name) for f in fields(QConv)})
            depth += op.beside(x)
        full = np.zeros((len(weight) + more, depth, *weight.shape[2:]), weight.dtype)
        own = self.places.get(value, np.arange(weight.shape[1])) if dense else [0]
        full[: len(weight), own] = weight
        found = full, np.pad(scale, (0, more), constant_values=1), np.pad(bias, (0, more))
        self.changed.update(zip(node.params, found, strict=True))
        self.places[name] = np.arange(len(weight))
        self._add(replace(node, name=name, op=op, inputs=(value,), type=op.infer(x)))


def _lanes(graph: Graph) -> frozenset[str]:
    """Return the values that get zeros beside their channels."""
    found = frozenset(node.name for node in graph.nodes if _has_few(graph, node))
    # What one of them is bears on those before and behind it: who cannot be goes, until all can.
    while True:
        kept = frozenset(n.name for n in graph.nodes if n.name in found and _can(graph, n, found))
        if kept == found:
            return found
        found = kept


def _has_few(graph: Graph, node: Node) -> bool:
    if isinstance(node.op, Concat):
        widths = (max(kind.shape[0], LANES) for kind in graph.input_types(node))
        return sum(widths) <= MOST and node.type.scale is not None
    conv = _is_dense(node) or _is_depthwise(graph, node)
    return conv and node.type.shape[0] < LANES


def _can(graph: Graph, node: Node, found: frozenset[str]) -> bool:
    """Whether zeros beside a value's channels gain time, if all of `found` have them."""
    # With a window, or a filter a channel, they save more than it takes to slice the map for others
    # who read it.
    if _is_depthwise(graph, node):
        return node.inputs[0] in found
    if _is_dense(node) and _has_window(node):
        return True
    if any(output.value == node.name for output in graph.outputs):
        return False
    readers = graph.readers[node.name]
    if isinstance(node.op, Concat):
        return all(map(_is_dense, readers)) and not found.isdisjoint(node.inputs)
    return all(_is_dense(reader) or reader.name in found for reader in readers)


def _is_dense(node: Node) -> bool:
    """Whether a node is a convolution each of whose filters reads all channels."""
    # Not by `isinstance`: what derives from it has a form of its own already.
    return type(node.op) is QConv and node.op.conv.groups == 1


def _is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether a node is a convolution of one filter a channel."""
    if type(node.op) is not QConv or _is_dense(node):
        return False
    return node.op.conv.groups == node.op.conv.filters == graph.input_types(node)[0].shape[0]


def _has_window(node: Node) -> bool:
    assert isinstance(node.op, QConv)
    return node.op.conv.kernel != (1, 1)


def slow_tables(graph: Graph, is_computed: Callable[[Node, Table], bool]) -> Iterator[Remark]:
    """Yield each table over the pixels of a map that a runtime does not compute in floats."""
    for node in graph.nodes:
        match node.op:
            # One number a channel, as in gates, takes no time.
            case Table() as op if node.type.elements > node.type.shape[0]:
                if is_computed(node, op):
                    continue
                why = f"`{op.function.word}` of 8-bit levels is a table, whose entries are gathered"
                help = "at fp32 the network may be faster: `tcc bench INT8 FP32` measures both"
                yield Remark(node, why, help, "docs/measuring.md, int8 on x86", slow=True)
