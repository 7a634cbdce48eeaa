"""A graph as boxes in boxes: the paths of its nodes say which block holds which."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace

import networkx as nx

from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Graph, Node, Output
from tcc.compiler.ir.types import TensorType

WIDTHS = frozenset({"filters", "groups", "units", "start", "stop", "multiplier"})
"""Attributes that follow from the number of channels."""
VARYING = WIDTHS | {"rate"}
"""Attributes in which the turns of a `repeat` may differ and still be alike."""


@dataclass(frozen=True, slots=True)
class AttributeLabel:
    """An attribute's words, if its value is not the one that goes without saying."""

    before: str = ""
    after: str = ""
    silent: tuple[object, ...] = (None,)
    short: bool = False

    def __call__(self, value: object) -> str:
        """Return the words for a value; a short one of equal parts is said once."""
        if value in self.silent:
            return ""
        return f"{self.before}{_value(value, self.short)}{self.after}"


_ONES = (None, 1, (1, 1))
_ATTRIBUTES: Mapping[str, AttributeLabel] = {
    "kernel": AttributeLabel(),
    "size": AttributeLabel(),
    "filters": AttributeLabel(after=" filters"),
    "units": AttributeLabel(after=" units"),
    "stride": AttributeLabel("stride ", silent=_ONES, short=True),
    "padding": AttributeLabel("pad ", silent=(0, (0, 0), (0, 0, 0, 0)), short=True),
    "output_padding": AttributeLabel("output pad ", silent=((0, 0),)),
    "dilation": AttributeLabel("dilation ", silent=_ONES, short=True),
    "groups": AttributeLabel(after=" groups", silent=_ONES),
    "multiplier": AttributeLabel("multiplier ", silent=_ONES),
    "rate": AttributeLabel("rate "),
    "slope": AttributeLabel("slope "),
    "factor": AttributeLabel("factor ", silent=(1.0,)),
    "offset": AttributeLabel("offset ", silent=(0.0,)),
    "scale": AttributeLabel("scale "),
    "mode": AttributeLabel(),
    "ceil": AttributeLabel("ceil", silent=(False,)),
    "start": AttributeLabel("from "),
    "stop": AttributeLabel("to "),
    "step": AttributeLabel("step ", silent=_ONES),
    "value": AttributeLabel("value ", silent=(0.0,)),
}
"""What is said of each attribute, in this order; of others (`bias`, `eps`) nothing is."""


def details(node: Node) -> str:
    """Return an operation's key attributes: `7x7, 64 filters, stride 2, pad 3`."""
    found = dict(node.op.attributes())
    depthwise = _depthwise(node)
    if depthwise:
        found.pop("groups")
    said = [words(found[name]) for name, words in _ATTRIBUTES.items() if name in found]
    return ", ".join(text for text in (*said, depthwise) if text)


def brief(node: Node) -> str:
    """Return an operation in a few characters: `conv 7x7 /2`."""
    found = node.op.attributes()
    kernel = f" {_value(found['kernel'])}" if "kernel" in found else ""
    stride = found.get("stride")
    step = "" if stride in _ONES else f" /{_value(stride, short=True)}"
    kind = _depthwise(node)
    return f"{kind or node.op.word}{kernel}{step}"


def shape_of(kind: TensorType) -> str:
    """Return a type as edges bear it; only unusual element types are named."""
    return str(kind) if kind.dtype == "float32" else f"{kind.dtype} {kind}"


def _depthwise(node: Node) -> str:
    found = node.op.attributes()
    groups = found.get("groups")
    # ONNX and PyTorch have no such operator: it is a convolution of as many groups as filters.
    return "depthwise" if groups not in (None, 1) and groups == found.get("filters") else ""


