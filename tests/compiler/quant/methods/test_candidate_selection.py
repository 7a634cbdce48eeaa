"""The default method, bias correction, and weights by second moments."""

from dataclasses import replace

import numpy as np
import pytest
from nets import Steps, dense, gated
from quant_sets import of_classes, ready, tensors

from tcc.compiler.ir.graph import Graph, Output
from tcc.compiler.ops import Conv, DepthwiseConv, Flatten, GlobalAvgPool, Linear, Relu
from tcc.compiler.passes import INT8
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.methods import SEARCHES, bias_correction
from tcc.compiler.quant.methods import candidate_selection as module
from tcc.compiler.quant.methods.calibration_split import CalibrationSplit, split
from tcc.compiler.quant.methods.candidate_selection import (
    Candidate,
    JudgedCandidate,
    best,
    by_moments,
)
from tcc.compiler.quant.methods.method import RunOptions
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding import second_moments
from tcc.compiler.quant.rounding.channel_equalization import EqualizationSetting
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.quant.rounding.second_moments import round_by_moments
from tcc.compiler.quant.scale_groups import fused_clamps, minmax_ranges
from tcc.compiler.reference import accuracy_floor, integer_program, output_comparison
from tcc.compiler.reference.accuracy_floor import Qualities
from tcc.compiler.support.progress import silent

nets = pytest.mark.parametrize("net", [dense, gated])


def deep() -> Graph:
    """Enough layers for errors to add up."""
    add = Steps(3, 12, 12, name="deep")
    for i in range(5):
        add(f"conv_{i}", Conv(12, (3, 3), padding=1))
        add(f"relu_{i}", Relu())
        add(f"wise_{i}", DepthwiseConv((3, 3), padding=1))
        add(f"wise_relu_{i}", Relu())
    add("gap", GlobalAvgPool())
    add("flat", Flatten())
    add("fc", Linear(4))
    return add.graph(Output("logits", "fc", "softmax"))


@pytest.fixture
def known(tmp_path):
    """A ready model, its images, what was seen of them, and ranges."""
    model = ready(deep(), INT8)
    data = tensors(tmp_path, (3, 12, 12), 16)
    seen = observe(model, data)
    return model, data, seen, minmax_ranges(model, seen.limits)


def loss(model, calibration, data) -> float:
    return accuracy_floor.loss(
        output_comparison.compared(
            model, quantize(model, calibration), output_comparison.comparison_images(data)
        )
    )


def test_moments_come_nearer_than_rounding_to_nearest(known):
    model, data, seen, found = known
    plain = loss(model, Calibration(found, round_nearest(model, found)), data)
    better = loss(model, Calibration(found, round_by_moments(model, found, seen, {})), data)
    assert better < 0.7 * plain


def test_threads_and_blocks_of_taps(known, monkeypatch):
    model, _, seen, found = known
    one = round_by_moments(model, found, seen, {}, threads=1)
    many = round_by_moments(model, found, seen, {}, threads=4)
    for name, own in one.items():
        assert np.array_equal(own.weight, many[name].weight)
        assert np.array_equal(own.bias, many[name].bias)
    monkeypatch.setattr(second_moments, "LARGEST", 100)
    nearest = round_nearest(model, found)
    assert all(
        np.array_equal(own.weight, nearest[name].weight)
        for name, own in round_by_moments(model, found, seen, {}).items()
        if own.weight.size > 100
    )
    monkeypatch.undo()
    monkeypatch.setattr(second_moments, "BLOCK", 40)  # of 108 taps
    split = round_by_moments(model, found, seen, {})
    assert not np.array_equal(split["conv_1"].weight, one["conv_1"].weight)
    assert loss(model, Calibration(found, split), known[1]) < 2e-3


def means(model, calibration, data) -> float:
    """Return how far the mean of each layer's output is off, on average, in steps."""
    program = quantize(model, calibration)
    xs = [data.tensor(i, model.graph.inputs[0]) for i in range(len(data))]
    wanted = bias_correction.means(model, xs)
    clamps = set(fused_clamps(model.graph).values())
    found = integer_program.run(program, xs, every=True)
    off = []
    for name in (n for n in wanted if n not in clamps and n in program.graph.types):
        kind = program.graph.types[name]
        levels = np.mean([one[name].mean(axis=(1, 2)) for one in found], axis=0)
        off.append(np.abs(levels * (kind.scale or 1) - wanted[name]).mean())
    return float(np.mean(off))


def test_sequential_correction_makes_good_the_means(known):
    model, data, _, found = known
    # Biased weights: each rounded down.
    rounded = {
        name: replace(own, weight=np.maximum(own.weight.astype(int) - 2, -127).astype(np.int8))
        for name, own in round_nearest(model, found).items()
    }
    before = Calibration(found, rounded)
    after = bias_correction.sequential(model, before, data, silent)
    assert means(model, after, data) < 0.1 * means(model, before, data)
    assert loss(model, after, data) < 0.3 * loss(model, before, data)
    assert all(np.array_equal(rounded[n].weight, after.rounded[n].weight) for n in rounded)


