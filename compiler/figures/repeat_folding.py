"""Equal neighbours, which a picture shows once: turns of a `repeat`, and many branches."""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace

from tcc.compiler.figures.box_labels import VARYING
from tcc.compiler.figures.box_tree import Box
from tcc.compiler.ir.graph import Node

MANY = 5
"""Equal branches from here on are one box."""

Readers = Mapping[str, tuple[str, ...]]
"""The paths of the boxes that read each value."""
Alike = Callable[[Box, Box], bool]


def one_after_another(parent: Box) -> Box:
    """Return a box in which equal blocks that each read only the one before are one block.

    Turns of a `repeat` are equal if they differ only in channels.
    """
    readers, kept = _readers(parent), frozenset(parent.gives)

    def follows(before: Box, box: Box) -> bool:
        if before.gives != box.reads or kept & set(before.gives):
            return False
        if any(readers[value] != (box.path,) for value in before.gives):
            return False
        return _alike(before, box, loose=box.name.startswith("repeat_"))

    children = (_chain(run) for run in _runs(parent.children, follows))
    return replace(parent, children=tuple(children))


def side_by_side(parent: Box) -> Box:
    """Return a box in which many equal branches, read together, are one block."""
    readers, kept = _readers(parent), frozenset(parent.gives)

    def joins(before: Box, box: Box) -> bool:
        values = (*before.gives, *box.gives)
        if before.reads != box.reads or len(values) != 2 or kept & set(values):
            return False
        return readers[values[0]] == readers[values[1]] and _alike(before, box, loose=False)

    children: list[Box] = []
    instead: dict[str, str] = {}
    for run in _runs(parent.children, joins):
        if len(run) < MANY:
            children.extend(run)
            continue
        instead |= {box.gives[0]: run[-1].gives[0] for box in run}
        children.append(replace(_sum(run), details=("side by side",)))
    return replace(parent, children=tuple(_renamed(child, instead) for child in children))


def _readers(parent: Box) -> Readers:
    found: dict[str, tuple[str, ...]] = {}
    for child in parent.children:
        for value in child.reads:
            found[value] = (*found.get(value, ()), child.path)
    return found


def _runs(boxes: Sequence[Box], alike: Alike) -> Iterator[list[Box]]:
    """Yield the boxes, neighbouring blocks that are alike together."""
    run: list[Box] = []
    for box in boxes:
        if run and not (run[-1].is_block and box.is_block and alike(run[-1], box)):
            yield run
            run = []
        run.append(box)
    if run:
        yield run


def _chain(run: Sequence[Box]) -> Box:
    """Return one box for turns, which holds the last and reads what the first does."""
    first, last = run[0], run[-1]
    names = dict(zip(last.reads, first.reads, strict=True))
    return _renamed(_sum(run), names) if len(run) > 1 else first


def _sum(run: Sequence[Box]) -> Box:
    return replace(
        run[-1],
        name=_name(run[0].name, run[-1].name),
        params=sum(box.params for box in run),
        macs=sum(box.macs for box in run),
        turns=len(run),
    )


def _name(first: str, last: str) -> str:
    head, slash, rest = first.partition("/")
    if head.startswith("repeat_"):
        return rest or "repeat"
    number = re.search(r"\d+$", last.partition("/")[0])
    return f"{head}..{number[0]}{slash}{rest}" if number else first


def _renamed(box: Box, names: Mapping[str, str]) -> Box:
    """Return a box that reads other values from outside."""
    return replace(
        box,
        reads=tuple(dict.fromkeys(names.get(value, value) for value in box.reads)),
        children=tuple(_renamed(child, names) for child in box.children),
    )


def _alike(a: Box, b: Box, loose: bool) -> bool:
    return _unnumbered(a.name) == _unnumbered(b.name) and _form(a, loose) == _form(b, loose)


def _unnumbered(name: str) -> str:
    head, slash, rest = name.partition("/")
    return re.sub(r"_\d+$", "", head) + slash + rest


def _form(box: Box, loose: bool) -> tuple[Hashable, ...]:
    """Return what equal blocks have in common; loosely, they may differ in channels."""
    inside = {node.name for node in box.nodes}
    reads = dict.fromkeys(v for node in box.nodes for v in node.inputs if v not in inside)
    outside = {value: index for index, value in enumerate(reads)}
    return tuple(_shape(node, box.path, inside, outside, loose) for node in box.nodes)


def _shape(
    node: Node, path: str, inside: set[str], outside: Mapping[str, int], loose: bool
) -> Hashable:
    reads = tuple(
        value.removeprefix(path) if value in inside else outside[value] for value in node.inputs
    )
    attributes = node.op.attributes().items()
    kept = tuple((k, v) for k, v in attributes if not (loose and k in VARYING))
    return node.name.removeprefix(path), node.op.word, reads, kept, None if loose else node.type
