"""Variants of integer programs that ONNX Runtime runs faster or exactly, with the same results.

`pad_channels` pads few channels with zeros. `convert_to_unsigned` stores weights as uint8, which is
exact where products of mixed signs saturate. `replace_tables` computes functions in float instead
of by table: ONNX Runtime takes half the time that it needs to gather entries.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Node, verify
from tcc.compiler.ir.target import Remark
from tcc.compiler.ir.types import TensorType
from tcc.compiler.lower.onnx_inspection import WIDE_SUFFIX
from tcc.compiler.ops import Concat, Slice
from tcc.compiler.ops.integer import ComputedTable, QConv, Table, UnsignedQConv, WideQConv
from tcc.compiler.ops.integer.conv import CHANNELS_PER_WORD
from tcc.compiler.ops.integer.float_forms import ERROR_SCALES, find_function_scales


def replace_tables(model: Model) -> Model:
    """Return the integer program with tables computed in float, where all results are equal."""
    nodes, weights = [], dict(model.weights)
    for node in model.graph.nodes:
        replacement = _replace_table(model, node)
        if replacement:
            del weights[node.params[0]]
        nodes.append(replacement or node)
    return Model(verify(replace(model.graph, nodes=tuple(nodes))), weights)


def _replace_table(model: Model, node: Node) -> Node | None:
    """Return the node without its table, or None if there is no such form."""
    if not isinstance(node.op, Table):
        return None
    (x,) = model.graph.get_input_types(node)
    # A program that was read from a file may have entries that differ from its function.
    if not np.array_equal(model.weights[node.params[0]], node.op.compute_table(x)):
        return None
    form = find_computed_form(node.op, x)
    return replace(node, op=form, params=()) if form else None


def find_computed_form(op: Table, x: TensorType) -> ComputedTable | None:
    """Return the op that computes a table in float; None if a quantized value might differ.

    Args:
        op: The table, with its function's entries.
        x: The type of its input.
    """
    y = op.infer(x)
    if type(op.function) not in ERROR_SCALES or (op.low, op.high) != y.limits:
        return None
    quantized_values = tuple(int(entry) + y.limits[0] for entry in op.compute_table(x))
    scales = find_function_scales(
        op.function, x.with_shape((1,)), y.with_shape((1,)), quantized_values
    )
    if scales is None:
        return None
    clamp = op.scale, op.signed, op.low, op.high
    return ComputedTable(*clamp, op.function, *scales, zero_point=op.zero_point)


def convert_to_unsigned(model: Model) -> Model:
    """Return the integer program with uint8 weights of zero point 128; the results are equal."""
    weights = dict(model.weights)
    nodes = []
    for node in model.graph.nodes:
        # Not by `isinstance`: subclasses already have their own form.
        if type(node.op) is QConv:
            op = UnsignedQConv(**{f.name: getattr(node.op, f.name) for f in fields(QConv)})
            quantized_weights = np.asarray(model.weights[node.params[0]])
            # Through int16, because int8 ends below 128. AVX2's `vpmaddubsw` saturates when it
            # multiplies unsigned by signed bytes; if both are unsigned, ONNX Runtime's kernels
            # widen them to 16 bits first.
            weights[node.params[0]] = (quantized_weights.astype(np.int16) + 128).astype(np.uint8)
            node = replace(node, op=op)  # noqa: PLW2901
        nodes.append(node)
    return Model(verify(replace(model.graph, nodes=tuple(nodes))), weights)


LANES = 16
"""Filters from which on ONNX Runtime multiplies windows in place rather than copies of them
(`MlasConvSymPackWSize`). Depthwise, it multiplies 16 channels faster than 4."""
MAX_JOINED_CHANNELS = 64
"""Channels of a concat of padded branches: with more, its reader would lose more than the branches'
convolutions gain."""


def pad_channels(model: Model) -> Model:
    """Return the integer program with convolutions padded to full words of channels and 16 filters.

    Filters of zeros are added if the readers' weights for them can be zero. The padded value has
    the suffix `:wide`; the original value is computed from it only for other readers.
    """
    work = _WideProgramBuilder(model.graph, model.weights, _find_wide_values(model.graph))
    for node in model.graph.nodes:
        work.convert_node(node)
    weights = {**model.weights, **work.changed}
    return Model(verify(replace(model.graph, nodes=tuple(work.nodes))), weights)


@dataclass
class _WideProgramBuilder:
    """The program under construction; `wide_values` are the values with zero channels added.

    `channel_positions` are the indices of the original channels in them.
    """

    graph: Graph
    weights: Mapping[str, NDArray[Any]]
    wide_values: frozenset[str]
    nodes: list[Node] = field(default_factory=list)
    changed: dict[str, NDArray[Any]] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)
    channel_positions: dict[str, NDArray[np.intp]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.types = {network_input.name: network_input.type for network_input in self.graph.inputs}

    def convert_node(self, node: Node) -> None:
        """Add the replacement of a node."""
        if node.name in self.wide_values:
            if isinstance(node.op, Concat):
                self._add_join(node)
                self._add_node(node)
            else:
                self._add_convolution(node, f"{node.name}{WIDE_SUFFIX}")
                channel_slice = Slice(0, node.type.shape[0], 1)
                self._add_node(
                    Node(
                        node.name,
                        channel_slice,
                        (f"{node.name}{WIDE_SUFFIX}",),
                        (),
                        node.type,
                        node.at,
                    )
                )
        elif _is_dense(node):
            self._add_convolution(node, node.name)
        else:
            self._add_node(node)

    def _add_node(self, node: Node) -> None:
        self.nodes.append(node)
        self.types[node.name] = node.type

    def _add_join(self, node: Node) -> None:
        """Add a concat of the padded inputs."""
        names = tuple(f"{n}{WIDE_SUFFIX}" if n in self.wide_values else n for n in node.inputs)
        kinds = [self.types[name] for name in names]
        starts = np.cumsum([0, *(kind.shape[0] for kind in kinds)])
        positions = (
            self.channel_positions.get(name, np.arange(self.types[name].shape[0])) for name in names
        )
        name = f"{node.name}{WIDE_SUFFIX}"
        self.channel_positions[name] = np.concatenate(
            [a + n for a, n in zip(positions, starts[:-1], strict=True)]
        )
        self._add_node(replace(node, name=name, inputs=names, type=node.op.infer(*kinds)))

    def _add_convolution(self, node: Node, name: str) -> None:
        """Add a convolution under a name; another name than the node's means padded filters."""
        assert isinstance(node.op, QConv)
        value, dense = node.inputs[0], _is_dense(node)
        if value in self.wide_values:
            value = f"{value}{WIDE_SUFFIX}"
        x, op, tensors = self.types[value], node.op, [self.weights[n] for n in node.params]
        weight, scale, bias = map(np.asarray, tensors)
        extra_filters = LANES - len(weight) if name != node.name else 0
        depth = x.shape[0] if dense else 1
        if extra_filters:
            conv = replace(op.conv, filters=LANES, groups=1 if dense else LANES)
            op = replace(op, conv=conv)
        if dense and _has_window(node) and x.shape[0] % CHANNELS_PER_WORD:
            op = WideQConv(**{f.name: getattr(op, f.name) for f in fields(QConv)})
            depth += op.count_padding_channels(x)
        full = np.zeros((len(weight) + extra_filters, depth, *weight.shape[2:]), weight.dtype)
        channel_positions = (
            self.channel_positions.get(value, np.arange(weight.shape[1])) if dense else [0]
        )
        full[: len(weight), channel_positions] = weight
        padded_tensors = (
            full,
            np.pad(scale, (0, extra_filters), constant_values=1),
            np.pad(bias, (0, extra_filters)),
        )
        self.changed.update(zip(node.params, padded_tensors, strict=True))
        self.channel_positions[name] = np.arange(len(weight))
        self._add_node(replace(node, name=name, op=op, inputs=(value,), type=op.infer(x)))


