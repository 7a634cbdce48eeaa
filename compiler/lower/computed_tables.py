"""The integer program with functions in floats in place of their tables.

ONNX Runtime computes them in half the time that it takes to gather entries.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from tcc.compiler.ir.graph import Graph, Model, Node, verify
from tcc.compiler.ir.target import Remark
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops.integer import ComputedTable, Table
from tcc.compiler.ops.integer.float_forms import ERRORS, function_scales


def computed(model: Model) -> Model:
    """Return the integer program with what tables hold computed where every level is the same."""
    nodes, weights = [], dict(model.weights)
    for node in model.graph.nodes:
        made = _computed(model, node)
        if made:
            del weights[node.params[0]]
        nodes.append(made or node)
    return Model(verify(replace(model.graph, nodes=tuple(nodes))), weights)


def _computed(model: Model, node: Node) -> Node | None:
    """Return the node without a table, if there is a form of it."""
    if not isinstance(node.op, Table):
        return None
    (x,) = model.graph.input_types(node)
    # A program that was read from a file may have other entries than its function.
    if not np.array_equal(model.weights[node.params[0]], node.op.entries(x)):
        return None
    form = computed_form(node.op, x)
    return replace(node, op=form, params=()) if form else None


def computed_form(op: Table, x: TensorType) -> ComputedTable | None:
    """Return what computes a table in floats; None where that may give another level.

    Args:
        op: The table, whose entries are its function's.
        x: The type of its input.
    """
    y = op.infer(x)
    if type(op.function) not in ERRORS or (op.low, op.high) != y.limits:
        return None
    levels = tuple(int(entry) + y.limits[0] for entry in op.entries(x))
    found = function_scales(op.function, x.like((1,)), y.like((1,)), levels)
    return found and ComputedTable(op.scale, op.signed, op.low, op.high, op.function, *found)


def slow_tables(graph: Graph, is_computed: Callable[[Node, Table], bool]) -> Iterator[Remark]:
    """Yield each table over the pixels of a map that a runtime does not compute in floats."""
    for node in graph.nodes:
        match node.op:
            # One number a channel, as in gates, takes no time.
            case Table() as op if node.type.elements > node.type.shape[0]:
                if is_computed(node, op):
                    continue
                why = f"`{op.function.word}` of 8-bit levels is a table, whose entries are gathered"
                help = "at fp32 the network may be faster: `tcc bench INT8 FP32` measures both"
                yield Remark(node, why, help, "docs/measuring.md, int8 on x86", slow=True)