def _value(value: object, short: bool = False) -> str:
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

    `reads` names the values that come in from outside, in order of first use, `gives` those that
    others read. `turns` is how many equal blocks it stands for, of which `children` are those of
    the last; `params` and `macs` are of all of them. A block without children is closed.
    """

    path: str
    name: str
    kind: str
    reads: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    children: tuple["Box", ...] = ()
    nodes: tuple[Node, ...] = ()
    details: tuple[str, ...] = ()
    params: int = 0
    macs: int = 0
    turns: int = 1

    @property
    def is_block(self) -> bool:
        """Whether it stands for a block of the spec."""
        return self.kind == "block"

    @property
    def kind_shown(self) -> str:
        """The kind that its colour shows: blocks are open or closed."""
        return "closed" if self.is_block and not self.children else self.kind


def nest(graph: Graph) -> Box:
    """Return the box of a whole graph, with its inputs and outputs and every block open."""
    rows = {row.path: row for row in cost(graph).rows}
    leaves = {n.name: _leaf(n, rows[n.name].params, rows[n.name].macs) for n in graph.nodes}
    inputs = tuple(Box(i.name, i.name, "input", gives=(i.name,)) for i in graph.inputs)
    outputs = tuple(
        Box(o.name, o.name, "output", (o.value,), details=tuple(_output(o))) for o in graph.outputs
    )
    blocks = _blocks("", tuple(leaves.values()))
    root = _container("", graph.name, _acyclic(blocks))
    return _give(replace(root, children=(*inputs, *root.children, *outputs)), frozenset())


def _output(output: Output) -> Iterator[str]:
    if output.activation != "none":
        yield output.activation
    if output.kind:
        yield output.kind
    if output.labels:
        yield ", ".join(output.labels)
    if output.train_only:
        yield "only in training"


def _leaf(node: Node, params: int, macs: int) -> Box:
    name = node.name.rpartition("/")[2]
    word = node.op.word
    title = name if _stem(name) == word else f"{name}: {word}"
    said = details(node)
    return Box(
        node.name, title, node.op.family, tuple(dict.fromkeys(node.inputs)),
        (node.name,), nodes=(node,), details=(said,) if said else (), params=params, macs=macs,
    )  # fmt: skip


def _stem(name: str) -> str:
    head, _, number = name.rpartition("_")
    return head if head and number.isdigit() else name


def _blocks(prefix: str, leaves: tuple[Box, ...]) -> tuple[Box, ...]:
    """Return boxes at a path, in order of their first nodes."""
    groups: dict[tuple[str, bool], list[Box]] = {}
    for leaf in leaves:
        head, deeper, _ = leaf.path.removeprefix(prefix).partition("/")
        groups.setdefault((head, bool(deeper)), []).append(leaf)
    return tuple(
        _block(f"{prefix}{head}", head, tuple(members)) if deeper else members[0]
        for (head, deeper), members in groups.items()
    )


def _block(path: str, name: str, leaves: tuple[Box, ...]) -> Box:
    """Return a block's box; one that holds nothing but another box is merged with it."""
    children = _acyclic(_blocks(f"{path}/", leaves))
    if len(children) == 1:
        return replace(children[0], name=f"{name}/{children[0].name}")
    return _container(path, name, children)


def _container(path: str, name: str, children: tuple[Box, ...]) -> Box:
    nodes = tuple(node for child in children for node in child.nodes)
    inside = {node.name for node in nodes}
    reads = dict.fromkeys(v for child in children for v in child.reads if v not in inside)
    params, macs = sum(c.params for c in children), sum(c.macs for c in children)
    return Box(
        path, name, "block", tuple(reads), children=children, nodes=nodes, params=params, macs=macs
    )


def _acyclic(boxes: tuple[Box, ...]) -> tuple[Box, ...]:
    """Return boxes of which none waits for itself: a block read by what it reads is dissolved."""
    while True:
        makers = {node.name: box.path for box in boxes for node in box.nodes}
        links = ((makers[v], b.path) for b in boxes for v in b.reads if v in makers)
        # A spec's block may read what one after it gives (a name bound in between), and no row
        # could hold both.
        knots = nx.strongly_connected_components(nx.DiGraph(links))
        tied = {path for knot in knots if len(knot) > 1 for path in knot}
        if not any(box.path in tied and box.children for box in boxes):
            return boxes
        boxes = tuple(_dissolve(boxes, tied))


def _dissolve(boxes: Iterable[Box], tied: Set[str]) -> Iterator[Box]:
    for box in boxes:
        if box.path in tied and box.children:
            yield from (replace(c, name=f"{box.name}/{c.name}") for c in box.children)
        else:
            yield box


def _give(box: Box, wanted: Set[str]) -> Box:
    """Return a box that knows which of its values are read outside of it."""
    if not box.children:
        return box
    counts = Counter(value for child in box.children for value in child.reads)
    within = wanted | counts.keys()
    children = tuple(_give(child, within) for child in box.children)
    gives = tuple(node.name for node in box.nodes if node.name in wanted)
    return replace(box, children=children, gives=gives)
