"""What ONNX Runtime accepts: every op, since each says its ONNX meaning itself.

An op that needs a rule gets one here: given node and graph, the reason why it cannot run, or None.
"""

from collections.abc import Callable, Iterator, Mapping

from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.target import Refusal
from tcc.compiler.ops import INTERNAL, OPS, Op
from tcc.compiler.ops.integer import INTEGERS

Rule = Callable[[Graph, Node], str | None]


def always(_: Graph, __: Node) -> None:
    """Accept the node."""


ACCEPTS: Mapping[type[Op], Rule] = dict.fromkeys((*OPS, *INTERNAL, *INTEGERS), always)


def refusals(graph: Graph) -> Iterator[Refusal]:
    """Yield each node that no rule accepts."""
    for node in graph.nodes:
        rule = ACCEPTS.get(type(node.op))
        why = rule(graph, node) if rule else f"ONNX Runtime has no rule for {node.op.word}"
        if why:
            yield Refusal(node, why)
