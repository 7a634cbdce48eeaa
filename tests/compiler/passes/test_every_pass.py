"""Each pass alone, and all in any order, on every op and on random graphs."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import graphs
from tables import looped
from zoo_nets import shrink_network

from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.passes import INT8, PASSES, Pass, merge_parallel, run, validate
from tcc.compiler.zoo.shipped import list_specs
from tcc.testing.op_cases import CASES, INTERNAL_CASES, Case, build_one_input_model, sample_weights

EVERY = {**CASES, **INTERNAL_CASES}
IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def convert_to_image_input(graph: Graph) -> Graph:
    """Return the graph with an image as input, if it has three channels."""
    (source,) = graph.inputs
    if len(source.type.shape) != 3 or source.type.shape[0] != 3:
        return graph
    return replace(graph, inputs=(replace(source, preprocess=IMAGENET),))


@looped(EVERY)
def test_passes_keep_the_outputs_of_every_op(case: Case) -> None:
    model = build_one_input_model(case)
    model = Model(convert_to_image_input(model.graph), model.weights)
    for compiler_pass in PASSES:
        validate.run(model, (compiler_pass,))
    validate.run(model, INT8)


LARGE = ("densenet121", "inception_v3", "vgg16_bn_gap")
LONGEST = ("resnet34", "vgg11")
"""Networks with the same layers as resnet18 and vgg16_bn_gap."""
MARKS = {
    **dict.fromkeys(LARGE, pytest.mark.slow),
    **dict.fromkeys(LONGEST, pytest.mark.nightly),
}
ZOO = [
    pytest.param(path, id=name, marks=MARKS.get(name, ())) for name, path in list_specs().items()
]


@pytest.mark.parametrize("path", ZOO)
def test_passes_keep_the_outputs_of_networks(path: Path) -> None:
    graph = shrink_network(load(path).graph)
    model = Model(graph, sample_weights(graph))
    rewritten = validate.run(model, (*INT8, merge_parallel))
    assert validate.is_equal(rewritten, run(model, (*INT8, merge_parallel)))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.permutations(PASSES))
def test_passes_are_correct_in_any_order(graph: Graph, order: list[Pass]) -> None:
    model = Model(convert_to_image_input(graph), sample_weights(graph))
    validate.run(model, order)


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_repeated_passes_reach_a_fixed_point(graph: Graph) -> None:
    model = Model(convert_to_image_input(graph), sample_weights(graph))
    for _ in range(6):
        rewritten = run(model, INT8)
        if validate.is_equal(model, rewritten):
            return
        model = rewritten
    raise AssertionError(print_graph(model.graph))
