"""Complete calibrations: what affects the file and what does not."""

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from quant_sets import make_lowered_model, write_tensors

from tcc.compiler.bundle.manifest import NetworkRecord, WeightsOrigin
from tcc.compiler.data.dataset import read_dataset
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.passes import INT8
from tcc.compiler.quant import calibration_file
from tcc.compiler.quant.calibrate import calibrate
from tcc.compiler.quant.calibration_document import encode
from tcc.compiler.quant.methods import METHODS
from tcc.compiler.quant.methods.kl_cosine import KL_COSINE
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.quant.methods.minmax_guard import MINMAX_NAME, format_raised_name
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.quant.scale_groups import find_output_values
from tcc.compiler.reference import output_comparison
from tcc.compiler.reference.accuracy_floor import compute_mean_loss
from tcc.testing.nets import build_dense, build_gated

PROVENANCE = calibration_file.Provenance(
    "best", "ax620", "drop_train_only", NetworkRecord("net", "", "0" * 64, {}),
    WeightsOrigin("random", "1" * 64, None, 0, "random"),
)  # fmt: skip
CHOOSE = [method for method in METHODS if method.remove_guard() or method.name == "best"]
methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def encode_calibration(model, data, method, options=None):
    return encode(
        calibration_file.build_document(
            PROVENANCE, model, calibrate(model, data, method, options), data
        )
    )


