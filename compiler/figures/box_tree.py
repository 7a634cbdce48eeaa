"""A graph as boxes in boxes: the paths of its nodes say which block holds which."""

from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace

import networkx as nx

from tcc.compiler.figures.box_labels import details
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Graph, Node, Output


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
