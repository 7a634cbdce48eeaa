"""The default method, and weights by second moments."""

from dataclasses import replace

import numpy as np
import pytest
from quant_sets import ready, tensors

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Graph, Output
from tcc.compiler.ops import Conv, DepthwiseConv, Flatten, GlobalAvgPool, Linear, Relu
from tcc.compiler.passes import INT8
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.methods import (
    SEARCHES,
    bias_correction,
    candidate_selection,
    cross_fitting,
)
from tcc.compiler.quant.methods.best import Best
from tcc.compiler.quant.methods.bias_correction import SequentialCorrection
from tcc.compiler.quant.methods.candidate_selection import (
    choose_candidate,
    list_equalizing_builders,
    select_best,
)
from tcc.compiler.quant.methods.cross_fitting import (
    CalibrationSplit,
    CrossFitting,
    observe_folds,
)
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.quant.observe import condensed_statistics
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding import second_moments
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.quant.rounding.second_moments import round_by_moments
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.quant.scale_groups import compute_minmax_ranges, find_fused_clamps
from tcc.compiler.reference import float_program, integer_program, output_comparison
from tcc.compiler.reference.accuracy_floor import compute_mean_loss
from tcc.testing.nets import NetBuilder, build_dense, build_gated

nets = pytest.mark.parametrize("net", [build_dense, build_gated])


def split_in_parts(model, data):
    learn, held_out = data.split()
    return CalibrationSplit(learn, observe_folds(model, learn, RunOptions()), held_out)


def deep() -> Graph:
    """Enough layers for errors to add up."""
    add = NetBuilder(3, 12, 12, name="deep")
    for i in range(5):
        add(f"conv_{i}", Conv(12, (3, 3), padding=1))
        add(f"relu_{i}", Relu())
        add(f"wise_{i}", DepthwiseConv((3, 3), padding=1))
        add(f"wise_relu_{i}", Relu())
    add("gap", GlobalAvgPool())
    add("flat", Flatten())
    add("fc", Linear(4))
    return add.build(Output("logits", "fc", "softmax"))


@pytest.fixture
def known(tmp_path):
    """A ready model, its images, what was seen of them, and ranges."""
    model = ready(deep(), INT8)
    data = tensors(tmp_path, (3, 12, 12), 16)
    seen = observe_folds(model, data, RunOptions())
    return model, data, seen, compute_minmax_ranges(model, seen.limits)


def lost(model, calibration, data) -> float:
    return compute_mean_loss(
        output_comparison.compare_programs(
            model, quantize(model, calibration), output_comparison.select_comparison_images(data)
        )
    )


def test_moments_come_nearer_than_rounding_to_nearest(known):
    model, data, seen, found = known
    plain = lost(model, Calibration(found, round_nearest(model, found)), data)
    better = lost(model, Calibration(found, round_by_moments(model, found, seen.moments, {})), data)
    assert better < 0.7 * plain


def test_threads_and_blocks_of_taps(known, monkeypatch):
    model, data, seen, found = known
    one = round_by_moments(model, found, seen.moments, {}, threads=1)
    many = round_by_moments(model, found, seen.moments, {}, threads=4)
    for name, own in one.items():
        assert np.array_equal(own.weight, many[name].weight)
        assert np.array_equal(own.bias, many[name].bias)
    monkeypatch.setattr(second_moments, "MAX_WEIGHTS", 100)
    nearest = round_nearest(model, found)
    assert all(
        np.array_equal(own.weight, nearest[name].weight)
        for name, own in round_by_moments(model, found, seen.moments, {}).items()
        if own.weight.size > 100
    )
    monkeypatch.undo()
    monkeypatch.setattr(condensed_statistics, "MAX_BLOCK_TAPS", 40)  # of 108 taps
    blocks = observe_folds(model, data, RunOptions()).moments
    split = round_by_moments(model, found, blocks, {})
    assert not np.array_equal(split["conv_1"].weight, one["conv_1"].weight)
    assert lost(model, Calibration(found, split), data) < 2e-3


def floats(model, xs):
    """Return the mean of each convolution's channels over inputs, by its name."""
    names = [node.name for node in model.graph.nodes if isinstance(node.op, Conv)]
    outputs = tuple(Output(f"{name}:seen", name) for name in names)
    run = float_program.create_runner(replace(model, graph=replace(model.graph, outputs=outputs)))
    every = [run(x) for x in xs]
    return {
        n: np.mean([one[f"{n}:seen"].mean(axis=(-1, -2)) for one in every], 0).reshape(-1)
        for n in names
    }


