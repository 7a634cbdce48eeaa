"""Folding for the block level: closes and merges blocks so that a network fits one page."""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil

from tcc.compiler.figures.box_tree import VARYING_ATTRIBUTES, Box, summarize_op
from tcc.compiler.ir.graph import Node

MIN_BRANCHES = 5
"""Minimum number of equal branches that are merged into one box."""

Readers = Mapping[str, tuple[str, ...]]
"""The paths of the boxes that read each value."""
BoxPredicate = Callable[[Box, Box], bool]


def merge_sequential_blocks(parent: Box) -> Box:
    """Return the box with chains of equal blocks merged into one block.

    Iterations of a `repeat` are equal if they differ only in channels.
    """
    readers, block_outputs = _collect_readers(parent), frozenset(parent.outputs)

    def is_follower(earlier: Box, box: Box) -> bool:
        if earlier.outputs != box.inputs or block_outputs & set(earlier.outputs):
            return False
        if any(readers[value] != (box.path,) for value in earlier.outputs):
            return False
        return _is_alike(earlier, box, loose=box.name.startswith("repeat_"))

    children = (_merge_chain(run) for run in _group_runs(parent.children, is_follower))
    return replace(parent, children=tuple(children))


def merge_parallel_blocks(parent: Box) -> Box:
    """Return the box with many equal branches of one reader merged into one block."""
    readers, block_outputs = _collect_readers(parent), frozenset(parent.outputs)

    def is_sibling(earlier: Box, box: Box) -> bool:
        output_names = (*earlier.outputs, *box.outputs)
        if (
            earlier.inputs != box.inputs
            or len(output_names) != 2
            or block_outputs & set(output_names)
        ):
            return False
        return readers[output_names[0]] == readers[output_names[1]] and _is_alike(
            earlier, box, loose=False
        )

    children: list[Box] = []
    replacements: dict[str, str] = {}
    for run in _group_runs(parent.children, is_sibling):
        if len(run) < MIN_BRANCHES:
            children.extend(run)
            continue
        replacements |= {box.outputs[0]: run[-1].outputs[0] for box in run}
        children.append(replace(_merge_run(run), details=("in parallel",)))
    return replace(
        parent, children=tuple(_rename_inputs(child, replacements) for child in children)
    )


def _collect_readers(parent: Box) -> Readers:
    readers_by_value: dict[str, tuple[str, ...]] = {}
    for child in parent.children:
        for value in child.inputs:
            readers_by_value[value] = (*readers_by_value.get(value, ()), child.path)
    return readers_by_value


def _group_runs(boxes: Sequence[Box], is_alike: BoxPredicate) -> Iterator[list[Box]]:
    """Yield runs of neighbouring equal blocks; other boxes are runs of one."""
    run: list[Box] = []
    for box in boxes:
        if run and not (run[-1].is_block and box.is_block and is_alike(run[-1], box)):
            yield run
            run = []
        run.append(box)
    if run:
        yield run


def _merge_chain(run: Sequence[Box]) -> Box:
    """Return one box for a chain: the content of the last block with the inputs of the first."""
    first_box, last_box = run[0], run[-1]
    names = dict(zip(last_box.inputs, first_box.inputs, strict=True))
    return _rename_inputs(_merge_run(run), names) if len(run) > 1 else first_box


def _merge_run(run: Sequence[Box]) -> Box:
    """Return one box for equal neighbouring boxes: the last one, with the sizes of all of them."""
    return replace(
        run[-1],
        name=_name_run(run[0].name, run[-1].name),
        params=sum(box.params for box in run),
        macs=sum(box.macs for box in run),
        repeats=len(run),
    )


def _name_run(first_name: str, last_name: str) -> str:
    head, slash, suffix = first_name.partition("/")
    if head.startswith("repeat_"):
        return suffix or "repeat"
    number = re.search(r"\d+$", last_name.partition("/")[0])
    return f"{head}..{number[0]}{slash}{suffix}" if number else first_name


def _rename_inputs(box: Box, names: Mapping[str, str]) -> Box:
    """Return the box with renamed inputs."""
    return replace(
        box,
        inputs=tuple(dict.fromkeys(names.get(value, value) for value in box.inputs)),
        children=tuple(_rename_inputs(child, names) for child in box.children),
    )


