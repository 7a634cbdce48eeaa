"""`tcc build --target tflite` in int8 on the command line."""

import json

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

BUILD = ("build", "tiny.yaml", "--precision", "int8", "--target")


def read_manifest(home, target, precision="int8"):
    return json.loads((home / f"build/tiny-{target}-{precision}/manifest.json").read_text())


@pytest.mark.parametrize("precision", ["int8", "int8-u8"])
def test_int8_bundle_replays_its_goldens_exactly_and_runs(tcc, home, images, picture, precision):
    args = ("build", "tiny.yaml", "--precision", precision, "--target", "tflite")
    outcome = tcc(*args, "--data", images, "--json")
    assert outcome.code == 0, outcome.err
    (bundle_report,) = outcome.document["bundles"]
    assert bundle_report["path"] == f"build/tiny-tflite-{precision}"
    assert all(comparison["difference"] == 0 for comparison in bundle_report["agreement"])
    manifest_json = read_manifest(home, "tflite", precision)
    assert manifest_json["goldens"]["executor"] == "integers"
    assert manifest_json["goldens"]["tolerance"]["relative"] == 0
    assert manifest_json["calibration"]["inexact"] == []
    assert "qconv" in (home / bundle_report["path"] / "graph/int8.txt").read_text()
    assert "real_conv" not in (home / bundle_report["path"] / "graph/int8.txt").read_text()
    run_outcome = tcc("run", bundle_report["path"], picture)
    assert run_outcome.code == 0, run_outcome.err
    assert "dog" in run_outcome.out


def test_each_target_has_goldens_of_its_program(tcc, home, images):
    outcome = tcc(*BUILD, "onnxruntime,tflite", "--data", images, "--json")
    assert outcome.code == 0, outcome.err
    for bundle_report in outcome.document["bundles"]:
        assert all(comparison["difference"] == 0 for comparison in bundle_report["agreement"]), (
            bundle_report["path"]
        )
    folders = [home / f"build/tiny-{name}-int8" for name in ("onnxruntime", "tflite")]
    texts = [(folder / "graph/int8.txt").read_text() for folder in folders]
    assert ["real_conv" in text for text in texts] == [True, False]
    float_values, dequantized_values = (
        np.fromfile(folder / "goldens/1/output_0.bin", "<f4").tolist() for folder in folders
    )
    assert float_values != dequantized_values
    assert float_values == pytest.approx(dequantized_values, abs=0.02 * max(map(abs, float_values)))


def test_int8_forms_of_other_targets_are_refused(tcc, home, images):
    for target, precision in (("tflite", "int8-qdq"), ("onnxruntime", "int8-u8")):
        args = ("build", "tiny.yaml", "--target", target, "--precision", precision)
        outcome = tcc(*args, "--data", images)
        assert outcome.code == 2
        assert "E0606" in outcome.err


def test_calibration_for_tflite_builds_tflite(tcc, home, images):
    args = ("calibrate", "tiny.yaml", "--target", "tflite", "--data", images, "-o", "c.json")
    assert tcc(*args, "-q").code == 0
    assert tcc(*BUILD, "tflite", "--calibration", "c.json", "--data", images, "-q").code == 0
    manifest_json = read_manifest(home, "tflite")
    assert manifest_json["calibration"]["measured"]["where"] == "held out of the calibration"


def test_each_program_is_measured_separately(tcc, home, images):
    both = ("build", "tiny.yaml", "--target", "onnxruntime,tflite", "--precision", "int8", "-q")
    assert tcc(*both, "--data", images).code == 0
    cosine_by_target = {}
    for target in ("onnxruntime", "tflite"):
        folder = home / f"build/tiny-{target}-int8"
        calibration = json.loads((folder / "manifest.json").read_text())["calibration"]
        report = json.loads((folder / "report/int8.json").read_text())
        assert report["quality"] == calibration["measured"]["outputs"]
        cosine_by_target[target] = calibration["measured"]["outputs"]["logits"]["cosine"]
    assert (
        cosine_by_target["tflite"] < cosine_by_target["onnxruntime"]
    )  # its outputs are 8-bit integers
    between = (cosine_by_target["tflite"] + cosine_by_target["onnxruntime"]) / 2
    build_args = (
        "build",
        "tiny.yaml",
        "--precision",
        "int8",
        "-q",
        "--floor",
        f"min_cosine={between}",
    )
    assert tcc(*build_args, "--target", "onnxruntime", "--data", images).code == 0
    assert tcc(*build_args, "--target", "tflite", "--data", images, "--out", "other").code == 4


def test_calibration_for_float_outputs_needs_images_for_integer_outputs(tcc, home, images):
    assert tcc("calibrate", "tiny.yaml", "--data", images, "-o", "c.json", "-q").code == 0
    args = (*BUILD, "tflite", "--calibration", "c.json", "-q")
    outcome = tcc(*args)
    assert outcome.code == 2
    assert "error[E0618]: the accuracy floor needs images" in outcome.err
    outcome = tcc(*args, "--floor", "min_cosine=0")
    assert outcome.code == 0, outcome.err
    assert read_manifest(home, "tflite")["calibration"]["measured"] is None
    assert tcc(*args, "--data", images).code == 0
    assert (
        read_manifest(home, "tflite")["calibration"]["measured"]["outputs"]["logits"]["images"] > 0
    )
