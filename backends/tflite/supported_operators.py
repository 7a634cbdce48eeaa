"""What TFLite accepts: what there are operators for, of floats or of integers."""

from collections.abc import Iterator

from tcc.backends.tflite.float_operators import FLOAT
from tcc.backends.tflite.integer_operators import INTEGER_OPERATORS
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.target import Refusal


def refusals(graph: Graph) -> Iterator[Refusal]:
    """Yield each node that TFLite has nothing for."""
    for node in graph.nodes:
        if type(node.op) not in FLOAT and type(node.op) not in INTEGER_OPERATORS:
            yield Refusal(node, f"TFLite has no rule for {node.op.word}")
