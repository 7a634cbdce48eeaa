"""Helpers of pass tests: a chain of steps as a model, and its op names before and after."""

from tcc.compiler.ir.graph import Graph, Model, Pass
from tcc.compiler.ops import Op
from tcc.compiler.passes import validate
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights


def make_model(graph: Graph) -> Model:
    return Model(graph, sample_weights(graph))


def make_chain(*ops: Op, shape: tuple[int, ...] = (6, 8, 8)) -> Model:
    """Return the model of steps in a row, named by op and position."""
    add = NetBuilder(*shape)
    for index, op in enumerate(ops):
        add(f"{op.keyword}_{index}", op)
    return make_model(add.build())


def list_op_names(of: Model) -> list[str]:
    return [node.op.keyword for node in of.graph.nodes]


def run_passes(model: Model, *passes: Pass) -> list[str]:
    """Return the op names after checked passes."""
    return list_op_names(validate.run(model, passes, seeds=(5, 6)))
