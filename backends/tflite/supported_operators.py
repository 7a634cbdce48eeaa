"""What TFLite accepts: what there are operators for, of floats or of integers."""

from collections.abc import Iterator

from tcc.backends.tflite.float_operators import FLOAT
from tcc.backends.tflite.integer_operators import INTEGER_OPERATORS
from tcc.backends.tflite.lookup_tables import SMOOTH
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.target import Refusal, Remark
from tcc.compiler.ir.types import DType
from tcc.compiler.ops.integer import Table


def refusals(graph: Graph) -> Iterator[Refusal]:
    """Yield each node that TFLite has nothing for."""
    for node in graph.nodes:
        kinds = (*graph.input_types(node), node.type)
        # The table that `integer_file` writes the node by: floats among floats, else levels.
        is_float = all(kind.dtype is DType.F32 for kind in kinds)
        if type(node.op) not in (FLOAT if is_float else INTEGER_OPERATORS):
            yield Refusal(node, f"TFLite has no rule for {node.op.word}")


def remarks(graph: Graph) -> Iterator[Remark]:
    """Yield each table over the pixels of a map that no floats can stand for."""
    for node in graph.nodes:
        match node.op:
            # One number a channel, as in gates, takes no time.
            case Table(function=function) if (
                type(function) not in SMOOTH and node.type.elements > node.type.shape[0]
            ):
                why = f"`{function.word}` of 8-bit levels is a table, whose entries are gathered"
                help = "at fp32 the network may be faster: `tcc bench INT8 FP32` measures both"
                yield Remark(node, why, help, "docs/measuring.md, int8 on x86", slow=True)