def means(model, calibration, data) -> float:
    """Return how far the mean of each layer's output is off, on average, in steps."""
    program = quantize(model, calibration)
    xs = [data.tensor(i, model.graph.inputs[0]) for i in range(len(data))]
    wanted = floats(model, xs)
    clamps = set(find_fused_clamps(model.graph).values())
    found = integer_program.run(program, xs, keep_all=True)
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
    after = SequentialCorrection(model, data).correct_biases(before, data.digests)
    assert means(model, after, data) < 0.1 * means(model, before, data)
    assert lost(model, after, data) < 0.3 * lost(model, before, data)
    assert all(np.array_equal(rounded[n].weight, after.rounded[n].weight) for n in rounded)


def test_a_correct_network_is_hardly_corrected(known):
    model, data, seen, found = known
    before = Calibration(found, round_by_moments(model, found, seen.moments, {}))
    after = SequentialCorrection(model, data).correct_biases(before, data.digests)
    first = model.graph.nodes[0].name
    step = found[model.graph.inputs[0].name].scale * before.rounded[first].scale
    moved = np.abs(after.rounded[first].bias - before.rounded[first].bias) * step
    assert moved.max() < found["relu_0"].scale  # the layer's means were right but for the sample


@nets
def test_the_winner_is_as_good_as_any_candidate(net, tmp_path):
    model = ready(net(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 12)
    images = split_in_parts(model, data)
    told = []
    options = RunOptions(progress=lambda *told_of: told.append(told_of))
    found = select_best(model, images, SEARCHES, options)
    names = [name for name, _ in found.candidate_qualities]
    assert names == ["moments, floor 0.0625, sequential bias", "minmax"]
    errors = [compute_mean_loss(one) for _, one in found.candidate_qualities]
    assert compute_mean_loss(found.quality) <= 1.5 * min(errors)
    assert set(found.winner.traces) == set(found.winner.calibration.ranges)
    assert told[-1] == ("best", 2, 2)
    expected = next(iter(found.expected.values()))
    assert expected.images == 12  # all judge in turn, or were held out
    assert 0 < expected.low < expected.loss < expected.high
    assert expected.worst > expected.loss


def test_candidates_are_judged_by_images_that_they_did_not_learn_from(known, monkeypatch):
    model, data, *_ = known
    taught = []
    ran = []
    monkeypatch.setattr(candidate_selection, "SETTINGS", ())

    def search(ready, some, threads):
        taught.append(frozenset(some.images))
        return MINMAX.search(ready, some, threads)

    run = CrossFitting.run_images

    def noted(crossed, model, data, places):
        ran.append(frozenset(data.digests[place] for place in places))
        return run(crossed, model, data, places)

    monkeypatch.setattr(CrossFitting, "run_images", noted)

    first = data.first(12)
    images = CalibrationSplit(
        first, observe_folds(model, first, RunOptions()), replace(data, items=data.items[12:])
    )
    select_best(model, images, (replace(MINMAX, search=search),), RunOptions())
    *turns, last, traced = taught
    *judged, _, held_out = ran
    assert len(turns) == len(judged) == 4
    assert last == traced == frozenset(images.fit_set.digests)
    for learnt, judges in zip(turns, judged, strict=True):
        assert not learnt & judges
        assert learnt | judges == last
    assert held_out <= frozenset(images.held_out.digests)


@pytest.fixture
def spoilt(known, monkeypatch):
    """What is known, where the candidate of no method is bad."""
    _, _, seen, _ = known

    def bad(ready, *_):
        found = compute_minmax_ranges(ready, seen.limits)
        return Calibration(
            {n: replace(r, scale=float(np.float32(r.scale * 1e-3))) for n, r in found.items()},
            round_nearest(ready, found),
        )

    monkeypatch.setattr(candidate_selection, "calibrate_by_moments", bad)
    monkeypatch.setattr(SequentialCorrection, "correct_biases", lambda _, found, digests: found)
    return known


def test_minmax_wins_where_nothing_is_better(spoilt):
    model, data, seen, _ = spoilt
    images = CalibrationSplit(data, seen, data)
    found = select_best(model, images, (MINMAX,), RunOptions())
    assert found.winner.name == "minmax"
    assert not found.expected  # nothing was held out


def test_minmax_learns_from_every_image_when_it_wins(spoilt):
    model, data, seen, _ = spoilt
    found = Best((MINMAX,)).find(model, data, RunOptions())
    assert (found.used, found.held_out) == ("minmax", 0)
    plain = compute_minmax_ranges(model, seen.limits)
    assert found.calibration.ranges == plain
    assert next(iter(found.expected.values())).images == len(data)


def test_the_statement_is_of_images_that_chose_nothing(known, monkeypatch):
    """Errors of a part have no say in what is taken for it."""
    model, data, *_ = known
    asked = []

    def noted(errors):
        asked.append([set(map(float, one)) for one in errors])
        return len(errors) - 1

    monkeypatch.setattr(candidate_selection, "choose_candidate", noted)
    learn, held_out = data.split()
    images = split_in_parts(model, data)
    select_best(model, images, (MINMAX,), RunOptions())
    everything, *turns = asked
    assert len(turns) == 4
    for ours, theirs in turns:
        assert ours < everything[0]
        assert theirs < everything[1]
    assert set.intersection(*(ours for ours, _ in turns)) == set()
    assert len(held_out) == 4
    assert len(learn) == sum(len(everything[0] - ours) for ours, _ in turns)


def test_biases_are_corrected_by_images_that_were_learnt_from(known, monkeypatch):
    model, data, _, found = known
    read = []
    tensor = DataSet.read_tensor
    monkeypatch.setattr(
        DataSet,
        "read_tensor",
        lambda own, place, source: read.append(own.digests[place]) or tensor(own, place, source),
    )
    monkeypatch.setattr(bias_correction, "MAX_IMAGES", 4)
    correction = SequentialCorrection(model, data)
    calibration = Calibration(found, round_nearest(model, found))
    correction.correct_biases(calibration, [data.digests[place] for place in (1, 4, 5, 9, 11)])
    assert read == [data.digests[place] for place in (1, 4, 5, 9)]


def test_a_large_network_is_corrected_by_fewer_images(known, monkeypatch):
    model, data, *_ = known
    assert SequentialCorrection(model, data).images == 16
    monkeypatch.setattr(bias_correction, "MAX_MACS", 7 * compute_cost(model.graph).macs)
    assert SequentialCorrection(model, data).images == 7
    monkeypatch.setattr(bias_correction, "MAX_MACS", 1)
    assert SequentialCorrection(model, data).images == 4


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
        # Nor do two put the first aside, however bad; several do.
        ([uneven(1, i3=0.9), uneven(2)], 0),
        ([uneven(1, i3=0.9, i5=0.5), uneven(2)], 0),
        ([uneven(1, i3=0.5, i5=0.5, i7=0.5, i9=0.5), uneven(2)], 1),
    ],
)
def test_which_candidate_is_chosen(errors, winner):
    assert choose_candidate(errors) == winner


def test_a_candidate_says_what_it_is(known):
    model, data, seen, _ = known
    (way,) = list_equalizing_builders(model, data)
    found = way.build_candidate(seen)
    assert found.name == "moments, floor 0.0625, sequential bias"
    for name, trace in found.traces.items():
        own = found.calibration.ranges[name]
        assert trace.threshold == own.scale * own.limits[1]
        assert trace.threshold >= 0.999 * max(-trace.low, trace.high)
        assert trace.shown == pytest.approx(max(-trace.low, trace.high) / trace.reach)


def test_a_large_network_has_one_part_that_judges(known, monkeypatch):
    model, data, seen, _ = known
    monkeypatch.setattr(cross_fitting, "MAX_SMALL_WEIGHTS", 100)
    images = split_in_parts(model, data)
    found = select_best(model, images, SEARCHES, RunOptions())
    assert {one.images for _, by in found.candidate_qualities for one in by.values()} == {3}
    # That part has chosen, so that as many of those held out say what is lost; of three, nothing.
    assert not found.expected
    more = CalibrationSplit(data, seen, replace(data, items=data.items[1:]))
    (stated,) = select_best(model, more, SEARCHES, RunOptions()).expected.values()
    assert stated.images == 4