@methods
def test_order_threads_and_batch_do_not_change_the_file(method, tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    shape = model.graph.inputs[0].type.shape
    encoded = encode_calibration(
        model, write_tensors(tmp_path, shape, 11), method, RunOptions(threads=1)
    )
    order = np.random.default_rng(4).permutation(11)
    shuffled_images = write_tensors(tmp_path, shape, 11, order=order, name="other")
    assert (
        encode_calibration(model, shuffled_images, method, RunOptions(threads=3, batch=4))
        == encoded
    )


@methods
@pytest.mark.parametrize("net", [build_dense, build_gated])
def test_calibrated_programs_are_close_to_fp32(net, method, tmp_path):
    model = make_lowered_model(net(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 9)
    outcome = calibrate(model, data, method)
    program = quantize(model, outcome.calibration)
    qualities = output_comparison.compare_programs(
        model, program, output_comparison.select_comparison_images(data)
    )
    assert all(
        quality.cosine > 0.98 and quality.correlation > 0.9 for quality in qualities.values()
    )


@methods
@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_work_with_a_warning(method, count, tmp_path):
    model = make_lowered_model(build_gated(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, count)
    outcome = calibrate(model, data, method)
    quantize(model, outcome.calibration)
    notices = " ".join(outcome.notices)
    assert ("one image cannot show" in notices) == (count == 1)
    assert ("too few to hold any out" in notices) == (method in CHOOSE and count < 4)


@methods
def test_a_constant_image_of_zeros_gives_normal_scales(method, tmp_path):
    model = make_lowered_model(build_gated(), INT8)
    np.savez(tmp_path / "set.npz", tensors=np.zeros((6, *model.graph.inputs[0].type.shape)))
    from tcc.compiler.data.dataset import read_dataset

    outcome = calibrate(model, read_dataset(tmp_path / "set.npz"), method)
    assert all(
        2.0**-60 <= tensor_range.scale < np.inf
        for tensor_range in outcome.calibration.ranges.values()
    )
    quantize(model, outcome.calibration)


@methods
def test_a_dead_network_gives_normal_scales(method, tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    from dataclasses import replace

    dead = replace(model, weights={n: np.zeros_like(w) for n, w in model.weights.items()})
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 5)
    outcome = calibrate(dead, data, method)
    assert all(
        2.0**-60 <= tensor_range.scale < np.inf
        for tensor_range in outcome.calibration.ranges.values()
    )
    assert not output_comparison.compute_outputs(quantize(dead, outcome.calibration), data)[
        "logits"
    ].any()


def test_kl_cosine_is_never_worse_than_minmax_on_held_out_images(tmp_path):
    for seed, net in enumerate((build_dense, build_gated, build_dense)):
        model = make_lowered_model(net(), INT8)
        shape = model.graph.inputs[0].type.shape
        outcome = calibrate(model, write_tensors(tmp_path, shape, 12, seed), KL_COSINE)
        assert compute_mean_loss(outcome.qualities_by_candidate[outcome.used]) <= compute_mean_loss(
            outcome.qualities_by_candidate[MINMAX_NAME]
        )
        assert set(outcome.qualities_by_candidate) == {
            KL_COSINE.name,
            format_raised_name(KL_COSINE.name),
            MINMAX_NAME,
        }
        has_fallback_notice = any(
            "instead of the published `kl-cosine`" in notice for notice in outcome.notices
        )
        assert has_fallback_notice == (outcome.used != KL_COSINE.name)


def test_minmax_uses_all_but_the_held_out_images(tmp_path, monkeypatch):
    from tcc.compiler.quant.methods import minmax_guard

    monkeypatch.setattr(minmax_guard, "MARGIN", -1.0)
    model = make_lowered_model(build_dense(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 12)
    outcome = calibrate(model, data, KL_COSINE)
    assert outcome.used == MINMAX_NAME
    fit_images, _ = data.split()  # held-out images affect no choice
    boundary_values = find_output_values(
        model.graph
    )  # their headroom is estimated from the observed images
    ranges = calibrate(model, fit_images, MINMAX).calibration.ranges
    inside = {
        name: tensor_range for name, tensor_range in ranges.items() if name not in boundary_values
    }
    assert inside.items() <= outcome.calibration.ranges.items()
    for name, tensor_range in outcome.calibration.ranges.items():
        trace = outcome.traces[name]
        assert max(-trace.low, trace.high) <= trace.threshold * 1.0001 or tensor_range.scale == 1.0
        assert outcome.traces[name].threshold == pytest.approx(
            tensor_range.scale * tensor_range.limits[1]
        )
        assert outcome.traces[name].cosine is not None


def test_uneven_images_are_reported_as_too_few(tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    values = np.random.default_rng(0).normal(size=(8, *model.graph.inputs[0].type.shape))
    values[0] *= 30
    np.savez(tmp_path / "set.npz", tensors=values)
    from tcc.compiler.data.dataset import read_dataset

    (notice,) = calibrate(model, read_dataset(tmp_path / "set.npz"), MINMAX).notices
    assert notice.startswith("half of the ranges have a standard error (jackknife) of ")
    assert notice.endswith("8 images are few, give more")


def test_many_images_give_no_warning(tmp_path, monkeypatch):
    from tcc.compiler.quant import calibrate as module

    monkeypatch.setattr(module, "MANY_IMAGES", 8)
    monkeypatch.setattr(module, "MAX_MEDIAN_SPREAD", -1.0)
    model = make_lowered_model(build_dense(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 8)
    (notice,) = calibrate(model, data, MINMAX).notices
    assert notice.endswith("single images have a large influence, check for outliers")


def test_progress_is_reported(tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    reports = []
    options = RunOptions(
        progress=lambda stage, done_count, total: reports.append((stage, done_count, total))
    )
    calibrate(model, write_tensors(tmp_path, model.graph.inputs[0].type.shape, 5), MINMAX, options)
    assert reports == [("observe", done_count, 5) for done_count in range(6)]


def test_every_method_leaves_headroom_for_unseen_images(tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 64)
    unseen_images = write_tensors(
        tmp_path, model.graph.inputs[0].type.shape, 400, seed=9, name="more"
    )
    (output,) = model.graph.outputs
    expected = np.abs(output_comparison.compute_outputs(model, unseen_images)[output.name])
    exceeded_count = 0
    for method in (MINMAX, METHODS[-1]):
        outcome = calibrate(model, data, method)
        tensor_range = outcome.calibration.ranges[output.value]
        threshold = tensor_range.scale * tensor_range.limits[1]
        assert outcome.traces[output.value].threshold == threshold
        assert (expected > threshold).mean() < 1e-3
        exceeded_count += bool((expected > outcome.traces[output.value].high).any())
    assert exceeded_count  # the observed range would not have been enough


@methods
def test_duplicate_images_count_once(method, tmp_path):
    graph = build_dense()
    source = replace(graph.inputs[0], preprocess=Preprocess())
    model = make_lowered_model(replace(graph, inputs=(source,)), INT8)
    once, doubled_folder = tmp_path / "once", tmp_path / "again"
    for folder in (once, doubled_folder):
        folder.mkdir()
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 256 - 12 * number, (16, 16, 3))
            picture = Image.fromarray(pixels.astype(np.uint8))
            picture.save(folder / f"{number}.png")
            if folder == doubled_folder:
                shutil.copy(folder / f"{number}.png", folder / f"{number} once more.png")
                write_twin(picture, folder / f"{number}.png")
    images, doubled_images = read_dataset(once), read_dataset(doubled_folder)
    result = calibrate(model, images, method)
    document = calibration_file.build_document(PROVENANCE, model, result, images)
    twice = calibration_file.build_document(
        PROVENANCE, model, calibrate(model, doubled_images, method), doubled_images
    )
    assert twice.data.images == len(doubled_images) == 3 * len(images) == 36
    assert replace(twice, data=document.data, notices=document.notices) == document
    assert twice.data.held_out == document.data.held_out
    assert "24 of 36 images have the same pixels as others" in " ".join(twice.notices)
    # Comparison images of a build: none that is also in the fit set.
    parts, expected_parts = (
        twice.data.split_images(doubled_images),
        document.data.split_images(images),
    )
    assert [part.digest for part in parts] == [part.digest for part in expected_parts]


def write_twin(picture, path):
    """Write the picture to a file with other bytes, sorted after the first one."""
    original_digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for number in range(100):
        png_text = PngInfo()
        png_text.add_text("copy", str(number))
        picture.save(path.with_suffix(".twin.png"), pnginfo=png_text)
        if hashlib.sha256(path.with_suffix(".twin.png").read_bytes()).hexdigest() > original_digest:
            return
    raise AssertionError(path)


def test_the_expected_loss_covers_unseen_images(tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    shape = model.graph.inputs[0].type.shape
    data, unseen_images = (
        write_tensors(tmp_path, shape, 32),
        write_tensors(tmp_path, shape, 200, seed=9, name="more"),
    )
    for method in (MINMAX, METHODS[-1], KL_COSINE):
        outcome = calibrate(model, data, method)
        (expected_loss,) = outcome.expected.values()
        program = quantize(model, outcome.calibration)
        qualities = output_comparison.compare_programs(
            model, program, output_comparison.select_comparison_images(unseen_images)
        )
        assert expected_loss.low <= compute_mean_loss(qualities) <= expected_loss.high
        assert expected_loss.images == (8 if method is KL_COSINE else 32)
