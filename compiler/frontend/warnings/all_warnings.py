"""All warnings about a spec."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from tcc.compiler.frontend.block_library import Library
from tcc.compiler.frontend.step_scope import PathNode
from tcc.compiler.frontend.warnings import graph_warnings
from tcc.compiler.frontend.warnings.name_usage import (
    NameUsage,
    find_reachable_blocks,
    find_unused_blocks,
    visit_block,
    visit_spec,
)
from tcc.compiler.frontend.warnings.warning_kinds import KINDS_BY_NAME, create_warning
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.support.diagnostics import Diagnostic, Span


def filter_silenced(diagnostics: Iterable[Diagnostic], root: MappingTree) -> tuple[Diagnostic, ...]:
    """Return the warnings that a spec does not silence, without duplicates, in text order."""
    tree = root.get("allow")
    allowed_trees = tree.items if isinstance(tree, Sequence) else ()
    allowed = {
        str(kind_name.value): kind_name
        for kind_name in allowed_trees
        if isinstance(kind_name, Scalar)
    }
    unique = {(d.code, d.at, d.message): d for d in diagnostics}
    reported_kinds = {d.kind for d in unique.values()}
    unsilenced = [d for d in unique.values() if d.kind not in allowed]
    if "unused-allow" not in allowed:
        unsilenced += _find_unused_allows(allowed, reported_kinds)
    return tuple(sorted(unsilenced, key=lambda d: (d.at.file, d.at.line, d.at.column, d.code)))


def _find_unused_allows(
    allowed: dict[str, Scalar], reported_kinds: set[str]
) -> Iterator[Diagnostic]:
    for name, kind_name in allowed.items():
        if name not in reported_kinds:
            message = f"there is no warning of the kind `{name}` to silence"
            yield create_warning("unused-allow", message, kind_name.span, help="remove it")


@dataclass(frozen=True, slots=True)
class ExpandedSpec:
    """The result of an expansion: nodes by provisional name, those that outputs need, and paths.

    `values_by_span` are the values that the `as` at a location named. `step_warnings` come from
    the expansion.
    """

    nodes: Mapping[str, Node]
    live: Collection[str]
    root: PathNode
    values_by_span: Mapping[Span, Collection[str]]
    step_warnings: tuple[Diagnostic, ...]


def collect_warnings(
    library: Library, expanded: ExpandedSpec, graph: Graph
) -> tuple[Diagnostic, ...]:
    """Return the warnings about a valid spec, without those that it silences."""
    root = library.root
    diagnostics = [*_find_text_warnings(library, expanded), *expanded.step_warnings]
    # Named values are reported by name, so that one problem gives one warning.
    named_values = {value for values in expanded.values_by_span.values() for value in values}
    diagnostics += graph_warnings.find_dead_steps(
        expanded.root, expanded.nodes, expanded.live, named_values
    )
    diagnostics += graph_warnings.find_repeated_ops(graph)
    diagnostics += graph_warnings.find_output_warnings(graph, root.get("output"))
    diagnostics += graph_warnings.find_channels_last(graph.inputs[0], root.get("input"))
    diagnostics += graph_warnings.find_missing_preprocess(graph.inputs[0], root.get("input"))
    diagnostics += graph_warnings.find_implausible_statistics(graph.inputs[0], root.get("input"))
    return filter_silenced(diagnostics, root)


def _find_text_warnings(library: Library, expanded: ExpandedSpec) -> Iterator[Diagnostic]:
    spec = visit_spec(library.root)
    # Visit blocks of all files, because calls inside a library count as uses. Warnings about
    # unused blocks only concern the spec itself.
    walks: dict[str, NameUsage] = {"": spec}
    for tree in library.files.values():
        blocks = tree.get("blocks")
        for key, body in blocks.items if isinstance(blocks, MappingTree) else ():
            assert isinstance(body, MappingTree)
            walks[str(key.value)] = visit_block(body)
    for walk in walks.values():
        yield from (_convert_dead_value(d, expanded) for d in walk.collect_warnings())
    calls = {name: walk.calls for name, walk in walks.items()}
    yield from find_unused_blocks(library.root, calls)
    yield from _find_unused_libraries(library, find_reachable_blocks(calls))


def _convert_dead_value(diagnostic: Diagnostic, expanded: ExpandedSpec) -> Diagnostic:
    """Convert the warning about an unread name to an unused branch if its value is dead."""
    values = expanded.values_by_span.get(diagnostic.at, ())
    if diagnostic.kind != "unused-value" or not values or any(v in expanded.live for v in values):
        return diagnostic
    kind = KINDS_BY_NAME["unused-branch"]
    return replace(
        diagnostic, kind=kind.name, code=kind.code, label="the network is built without it"
    )


def _find_unused_libraries(library: Library, used: set[str]) -> Iterator[Diagnostic]:
    """Yield a warning for each entry in `use` whose blocks are not used."""
    # A library can also be used through the libraries that it uses.
    files = {library.blocks[name].at.file for name in used}
    uses_by_file: dict[str, list[str]] = {}
    for use in library.uses:
        uses_by_file.setdefault(use.user, []).append(use.file)
    for use in library.uses:
        if (
            use.user == next(iter(library.files))
            and not _find_used_files(use.file, uses_by_file) & files
        ):
            message = f"nothing in `{use.entry.value}` is used"
            yield create_warning("unused-library", message, use.entry.span, help="remove it")


def _find_used_files(file: str, uses_by_file: Mapping[str, list[str]]) -> set[str]:
    """Return a file and all files that it uses."""
    reached: set[str] = set()
    pending = [file]
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending += uses_by_file.get(name, ())
    return reached
