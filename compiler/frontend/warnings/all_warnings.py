"""Everything that is doubtful about one spec."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from tcc.compiler.frontend.block_library import Library
from tcc.compiler.frontend.step_scope import PathNode
from tcc.compiler.frontend.warnings import graph_warnings
from tcc.compiler.frontend.warnings.name_usage import (
    NameUsage,
    of_block,
    of_spec,
    reach,
    unused_blocks,
)
from tcc.compiler.frontend.warnings.warning_kinds import BY_NAME, warning
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.support.diagnostics import Diagnostic, Span


def heard(found: Iterable[Diagnostic], root: MappingTree) -> tuple[Diagnostic, ...]:
    """Return the warnings that a spec does not silence, once each, in the order of the text."""
    tree = root.get("allow")
    items = tree.items if isinstance(tree, Sequence) else ()
    allowed = {str(item.value): item for item in items if isinstance(item, Scalar)}
    unique = {(d.code, d.at, d.message): d for d in found}
    said = {d.kind for d in unique.values()}
    rest = [d for d in unique.values() if d.kind not in allowed]
    if "unused-allow" not in allowed:
        rest += _idle(allowed, said)
    return tuple(sorted(rest, key=lambda d: (d.at.file, d.at.line, d.at.column, d.code)))


def _idle(allowed: dict[str, Scalar], said: set[str]) -> Iterator[Diagnostic]:
    for name, item in allowed.items():
        if name not in said:
            message = f"there is no warning of the kind `{name}` to silence"
            yield warning("unused-allow", message, item.span, help="leave it away")


@dataclass(frozen=True, slots=True)
class ExpandedSpec:
    """What expansion made: all nodes by provisional name, those that outputs need, the places.

    `named` says which values the `as` at a place named; `doubts` were found on the way.
    """

    nodes: Mapping[str, Node]
    live: Collection[str]
    root: PathNode
    named: Mapping[Span, Collection[str]]
    doubts: tuple[Diagnostic, ...]


def warnings(library: Library, made: ExpandedSpec, graph: Graph) -> tuple[Diagnostic, ...]:
    """Return the warnings about a spec that compiles, without those that it silences."""
    root = library.root
    diagnostics = [*_of_text(library, made), *made.doubts]
    # What has a name is told as that name: one warning of one fault.
    told = {value for values in made.named.values() for value in values}
    diagnostics += graph_warnings.dead(made.root, made.nodes, made.live, told)
    diagnostics += graph_warnings.repeated(graph)
    diagnostics += graph_warnings.outputs(graph, root.get("output"))
    diagnostics += graph_warnings.shape(graph.inputs[0], root.get("input"))
    diagnostics += graph_warnings.find_missing_preprocess(graph.inputs[0], root.get("input"))
    diagnostics += graph_warnings.pixels(graph.inputs[0], root.get("input"))
    return heard(diagnostics, root)


def _of_text(library: Library, made: ExpandedSpec) -> Iterator[Diagnostic]:
    spec = of_spec(library.root)
    # Blocks of all files, since a library's own calls decide what of it is used; only the spec's
    # own text is warned of where nothing is called.
    walks: dict[str, NameUsage] = {"": spec}
    for tree in library.files.values():
        blocks = tree.get("blocks")
        for key, body in blocks.items if isinstance(blocks, MappingTree) else ():
            assert isinstance(body, MappingTree)
            walks[str(key.value)] = of_block(body)
    for walk in walks.values():
        yield from (_told(d, made) for d in walk.warnings())
    calls = {name: walk.calls for name, walk in walks.items()}
    yield from unused_blocks(library.root, calls)
    yield from _unused_libraries(library, reach(calls))


def _told(found: Diagnostic, made: ExpandedSpec) -> Diagnostic:
    """Return a warning of a name; where the value it stands for is dead, of an unused branch."""
    values = made.named.get(found.at, ())
    if found.kind != "unused-value" or not values or any(v in made.live for v in values):
        return found
    kind = BY_NAME["unused-branch"]
    return replace(found, kind=kind.name, code=kind.code, label="the network is built without it")


def _unused_libraries(library: Library, used: set[str]) -> Iterator[Diagnostic]:
    """Yield the entries of the spec's `use` that bring no block that is used."""
    # A library may be used for what another one needs of it.
    files = {library.blocks[name].at.file for name in used}
    below: dict[str, list[str]] = {}
    for use in library.uses:
        below.setdefault(use.user, []).append(use.file)
    for use in library.uses:
        if use.user == next(iter(library.files)) and not _reached(use.file, below) & files:
            message = f"nothing of `{use.entry.value}` is used"
            yield warning("unused-library", message, use.entry.span, help="leave it away")


def _reached(file: str, below: Mapping[str, list[str]]) -> set[str]:
    """Return a file and those that it uses."""
    reached: set[str] = set()
    pending = [file]
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending += below.get(name, ())
    return reached
