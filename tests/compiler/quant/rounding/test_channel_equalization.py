"""Channel equalization: the same float outputs, finer quantization steps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_sets import make_lowered_model, write_tensors
from random_nets import draw_graph, draw_weights

from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ops import (
    Add,
    ChannelShuffle,
    Concat,
    Conv,
    DepthwiseConv,
    Relu,
    Relu6,
    Slice,
)
from tcc.compiler.passes import INT8
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.methods.cross_fitting import observe_folds
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding.channel_equalization import (
    EqualizationSetting,
    compute_factors,
    compute_limits,
    equalize_model,
    find_channel_classes,
)
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.quant.rounding.second_moments import round_by_moments
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.quant.scale_groups import compute_minmax_ranges
from tcc.compiler.quant.unseen_extremes import collect_extremes
from tcc.compiler.reference import accuracy_floor, float_program, output_comparison
from tcc.testing.int8_models import lower_for_int8 as ready_random
from tcc.testing.int8_models import sample_input
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import sample_weights

FLOOR = 1 / 32


def build_joined_graph() -> Graph:
    """Return two convolutions in a concat, read by a depthwise and then a dense convolution."""
    add = NetBuilder(3, 8, 8, name="joined")
    left_conv = add("first", Conv(4, (1, 1)))
    add("second", Conv(4, (3, 3), padding=1), "image")
    right_conv = add("relu", Relu())
    add("concat", Concat(), left_conv, right_conv)
    add("wise", DepthwiseConv((3, 3), padding=1))
    add("wise_relu", Relu())
    add("last", Conv(5, (1, 1)))
    return add.build()


def scale_filters(model: Model, seed: int = 0) -> Model:
    """Return a model whose filters differ much in size."""
    random = np.random.default_rng(seed)
    weights = dict(model.weights)
    for node in model.graph.nodes:
        if isinstance(node.op, Conv):
            size = np.exp(random.uniform(-3, 1, node.op.filters)).astype(np.float32)
            for name in node.params:
                shape = (-1, *(1 for _ in weights[name].shape[1:]))
                weights[name] = weights[name] * size.reshape(shape)
    return Model(model.graph, weights)


def test_channel_classes_are_traced_through_joins():
    add = NetBuilder(4, 6, 6)
    a = add("a", Conv(4, (1, 1)))
    b = add("b", Conv(4, (1, 1)), "image")
    add("sum", Add(), a, b)
    add("both", Concat(), "sum", "image")
    add("shuffle", ChannelShuffle(2))
    add("cut", Slice(0, 8, 2))
    add("end", Conv(2, (1, 1)))
    classes = find_channel_classes(add.build())
    assert (
        classes.ids_by_value["a"].tolist()
        == classes.ids_by_value["b"].tolist()
        == classes.ids_by_value["sum"].tolist()
    )
    both = [*classes.ids_by_value["a"], *classes.ids_by_value["image"]]
    assert classes.ids_by_value["both"].tolist() == both
    shuffled = [both[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)]
    assert classes.ids_by_value["shuffle"].tolist() == shuffled
    assert classes.ids_by_value["cut"].tolist() == shuffled[::2]
    assert classes.fixed[classes.ids_by_value["image"]].all()
    assert classes.fixed[classes.ids_by_value["end"]].all()
    assert not classes.fixed[classes.ids_by_value["a"]].any()
    assert not classes.free[classes.ids_by_value["a"]].any()  # `end` sums over the channels


def test_non_homogeneous_ops_keep_their_channels():
    add = NetBuilder(3, 6, 6)
    add("a", Conv(4, (1, 1)))
    add("clamp", Relu6())
    add("end", Conv(2, (1, 1)))
    assert find_channel_classes(add.build()).fixed.all()


@settings(max_examples=30)
@given(data=st.data(), power=st.sampled_from((0.0, 0.5, 1.0)))
def test_equalization_keeps_the_outputs(data, power):
    """For any factors that the classes allow, and any network."""
    graph = draw_graph(data.draw)
    model = ready_random(graph, draw_weights(data.draw, graph))
    classes = find_channel_classes(model.graph)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    factor = np.exp(random.uniform(-2, 0, len(classes.free))).astype(np.float32)
    factor = np.where(classes.fixed, np.float32(1), factor)
    equalized_model = equalize_model(
        model, {name: factor[ids] for name, ids in classes.ids_by_value.items()}
    )
    x = sample_input(model.graph)
    (a,), (b,) = float_program.run(model, [x]), float_program.run(equalized_model, [x])
    for name, expected in a.items():
        tolerance = 1e-3 * max(float(np.abs(expected).max()), 1e-6)
        assert np.abs(b[name] - expected).max() <= tolerance


def test_factors_equalize_the_channel_ranges(tmp_path):
    model = scale_filters(make_lowered_model(build_joined_graph(), INT8))
    statistics = observe(model, write_tensors(tmp_path, (3, 8, 8), 6))
    extremes = collect_extremes(statistics)
    channel_factors = compute_factors(model, extremes, EqualizationSetting(FLOOR, 0.0))
    assert set(channel_factors) >= {"first", "relu", "concat"}
    assert "wise_relu" not in channel_factors  # the dense reader sums over it; its power is 0
    assert channel_factors["concat"].tolist() == [
        *channel_factors["first"],
        *channel_factors["relu"],
    ]
    for factor in channel_factors.values():
        assert ((factor >= FLOOR) & (factor <= 1)).all()
    peaks = np.abs(
        [statistics.by_value["concat"].channel_low, statistics.by_value["concat"].channel_high]
    ).max(0)
    size = peaks / peaks.max()
    expected = np.clip(size, FLOOR, 1).astype(np.float32)
    assert channel_factors["concat"] == pytest.approx(expected)
    low, high = compute_limits(extremes, channel_factors)["concat"]
    assert max(-low, high) == pytest.approx(peaks.max(), rel=1e-6)
    half_strength = compute_factors(model, extremes, EqualizationSetting(FLOOR, 0.5))
    assert set(half_strength) > set(channel_factors)


@pytest.mark.parametrize(
    ("net", "max_ratio"), [(build_joined_graph, 1.0), (build_dense, 1.0), (build_gated, 1.5)]
)
def test_equalization_reduces_the_int8_error(net, max_ratio, tmp_path):
    """A gate leaves little to equalize: its operands keep their channels."""
    model = scale_filters(make_lowered_model(net(), INT8))
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 12)
    statistics = observe_folds(model, data, RunOptions())

    def loss(calibration):
        program = quantize(model, calibration)
        return accuracy_floor.compute_mean_loss(
            output_comparison.compare_programs(
                model, program, output_comparison.select_comparison_images(data)
            )
        )

    minmax_loss = loss(Calibration(compute_minmax_ranges(model, statistics.limits)))
    channel_factors = compute_factors(
        model, collect_extremes(statistics), EqualizationSetting(FLOOR, 0.5)
    )
    equalized_model = equalize_model(model, channel_factors)
    ranges = compute_minmax_ranges(
        equalized_model, compute_limits(collect_extremes(statistics), channel_factors)
    )
    equalized_loss = loss(
        Calibration(ranges, round_nearest(equalized_model, ranges), channel_factors)
    )
    moments = loss(
        Calibration(
            ranges,
            round_by_moments(equalized_model, ranges, statistics.moments, channel_factors),
            channel_factors,
        )
    )
    assert equalized_loss < 1.5 * minmax_loss + 1e-6
    assert moments < max_ratio * minmax_loss
    mixed = Calibration(ranges, round_nearest(equalized_model, ranges), channel_factors)
    names = frozenset(n.name for n in model.graph.nodes[len(model.graph.nodes) // 2 :])
    assert loss(replace(mixed, in_float=names)) < 0.01


def test_a_dead_channel_has_a_finite_factor(tmp_path):
    model = make_lowered_model(build_joined_graph(), INT8)
    second = {n: v.copy() for n, v in model.weights.items() if n.startswith("second")}
    for value in second.values():
        value[1] = 0
    dead = Model(model.graph, {**model.weights, **second})
    statistics = observe_folds(dead, write_tensors(tmp_path, (3, 8, 8), 4), RunOptions())
    channel_factors = compute_factors(
        dead, collect_extremes(statistics), EqualizationSetting(FLOOR)
    )
    assert channel_factors["relu"][1] == FLOOR
    equalized_model = equalize_model(dead, channel_factors)
    ranges = compute_minmax_ranges(
        equalized_model, compute_limits(collect_extremes(statistics), channel_factors)
    )
    rounded = round_by_moments(equalized_model, ranges, statistics.moments, channel_factors)
    assert all(
        np.isfinite(rounded_layer.scale).all() and (rounded_layer.scale > 0).all()
        for rounded_layer in rounded.values()
    )


def test_trained_weights_are_not_modified(tmp_path):
    graph = build_joined_graph()
    original_weights = {name: value.copy() for name, value in sample_weights(graph).items()}
    model = Model(graph, original_weights)
    ones = {name: np.full(kind.shape[0], 0.5, np.float32) for name, kind in graph.types.items()}
    equalize_model(model, {"first": ones["first"], "concat": ones["concat"]})
    assert all(
        np.array_equal(original_weights[name], value)
        for name, value in sample_weights(graph).items()
    )
