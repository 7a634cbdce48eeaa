"""The default method, and weight rounding by second moments."""

from dataclasses import replace

import numpy as np
import pytest
from quant_sets import make_lowered_model, write_tensors

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
    fit_images, held_out = data.split()
    return CalibrationSplit(fit_images, observe_folds(model, fit_images, RunOptions()), held_out)


def build_deep_graph() -> Graph:
    """Return enough layers for errors to accumulate."""
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
def calibration_case(tmp_path):
    """A lowered model, its images, their statistics, and ranges."""
    model = make_lowered_model(build_deep_graph(), INT8)
    data = write_tensors(tmp_path, (3, 12, 12), 16)
    statistics = observe_folds(model, data, RunOptions())
    return model, data, statistics, compute_minmax_ranges(model, statistics.limits)


def compute_loss(model, calibration, data) -> float:
    return compute_mean_loss(
        output_comparison.compare_programs(
            model, quantize(model, calibration), output_comparison.select_comparison_images(data)
        )
    )


def test_moment_rounding_beats_rounding_to_nearest(calibration_case):
    model, data, statistics, ranges = calibration_case
    nearest_loss = compute_loss(model, Calibration(ranges, round_nearest(model, ranges)), data)
    moments_loss = compute_loss(
        model, Calibration(ranges, round_by_moments(model, ranges, statistics.moments, {})), data
    )
    assert moments_loss < 0.7 * nearest_loss


def test_threads_and_tap_blocks_do_not_change_weights(calibration_case, monkeypatch):
    model, data, statistics, ranges = calibration_case
    single_threaded = round_by_moments(model, ranges, statistics.moments, {}, threads=1)
    many = round_by_moments(model, ranges, statistics.moments, {}, threads=4)
    for name, rounded_layer in single_threaded.items():
        assert np.array_equal(rounded_layer.weight, many[name].weight)
        assert np.array_equal(rounded_layer.bias, many[name].bias)
    monkeypatch.setattr(second_moments, "MAX_WEIGHTS", 100)
    nearest = round_nearest(model, ranges)
    assert all(
        np.array_equal(rounded_layer.weight, nearest[name].weight)
        for name, rounded_layer in round_by_moments(model, ranges, statistics.moments, {}).items()
        if rounded_layer.weight.size > 100
    )
    monkeypatch.undo()
    monkeypatch.setattr(condensed_statistics, "MAX_BLOCK_TAPS", 40)  # of 108 taps
    blocks = observe_folds(model, data, RunOptions()).moments
    split = round_by_moments(model, ranges, blocks, {})
    assert not np.array_equal(split["conv_1"].weight, single_threaded["conv_1"].weight)
    assert compute_loss(model, Calibration(ranges, split), data) < 2e-3


def compute_float_means(model, xs):
    """Return the mean of each channel of each convolution over inputs, by layer name."""
    names = [node.name for node in model.graph.nodes if isinstance(node.op, Conv)]
    outputs = tuple(Output(f"{name}:seen", name) for name in names)
    run = float_program.create_runner(replace(model, graph=replace(model.graph, outputs=outputs)))
    outputs_by_image = [run(x) for x in xs]
    return {
        n: np.mean(
            [outputs[f"{n}:seen"].mean(axis=(-1, -2)) for outputs in outputs_by_image], 0
        ).reshape(-1)
        for n in names
    }


def compute_mean_offsets(model, calibration, data) -> float:
    """Return the average offset of the mean of each layer output, in quantization steps."""
    program = quantize(model, calibration)
    xs = [data.read_tensor(i, model.graph.inputs[0]) for i in range(len(data))]
    float_means = compute_float_means(model, xs)
    clamps = set(find_fused_clamps(model.graph).values())
    runs = integer_program.run(program, xs, keep_all=True)
    off = []
    for name in (n for n in float_means if n not in clamps and n in program.graph.types):
        kind = program.graph.types[name]
        int8_means = np.mean([run[name].mean(axis=(1, 2)) for run in runs], axis=0)
        off.append(np.abs(int8_means * (kind.scale or 1) - float_means[name]).mean())
    return float(np.mean(off))


def test_sequential_bias_correction_restores_the_means(calibration_case):
    model, data, _, ranges = calibration_case
    # Biased weights: each is rounded down.
    rounded = {
        name: replace(
            rounded_layer,
            weight=np.maximum(rounded_layer.weight.astype(int) - 2, -127).astype(np.int8),
        )
        for name, rounded_layer in round_nearest(model, ranges).items()
    }
    uncorrected = Calibration(ranges, rounded)
    corrected = SequentialCorrection(model, data).correct_biases(uncorrected, data.digests)
    assert compute_mean_offsets(model, corrected, data) < 0.1 * compute_mean_offsets(
        model, uncorrected, data
    )
    assert compute_loss(model, corrected, data) < 0.3 * compute_loss(model, uncorrected, data)
    assert all(np.array_equal(rounded[n].weight, corrected.rounded[n].weight) for n in rounded)


