"""Integers against floats: the report, the floor, and the search for float layers."""

from dataclasses import replace

import numpy as np
import pytest
from quant_sets import make_class_quality, write_tensors

from tcc.compiler.data import dataset
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ops import Add, Conv, Flatten, GlobalAvgPool, Linear, MaxPool, Relu
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.float_comparison import FloatComparison, compare
from tcc.compiler.quant.program.floor_program import compute_macs_share, search_float_layers
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import (
    float_program,
    integer_program,
    output_comparison,
    output_quality,
)
from tcc.compiler.reference.accuracy_floor import AccuracyFloor
from tcc.compiler.support.progress import silent
from tcc.testing.int8_models import calibrate_on_input, lower_for_int8
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights


def build_graph() -> Graph:
    add = NetBuilder(3, 12, 12)
    add("stem", Conv(8, (3, 3), (1, 1), 1))
    skip = add("stem_relu", Relu())
    add("middle", Conv(8, (3, 3), (1, 1), 1))
    add("sum", Add(), skip, "middle")
    add("sum_relu", Relu())
    add("pool", MaxPool((2, 2)))
    add("last", Conv(12, (1, 1)))
    add("last_relu", Relu())
    add("gap", GlobalAvgPool())
    add("flat", Flatten())
    add("classes", Linear(5))
    return add.build()


@pytest.fixture
def model() -> Model:
    net = build_graph()
    return lower_for_int8(net, sample_weights(net))


@pytest.fixture
def images(tmp_path) -> DataSet:
    tensors = np.random.default_rng(0).standard_normal((6, 3, 12, 12), np.float32)
    np.savez(tmp_path / "images.npz", tensors=tensors)
    return dataset.read_dataset(tmp_path / "images.npz")


@pytest.fixture
def good(model, images) -> Calibration:
    return calibrate_on_input(model, images.read_tensor(0, model.graph.inputs[0]), 1.5)


def compare_programs(model: Model, calibration: Calibration, images: DataSet) -> FloatComparison:
    program = quantize(model, calibration)
    return compare(
        model, program, calibration, output_comparison.select_comparison_images(images), silent
    )


def test_layer_errors_match_the_executors(model, images, good):
    layers = {layer.name: layer for layer in compare_programs(model, good, images).layers}
    program = quantize(model, good)
    probes = (Output(f"{n.name}!", n.name) for n in model.graph.nodes)
    tapped = replace(model, graph=replace(model.graph, outputs=tuple(probes)))
    xs = [images.read_tensor(i, model.graph.inputs[0]) for i in range(len(images))]
    floats = float_program.run(tapped, xs)
    int8_runs = integer_program.run(program, xs, keep_all=True)
    assert {"stem_relu", "sum_relu", "pool", "gap"} <= set(layers)
    assert not {"stem", "sum"} & set(layers)  # fused into their clamps
    assert "classes" not in layers  # its sums are real numbers
    for name, layer in layers.items():
        real = np.stack([tensors[f"{name}!"] for tensors in floats]).astype(np.float64)
        int_values = np.stack([tensors[name] for tensors in int8_runs]).astype(np.float64)
        steps = real / layer.scale
        noise = ((steps - int_values) ** 2).sum()
        low, high = program.graph.types[name].limits
        assert layer.error == pytest.approx(np.abs(steps - int_values).max())
        assert layer.snr == pytest.approx(10 * np.log10((steps**2).sum() / noise))
        assert layer.cosine == pytest.approx(
            output_quality.compute_cosine(steps.ravel(), int_values.ravel())
        )
        outside = ((steps < low - 0.5) | (steps > high + 0.5)).mean()
        assert layer.saturated == pytest.approx(outside)


def test_output_quality_is_measured_over_all_images(model, images, good):
    comparison = compare_programs(model, good, images)
    program = quantize(model, good)
    assert comparison.quality == output_comparison.compare_programs(
        model, program, output_comparison.select_comparison_images(images)
    )
    (quality,) = comparison.quality.values()
    assert (quality.kind, quality.images, quality.spread_images) == ("regression", 6, 6)
    assert 0.999 < quality.least_cosine <= quality.cosine < 1
    assert 0 < quality.error < 0.5
    assert 0.95 < quality.correlation < 1
    assert comparison.inexact == ()


