"""The passes together: from the trained model to the inference model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, GraphError, Model, exact_pass
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.lower.torch import create_module
from tcc.compiler.passes import INFERENCE, run
from tcc.testing.nets import build_chain, build_dense, build_gated
from tcc.testing.op_cases import sample_weights

SPECS = Path(__file__).resolve().parents[3] / "spec"
GRAPHS: dict[str, Graph] = {
    "dense": build_dense(),
    "gated": build_gated(),
    **{path.stem: load(path).graph for path in sorted(SPECS.glob("*.yaml"))},
}


def run_torch(model: Model) -> dict[str, np.ndarray]:
    shape = model.graph.inputs[0].type.shape
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tensors = create_module(model.graph, model.weights).eval()(x)
    return {name: y.numpy() for name, y in tensors.items()}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_the_outputs_stay_the_same(graph: Graph) -> None:
    original = Model(graph, sample_weights(graph))
    optimized = run(original, INFERENCE)
    assert {node.op.keyword for node in optimized.graph.nodes} & {"batch_norm", "dropout"} == set()
    expected, got = run_torch(original), run_torch(optimized)
    assert got.keys() == expected.keys()
    for name, y in expected.items():
        bound = 2e-5 * float(np.abs(y).max())
        np.testing.assert_allclose(got[name], y, rtol=2e-5, atol=bound)


def test_the_complete_pipeline_as_text() -> None:
    graph = build_dense()
    optimized = run(Model(graph, sample_weights(graph)), INFERENCE)
    conv = "stride=[1, 1], padding=[1, 1, 1, 1], dilation=[1, 1], groups=8, bias=true"
    assert print_graph(optimized.graph) == (
        "graph dense {\n"
        "  input %image : float32[3x16x16]\n"
        "  %stem_bn = conv(%image) {filters=8, kernel=[3, 3], stride=[2, 2],"
        " padding=[1, 1, 1, 1], dilation=[1, 1], groups=1, bias=true} : float32[8x8x8]\n"
        "  %stem_relu = relu(%stem_bn) : float32[8x8x8]\n"
        f"  %layer/bn = conv(%stem_relu) {{filters=8, kernel=[3, 3], {conv}}} : float32[8x8x8]\n"
        "  %layer/relu = relu6(%layer/bn) : float32[8x8x8]\n"
        "  %concat = concat(%stem_relu, %layer/relu) : float32[16x8x8]\n"
        "  %bn = scale_shift(%concat) : float32[16x8x8]\n"
        "  %relu = relu(%bn) : float32[16x8x8]\n"
        "  %pool = avg_pool(%relu) {kernel=[2, 2], stride=[2, 2], padding=[0, 0, 0, 0],"
        " ceil=false, count_include_pad=true} : float32[16x4x4]\n"
        "  %gap = global_avg_pool(%pool) : float32[16x1x1]\n"
        "  %flat = flatten(%gap) : float32[16]\n"
        "  %fc = linear(%flat) {units=5, bias=true} : float32[5]\n"
        "  output logits = %fc softmax\n"
        "}\n"
    )


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_running_them_again_changes_nothing(graph: Graph) -> None:
    once = run(Model(graph, sample_weights(graph)), INFERENCE)
    twice = run(once, INFERENCE)
    assert print_graph(twice.graph) == print_graph(once.graph)
    assert all(np.array_equal(twice.weights[name], once.weights[name]) for name in once.weights)


def test_the_input_model_is_unchanged() -> None:
    graph = build_gated()
    model = Model(graph, sample_weights(graph))
    run(model, INFERENCE)
    fresh = sample_weights(graph)
    assert model.weights.keys() == fresh.keys()
    assert all(np.array_equal(model.weights[name], fresh[name]) for name in fresh)


def test_a_pass_that_breaks_the_graph_is_caught() -> None:
    @exact_pass
    def loses_a_node(model: Model) -> Model:
        return Model(replace(model.graph, nodes=model.graph.nodes[1:]), model.weights)

    graph = build_gated()
    with pytest.raises(GraphError, match="conv reads pool, which no earlier node defines"):
        run(Model(graph, sample_weights(graph)), (loses_a_node,))


def test_three_thousand_nodes_are_folded_to_two_thousand() -> None:
    graph = build_chain(3000)
    optimized = run(Model(graph, weights.initialize_random(graph)), INFERENCE)
    assert [node.op.keyword for node in optimized.graph.nodes] == ["conv", "relu"] * 1000