def _find_wide_values(graph: Graph) -> frozenset[str]:
    """Return the values that get zero channels."""
    candidates = frozenset(node.name for node in graph.nodes if _has_few_channels(graph, node))
    # Each decision affects the nodes before and after: remove candidates until all qualify.
    while True:
        remaining = frozenset(
            n.name
            for n in graph.nodes
            if n.name in candidates and _is_worth_padding(graph, n, candidates)
        )
        if remaining == candidates:
            return candidates
        candidates = remaining


def _has_few_channels(graph: Graph, node: Node) -> bool:
    if isinstance(node.op, Concat):
        widths = (max(kind.shape[0], LANES) for kind in graph.get_input_types(node))
        return sum(widths) <= MAX_JOINED_CHANNELS and node.type.scale is not None
    conv = _is_dense(node) or _is_depthwise(graph, node)
    return conv and node.type.shape[0] < LANES


def _is_worth_padding(graph: Graph, node: Node, candidates: frozenset[str]) -> bool:
    """Whether padding a value's channels saves time, if all of `candidates` are padded."""
    # Convolutions with a window, and depthwise ones, save more time than slicing the map for other
    # readers takes.
    if _is_depthwise(graph, node):
        return node.inputs[0] in candidates
    if _is_dense(node) and _has_window(node):
        return True
    if any(output.value == node.name for output in graph.outputs):
        return False
    readers = graph.readers[node.name]
    if isinstance(node.op, Concat):
        return all(map(_is_dense, readers)) and not candidates.isdisjoint(node.inputs)
    return all(_is_dense(reader) or reader.name in candidates for reader in readers)


def _is_dense(node: Node) -> bool:
    """Whether a node is a convolution with filters that read all channels."""
    # Not by `isinstance`: subclasses already have their own form.
    return type(node.op) is QConv and node.op.conv.groups == 1


def _is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether a node is a depthwise convolution with one filter per channel."""
    if type(node.op) is not QConv or _is_dense(node):
        return False
    return node.op.conv.groups == node.op.conv.filters == graph.get_input_types(node)[0].shape[0]


def _has_window(node: Node) -> bool:
    assert isinstance(node.op, QConv)
    return node.op.conv.kernel != (1, 1)


def find_slow_tables(graph: Graph, is_computed: Callable[[Node, Table], bool]) -> Iterator[Remark]:
    """Yield each table over the pixels of a map that a runtime does not compute in float."""
    for node in graph.nodes:
        match node.op:
            # One number per channel, as in gates, takes no time.
            case Table() as op if node.type.elements > node.type.shape[0]:
                if is_computed(node, op):
                    continue
                reason = (
                    f"`{op.function.keyword}` of quantized values is a table lookup, and gathering "
                    "its entries is slow"
                )
                help = "the fp32 model may be faster: compare them with `tcc bench INT8 FP32`"
                yield Remark(node, reason, help, "docs/measuring.md, int8 on x86", slow=True)
