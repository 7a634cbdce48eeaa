"""Help for undefined names: where the name is bound instead."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from tcc.compiler.frontend.block_library import Block, Library
from tcc.compiler.frontend.step_syntax import iterate_nested_sequences
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.support.diagnostics import Diagnostic, Span

UNDEFINED_NAME_CODES = ("E0217", "E0221")
"""Codes of errors for names that are not in scope."""
_Binding = tuple[Span, str]
"""The location of a binding, and whether it is a `parameter` or a `value`."""


def explain_undefined_names(diagnostics: list[Diagnostic], library: Library) -> list[Diagnostic]:
    """Return the diagnostics, with help on names that are bound elsewhere."""
    tables = _BindingTables(library)
    return [
        _explain_diagnostic(d, tables) if d.code in UNDEFINED_NAME_CODES else d for d in diagnostics
    ]


class _BindingTables:
    """Bindings of a library; each table is built once for all diagnostics."""

    def __init__(self, library: Library) -> None:
        self.library = library
        # Keyed by identity: equal texts give equal trees, and hashing a tree takes time in
        # proportion to its size.
        self._bindings: dict[int, dict[str, _Binding]] = {}
        self._branch_bindings: dict[int, dict[str, Span]] = {}

    @cached_property
    def blocks(self) -> dict[str, list[Block]]:
        """The blocks of each file, in the order of the text."""
        blocks_by_file: dict[str, list[Block]] = {}
        for block in sorted(self.library.blocks.values(), key=_get_position):
            blocks_by_file.setdefault(block.at.file, []).append(block)
        return blocks_by_file

    def find_bindings(self, steps: Sequence) -> dict[str, _Binding]:
        """Return the location and kind of the first binding of each name in some steps."""
        if id(steps) not in self._bindings:
            table = self._bindings[id(steps)] = {}
            for sequence in iterate_nested_sequences(steps):
                for name, span, kind in _iterate_bindings(sequence):
                    table.setdefault(name, (span, kind))
        return self._bindings[id(steps)]

    def find_branch_bindings(self, body: Sequence) -> dict[str, Span]:
        """Return the first `when` step of a body that binds each name in a branch."""
        if id(body) not in self._branch_bindings:
            self._branch_bindings[id(body)] = _find_branch_bindings(body)
        return self._branch_bindings[id(body)]


def _explain_diagnostic(diagnostic: Diagnostic, tables: _BindingTables) -> Diagnostic:
    at, library = diagnostic.at, tables.library
    # The name at the caret: a diagnostic has a location with the text of its line.
    name = at.text[at.column - 1 : at.column - 1 + at.width].strip("'\"")
    block = _find_enclosing_block(at, tables)
    graph = library.root.get("graph")
    body = block.body if block else graph
    if not name.isidentifier() or not isinstance(body, Sequence):
        return diagnostic
    binding = tables.find_bindings(body).get(name)
    if binding is not None:
        when_span = tables.find_branch_bindings(body).get(name)
        return replace(diagnostic, help=_describe_binding_site(name, binding[0], at, when_span))
    outer = _classify_spec_name(name, tables) if block else ""
    return (
        replace(diagnostic, help=_describe_outer_name(name, block, outer))
        if block and outer
        else diagnostic
    )


def _describe_binding_site(name: str, binding_span: Span, at: Span, when_span: Span | None) -> str:
    if (binding_span.line, binding_span.column) > (at.line, at.column):
        return f"`{name}` is bound later, at {binding_span}; a step only sees earlier names"
    if when_span is not None:
        return (
            f"`{name}` is bound at {binding_span}, in a branch of the `when` at {when_span} "
            "that is not used here: bind it in both branches, or after the `when`"
        )
    return f"`{name}` is bound at {binding_span}, in inner steps; only those see it"


def _describe_outer_name(name: str, block: Block, outer: str) -> str:
    if outer == "value":
        return (
            f"a block only sees its own values: add it to `inputs:` of `{block.name}`, and pass"
            f" it in the call, `{block.name}:` with `from: [..., {name}]`"
        )
    return (
        f"a block only sees its own parameters: declare `{name}` in `params:` of `{block.name}`,"
        f" and pass it in the call, `{block.name}: {{{name}: {name}}}`"
    )


def _get_position(block: Block) -> tuple[int, int]:
    return block.at.line, block.at.column


def _find_enclosing_block(at: Span, tables: _BindingTables) -> Block | None:
    """Return the block that contains a location; None in the graph."""
    position = (at.line, at.column)
    # Blocks do not nest, so the last one that starts before a location contains it.
    starts = tables.blocks.get(at.file, [])
    preceding_count = bisect_right(starts, position, key=_get_position)
    nearest = starts[preceding_count - 1] if preceding_count else None
    key = tables.library.root.get_key("graph")
    if nearest is None or key is None or key.span.file != at.file:
        return nearest
    graph = (key.span.line, key.span.column)
    inside = graph <= position and graph > _get_position(nearest)
    return None if inside else nearest


def _classify_spec_name(name: str, tables: _BindingTables) -> str:
    """Return whether a name outside blocks is a `parameter` or a `value`; empty if neither."""
    root = tables.library.root
    params, source, graph = root.get("params"), root.get("input"), root.get("graph")
    if isinstance(params, MappingTree) and params.get(name) is not None:
        return "parameter"
    if isinstance(source, MappingTree) and source.get(name) is not None:
        return "value"
    return (
        tables.find_bindings(graph).get(name, (None, ""))[1] if isinstance(graph, Sequence) else ""
    )


def _find_branch_bindings(body: Sequence) -> dict[str, Span]:
    bindings: dict[str, Span] = {}
    for step in body.items:
        key = step.get_key("when") if isinstance(step, MappingTree) else None
        when = step.get("when") if isinstance(step, MappingTree) else None
        if key is None or not isinstance(when, MappingTree):
            continue
        for branch in (when.get("then"), when.get("else")):
            if isinstance(branch, Sequence):
                for name in (
                    *(name for name, _, _ in _iterate_bindings(branch)),
                    *_find_branch_bindings(branch),
                ):
                    bindings.setdefault(name, key.span)
    return bindings


def _iterate_bindings(steps: Sequence) -> Iterator[tuple[str, Span, str]]:
    """Yield the name, location and kind of each binding; those of nested steps are left out."""
    for step in steps.items:
        for key, args in step.items if isinstance(step, MappingTree) else ():
            arguments = args if isinstance(args, MappingTree) else None
            if key.value == "let" and arguments:
                for name, _ in arguments.items:
                    yield str(name.value), name.span, "parameter"
            name_tree: Tree | None = args if key.value == "as" else None
            if arguments and key.value in ("side", "repeat", "each"):
                name_tree = arguments.get("as") if key.value == "side" else arguments.get("collect")
            if isinstance(name_tree, Scalar) and isinstance(name_tree.value, str):
                yield name_tree.value, name_tree.span, "value"
