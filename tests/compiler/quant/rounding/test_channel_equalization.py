"""Channel equalisation: the same function in floats, finer levels in integers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_sets import ready, tensors
from random_nets import extreme, graphs

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


def joined() -> Graph:
    """Two convolutions in a concat that a depthwise convolution reads, and then a dense one."""
    add = NetBuilder(3, 8, 8, name="joined")
    first = add("first", Conv(4, (1, 1)))
    add("second", Conv(4, (3, 3), padding=1), "image")
    second = add("relu", Relu())
    add("concat", Concat(), first, second)
    add("wise", DepthwiseConv((3, 3), padding=1))
    add("wise_relu", Relu())
    add("last", Conv(5, (1, 1)))
    return add.build()


def uneven(model: Model, seed: int = 0) -> Model:
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


def test_classes_follow_channels_through_joins():
    add = NetBuilder(4, 6, 6)
    a = add("a", Conv(4, (1, 1)))
    b = add("b", Conv(4, (1, 1)), "image")
    add("sum", Add(), a, b)
    add("both", Concat(), "sum", "image")
    add("shuffle", ChannelShuffle(2))
    add("cut", Slice(0, 8, 2))
    add("end", Conv(2, (1, 1)))
    found = find_channel_classes(add.build())
    assert (
        found.ids_by_value["a"].tolist()
        == found.ids_by_value["b"].tolist()
        == found.ids_by_value["sum"].tolist()
    )
    both = [*found.ids_by_value["a"], *found.ids_by_value["image"]]
    assert found.ids_by_value["both"].tolist() == both
    shuffled = [both[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)]
    assert found.ids_by_value["shuffle"].tolist() == shuffled
    assert found.ids_by_value["cut"].tolist() == shuffled[::2]
    assert found.fixed[found.ids_by_value["image"]].all()
    assert found.fixed[found.ids_by_value["end"]].all()
    assert not found.fixed[found.ids_by_value["a"]].any()
    assert not found.free[found.ids_by_value["a"]].any()  # `end` sums over them


def test_what_is_not_homogeneous_keeps_its_channels():
    add = NetBuilder(3, 6, 6)
    add("a", Conv(4, (1, 1)))
    add("clamp", Relu6())
    add("end", Conv(2, (1, 1)))
    assert find_channel_classes(add.build()).fixed.all()


@settings(max_examples=30)
@given(data=st.data(), power=st.sampled_from((0.0, 0.5, 1.0)))
def test_the_function_stays_the_same(data, power):
    """With any factors that classes allow, whatever the network."""
    graph = graphs(data.draw)
    model = ready_random(graph, extreme(data.draw, graph))
    found = find_channel_classes(model.graph)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    factor = np.exp(random.uniform(-2, 0, len(found.free))).astype(np.float32)
    factor = np.where(found.fixed, np.float32(1), factor)
    changed = equalize_model(model, {name: factor[ids] for name, ids in found.ids_by_value.items()})
    x = sample_input(model.graph)
    (a,), (b,) = float_program.run(model, [x]), float_program.run(changed, [x])
    for name, expected in a.items():
        room = 1e-3 * max(float(np.abs(expected).max()), 1e-6)
        assert np.abs(b[name] - expected).max() <= room


def test_factors_bring_channels_to_one_size(tmp_path):
    model = uneven(ready(joined(), INT8))
    seen = observe(model, tensors(tmp_path, (3, 8, 8), 6))
    reach = collect_extremes(seen)
    found = compute_factors(model, reach, EqualizationSetting(FLOOR, 0.0))
    assert set(found) >= {"first", "relu", "concat"}
    assert "wise_relu" not in found  # the dense reader sums over it, and its power is 0
    assert found["concat"].tolist() == [*found["first"], *found["relu"]]
    for factor in found.values():
        assert ((factor >= FLOOR) & (factor <= 1)).all()
    peaks = np.abs([seen.by_value["concat"].channel_low, seen.by_value["concat"].channel_high]).max(
        0
    )
    size = peaks / peaks.max()
    wanted = np.clip(size, FLOOR, 1).astype(np.float32)
    assert found["concat"] == pytest.approx(wanted)
    low, high = compute_limits(reach, found)["concat"]
    assert max(-low, high) == pytest.approx(peaks.max(), rel=1e-6)
    half = compute_factors(model, reach, EqualizationSetting(FLOOR, 0.5))
    assert set(half) > set(found)


@pytest.mark.parametrize(("net", "most"), [(joined, 1.0), (build_dense, 1.0), (build_gated, 1.5)])
def test_the_integer_program_is_nearer_and_has_the_same_meaning(net, most, tmp_path):
    """A gate leaves little to equalise: what it multiplies and its mean keep their channels."""
    model = uneven(ready(net(), INT8))
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 12)
    seen = observe_folds(model, data, RunOptions())

    def loss(calibration):
        program = quantize(model, calibration)
        return accuracy_floor.compute_mean_loss(
            output_comparison.compare_programs(
                model, program, output_comparison.select_comparison_images(data)
            )
        )

    plain = loss(Calibration(compute_minmax_ranges(model, seen.limits)))
    given = compute_factors(model, collect_extremes(seen), EqualizationSetting(FLOOR, 0.5))
    changed = equalize_model(model, given)
    found = compute_minmax_ranges(changed, compute_limits(collect_extremes(seen), given))
    nearest = loss(Calibration(found, round_nearest(changed, found), given))
    moments = loss(Calibration(found, round_by_moments(changed, found, seen.moments, given), given))
    assert nearest < 1.5 * plain + 1e-6
    assert moments < most * plain
    mixed = Calibration(found, round_nearest(changed, found), given)
    names = frozenset(n.name for n in model.graph.nodes[len(model.graph.nodes) // 2 :])
    assert loss(replace(mixed, in_float=names)) < 0.01


def test_a_dead_channel_has_a_finite_factor(tmp_path):
    model = ready(joined(), INT8)
    second = {n: v.copy() for n, v in model.weights.items() if n.startswith("second")}
    for value in second.values():
        value[1] = 0
    dead = Model(model.graph, {**model.weights, **second})
    seen = observe_folds(dead, tensors(tmp_path, (3, 8, 8), 4), RunOptions())
    given = compute_factors(dead, collect_extremes(seen), EqualizationSetting(FLOOR))
    assert given["relu"][1] == FLOOR
    changed = equalize_model(dead, given)
    found = compute_minmax_ranges(changed, compute_limits(collect_extremes(seen), given))
    rounded = round_by_moments(changed, found, seen.moments, given)
    assert all(np.isfinite(one.scale).all() and (one.scale > 0).all() for one in rounded.values())


def test_trained_weights_are_not_touched(tmp_path):
    graph = joined()
    before = {name: value.copy() for name, value in sample_weights(graph).items()}
    model = Model(graph, before)
    ones = {name: np.full(kind.shape[0], 0.5, np.float32) for name, kind in graph.types.items()}
    equalize_model(model, {"first": ones["first"], "concat": ones["concat"]})
    assert all(np.array_equal(before[name], value) for name, value in sample_weights(graph).items())
