"""A graph as a tree of boxes, from the paths of its nodes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace

import networkx as nx

from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Graph, Node, Output
from tcc.compiler.ir.types import TensorType

CHANNEL_ATTRIBUTES = frozenset({"filters", "groups", "units", "start", "stop", "multiplier"})
"""Attributes that depend on the number of channels."""
VARYING_ATTRIBUTES = CHANNEL_ATTRIBUTES | {"rate"}
"""Attributes in which iterations of a `repeat` may differ and still count as equal."""


@dataclass(frozen=True, slots=True)
class AttributeLabel:
    """Label of an attribute; it is empty for default values."""

    prefix: str = ""
    suffix: str = ""
    hidden_values: tuple[object, ...] = (None,)
    short: bool = False

    def __call__(self, value: object) -> str:
        """Return the label of a value; if `short`, equal parts are shown once."""
        if value in self.hidden_values:
            return ""
        return f"{self.prefix}{_format_value(value, self.short)}{self.suffix}"


_ONES = (None, 1, (1, 1))
_ATTRIBUTES: Mapping[str, AttributeLabel] = {
    "kernel": AttributeLabel(),
    "size": AttributeLabel(),
    "filters": AttributeLabel(suffix=" filters"),
    "units": AttributeLabel(suffix=" units"),
    "stride": AttributeLabel("stride ", hidden_values=_ONES, short=True),
    "padding": AttributeLabel("pad ", hidden_values=(0, (0, 0), (0, 0, 0, 0)), short=True),
    "output_padding": AttributeLabel("output pad ", hidden_values=((0, 0),)),
    "dilation": AttributeLabel("dilation ", hidden_values=_ONES, short=True),
    "groups": AttributeLabel(suffix=" groups", hidden_values=_ONES),
    "multiplier": AttributeLabel("multiplier ", hidden_values=_ONES),
    "rate": AttributeLabel("rate "),
    "slope": AttributeLabel("slope "),
    "factor": AttributeLabel("factor ", hidden_values=(1.0,)),
    "offset": AttributeLabel("offset ", hidden_values=(0.0,)),
    "scale": AttributeLabel("scale "),
    "mode": AttributeLabel(),
    "ceil": AttributeLabel("ceil", hidden_values=(False,)),
    "start": AttributeLabel("from "),
    "stop": AttributeLabel("to "),
    "step": AttributeLabel("step ", hidden_values=_ONES),
    "value": AttributeLabel("value ", hidden_values=(0.0,)),
}
"""Labels of attributes, in order; other attributes (`bias`, `eps`) are not shown."""


def describe_attributes(node: Node) -> str:
    """Return an operation's key attributes: `7x7, 64 filters, stride 2, pad 3`."""
    attributes = dict(node.op.attributes())
    depthwise = _label_depthwise(node)
    if depthwise:
        attributes.pop("groups")
    label_texts = [
        label(attributes[name]) for name, label in _ATTRIBUTES.items() if name in attributes
    ]
    return ", ".join(text for text in (*label_texts, depthwise) if text)


def summarize_op(node: Node) -> str:
    """Return an operation in a few characters: `conv 7x7 /2`."""
    attributes = node.op.attributes()
    kernel = f" {_format_value(attributes['kernel'])}" if "kernel" in attributes else ""
    stride = attributes.get("stride")
    step = "" if stride in _ONES else f" /{_format_value(stride, short=True)}"
    kind = _label_depthwise(node)
    return f"{kind or node.op.keyword}{kernel}{step}"


def format_type(tensor_type: TensorType) -> str:
    """Return a type for edge labels; float32 is not named."""
    return (
        str(tensor_type) if tensor_type.dtype == "float32" else f"{tensor_type.dtype} {tensor_type}"
    )


def _label_depthwise(node: Node) -> str:
    attributes = node.op.attributes()
    groups = attributes.get("groups")
    # ONNX and PyTorch have no depthwise operator: it is a convolution with groups = filters.
    return "depthwise" if groups not in (None, 1) and groups == attributes.get("filters") else ""


def _format_value(value: object, short: bool = False) -> str:
    match value:
        case True:
            return ""
        case (first, *rest) if short and all(part == first for part in rest):
            return str(first)
        case (top, left, bottom, right) if (top, left) == (bottom, right):
            return f"{top}x{left}"
        case tuple():
            return "x".join(map(str, value))
    return str(value)


@dataclass(frozen=True)
class Box:
    """An operation, a block, an input or an output.

    `inputs` are the values from outside, in order of first use, `outputs` the values that others
    read. `repeats` is the number of merged blocks; `children` are those of the last one, `params`
    and `macs` the totals of all. A block without children is closed.
    """

    path: str
    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    children: tuple["Box", ...] = ()
    nodes: tuple[Node, ...] = ()
    details: tuple[str, ...] = ()
    params: int = 0
    macs: int = 0
    repeats: int = 1

    @property
    def is_block(self) -> bool:
        """Whether the box is a block of the spec."""
        return self.kind == "block"

    @property
    def shown_kind(self) -> str:
        """The kind for the colour: like `kind`, but with closed blocks as `closed`."""
        return "closed" if self.is_block and not self.children else self.kind