def _is_alike(a: Box, b: Box, loose: bool) -> bool:
    return _strip_number(a.name) == _strip_number(b.name) and _build_signature(
        a, loose
    ) == _build_signature(b, loose)


def _strip_number(name: str) -> str:
    head, slash, suffix = name.partition("/")
    return re.sub(r"_\d+$", "", head) + slash + suffix


def _build_signature(box: Box, loose: bool) -> tuple[Hashable, ...]:
    """Return a signature that equal blocks share; if `loose`, it ignores channels."""
    inside = {node.name for node in box.nodes}
    outer_inputs = dict.fromkeys(v for node in box.nodes for v in node.inputs if v not in inside)
    outside = {value: index for index, value in enumerate(outer_inputs)}
    return tuple(
        _build_node_signature(node, box.path, inside, outside, loose) for node in box.nodes
    )


def _build_node_signature(
    node: Node, path: str, inside: set[str], outside: Mapping[str, int], loose: bool
) -> Hashable:
    input_keys = tuple(
        value.removeprefix(path) if value in inside else outside[value] for value in node.inputs
    )
    attributes = node.op.attributes().items()
    compared_attributes = tuple(
        (k, v) for k, v in attributes if not (loose and k in VARYING_ATTRIBUTES)
    )
    return (
        node.name.removeprefix(path),
        node.op.keyword,
        input_keys,
        compared_attributes,
        None if loose else node.type,
    )


MAX_SUMMARY_OPS = 8
"""Maximum operations listed in a closed block."""
MAX_LINE_LENGTH = 46
"""Maximum characters per line of that list."""
OPEN_DEPTHS = (4, 3, 2)
"""Depths to which blocks are opened; the first with at most `MAX_BOXES` boxes wins."""
MAX_BOXES = 72
"""Maximum boxes in a figure."""


def fold(root: Box) -> Box:
    """Return the graph's box with equal blocks merged, and blocks closed below a fitting depth."""
    # By trial: the number of boxes is only known after folding.
    candidates = [_limit_depth(root, 0, max_depth) for max_depth in OPEN_DEPTHS]
    fitting = (p for p in candidates if sum(1 for _ in iterate_leaves(p)) <= MAX_BOXES)
    return next(fitting, candidates[-1])


def _limit_depth(box: Box, depth: int, max_depth: int) -> Box:
    if not box.children:
        return box
    is_simple = _is_chain(box) and not any(child.children for child in box.children)
    if depth >= max_depth or (depth and is_simple):
        return _close_block(box)
    children = merge_sequential_blocks(merge_parallel_blocks(box)).children
    return replace(
        box, children=tuple(_limit_depth(c, depth + _count_depth(c), max_depth) for c in children)
    )


def _count_depth(box: Box) -> int:
    """Return the number of spec blocks in a box's name, without iterations of a `repeat`."""
    return sum(not part.startswith("repeat") for part in box.name.split("/"))


def _is_chain(box: Box) -> bool:
    """Whether each operation reads the one before it."""
    return all(previous.name in node.inputs for previous, node in pairwise(box.nodes))


def _close_block(box: Box) -> Box:
    """Return a block as a closed box. It lists its operations if they are a short chain."""
    count, qualifier = len(box.nodes), " each" if box.repeats > 1 else ""
    if count <= MAX_SUMMARY_OPS and _is_chain(box):
        # A list cannot show which operation of a branch reads which.
        summary_lines = _summarize_ops([summarize_op(node) for node in box.nodes])
    else:
        summary_lines = (f"{count} layers{qualifier}",)
    return replace(box, children=(), details=(*summary_lines, *box.details))


def _summarize_ops(op_texts: Sequence[str]) -> tuple[str, ...]:
    """Return a list of operations in as few lines as needed, with equally many per line."""
    line_count = ceil(len(" · ".join(op_texts)) / MAX_LINE_LENGTH)
    ops_per_line = ceil(len(op_texts) / line_count)
    return tuple(
        " · ".join(op_texts[n : n + ops_per_line]) for n in range(0, len(op_texts), ops_per_line)
    )


def iterate_leaves(box: Box) -> Iterator[Box]:
    """Yield the leaf boxes in a box."""
    for child in box.children:
        yield from iterate_leaves(child) if child.children else (child,)
