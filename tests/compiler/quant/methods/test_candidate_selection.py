"""The default method, and weights by second moments."""

from dataclasses import replace

import numpy as np
import pytest
from nets import Steps, dense, gated
from quant_sets import ready, tensors

from tcc.compiler.ir.graph import Graph, Output
from tcc.compiler.ops import Conv, DepthwiseConv, Flatten, GlobalAvgPool, Linear, Relu
from tcc.compiler.passes import INT8
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.methods import SEARCHES, bias_correction, cross_fitting
from tcc.compiler.quant.methods import candidate_selection as module
from tcc.compiler.quant.methods.calibration_split import CalibrationSplit, split
from tcc.compiler.quant.methods.candidate_selection import (
    Candidate,
    best,
    by_moments,
    chosen,
    corrected,
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
from tcc.compiler.reference import integer_program, output_comparison
from tcc.compiler.reference.accuracy_floor import loss

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


def lost(model, calibration, data) -> float:
    return loss(
        output_comparison.compared(
            model, quantize(model, calibration), output_comparison.comparison_images(data)
        )
    )


def test_moments_come_nearer_than_rounding_to_nearest(known):
    model, data, seen, found = known
    plain = lost(model, Calibration(found, round_nearest(model, found)), data)
    better = lost(model, Calibration(found, round_by_moments(model, found, seen, {})), data)
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
    assert lost(model, Calibration(found, split), known[1]) < 2e-3


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
    after = bias_correction.sequential(model, before, data)
    assert means(model, after, data) < 0.1 * means(model, before, data)
    assert lost(model, after, data) < 0.3 * lost(model, before, data)
    assert all(np.array_equal(rounded[n].weight, after.rounded[n].weight) for n in rounded)


def test_a_correct_network_is_hardly_corrected(known):
    model, data, seen, found = known
    before = Calibration(found, round_by_moments(model, found, seen, {}))
    after = bias_correction.sequential(model, before, data)
    first = model.graph.nodes[0].name
    step = found[model.graph.inputs[0].name].scale * before.rounded[first].scale
    moved = np.abs(after.rounded[first].bias - before.rounded[first].bias) * step
    assert moved.max() < found["relu_0"].scale  # the layer's means were right but for the sample


@nets
def test_the_winner_is_as_good_as_any_candidate(net, tmp_path):
    model = ready(net(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 12)
    images = split(model, data, RunOptions())
    told = []
    options = RunOptions(progress=lambda *told_of: told.append(told_of))
    found = best(model, images, SEARCHES, options)
    names = [name for name, _ in found.judged]
    assert names == ["moments, floor 0.0625, sequential bias", "minmax"]
    errors = [loss(one) for _, one in found.judged]
    assert loss(found.quality) <= 1.5 * min(errors)
    assert set(found.winner.traces) == set(found.winner.calibration.ranges)
    assert told[-1] == ("best", 2, 2)
    expected = next(iter(found.expected.values()))
    assert expected.images == 12  # all judge in turn, or were held out
    assert 0 < expected.low < expected.loss < expected.high
    assert expected.worst > expected.loss


def test_candidates_are_judged_by_images_that_they_did_not_learn_from(known, monkeypatch):
    model, data, seen, _ = known
    taught = []
    monkeypatch.setattr(module, "by_moments", lambda *_: pytest.fail("not asked for"))
    monkeypatch.setattr(module, "SETTINGS", ())

    def search(ready, some, threads):
        taught.append(frozenset(some.images))
        return MINMAX.search(ready, some, threads)

    images = CalibrationSplit(
        data.first(12), seen.of(range(12)), replace(data, items=data.items[12:])
    )
    best(model, images, (replace(MINMAX, search=search),), RunOptions())
    first, second, last = taught
    assert not first & second
    assert first | second == last == frozenset(images.learn.digests)
    assert not last & frozenset(images.held_out.digests)


def test_minmax_wins_where_nothing_is_better(known, monkeypatch):
    model, data, seen, _ = known
    bad = lambda ready, *_: Candidate("bad", Calibration(seen_ranges(ready, 1e-3)))  # noqa: E731

    def seen_ranges(ready, factor):
        found = minmax_ranges(ready, seen.limits)
        return {
            n: replace(one, scale=float(np.float32(one.scale * factor))) for n, one in found.items()
        }

    monkeypatch.setattr(module, "corrected", bad)
    images = CalibrationSplit(data, seen, data)
    found = best(model, images, (MINMAX,), RunOptions())
    assert found.winner.name == "minmax"
    assert not found.expected  # nothing was held out


def test_biases_are_corrected_by_images_that_were_learnt_from(known, monkeypatch):
    model, data, seen, _ = known
    run = []
    monkeypatch.setattr(
        bias_correction, "sequential", lambda _, found, some: run.append(some.digests) or found
    )
    monkeypatch.setattr(bias_correction, "IMAGES", 3)
    corrected(model, EqualizationSetting(0.125), data, seen.of((1, 4, 5, 9)))
    assert run == [tuple(data.digests[place] for place in (1, 4, 5))]


EVEN = np.full(40, 0.01)


def uneven(seed, **changes):
    """Errors as images have them, some changed."""
    found = 0.01 * np.exp(np.random.default_rng(seed).normal(0, 0.5, 40))
    for place, value in changes.items():
        found[int(place[1:])] = value
    return found


@pytest.mark.parametrize(
    ("errors", "winner"),
    [
        ([uneven(1), uneven(2), uneven(3)], 0),  # as good: the first, which leaves the most room
        ([EVEN * 2, EVEN, EVEN], 1),
        ([uneven(1), uneven(2) * 0.4, uneven(3)], 1),
        ([EVEN, uneven(1, i0=np.inf) * 0.1], 0),  # what is not finite never wins
        ([uneven(1, i0=np.inf), uneven(1, i1=np.nan)], 0),
        # One image with a huge error does not own the rank: the others decide.
        ([uneven(1), uneven(2, i3=0.5) * 0.1], 1),
        ([EVEN, np.where(np.arange(40) < 8, 0.5, 0.001)], 0),  # a tail that is bad is
    ],
)
def test_which_candidate_is_chosen(errors, winner):
    assert chosen(errors) == winner


def test_a_candidate_says_what_it_is(known):
    model, _, seen, _ = known
    found = by_moments(model, EqualizationSetting(0.125), seen)
    assert found.name == "moments, floor 0.125"
    for name, trace in found.traces.items():
        own = found.calibration.ranges[name]
        assert trace.threshold == own.scale * own.limits[1]
        assert trace.threshold >= 0.999 * max(-trace.low, trace.high)
        assert trace.shown == pytest.approx(max(-trace.low, trace.high) / trace.reach)


def test_a_large_network_tries_less(known, monkeypatch):
    model, data, seen, _ = known
    monkeypatch.setattr(module, "SMALL", 100)
    monkeypatch.setattr(cross_fitting, "WORK", 1)
    images = CalibrationSplit(data, seen, data)
    found = best(model, images, SEARCHES, RunOptions())
    assert [name for name, _ in found.judged] == ["moments, floor 0.0625", "minmax"]
    assert {one.images for _, by in found.judged for one in by.values()} == {8}
