"""Where the tensors of a weights file do not fit a network, and what is said of it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.op import Param
from tcc.compiler.ir.types import Shape
from tcc.compiler.support.diagnostics import Diagnostic, Span, nearest, whole_file

LISTED = 50
"""Most tensors that a message names."""
FEW = 3
"""Fewest missing tensors that may be another network's, and most that its error names of a kind."""


def size_of(shape: Shape) -> str:
    """Return a tensor's shape as diagnostics print it."""
    return "x".join(map(str, shape)) or "scalar"


def find_misfits(shapes: Mapping[str, Shape], graph: Graph, path: Path) -> Iterator[Diagnostic]:
    """Yield what is wrong with the names and shapes of a file's tensors.

    Args:
        shapes: Of the file's tensors, by name.
        graph: The network.
        path: The file.
    """
    where = whole_file(str(path))
    missing = {n: p for n, p in graph.params.items() if n not in shapes}
    unknown = {n: s for n, s in sorted(shapes.items()) if n not in graph.params}
    owners = find_owners(graph)
    reshaped = [n for n, p in graph.params.items() if shapes.get(n, p.shape) != p.shape]
    if len(missing) >= FEW and 2 * (len(missing) + len(reshaped)) > len(graph.params):
        yield _foreign(graph, where, (list(missing), reshaped, list(unknown)))
        return
    if missing:
        yield Diagnostic(
            "E0502",
            f"{len(missing)} of {len(graph.params)} weights of {graph.name} are missing",
            where,
            notes=_listed(
                [_missing(n, missing[n], owners[n], unknown) for n in _few(missing)], missing
            ),
            help="were they saved for another spec, or with other parameters (`--set`)?",
        )
    if unknown:
        yield Diagnostic(
            "E0503",
            f"{graph.name} has no place for {len(unknown)} tensors of the file",
            where,
            notes=_listed([_guess(n, unknown[n], missing) for n in _few(unknown)], unknown),
            help="`tcc import-weights` takes in the names of other projects",
        )
    for name in reshaped:
        wrong = f"{name} has shape {size_of(shapes[name])}, not {size_of(graph.params[name].shape)}"
        help = "were the weights made with other parameters of the spec (`--set`)?"
        yield Diagnostic("E0504", wrong, _place(owners[name], where), "this layer", help=help)


def _foreign(
    graph: Graph, where: Span, kinds: tuple[list[str], list[str], list[str]]
) -> Diagnostic:
    """Return the error of weights most of which are not the network's, with a few of each kind."""
    missing, reshaped, _ = kinds
    labels = ("missing", "of another shape", f"without a place in {graph.name}")
    notes = [
        f"{len(names)} {label}: {', '.join(names[:FEW])}{', ...' if len(names) > FEW else ''}"
        for names, label in zip(kinds, labels, strict=True)
        if names
    ]
    count = len(missing) + len(reshaped)
    return Diagnostic(
        "E1410",
        f"these weights are of another network than {graph.name}, or have other names: "
        f"{count} of its {len(graph.params)} tensors do not fit",
        where,
        notes=tuple(notes),
        help="name the weights of this spec, with its parameters (`--set`); `tcc import-weights`"
        " takes in the names of other projects",
    )


def _few(names: Mapping[str, object]) -> list[str]:
    return list(names)[:LISTED]


def _listed(lines: Sequence[str], all_of_them: Mapping[str, object]) -> tuple[str, ...]:
    more = len(all_of_them) - len(lines)
    return (*lines, *([f"... and {more:,} more"] if more else []))


def _missing(name: str, param: Param, node: Node, unknown: Mapping[str, Shape]) -> str:
    at = f", {node.at}" if node.at.line else ""
    return f"{_guess(name, param.shape, unknown)}{at}"


def _guess(name: str, shape: Shape, others: Mapping[str, object]) -> str:
    # A nearest name is a costly search: among many it is no help either.
    other = nearest(name, set(others)) if len(others) <= 100 else None
    return f"{name} ({size_of(shape)})" + (f", like {other}" if other else "")


def find_owners(graph: Graph) -> dict[str, Node]:
    """Return the first node that reads each weight."""
    owners: dict[str, Node] = {}
    for node in graph.nodes:
        for name in node.params:
            owners.setdefault(name, node)
    return owners


def _place(node: Node, otherwise: Span) -> Span:
    return node.at if node.at.line else otherwise