def test_the_layer_with_a_bad_scale_is_listed_first(model, images, good):
    bad = coarsen_range(good, "stem_relu", 60)
    worst = compare_programs(model, bad, images).find_worst_layers(2)
    assert worst[0].name == "stem_relu"
    assert compare_programs(model, good, images).find_worst_layers(1)[0].name != "stem_relu"


def coarsen_range(calibration: Calibration, name: str, factor: float) -> Calibration:
    """Return a calibration with one scale that is too large."""
    tensor_range = calibration.ranges[name]
    coarse_range = replace(tensor_range, scale=float(np.float32(tensor_range.scale * factor)))
    return replace(calibration, ranges={**calibration.ranges, name: coarse_range})


def test_the_search_keeps_the_bad_layer_in_float(model, images, good, tmp_path):
    images = write_tensors(tmp_path, (3, 12, 12), 24)
    bad = coarsen_range(good, "last_relu", 60)
    int8_comparison = compare_programs(model, bad, images)
    floor = AccuracyFloor(0.999)
    assert not floor.is_met(int8_comparison.quality)
    mixed, steps = search_float_layers(
        model,
        bad,
        int8_comparison,
        (images, output_comparison.select_comparison_images(images)),
        floor,
        silent,
    )
    assert mixed.in_float == {"last_relu", "gap"}  # the unrounded layer and its reader
    assert [step.name for step in steps] == ["last_relu"]
    mixed_comparison = compare_programs(model, mixed, images)
    assert floor.is_met(mixed_comparison.quality)
    assert compare_programs(model, mixed, images.select_first(16)).quality == steps[-1].quality
    assert mixed_comparison.in_float == ("gap", "last_relu")
    macs = {"stem": 27 * 8 * 144, "middle": 72 * 8 * 144, "last": 8 * 12 * 36}
    total = sum(macs.values()) + 60
    assert steps[-1].macs == pytest.approx(macs["last"] / total)


def test_an_unreachable_floor_is_reported(model, images, good):
    mixed, steps = search_float_layers(
        model,
        good,
        compare_programs(model, good, images),
        (images, output_comparison.select_comparison_images(images)),
        AccuracyFloor(2),
        silent,
    )
    assert len(steps) > 3
    assert 0.9999 <= steps[-1].quality["logits"].cosine < 2
    assert {step.name for step in steps} <= mixed.in_float


def test_all_layers_in_float_give_the_float_model(model, images, good):
    names = frozenset(node.name for node in model.graph.nodes)
    program = quantize(model, replace(good, in_float=names))
    assert not any(node.op.keyword.startswith("q") for node in program.graph.nodes[1:])
    expected, got = (
        output_comparison.compute_outputs(executable, images) for executable in (model, program)
    )
    half = good.ranges["image"].scale / 2  # only the input is quantized
    np.testing.assert_allclose(got["logits"], expected["logits"], atol=100 * half)
    assert output_comparison.compute_qualities(model, expected, got)["logits"].cosine > 0.99999


def test_the_float_share_counts_fused_layers_with_their_clamp(model):
    assert compute_macs_share(model, {"stem_relu"}) == compute_macs_share(model, {"stem"}) > 0
    assert compute_macs_share(model, {"pool"}) == 0


QUALITY = make_class_quality(10, 0.97, 0.8)


@pytest.mark.parametrize(
    ("floor", "broken"),
    [
        (AccuracyFloor(), ("the mean cosine of `logits` is 0.970000; the floor is 0.98",)),
        (AccuracyFloor(0.9), ()),
        (AccuracyFloor(0.9, 0.2), ()),
        (
            AccuracyFloor(0.9, 0.1),
            ("20.0% of the images change their class of `logits`; the limit is 10.0%",),
        ),
        (
            AccuracyFloor(0.99, 0.0),
            (
                "the mean cosine of `logits` is 0.970000; the floor is 0.99",
                "20.0% of the images change their class of `logits`; the limit is 0.0%",
            ),
        ),
    ],
)
def test_an_accuracy_floor_reports_violations(floor, broken):
    assert floor.find_violations({"logits": QUALITY}) == broken
    assert floor.is_met({"logits": QUALITY}) == (not broken)


def test_nan_violates_every_floor():
    for bound in ("cosine", "agreement", "correlation", "error"):
        nan_quality = replace(QUALITY, **{bound: float("nan")})
        assert not AccuracyFloor(0.0, 1.0, 0.0, 1e9).is_met({"logits": nan_quality})
