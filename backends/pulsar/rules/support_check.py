"""Checks the nodes of a graph without weights against the rules of a chip."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import assert_never

import numpy as np

from tcc.backends.pulsar.chips import Chip
from tcc.backends.pulsar.onnx_model import build_npu_outline, convert_to_float_input
from tcc.backends.pulsar.rules.check import check
from tcc.backends.pulsar.rules.rule import Finding, Severity
from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.ir.target import Refusal, Remark
from tcc.compiler.ir.types import DType
from tcc.compiler.lower.onnx import compute_value_names
from tcc.compiler.lower.qdq import convert_to_qdq
from tcc.compiler.support.diagnostics import fail, make_file_span

SLOW = frozenset({Severity.SLOW})
"""The severities that only affect speed."""


def find_refusals(graph: Graph, chip: Chip) -> Iterator[Refusal]:
    """Yield each node that breaks a rule of a chip, once per rule.

    Raises:
        UserError: The chip cannot run the network for a reason outside of its nodes (E0607).
    """
    for node, finding in _iterate_findings(graph, chip):
        match finding.severity:
            case Severity.REFUSED:
                yield _make_refusal(node, finding, graph, chip)
            case Severity.DOUBTFUL | Severity.SLOW:
                pass
            case _:
                assert_never(finding.severity)


def _make_refusal(node: Node | None, finding: Finding, graph: Graph, chip: Chip) -> Refusal:
    if node:
        return Refusal(node, finding.message, finding.remedy, finding.rule)
    message = f"{chip.target} cannot run this network"
    help = "" if graph.nodes else "add at least one layer"
    raise fail(
        "E0607",
        message,
        make_file_span(graph.name),
        label=f"{finding.message}; {finding.rule}",
        help=help,
    )


def find_remarks(graph: Graph, chip: Chip) -> Iterator[Remark]:
    """Yield each node that a chip runs slowly, or may not run, once per rule."""
    for node, finding in _iterate_findings(graph, chip):
        match finding.severity:
            case Severity.DOUBTFUL | Severity.SLOW if node:
                slow = finding.severity in SLOW
                yield Remark(node, finding.message, finding.remedy, finding.rule, slow)
            case Severity.REFUSED | Severity.DOUBTFUL | Severity.SLOW:
                pass
            case _:
                assert_never(finding.severity)


def _iterate_findings(graph: Graph, chip: Chip) -> Iterator[tuple[Node | None, Finding]]:
    """Yield each finding on the graph's ONNX file, with its node."""
    float_graph = _convert_to_floats(graph)
    find_node = _make_node_finder(graph, float_graph)
    reported = set()
    for finding in _check_graph(float_graph, chip):
        node = find_node(finding.operator)
        # A node can become several operators that break the same rule.
        key = (node.name if node else "", finding.rule)
        if key not in reported:
            reported.add(key)
            yield node, finding


@lru_cache(maxsize=8)
def _check_graph(graph: Graph, chip: Chip) -> tuple[Finding, ...]:
    """Return the findings on a graph, cached.

    Refusals and remarks need the same findings. `build` asks again when it has weights and the
    int8 model, because the passes may then produce another graph.
    """
    return check(build_npu_outline(graph, chip), chip)


def _convert_to_floats(graph: Graph) -> Graph:
    """Return the inference graph of a model; an int8 model in QDQ form, as in the files."""
    if all(kind.dtype is DType.F32 for kind in graph.types.values()):
        return extract_inference_graph(graph)
    weights = {
        # Ones that need no memory: only shapes and types matter, and a scale must not be 0.
        name: np.broadcast_to(np.ones((), param.dtype.value), param.shape)
        for name, param in graph.params.items()
    }
    return extract_inference_graph(
        convert_to_qdq(convert_to_float_input(Model(graph, weights)), integer_means=False).graph
    )


def _make_node_finder(graph: Graph, float_graph: Graph) -> Callable[[str], Node | None]:
    """Return a function that finds an operator's node by the operator's name."""
    nodes = {node.name: node for node in graph.nodes}
    value_by_name = {name: value for value, name in compute_value_names(float_graph).items()}

    def find_node(name: str) -> Node | None:
        node_name = value_by_name.get(name, name)
        # The operators of a node have its name, followed by a colon and a suffix.
        while node_name not in nodes and ":" in node_name:
            node_name, _, _ = node_name.rpartition(":")
        return nodes.get(node_name)

    return find_node
