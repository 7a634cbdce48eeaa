"""`tcc calibrate`, as a user types it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tcc.compiler.quant.methods import METHODS

FILE = "build/tiny-onnxruntime.calibration.json"


@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_every_method_writes_a_file(tcc, home, images, method):
    outcome = tcc("calibrate", "tiny.yaml", "--data", images, "--method", method, "--json")
    assert outcome.code == 0, outcome.err
    assert "warning: the weights are random (seed 0)" in outcome.err
    assert outcome.document["path"] == FILE
    calibration_json = json.loads((home / FILE).read_text())
    assert calibration_json["method"] == method == outcome.document["method"]
    assert calibration_json["target"] == "onnxruntime"
    assert calibration_json["values"] == outcome.document["values"]
    assert calibration_json["data"]["images"] == 24
    assert calibration_json["input"]["preprocess"]["raw"] is True
    assert "rounded" not in outcome.document


def test_names_order_threads_and_batch_change_no_byte(tcc, home, images):
    args = ["calibrate", "tiny.yaml", "-q", "--target", "ax620"]
    assert tcc(*args, "--data", images, "-o", "one.json", "--threads", 1).code == 0
    for number, path in enumerate(sorted(images.rglob("*.png"), reverse=True)):
        target = home / "other" / f"{number:02}.png"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    other_args = ["--data", "other", "-o", "two.json", "--threads", 3, "--batch", 4]
    assert tcc(*args, *other_args).code == 0
    assert (home / "one.json").read_bytes() == (home / "two.json").read_bytes()


def test_the_project_file_says_what_is_left_out(tcc, home, images):
    (home / "tcc.toml").write_text(
        'spec = "tiny.yaml"\ndata = "set"\ntargets = ["arm-a7", "ax620"]\nout = "made"\n'
    )
    outcome = tcc("calibrate", "--method", "minmax")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[0] == "made/tiny-arm-a7.calibration.json"
    assert (home / "made/tiny-arm-a7.calibration.json").exists()
    assert "minmax, 24 images, 5 values" in outcome.out
    assert "ranges that depend most on single images" in outcome.out


def test_parameters_seeds_and_numbers_of_images_have_a_say(tcc, home, images):
    args = ["calibrate", "tiny.yaml", "--data", images, "--method", "minmax", "--json"]
    baseline_document = tcc(*args).document
    assert tcc(*args).document["sha256"] == baseline_document["sha256"]
    for option in (["--seed", 3], ["--images", 4], ["--set", "width=5"]):
        assert tcc(*args, *option).document["sha256"] != baseline_document["sha256"]
    assert tcc(*args, "--images", 4).document["data"]["images"] == 4


def test_synthetic_images_are_announced(tcc, root, images):
    outcome = tcc("calibrate", "tiny.yaml", "--data", root / "zoo/samples", "--images", 2)
    assert outcome.code == 0, outcome.err
    assert "are synthetic: a program drew them" in outcome.err
    real_outcome = tcc("calibrate", "tiny.yaml", "--data", images)
    assert "synthetic" not in real_outcome.err


def test_few_images_are_announced(tcc, images):
    outcome = tcc("calibrate", "tiny.yaml", "--data", images, "--images", 1)
    assert "warning: one image says nothing of how much the scales depend" in outcome.err
    assert "warning: with one image, what is learnt from is also what judges" in outcome.err


def test_a_picture_in_two_files_is_one_of_those_that_are_known(tcc, home, images):
    args = ("calibrate", "tiny.yaml", "--data")
    assert "on unseen images" in tcc(*args, images).out
    every = sorted(images.rglob("*.png"))
    for path in every:
        Image.open(path).save(path.with_suffix(".bmp"))
    outcome = tcc(*args, images, "--json")
    (expected_quality,) = outcome.document["expected"].values()
    # Of 24 images six are held out, and 18 judge in turn: no copy is among them.
    assert expected_quality["images"] == 24
    assert (outcome.document["data"]["images"], outcome.document["data"]["held_out"]) == (48, 6)
    assert "24 of 48 images repeat the pixels of others" in outcome.err
    target_args = ("--target", "onnxruntime", "--precision", "int8")
    build = ("build", "tiny.yaml", *target_args, "--data", images, "--json")
    cold, warm = tcc(*build), tcc(*build)
    assert cold.code == 0, cold.err
    (bundle,) = warm.document["bundles"]
    manifest = json.loads((home / bundle["path"] / "manifest.json").read_text())
    assert manifest["calibration"]["measured"]["outputs"]["logits"]["images"] == 6
    # One picture in many files is one picture.
    (home / "one").mkdir()
    for number, end in enumerate(("png", "bmp", "tiff", "ppm")):
        Image.open(every[0]).save(home / "one" / f"{number}.{end}")
    single_outcome = tcc(*args, "one")
    assert "on unseen images" not in single_outcome.out
    assert "one image says nothing of how much the scales depend" in single_outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "error[E0616]: calibrate with which images?"),
        (["--data", "nowhere"], "error[E0710]: not a dataset"),
        (["--data", "."], "error[E0711]: no image in this folder"),
        (["--data", "set", "--method", "klcosine"], "did you mean `kl-cosine`?"),
        (["--data", "set", "--no-guard"], "min-max does not guard `best`"),
        (["--data", "set", "--method", "mse", "--no-guard"], "is for kl-cosine, kl-cosine-literal"),
        (["--data", "set", "--target", "ax62"], "did you mean `ax620`?"),
        (["--data", "set", "--weights", "w", "--seed", "1"], "exclude each other"),
    ],
)
def test_wrong_input_is_said_and_nothing_is_written(tcc, home, words, said):
    if "set" in words:
        (home / "set").mkdir()
        Image.new("RGB", (8, 8)).save(home / "set" / "one.png")
    outcome = tcc("calibrate", "tiny.yaml", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert not (home / "build").exists()


@pytest.mark.parametrize("method", ["kl-cosine", "kl-cosine-literal"])
def test_without_a_guard_a_method_has_its_own_scales(tcc, images, method, monkeypatch):
    from tcc.compiler.quant.methods import minmax_guard

    monkeypatch.setattr(minmax_guard, "MARGIN", -1.0)
    args = ("calibrate", "tiny.yaml", "--data", images, "--method", method, "--json")
    guarded_document, unguarded_document = tcc(*args).document, tcc(*args, "--no-guard").document
    assert (guarded_document["method"], guarded_document["used"]) == (method, "minmax")
    assert (
        unguarded_document["method"],
        unguarded_document["used"],
        unguarded_document["judged"],
    ) == (method, method, {})
    assert unguarded_document["data"]["held_out"] == 0
    assert guarded_document["sha256"] != unguarded_document["sha256"]


@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_damaged_images_are_listed(tcc, home, images, method):
    bad = sorted(images.rglob("*.png"))[2:8]
    for path in bad:
        path.write_bytes(path.read_bytes()[:70])
    outcome = tcc("calibrate", "tiny.yaml", "--data", images, "--method", method)
    assert outcome.code == 2
    for path in bad:
        assert str(path) in outcome.err
    assert outcome.err.count("error[E0703]") == 1
    assert outcome.err.endswith(f"\n\n{len(bad)} errors\n")
    assert not (home / "build").exists()


def test_weights_that_overflow_are_an_error_that_names_the_layer(tcc, home, images):
    from tcc.compiler.data import weights
    from tcc.compiler.frontend.spec import load

    graph = load(home / "tiny.yaml").graph
    tensors = dict(weights.initialize_random(graph))
    name = next(iter(tensors))
    tensors[name] = np.full_like(tensors[name], 3e38)
    weights.write(home / "w.safetensors", tensors)
    outcome = tcc("calibrate", "tiny.yaml", "--data", images, "--weights", "w.safetensors")
    assert outcome.code == 2
    assert "error[E0720]: with these weights, the values of `" in outcome.err
    assert "tiny.yaml:" in outcome.err


def test_as_typed_in_a_fresh_checkout(tcc, home, root):
    for name in ("spec", "zoo"):
        shutil.copytree(root / name, home / name)
    shutil.copy(root / "tcc.toml", home)
    outcome = tcc("calibrate", "--target", "ax620", "--method", "kl-cosine", "--images", 8)
    assert outcome.code == 0, outcome.err
    assert "says nothing of patients" in outcome.err
    assert "are synthetic" in outcome.err
    assert (home / "build/ddsnet-blood-ax620.calibration.json").stat().st_size > 10_000


@pytest.mark.parametrize("sides", [("train", "test"), ("train", "val", "test")])
def test_what_a_network_is_judged_by_calibrates_nothing(tcc, home, images, sides):
    for split in sides:
        shutil.copytree(home / images, home / "split" / split)
        for number, path in enumerate(sorted((home / "split" / split).rglob("*.png"))):
            pixels = np.random.default_rng((number, len(split))).integers(
                0, 256, (9, 9, 3), np.uint8
            )
            Image.fromarray(pixels).save(path)
    args = ["calibrate", "tiny.yaml", "--method", "minmax", "--json", "--data"]
    outcome, train = tcc(*args, "split"), tcc(*args, "split/train")
    assert outcome.code == 0, outcome.err
    assert "calibrated with split/train" in outcome.err
    assert outcome.document["sha256"] == train.document["sha256"]
    assert outcome.document["sha256"] != tcc(*args, "split/test").document["sha256"]
    shutil.copytree(home / "split/test", home / "split/other")
    assert tcc(*args, "split").document["sha256"] != train.document["sha256"]