def test_a_correct_network_gets_little_correction(calibration_case):
    model, data, statistics, ranges = calibration_case
    uncorrected = Calibration(ranges, round_by_moments(model, ranges, statistics.moments, {}))
    corrected = SequentialCorrection(model, data).correct_biases(uncorrected, data.digests)
    first_layer = model.graph.nodes[0].name
    step = ranges[model.graph.inputs[0].name].scale * uncorrected.rounded[first_layer].scale
    bias_shift = (
        np.abs(corrected.rounded[first_layer].bias - uncorrected.rounded[first_layer].bias) * step
    )
    assert (
        bias_shift.max() < ranges["relu_0"].scale
    )  # the means of the layer were correct up to sampling


@nets
def test_the_winner_is_as_good_as_any_candidate(net, tmp_path):
    model = make_lowered_model(net(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 12)
    images = split_in_parts(model, data)
    reports = []
    options = RunOptions(progress=lambda *report: reports.append(report))
    selection = select_best(model, images, SEARCHES, options)
    names = [name for name, _ in selection.candidate_qualities]
    assert names == ["moments, floor 0.0625, sequential bias", "minmax"]
    errors = [compute_mean_loss(quality) for _, quality in selection.candidate_qualities]
    assert compute_mean_loss(selection.quality) <= 1.5 * min(errors)
    assert set(selection.winner.traces) == set(selection.winner.calibration.ranges)
    assert reports[-1] == ("best", 2, 2)
    expected = next(iter(selection.expected.values()))
    assert expected.images == 12  # all were held out in turn
    assert 0 < expected.low < expected.loss < expected.high
    assert expected.worst > expected.loss


def test_candidates_are_evaluated_on_held_out_images(calibration_case, monkeypatch):
    model, data, *_ = calibration_case
    fit_records = []
    judged_records = []
    monkeypatch.setattr(candidate_selection, "SETTINGS", ())

    def search(lowered_model, fit_statistics, threads):
        fit_records.append(frozenset(fit_statistics.images))
        return MINMAX.search(lowered_model, fit_statistics, threads)

    run = CrossFitting.run_images

    def record_run(cross_fitting, model, data, indices):
        judged_records.append(frozenset(data.digests[index] for index in indices))
        return run(cross_fitting, model, data, indices)

    monkeypatch.setattr(CrossFitting, "run_images", record_run)

    first_images = data.select_first(12)
    images = CalibrationSplit(
        first_images,
        observe_folds(model, first_images, RunOptions()),
        replace(data, items=data.items[12:]),
    )
    select_best(model, images, (replace(MINMAX, search=search),), RunOptions())
    *fit_sets, last_fit, traced = fit_records
    *fold_judges, _, held_out = judged_records
    assert len(fit_sets) == len(fold_judges) == 4
    assert last_fit == traced == frozenset(images.fit_set.digests)
    for fit_set, judge_set in zip(fit_sets, fold_judges, strict=True):
        assert not fit_set & judge_set
        assert fit_set | judge_set == last_fit
    assert held_out <= frozenset(images.held_out.digests)


@pytest.fixture
def bad_candidate_case(calibration_case, monkeypatch):
    """The same case, with candidates that are all bad."""
    _, _, statistics, _ = calibration_case

    def search_badly(lowered_model, *_):
        ranges = compute_minmax_ranges(lowered_model, statistics.limits)
        return Calibration(
            {n: replace(r, scale=float(np.float32(r.scale * 1e-3))) for n, r in ranges.items()},
            round_nearest(lowered_model, ranges),
        )

    monkeypatch.setattr(candidate_selection, "calibrate_by_moments", search_badly)
    monkeypatch.setattr(SequentialCorrection, "correct_biases", lambda _, ranges, digests: ranges)
    return calibration_case


def test_minmax_is_chosen_if_nothing_is_better(bad_candidate_case):
    model, data, statistics, _ = bad_candidate_case
    images = CalibrationSplit(data, statistics, data)
    selection = select_best(model, images, (MINMAX,), RunOptions())
    assert selection.winner.name == "minmax"
    assert not selection.expected  # nothing was held out


def test_minmax_uses_every_image_when_chosen(bad_candidate_case):
    model, data, statistics, _ = bad_candidate_case
    selection = Best((MINMAX,)).find(model, data, RunOptions())
    assert (selection.used, selection.held_out) == ("minmax", 0)
    minmax_only = compute_minmax_ranges(model, statistics.limits)
    assert selection.calibration.ranges == minmax_only
    assert next(iter(selection.expected.values())).images == len(data)


def test_the_loss_estimate_uses_images_outside_the_selection(calibration_case, monkeypatch):
    """Errors of a part do not affect the choice for that part."""
    model, data, *_ = calibration_case
    requests = []

    def noted(errors):
        requests.append([set(map(float, image_errors)) for image_errors in errors])
        return len(errors) - 1

    monkeypatch.setattr(candidate_selection, "choose_candidate", noted)
    fit_images, held_out = data.split()
    images = split_in_parts(model, data)
    select_best(model, images, (MINMAX,), RunOptions())
    everything, *folds = requests
    assert len(folds) == 4
    for fit_errors, judge_errors in folds:
        assert fit_errors < everything[0]
        assert judge_errors < everything[1]
    assert set.intersection(*(fit_errors for fit_errors, _ in folds)) == set()
    assert len(held_out) == 4
    assert len(fit_images) == sum(len(everything[0] - fit_errors) for fit_errors, _ in folds)


def test_biases_are_corrected_with_the_fit_set(calibration_case, monkeypatch):
    model, data, _, ranges = calibration_case
    read_digests = []
    tensor = DataSet.read_tensor
    monkeypatch.setattr(
        DataSet,
        "read_tensor",
        lambda images, index, source: (
            read_digests.append(images.digests[index]) or tensor(images, index, source)
        ),
    )
    monkeypatch.setattr(bias_correction, "MAX_IMAGES", 4)
    correction = SequentialCorrection(model, data)
    calibration = Calibration(ranges, round_nearest(model, ranges))
    correction.correct_biases(calibration, [data.digests[index] for index in (1, 4, 5, 9, 11)])
    assert read_digests == [data.digests[index] for index in (1, 4, 5, 9)]


def test_a_large_network_is_corrected_by_fewer_images(calibration_case, monkeypatch):
    model, data, *_ = calibration_case
    assert SequentialCorrection(model, data).images == 16
    monkeypatch.setattr(bias_correction, "MAX_MACS", 7 * compute_cost(model.graph).macs)
    assert SequentialCorrection(model, data).images == 7
    monkeypatch.setattr(bias_correction, "MAX_MACS", 1)
    assert SequentialCorrection(model, data).images == 4


EVEN = np.full(40, 0.01)


def create_errors(seed, **changes):
    """Return typical image errors, some of them changed."""
    errors = 0.01 * np.exp(np.random.default_rng(seed).normal(0, 0.5, 40))
    for image_name, value in changes.items():
        errors[int(image_name[1:])] = value
    return errors


@pytest.mark.parametrize(
    ("errors", "winner"),
    [
        (
            [create_errors(1), create_errors(2), create_errors(3)],
            0,
        ),  # equally good: the first, with the most headroom
        ([EVEN * 2, EVEN, EVEN], 1),
        ([create_errors(1), create_errors(2) * 0.4, create_errors(3)], 1),
        ([EVEN, create_errors(1, i0=np.inf) * 0.1], 0),  # non-finite errors never win
        ([create_errors(1, i0=np.inf), create_errors(1, i1=np.nan)], 0),
        # One image with a huge error does not decide the rank.
        ([create_errors(1), create_errors(2, i3=0.5) * 0.1], 1),
        ([EVEN, np.where(np.arange(40) < 8, 0.5, 0.001)], 0),  # a bad tail does
        # Two bad images do not reject the first candidate either. Several do.
        ([create_errors(1, i3=0.9), create_errors(2)], 0),
        ([create_errors(1, i3=0.9, i5=0.5), create_errors(2)], 0),
        ([create_errors(1, i3=0.5, i5=0.5, i7=0.5, i9=0.5), create_errors(2)], 1),
    ],
)
def test_the_best_candidate_is_chosen(errors, winner):
    assert choose_candidate(errors) == winner


def test_a_candidate_describes_itself(calibration_case):
    model, data, statistics, _ = calibration_case
    (candidate,) = list_equalizing_builders(model, data)
    calibrated = candidate.build_candidate(statistics)
    assert calibrated.name == "moments, floor 0.0625, sequential bias"
    for name, trace in calibrated.traces.items():
        tensor_range = calibrated.calibration.ranges[name]
        assert trace.threshold == tensor_range.scale * tensor_range.limits[1]
        assert trace.threshold >= 0.999 * max(-trace.low, trace.high)
        assert trace.shown == pytest.approx(max(-trace.low, trace.high) / trace.reach)


def test_a_large_network_has_one_held_out_part(calibration_case, monkeypatch):
    model, data, statistics, _ = calibration_case
    monkeypatch.setattr(cross_fitting, "MAX_SMALL_WEIGHTS", 100)
    images = split_in_parts(model, data)
    selection = select_best(model, images, SEARCHES, RunOptions())
    assert {
        quality.images for _, by in selection.candidate_qualities for quality in by.values()
    } == {3}
    # That part made the choice. The loss comes from as many other held-out images, if any.
    assert not selection.expected
    larger_split = CalibrationSplit(data, statistics, replace(data, items=data.items[1:]))
    (stated,) = select_best(model, larger_split, SEARCHES, RunOptions()).expected.values()
    assert stated.images == 4