def build_box_tree(graph: Graph) -> Box:
    """Return the box of a graph, with its inputs and outputs and all blocks open."""
    rows = {row.path: row for row in compute_cost(graph).rows}
    leaves = {n.name: _build_leaf(n, rows[n.name].params, rows[n.name].macs) for n in graph.nodes}
    inputs = tuple(Box(i.name, i.name, "input", outputs=(i.name,)) for i in graph.inputs)
    outputs = tuple(
        Box(o.name, o.name, "output", (o.value,), details=tuple(_describe_output(o)))
        for o in graph.outputs
    )
    blocks = _group_blocks("", tuple(leaves.values()))
    root = _build_container("", graph.name, _make_acyclic(blocks))
    return _assign_outputs(replace(root, children=(*inputs, *root.children, *outputs)), frozenset())


def _describe_output(output: Output) -> Iterator[str]:
    if output.activation != "none":
        yield output.activation
    if output.kind:
        yield output.kind
    if output.labels:
        yield ", ".join(output.labels)
    if output.train_only:
        yield "training only"


def _build_leaf(node: Node, params: int, macs: int) -> Box:
    name = node.name.rpartition("/")[2]
    op_name = node.op.keyword
    title = name if _strip_number(name) == op_name else f"{name}: {op_name}"
    attribute_text = describe_attributes(node)
    return Box(
        node.name,
        title,
        node.op.family,
        tuple(dict.fromkeys(node.inputs)),
        (node.name,),
        nodes=(node,),
        details=(attribute_text,) if attribute_text else (),
        params=params,
        macs=macs,
    )


def _strip_number(name: str) -> str:
    head, _, number = name.rpartition("_")
    return head if head and number.isdigit() else name


def _group_blocks(prefix: str, leaves: tuple[Box, ...]) -> tuple[Box, ...]:
    """Return the boxes at a path, in order of their first nodes."""
    groups: dict[tuple[str, bool], list[Box]] = {}
    for leaf in leaves:
        head, deeper, _ = leaf.path.removeprefix(prefix).partition("/")
        groups.setdefault((head, bool(deeper)), []).append(leaf)
    return tuple(
        _build_block(f"{prefix}{head}", head, tuple(members)) if deeper else members[0]
        for (head, deeper), members in groups.items()
    )


def _build_block(path: str, name: str, leaves: tuple[Box, ...]) -> Box:
    """Return a block's box; a block with a single child is merged with it."""
    children = _make_acyclic(_group_blocks(f"{path}/", leaves))
    if len(children) == 1:
        return replace(children[0], name=f"{name}/{children[0].name}")
    return _build_container(path, name, children)


def _build_container(path: str, name: str, children: tuple[Box, ...]) -> Box:
    nodes = tuple(node for child in children for node in child.nodes)
    inside = {node.name for node in nodes}
    inputs = dict.fromkeys(v for child in children for v in child.inputs if v not in inside)
    params, macs = sum(c.params for c in children), sum(c.macs for c in children)
    return Box(
        path, name, "block", tuple(inputs), children=children, nodes=nodes, params=params, macs=macs
    )


def _make_acyclic(boxes: tuple[Box, ...]) -> tuple[Box, ...]:
    """Return the boxes without cycles: blocks that read each other are dissolved."""
    while True:
        producers = {node.name: box.path for box in boxes for node in box.nodes}
        links = ((producers[v], b.path) for b in boxes for v in b.inputs if v in producers)
        # A block can read a value of a later block that reads the first block (by a name bound in
        # between). Such blocks have no valid order of rows.
        components = nx.strongly_connected_components(nx.DiGraph(links))
        cyclic_paths = {
            path for component in components if len(component) > 1 for path in component
        }
        if not any(box.path in cyclic_paths and box.children for box in boxes):
            return boxes
        boxes = tuple(_expand_blocks(boxes, cyclic_paths))


def _expand_blocks(boxes: Iterable[Box], cyclic_paths: Set[str]) -> Iterator[Box]:
    for box in boxes:
        if box.path in cyclic_paths and box.children:
            yield from (replace(c, name=f"{box.name}/{c.name}") for c in box.children)
        else:
            yield box


def _assign_outputs(box: Box, needed_values: Set[str]) -> Box:
    """Return the box with `outputs` set: its values that are read outside of it."""
    if not box.children:
        return box
    counts = Counter(value for child in box.children for value in child.inputs)
    inner_values = needed_values | counts.keys()
    children = tuple(_assign_outputs(child, inner_values) for child in box.children)
    outputs = tuple(node.name for node in box.nodes if node.name in needed_values)
    return replace(box, children=children, outputs=outputs)
