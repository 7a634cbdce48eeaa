"""Fusion of nodes into groups."""

import pytest
from arm_graphs import make_random_graph

from tcc.backends.arm.kernels.pointwise import POINTWISE
from tcc.backends.arm.schedule.partition import MAX_NODES, FusionGroup, partition
from tcc.backends.arm.schedule.program import is_supported
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.op import Alias
from tcc.compiler.ops import OPS
from tcc.testing.nets import build_dense, build_gated


def format_groups(groups: tuple[FusionGroup, ...]) -> list[str]:
    return [" + ".join(node.name for node in group.all_nodes) for group in groups]


def test_elementwise_nodes_join_the_node_before_them() -> None:
    assert format_groups(partition(build_dense())) == [
        "stem + stem_bn + stem_relu",
        "layer/depthwise + layer/bn + layer/relu",
        "concat",
        "bn + relu + pool",
        "gap",
        "flat",
        "drop",
        "fc",
        "aux_gap",
        "aux_flat",
        "aux_fc",
    ]


def test_a_gate_and_a_residual_join_the_convolution_before_them() -> None:
    assert format_groups(partition(build_gated())) == [
        "pool",
        "conv + conv_bn",
        "squeeze",
        "shrink + shrink_relu",
        "grow + gate",
        "gated",
        "reduce + sum",
        "gap",
        "flat",
        "fc + fc_bn",
    ]


@pytest.mark.parametrize("seed", range(20))
def test_groups_contain_every_node_once_in_topological_order(seed: int) -> None:
    graph: Graph = make_random_graph(seed, steps=40)
    groups = partition(graph)
    names = [node.name for group in groups for node in group.all_nodes]
    assert sorted(names) == sorted(node.name for node in graph.nodes)
    computed_names = {source.name for source in graph.inputs}
    for group in groups:
        assert max(len(group.nodes), len(group.prologue_nodes)) <= MAX_NODES
        inside: set[str] = set()
        for node in group.all_nodes:
            assert set(node.inputs) <= computed_names | inside
            inside.add(node.name)
        computed_names.add(group.output_node.name)
        for earlier_node, later_node in zip(group.all_nodes, group.all_nodes[1:], strict=False):
            assert earlier_node.name in later_node.inputs
            assert graph.find_sole_reader(earlier_node.name) is later_node
            assert type(later_node.op) in POINTWISE or later_node is group.anchor


def test_every_operation_of_the_language_has_a_kernel() -> None:
    assert [op.keyword for op in OPS if not issubclass(op, Alias) and not is_supported(op)] == []
