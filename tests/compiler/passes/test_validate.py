"""Translation validation: wrong passes are caught, correct ones pass."""

from dataclasses import replace

import numpy as np
import pytest

from tcc.compiler.ir.graph import (
    Graph,
    GraphError,
    Model,
    Output,
    Pass,
    bounded_pass,
    exact_pass,
)
from tcc.compiler.ir.rewrite import Bypass, Replacement, rewrite
from tcc.compiler.ops import Conv, Relu, Relu6
from tcc.compiler.passes import INT8, run, validate
from tcc.compiler.passes.validate import PassError, measure_difference
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import sample_weights


def build_small_model() -> Model:
    add = NetBuilder(3, 6, 6)
    add("conv", Conv(4, (3, 3)))
    add("relu", Relu())
    graph = add.build()
    return Model(graph, sample_weights(graph))


@exact_pass
def remove_relu(model: Model) -> Model:
    def rule(node, view):
        return Bypass(node.inputs[0]) if isinstance(node.op, Relu) else None

    return rewrite(model, rule)


def create_nudge(factor: float) -> Pass:
    @bounded_pass(1e-4)
    def nudge(model: Model) -> Model:
        return Model(model.graph, {k: v * np.float32(factor) for k, v in model.weights.items()})

    return nudge


def test_a_wrong_pass_is_named_with_the_changed_value() -> None:
    with pytest.raises(
        PassError, match=r"^remove_relu changed `logits` by [0-9.]+, more than its bound of 0"
    ):
        validate.run(build_small_model(), (remove_relu,))


def test_a_wrong_intermediate_value_is_found() -> None:
    add = NetBuilder(3, 6, 6)
    add("conv", Conv(4, (3, 3)))
    add("relu", Relu())
    add("last", Relu6())
    graph = add.build()

    @exact_pass
    def wrong(model: Model) -> Model:
        def rule(node, view):
            return Replacement(Relu6(), node.inputs, (), node.at) if node.name == "relu" else None

        return rewrite(model, rule)

    model = Model(graph, {k: v * 9 for k, v in sample_weights(graph).items()})
    with pytest.raises(PassError, match="wrong changed `relu` by"):
        validate.run(model, (wrong,))


def test_rounding_must_be_within_the_bound() -> None:
    model = build_small_model()
    validated = validate.run(model, (create_nudge(1 + 1e-6),))
    assert not validate.is_equal(model, validated)
    with pytest.raises(PassError, match="nudge changed `conv` by"):
        validate.run(model, (create_nudge(1.001),))


def test_a_missing_output_is_found() -> None:
    @exact_pass
    def loses(model: Model) -> Model:
        return Model(replace(model.graph, outputs=model.graph.outputs[:1]), model.weights)

    graph = build_gated()
    with pytest.raises(PassError, match="loses changed the graph's outputs"):
        validate.run(Model(graph, sample_weights(graph)), (loses,))


def test_an_invalid_graph_is_found() -> None:
    @exact_pass
    def breaks(model: Model) -> Model:
        return Model(replace(model.graph, nodes=model.graph.nodes[1:]), model.weights)

    with pytest.raises(GraphError, match="relu reads conv, which no earlier node defines"):
        validate.run(build_small_model(), (breaks,))


@pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=["dense", "gated"])
def test_validation_returns_the_output_of_the_passes(graph: Graph) -> None:
    model = Model(graph, sample_weights(graph))
    assert validate.is_equal(validate.run(model, INT8, seeds=(0, 1)), run(model, INT8))


def test_an_output_that_is_the_input_is_accepted() -> None:
    add = NetBuilder(3, 6, 6)
    add("relu", Relu())
    graph = add.build(Output("a", "relu"), Output("b", "image"))
    validate.run(Model(graph, {}), INT8)


def test_an_output_that_becomes_the_input_is_compared_with_it() -> None:
    add = NetBuilder(3, 6, 6)
    add("relu", Relu())
    with pytest.raises(PassError, match="remove_relu changed `logits` by"):
        validate.run(Model(add.build(), {}), (remove_relu,))


def test_each_pass_is_reported_with_its_change() -> None:
    reports: list[tuple[str, float]] = []
    validate.run(
        build_small_model(),
        (create_nudge(1), create_nudge(1 + 1e-6)),
        report=lambda p, m: reports.append((p.name, m)),
    )
    (first_name, nothing), (second_name, something) = reports
    assert (first_name, second_name, nothing) == ("nudge", "nudge", 0.0)
    assert 0 < something < 1e-5


def test_changes_are_relative_and_non_finite_values_must_stay() -> None:
    reference = np.array([1.0, -50.0, np.nan, np.inf], np.float32)
    assert measure_difference(reference, reference) == 0
    assert measure_difference(reference, reference + np.float32(0.5)) == 0.01
    assert measure_difference(reference / 100, reference / 100 + np.float32(0.5)) == 0.5
    assert (
        measure_difference(reference, np.array([1.0, -50.0, np.nan, -np.inf], np.float32)) == np.inf
    )
    assert (
        measure_difference(reference, np.array([np.nan, -50.0, np.nan, np.inf], np.float32))
        == np.inf
    )
    assert measure_difference(reference, reference[:2]) == np.inf
