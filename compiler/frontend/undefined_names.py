"""Where a name is bound that a step does not see: later, inside other steps, or by a caller."""

from collections.abc import Iterator
from dataclasses import replace

from tcc.compiler.frontend.block_library import Block, Library
from tcc.compiler.frontend.step_syntax import sequences_in
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.support.diagnostics import Diagnostic, Span

NOT_SEEN = ("E0217", "E0221")
"""The codes of names that are not in scope."""


def explained(found: list[Diagnostic], library: Library) -> list[Diagnostic]:
    """Return diagnostics; those of names that are bound elsewhere say where."""
    return [_explained(d, library) if d.code in NOT_SEEN else d for d in found]


def _explained(found: Diagnostic, library: Library) -> Diagnostic:
    at = found.at
    word = at.text[at.column - 1 : at.column - 1 + at.width].strip("'\"")
    block = _around(at, library)
    graph = library.root.get("graph")
    body = block.body if block else graph
    if not word.isidentifier() or not isinstance(body, Sequence):
        return found
    own = next((span for span, _ in _bindings(body, word)), None)
    if own is not None:
        return replace(found, help=_elsewhere(word, own, at, _chosen(body, word)))
    outer = _of_spec(word, library) if block else ""
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


def _around(at: Span, library: Library) -> Block | None:
    """Return the block in whose body a place lies; None in the graph."""
    place = (at.line, at.column)
    starts = [b for b in library.blocks.values() if b.at.file == at.file]
    before = [b for b in starts if (b.at.line, b.at.column) <= place]
    nearest = max(before, key=lambda b: (b.at.line, b.at.column), default=None)
    key = library.root.key("graph")
    if nearest is None or key is None or key.span.file != at.file:
        return nearest
    graph = (key.span.line, key.span.column)
    inside = graph <= place and graph > (nearest.at.line, nearest.at.column)
    return None if inside else nearest


def _of_spec(word: str, library: Library) -> str:
    """Return whether a name is a `parameter` or a `value` outside of blocks; empty if neither."""
    params, source = library.root.get("params"), library.root.get("input")
    if isinstance(params, MappingTree) and params.get(word) is not None:
        return "parameter"
    if isinstance(source, MappingTree) and source.get(word) is not None:
        return "value"
    graph = library.root.get("graph")
    return next((kind for _, kind in _bindings(graph, word)), "") if graph else ""


def _bindings(steps: object, word: str) -> Iterator[tuple[Span, str]]:
    """Yield the places below some steps that bind a name, each with the kind of what it is."""
    assert isinstance(steps, Sequence)
    for sequence in sequences_in(steps):
        for step in sequence.items:
            if isinstance(step, MappingTree):
                yield from _of_step(step, word)


def _chosen(body: Sequence, word: str) -> Span | None:
    """Return the `when` that binds a name on one of its sides, as steps of the body itself."""
    for step in body.items:
        key = step.key("when") if isinstance(step, MappingTree) else None
        when = step.get("when") if isinstance(step, MappingTree) else None
        if key is None or not isinstance(when, MappingTree):
            continue
        for side in (when.get("then"), when.get("else")):
            if not isinstance(side, Sequence):
                continue
            own = (s for s in side.items if isinstance(s, MappingTree))
            if any(True for s in own for _ in _of_step(s, word)) or _chosen(side, word):
                return key.span
    return None


def _of_step(step: MappingTree, word: str) -> Iterator[tuple[Span, str]]:
    for key, value in step.items:
        inner = value if isinstance(value, MappingTree) else None
        if key.value == "let" and inner and (name := inner.key(word)):
            yield name.span, "parameter"
        place: Tree | None = value if key.value == "as" else None
        if inner and key.value in ("side", "repeat", "each"):
            place = inner.get("as") if key.value == "side" else inner.get("collect")
        if isinstance(place, Scalar) and place.value == word:
            yield place.span, "value"
