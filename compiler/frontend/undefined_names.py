"""Where a name is bound that a step does not see: later, inside other steps, or by a caller."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from tcc.compiler.frontend.block_library import Block, Library
from tcc.compiler.frontend.step_syntax import sequences_in
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.support.diagnostics import Diagnostic, Span

NOT_SEEN = ("E0217", "E0221")
"""The codes of names that are not in scope."""
_Bound = tuple[Span, str]
"""Where a name is bound, and whether to a `parameter` or a `value`."""


def explained(found: list[Diagnostic], library: Library) -> list[Diagnostic]:
    """Return diagnostics; those of names that are bound elsewhere say where."""
    tables = _Tables(library)
    return [_explained(d, tables) if d.code in NOT_SEEN else d for d in found]


class _Tables:
    """What a library binds where; each table is made once for all diagnostics."""

    def __init__(self, library: Library) -> None:
        self.library = library
        # By identity: parts of the tree are equal where texts are, and hashing a whole part costs
        # its size.
        self._bound: dict[int, dict[str, _Bound]] = {}
        self._sides: dict[int, dict[str, Span]] = {}

    @cached_property
    def blocks(self) -> dict[str, list[Block]]:
        """The blocks of each file in the order of its text."""
        found: dict[str, list[Block]] = {}
        for block in sorted(self.library.blocks.values(), key=_place):
            found.setdefault(block.at.file, []).append(block)
        return found

    def bound(self, steps: Sequence) -> dict[str, _Bound]:
        """Return the first place below some steps that binds each name, and the kind of name."""
        if id(steps) not in self._bound:
            table = self._bound[id(steps)] = {}
            for sequence in sequences_in(steps):
                for name, span, kind in _of_steps(sequence):
                    table.setdefault(name, (span, kind))
        return self._bound[id(steps)]

    def chosen(self, body: Sequence) -> dict[str, Span]:
        """Return the first `when` that binds each name on a side of it, as a step of the body."""
        if id(body) not in self._sides:
            self._sides[id(body)] = _chosen(body)
        return self._sides[id(body)]


def _explained(found: Diagnostic, tables: _Tables) -> Diagnostic:
    at, library = found.at, tables.library
    # The word under the caret: a diagnostic has its place, and the place its text.
    word = at.text[at.column - 1 : at.column - 1 + at.width].strip("'\"")
    block = _around(at, tables)
    graph = library.root.get("graph")
    body = block.body if block else graph
    if not word.isidentifier() or not isinstance(body, Sequence):
        return found
    own = tables.bound(body).get(word)
    if own is not None:
        chosen = tables.chosen(body).get(word)
        return replace(found, help=_elsewhere(word, own[0], at, chosen))
    outer = _of_spec(word, tables) if block else ""
    return replace(found, help=_outside(word, block, outer)) if block and outer else found


def _elsewhere(word: str, bound: Span, at: Span, chosen: Span | None) -> str:
    if (bound.line, bound.column) > (at.line, at.column):
        return f"`{word}` is bound later, at {bound}; a step sees what stands before it"
    if chosen is not None:
        return (
            f"`{word}` is bound at {bound}, on a side of the `when` at {chosen} that is not taken"
            " here: bind it on both sides, or after the `when`"
        )
    return f"`{word}` is bound at {bound}, among steps of their own; only those see it"


def _outside(word: str, block: Block, outer: str) -> str:
    if outer == "value":
        return (
            f"a block sees its own values only: name it in `inputs:` of `{block.name}`, and give"
            f" it where that is called, `{block.name}:` with `from: [..., {word}]`"
        )
    return (
        f"a block sees its own parameters only: declare `{word}` in `params:` of `{block.name}`,"
        f" and give it where that is called, `{block.name}: {{{word}: {word}}}`"
    )


def _place(block: Block) -> tuple[int, int]:
    return block.at.line, block.at.column


def _around(at: Span, tables: _Tables) -> Block | None:
    """Return the block in whose body a place lies; None in the graph."""
    place = (at.line, at.column)
    # Blocks do not nest in each other, so that the last one to begin before a place is the one
    # around it.
    starts = tables.blocks.get(at.file, [])
    before = bisect_right(starts, place, key=_place)
    nearest = starts[before - 1] if before else None
    key = tables.library.root.key("graph")
    if nearest is None or key is None or key.span.file != at.file:
        return nearest
    graph = (key.span.line, key.span.column)
    inside = graph <= place and graph > _place(nearest)
    return None if inside else nearest


def _of_spec(word: str, tables: _Tables) -> str:
    """Return whether a name is a `parameter` or a `value` outside of blocks; empty if neither."""
    root = tables.library.root
    params, source, graph = root.get("params"), root.get("input"), root.get("graph")
    if isinstance(params, MappingTree) and params.get(word) is not None:
        return "parameter"
    if isinstance(source, MappingTree) and source.get(word) is not None:
        return "value"
    return tables.bound(graph).get(word, (None, ""))[1] if isinstance(graph, Sequence) else ""


def _chosen(body: Sequence) -> dict[str, Span]:
    found: dict[str, Span] = {}
    for step in body.items:
        key = step.key("when") if isinstance(step, MappingTree) else None
        when = step.get("when") if isinstance(step, MappingTree) else None
        if key is None or not isinstance(when, MappingTree):
            continue
        for side in (when.get("then"), when.get("else")):
            if isinstance(side, Sequence):
                for name in (*(name for name, _, _ in _of_steps(side)), *_chosen(side)):
                    found.setdefault(name, key.span)
    return found


def _of_steps(steps: Sequence) -> Iterator[tuple[str, Span, str]]:
    """Yield the names that steps bind, not those within them: each with its place and kind."""
    for step in steps.items:
        for key, value in step.items if isinstance(step, MappingTree) else ():
            inner = value if isinstance(value, MappingTree) else None
            if key.value == "let" and inner:
                for name, _ in inner.items:
                    yield str(name.value), name.span, "parameter"
            place: Tree | None = value if key.value == "as" else None
            if inner and key.value in ("side", "repeat", "each"):
                place = inner.get("as") if key.value == "side" else inner.get("collect")
            if isinstance(place, Scalar) and isinstance(place.value, str):
                yield place.value, place.span, "value"