def test_a_correct_network_is_hardly_corrected(known):
    model, data, seen, found = known
    before = Calibration(found, round_by_moments(model, found, seen, {}))
    after = bias_correction.sequential(model, before, data, silent)
    first = model.graph.nodes[0].name
    step = found[model.graph.inputs[0].name].scale * before.rounded[first].scale
    moved = np.abs(after.rounded[first].bias - before.rounded[first].bias) * step
    assert moved.max() < found["relu_0"].scale  # the layer's means were right but for the sample


@nets
def test_the_winner_is_no_worse_than_any_candidate(net, tmp_path):
    model = ready(net(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 12)
    images = split(model, data, RunOptions())
    told = []
    options = RunOptions(progress=lambda *told_of: told.append(told_of))
    found = best(model, images, SEARCHES, options)
    names = [name for name, _ in found.judged]
    assert len(set(names)) == len(names)
    assert {"minmax", "percentile", "mse", "kl-cosine"} < set(names)
    plain = ("minmax", "percentile", "mse", "kl-cosine")
    assert all(
        accuracy_floor.loss(found.quality) <= accuracy_floor.loss(dict(found.judged)[name])
        for name in plain
    )
    program = quantize(model, found.winner.calibration)
    assert (
        output_comparison.compared(
            model, program, output_comparison.comparison_images(images.held_out, images.learn)
        )
        == found.quality
    )
    assert set(found.winner.traces) == set(found.winner.calibration.ranges)
    assert [done for what, done, _ in told if what == "best"][-1] == told[-1][2]


def of_cosine(cosine: float, agreement: float = 1.0) -> Qualities:
    return {"logits": of_classes(10, cosine, agreement)}


@pytest.mark.parametrize(
    ("held_out", "overall", "winner"),
    [
        ((0.9, 0.99993, 0.99991, 0.99992), (0.9, 0.999911, 0.99991, 0.99992), 1),  # within ROOM
        ((0.9, 0.99993, 0.99991, 0.99992), (0.9, 0.99990, 0.99991, 0.99999), 3),
        ((0.9, 0.99993, 0.99991, 0.99992), (0.9, 0.99990, 0.999981, 0.99999), 2),
        ((0.99992, 0.99990, 0.99991, 0.99993), (0.9, 0.99990, 0.99991, 0.99991), 3),  # not worse
        ((0.99999, 0.99990, 0.99998, 0.99998), (0.9, 0.99990, 0.99998, 0.99998), 0),
    ],
)
def test_room_is_taken_where_it_costs_little(held_out, overall, winner):
    given = {"a": np.ones(1, np.float32)}
    made = [Candidate(str(i), Calibration({}, {}, given if i else {})) for i in range(4)]
    judged = [
        JudgedCandidate(one, of_cosine(cosine), of_cosine(other))
        for one, cosine, other in zip(made, held_out, overall, strict=True)
    ]
    assert module._winner(judged).candidate is made[winner]
    judged[1] = replace(judged[1], overall=of_cosine(overall[1], agreement=0.9))
    assert module._winner(judged).candidate is not made[1]  # another class costs more than room


def test_minmax_wins_where_nothing_is_better(known, monkeypatch):
    model, data, seen, _ = known
    monkeypatch.setattr(module, "by_moments", lambda *_: pytest.fail("not asked for"))
    monkeypatch.setattr(module, "SETTINGS", ())
    monkeypatch.setattr(bias_correction, "sequential", lambda _, calibration, *__: calibration)
    images = CalibrationSplit(data, seen, data)
    assert best(model, images, (MINMAX,), RunOptions()).winner.name == "minmax"


def test_a_candidate_says_what_it_is(known):
    model, _, seen, _ = known
    found = by_moments(model, seen, EqualizationSetting(0.125))
    assert found.name == "moments, floor 0.125"
    for name, trace in found.traces.items():
        own = found.calibration.ranges[name]
        assert trace.threshold == own.scale * own.limits[1]
        assert trace.threshold >= 0.999 * max(-trace.low, trace.high)
        assert trace.shown == pytest.approx(max(-trace.low, trace.high) / trace.reach)


def test_a_large_network_tries_less(known, monkeypatch):
    model, data, seen, _ = known
    monkeypatch.setattr(module, "SMALL", 100)
    monkeypatch.setattr(module, "WORK", 1)
    images = CalibrationSplit(data, seen, data)
    names = [name for name, _ in best(model, images, SEARCHES, RunOptions()).judged]
    quick = [one.name for one in SEARCHES if one.in_best and not one.slow]
    assert names == [*quick, "moments, floor 0.25"]
    assert "kl-cosine" not in names
