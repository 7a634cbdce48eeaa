"""The block level: what of a network's nesting a picture of one page shows."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil

from tcc.compiler.figures.box_labels import brief
from tcc.compiler.figures.box_tree import Box
from tcc.compiler.figures.repeat_folding import one_after_another, side_by_side

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
