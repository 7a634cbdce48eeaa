"""What ONNX Runtime accepts: every op, since each says its ONNX meaning itself.

An op that needs a rule gets one here: given node and graph, the reason why it cannot run, or None.
"""

from collections.abc import Callable, Iterator, Mapping

from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.target import Refusal, Remark
from tcc.compiler.lower.integer_variants import computed_form
from tcc.compiler.ops import INTERNAL, OPS, Op
from tcc.compiler.ops.integer import INTEGERS, Table

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


def remarks(graph: Graph) -> Iterator[Remark]:
    """Yield each table over the pixels of a map that is not computed instead."""
    for node in graph.nodes:
        match node.op:
            # One number a channel, as in gates, takes no time.
            case Table() as op if node.type.elements > node.type.shape[0]:
                if computed_form(op, *graph.input_types(node)):
                    continue
                why = f"`{op.function.word}` of 8-bit levels is a table, whose entries are gathered"
                help = "at fp32 the network may be faster: `tcc bench INT8 FP32` measures both"
                yield Remark(node, why, help, "docs/measuring.md, int8 on x86", slow=True)
