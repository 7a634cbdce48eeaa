"""The block level: what of a network's nesting a picture of one page shows."""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil

from tcc.compiler.figures.box_tree import VARYING, Box, brief
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


SUMMARY = 8
"""Operations that a closed block may list."""
COLUMNS = 46
"""Characters of one line of that list."""
DEPTHS = (4, 3, 2)
"""How deep blocks that hold blocks may be open; the first that makes few boxes is taken."""
FEW = 72
"""Boxes that fit a picture."""


def fold(root: Box) -> Box:
    """Return a graph's box with equal turns as one box, and closed blocks in the first levels."""
    # By trying: how many boxes a depth makes is known only once blocks are folded.
    pictures = [_level(root, 0, deepest) for deepest in DEPTHS]
    fitting = (p for p in pictures if sum(1 for _ in leaves(p)) <= FEW)
    return next(fitting, pictures[-1])


def _level(box: Box, depth: int, deepest: int) -> Box:
    if not box.children:
        return box
    plain = _is_chain(box) and not any(child.children for child in box.children)
    if depth >= deepest or (depth and plain):
        return _closed(box)
    children = one_after_another(side_by_side(box)).children
    return replace(box, children=tuple(_level(c, depth + _depth(c), deepest) for c in children))


def _depth(box: Box) -> int:
    """Return how many blocks of the spec a box's name names; turns of a `repeat` are none."""
    return sum(not part.startswith("repeat") for part in box.name.split("/"))


def _is_chain(box: Box) -> bool:
    """Whether each operation reads the one before it."""
    return all(before.name in node.inputs for before, node in pairwise(box.nodes))


def _closed(box: Box) -> Box:
    """Return a block as one box that lists its operations, if they are few and a chain."""
    count, each = len(box.nodes), " each" if box.turns > 1 else ""
    if count <= SUMMARY and _is_chain(box):
        # a list can only stand for a chain: of branches it would not say which reads which
        said = _summary([brief(node) for node in box.nodes])
    else:
        said = (f"{count} layers{each}",)
    return replace(box, children=(), details=(*said, *box.details))


def _summary(words: Sequence[str]) -> tuple[str, ...]:
    """Return a list of operations in as few lines as it needs, of equal numbers of words."""
    lines = ceil(len(" · ".join(words)) / COLUMNS)
    each = ceil(len(words) / lines)
    return tuple(" · ".join(words[n : n + each]) for n in range(0, len(words), each))


def leaves(box: Box) -> Iterator[Box]:
    """Yield the boxes in a box that hold no others."""
    for child in box.children:
        yield from leaves(child) if child.children else (child,)
