"""Calibration as a whole: what has a say in the file, and what has none."""

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from quant_sets import ready, tensors

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

ABOUT = calibration_file.Provenance(
    "best", "ax620", "drop_train_only", NetworkRecord("net", "", "0" * 64, {}),
    WeightsOrigin("random", "1" * 64, None, 0, "random"),
)  # fmt: skip
CHOOSE = [method for method in METHODS if method.remove_guard() or method.name == "best"]
methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def written(model, data, method, how=None):
    return encode(
        calibration_file.build_document(ABOUT, model, calibrate(model, data, method, how), data)
    )


@methods
def test_order_threads_and_batch_change_no_byte(method, tmp_path):
    model = ready(build_dense(), INT8)
    shape = model.graph.inputs[0].type.shape
    one = written(model, tensors(tmp_path, shape, 11), method, RunOptions(threads=1))
    order = np.random.default_rng(4).permutation(11)
    other = tensors(tmp_path, shape, 11, order=order, name="other")
    assert written(model, other, method, RunOptions(threads=3, batch=4)) == one


@methods
@pytest.mark.parametrize("net", [build_dense, build_gated])
def test_the_result_makes_a_program_near_the_floats(net, method, tmp_path):
    model = ready(net(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 9)
    found = calibrate(model, data, method)
    program = quantize(model, found.calibration)
    near = output_comparison.compare_programs(
        model, program, output_comparison.select_comparison_images(data)
    )
    assert all(one.cosine > 0.98 and one.correlation > 0.9 for one in near.values())


@methods
@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_are_enough_and_it_is_said(method, count, tmp_path):
    model = ready(build_gated(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, count)
    found = calibrate(model, data, method)
    quantize(model, found.calibration)
    said = " ".join(found.notices)
    assert ("one image says nothing" in said) == (count == 1)
    assert ("what is learnt from is also what judges" in said) == (method in CHOOSE and count < 4)


@methods
def test_a_constant_image_of_zeros_gives_normal_scales(method, tmp_path):
    model = ready(build_gated(), INT8)
    np.savez(tmp_path / "set.npz", tensors=np.zeros((6, *model.graph.inputs[0].type.shape)))
    from tcc.compiler.data.dataset import read_dataset

    found = calibrate(model, read_dataset(tmp_path / "set.npz"), method)
    assert all(2.0**-60 <= one.scale < np.inf for one in found.calibration.ranges.values())
    quantize(model, found.calibration)


@methods
def test_a_dead_network_gives_normal_scales(method, tmp_path):
    model = ready(build_dense(), INT8)
    from dataclasses import replace

    dead = replace(model, weights={n: np.zeros_like(w) for n, w in model.weights.items()})
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 5)
    found = calibrate(dead, data, method)
    assert all(2.0**-60 <= one.scale < np.inf for one in found.calibration.ranges.values())
    assert not output_comparison.compute_outputs(quantize(dead, found.calibration), data)[
        "logits"
    ].any()


def test_kl_cosine_is_never_below_minmax_on_images_held_out(tmp_path):
    for seed, net in enumerate((build_dense, build_gated, build_dense)):
        model = ready(net(), INT8)
        shape = model.graph.inputs[0].type.shape
        found = calibrate(model, tensors(tmp_path, shape, 12, seed), KL_COSINE)
        assert compute_mean_loss(found.qualities_by_candidate[found.used]) <= compute_mean_loss(
            found.qualities_by_candidate[MINMAX_NAME]
        )
        assert set(found.qualities_by_candidate) == {
            KL_COSINE.name,
            format_raised_name(KL_COSINE.name),
            MINMAX_NAME,
        }
        said = any("in place of `kl-cosine` as published" in notice for notice in found.notices)
        assert said == (found.used != KL_COSINE.name)


def test_where_minmax_wins_it_has_learnt_from_all_but_those_held_out(tmp_path, monkeypatch):
    from tcc.compiler.quant.methods import minmax_guard

    monkeypatch.setattr(minmax_guard, "MARGIN", -1.0)
    model = ready(build_dense(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 12)
    found = calibrate(model, data, KL_COSINE)
    assert found.used == MINMAX_NAME
    learn, _ = data.split()  # what is held out is looked at by no choice
    ends = find_output_values(
        model.graph
    )  # their room is an estimate, by the images that were observed
    ranges = calibrate(model, learn, MINMAX).calibration.ranges
    inside = {name: own for name, own in ranges.items() if name not in ends}
    assert inside.items() <= found.calibration.ranges.items()
    for name, own in found.calibration.ranges.items():
        trace = found.traces[name]
        assert max(-trace.low, trace.high) <= trace.threshold * 1.0001 or own.scale == 1.0
        assert found.traces[name].threshold == pytest.approx(own.scale * own.limits[1])
        assert found.traces[name].cosine is not None


def test_uneven_images_are_said_to_be_few(tmp_path):
    model = ready(build_dense(), INT8)
    values = np.random.default_rng(0).normal(size=(8, *model.graph.inputs[0].type.shape))
    values[0] *= 30
    np.savez(tmp_path / "set.npz", tensors=values)
    from tcc.compiler.data.dataset import read_dataset

    (notice,) = calibrate(model, read_dataset(tmp_path / "set.npz"), MINMAX).notices
    assert notice.startswith("8 images are few: by the jackknife, half of the ranges are uncertain")


def test_many_images_are_not_called_few(tmp_path, monkeypatch):
    from tcc.compiler.quant import calibrate as module

    monkeypatch.setattr(module, "MANY_IMAGES", 8)
    monkeypatch.setattr(module, "MAX_MEDIAN_SPREAD", -1.0)
    model = ready(build_dense(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 8)
    (notice,) = calibrate(model, data, MINMAX).notices
    assert notice.startswith("single images decide much: by the jackknife")


def test_progress_is_told(tmp_path):
    model = ready(build_dense(), INT8)
    told = []
    how = RunOptions(progress=lambda what, done, total: told.append((what, done, total)))
    calibrate(model, tensors(tmp_path, model.graph.inputs[0].type.shape, 5), MINMAX, how)
    assert told == [("observe", done, 5) for done in range(6)]


def test_outputs_have_room_for_unseen_images_by_every_method(tmp_path):
    model = ready(build_dense(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 64)
    more = tensors(tmp_path, model.graph.inputs[0].type.shape, 400, seed=9, name="more")
    (output,) = model.graph.outputs
    expected = np.abs(output_comparison.compute_outputs(model, more)[output.name])
    shared = 0
    for method in (MINMAX, METHODS[-1]):
        found = calibrate(model, data, method)
        own = found.calibration.ranges[output.value]
        most = own.scale * own.limits[1]
        assert found.traces[output.value].threshold == most
        assert (expected > most).mean() < 1e-3
        shared += bool((expected > found.traces[output.value].high).any())
    assert shared  # what was seen would not have been enough


@methods
def test_a_picture_counts_once_however_many_files_show_it(method, tmp_path):
    graph = build_dense()
    source = replace(graph.inputs[0], preprocess=Preprocess())
    model = ready(replace(graph, inputs=(source,)), INT8)
    once, again = tmp_path / "once", tmp_path / "again"
    for folder in (once, again):
        folder.mkdir()
        for number in range(12):
            levels = np.random.default_rng(number).integers(0, 256 - 12 * number, (16, 16, 3))
            picture = Image.fromarray(levels.astype(np.uint8))
            picture.save(folder / f"{number}.png")
            if folder == again:
                shutil.copy(folder / f"{number}.png", folder / f"{number} once more.png")
                twins(picture, folder / f"{number}.png")
    found, more = read_dataset(once), read_dataset(again)
    result = calibrate(model, found, method)
    document = calibration_file.build_document(ABOUT, model, result, found)
    twice = calibration_file.build_document(ABOUT, model, calibrate(model, more, method), more)
    assert twice.data.images == len(more) == 3 * len(found) == 36
    assert replace(twice, data=document.data, notices=document.notices) == document
    assert twice.data.held_out == document.data.held_out
    assert "24 of 36 images repeat the pixels of others" in " ".join(twice.notices)
    # Which images a build judges by: none that another file has taught.
    parts, own = twice.data.split_images(more), document.data.split_images(found)
    assert [one.digest for one in parts] == [one.digest for one in own]


def twins(picture, path):
    """Write the picture in a file of other contents, which comes after its first in a set."""
    first = hashlib.sha256(path.read_bytes()).hexdigest()
    for number in range(100):
        said = PngInfo()
        said.add_text("copy", str(number))
        picture.save(path.with_suffix(".twin.png"), pnginfo=said)
        if hashlib.sha256(path.with_suffix(".twin.png").read_bytes()).hexdigest() > first:
            return
    raise AssertionError(path)


def test_what_is_expected_holds_on_others(tmp_path):
    model = ready(build_dense(), INT8)
    shape = model.graph.inputs[0].type.shape
    data, more = tensors(tmp_path, shape, 32), tensors(tmp_path, shape, 200, seed=9, name="more")
    for method in (MINMAX, METHODS[-1], KL_COSINE):
        found = calibrate(model, data, method)
        (told,) = found.expected.values()
        program = quantize(model, found.calibration)
        near = output_comparison.compare_programs(
            model, program, output_comparison.select_comparison_images(more)
        )
        assert told.low <= compute_mean_loss(near) <= told.high
        assert told.images == (8 if method is KL_COSINE else 32)
