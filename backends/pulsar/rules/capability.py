"""What the rules of a chip say of the nodes of a graph, before it has weights."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import assert_never

import numpy as np

from tcc.backends.pulsar.chips import Chip
from tcc.backends.pulsar.onnx_model import from_floats, npu_outline
from tcc.backends.pulsar.rules.check import check
from tcc.backends.pulsar.rules.rule import Finding, Severity
from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ir.rewrite import for_inference
from tcc.compiler.ir.target import Refusal, Remark
from tcc.compiler.ir.types import DType
from tcc.compiler.lower.onnx import value_names
from tcc.compiler.lower.qdq import simulated
from tcc.compiler.support.diagnostics import fail, whole_file

SLOW = frozenset({Severity.SLOW})
"""What takes time alone."""


def refusals(graph: Graph, chip: Chip) -> Iterator[Refusal]:
    """Yield each node that breaks a rule of a chip, once a rule.

    Raises:
        UserError: The network as a whole cannot run (E0607).
    """
    for node, each in _found(graph, chip):
        match each.severity:
            case Severity.REFUSED:
                yield _refusal(node, each, graph, chip)
            case Severity.DOUBTFUL | Severity.SLOW:
                pass
            case _:
                assert_never(each.severity)


def _refusal(node: Node | None, found: Finding, graph: Graph, chip: Chip) -> Refusal:
    if node:
        return Refusal(node, found.found, found.remedy, found.rule)
    message = f"{chip.target} cannot run this network"
    help = "" if graph.nodes else "let the network have a layer"
    raise fail(
        "E0607", message, whole_file(graph.name), label=f"{found.found}; {found.rule}", help=help
    )


def remarks(graph: Graph, chip: Chip) -> Iterator[Remark]:
    """Yield each node that a chip runs slowly, or may not run, once a rule."""
    for node, each in _found(graph, chip):
        match each.severity:
            case Severity.DOUBTFUL | Severity.SLOW if node:
                slow = each.severity in SLOW
                yield Remark(node, each.found, each.remedy, each.rule, slow)
            case Severity.REFUSED | Severity.DOUBTFUL | Severity.SLOW:
                pass
            case _:
                assert_never(each.severity)


def _found(graph: Graph, chip: Chip) -> Iterator[tuple[Node | None, Finding]]:
    """Yield what the check of the file that the graph becomes finds, with the node it is of."""
    kept = _floats(graph)
    owner = _owners(graph, kept)
    told = set()
    for each in _findings(kept, chip):
        node = owner(each.operator)
        # A node may become several operators, each of which breaks the same rule.
        key = (node.name if node else "", each.rule)
        if key not in told:
            told.add(key)
            yield node, each


@lru_cache(maxsize=8)
def _findings(graph: Graph, chip: Chip) -> tuple[Finding, ...]:
    """Return what the check finds.

    Refusals and remarks of one graph are asked apart, and `build` asks again once it has weights
    and integers, since both may lead passes to another graph; of the same one the answer is here.
    """
    return check(npu_outline(graph, chip), chip)


def _floats(graph: Graph) -> Graph:
    """Return an integer program as floats between integers, which is how files hold it."""
    if all(kind.dtype is DType.F32 for kind in graph.types.values()):
        return for_inference(graph)
    weights = {
        # Ones without memory: only shapes and types are looked at, and a scale must not be 0.
        name: np.broadcast_to(np.ones((), param.dtype.value), param.shape)
        for name, param in graph.params.items()
    }
    return for_inference(simulated(from_floats(Model(graph, weights)), plain=False).graph)


def _owners(graph: Graph, kept: Graph) -> Callable[[str], Node | None]:
    """Return what finds the node of a graph that an operator belongs to, by the operator's name."""
    nodes = {node.name: node for node in graph.nodes}
    values = {name: value for value, name in value_names(kept).items()}

    def owner(name: str) -> Node | None:
        value = values.get(name, name)
        # Operators of one node are called after it, with what they are behind colons.
        while value not in nodes and ":" in value:
            value, _, _ = value.rpartition(":")
        return nodes.get(value)

    return owner
