"""`tcc build --target tflite` in integers, as a user types it."""

import json

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

BUILD = ("build", "tiny.yaml", "--precision", "int8", "--target")


def manifest(home, target, precision="int8"):
    return json.loads((home / f"build/tiny-{target}-{precision}/manifest.json").read_text())


@pytest.mark.parametrize("precision", ["int8", "int8-u8"])
def test_a_bundle_replays_its_goldens_exactly_and_runs(tcc, home, images, picture, precision):
    words = ("build", "tiny.yaml", "--precision", precision, "--target", "tflite")
    found = tcc(*words, "--data", images, "--json")
    assert found.code == 0, found.err
    (listed,) = found.document["bundles"]
    assert listed["path"] == f"build/tiny-tflite-{precision}"
    assert all(each["difference"] == 0 for each in listed["agreement"])
    about = manifest(home, "tflite", precision)
    assert about["goldens"]["executor"] == "integers"
    assert about["goldens"]["tolerance"]["relative"] == 0
    assert about["calibration"]["inexact"] == []
    assert "qconv" in (home / listed["path"] / "graph/int8.txt").read_text()
    assert "real_conv" not in (home / listed["path"] / "graph/int8.txt").read_text()
    shown = tcc("run", listed["path"], picture)
    assert shown.code == 0, shown.err
    assert "dog" in shown.out


def test_each_target_has_the_goldens_of_its_own_program(tcc, home, images):
    found = tcc(*BUILD, "onnxruntime,tflite", "--data", images, "--json")
    assert found.code == 0, found.err
    for listed in found.document["bundles"]:
        assert all(each["difference"] == 0 for each in listed["agreement"]), listed["path"]
    folders = [home / f"build/tiny-{name}-int8" for name in ("onnxruntime", "tflite")]
    texts = [(folder / "graph/int8.txt").read_text() for folder in folders]
    assert ["real_conv" in text for text in texts] == [True, False]
    real, levels = (
        np.fromfile(folder / "goldens/1/output_0.bin", "<f4").tolist() for folder in folders
    )
    assert real != levels
    assert real == pytest.approx(levels, abs=0.02 * max(map(abs, real)))


def test_the_forms_of_other_targets_are_refused(tcc, home, images):
    for target, precision in (("tflite", "int8-qdq"), ("onnxruntime", "int8-u8")):
        words = ("build", "tiny.yaml", "--target", target, "--precision", precision)
        found = tcc(*words, "--data", images)
        assert found.code == 2
        assert "E0606" in found.err


def test_a_calibration_made_for_it_builds_it(tcc, home, images):
    words = ("calibrate", "tiny.yaml", "--target", "tflite", "--data", images, "-o", "c.json")
    assert tcc(*words, "-q").code == 0
    assert tcc(*BUILD, "tflite", "--calibration", "c.json", "--data", images, "-q").code == 0
    about = manifest(home, "tflite")
    assert about["calibration"]["measured"]["where"] == "held out of the calibration"


def test_each_program_is_measured_by_itself(tcc, home, images):
    both = ("build", "tiny.yaml", "--target", "onnxruntime,tflite", "--precision", "int8", "-q")
    assert tcc(*both, "--data", images).code == 0
    found = {}
    for target in ("onnxruntime", "tflite"):
        folder = home / f"build/tiny-{target}-int8"
        about = json.loads((folder / "manifest.json").read_text())["calibration"]
        report = json.loads((folder / "report/int8.json").read_text())
        assert report["quality"] == about["measured"]["outputs"]
        found[target] = about["measured"]["outputs"]["logits"]["cosine"]
    assert found["tflite"] < found["onnxruntime"]  # its outputs are 8-bit integers
    between = (found["tflite"] + found["onnxruntime"]) / 2
    alone = ("build", "tiny.yaml", "--precision", "int8", "-q", "--floor", f"min_cosine={between}")
    assert tcc(*alone, "--target", "onnxruntime", "--data", images).code == 0
    assert tcc(*alone, "--target", "tflite", "--data", images, "--out", "other").code == 4


def test_a_calibration_says_nothing_of_integer_ends(tcc, home, images):
    assert tcc("calibrate", "tiny.yaml", "--data", images, "-o", "c.json", "-q").code == 0
    words = (*BUILD, "tflite", "--calibration", "c.json", "-q")
    found = tcc(*words)
    assert found.code == 2
    assert "error[E0618]: the accuracy floor needs images" in found.err
    found = tcc(*words, "--floor", "min_cosine=0")
    assert found.code == 0, found.err
    assert manifest(home, "tflite")["calibration"]["measured"] is None
    assert tcc(*words, "--data", images).code == 0
    assert manifest(home, "tflite")["calibration"]["measured"]["outputs"]["logits"]["images"] > 0
