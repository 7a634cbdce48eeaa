"""`--precision int8` for processors: from images to evaluation on the command line."""

import json
import shutil

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("target", ["arm-a7", "host"])
def test_int8_from_images_to_evaluation(tcc, home, images, target):
    if target == "arm-a7" and shutil.which("qemu-arm") is None:
        pytest.skip("needs qemu-arm: apt-get install qemu-user")
    calibrate = ("calibrate", "tiny.yaml", "--data", images, "--target", target, "-o", "c.json")
    assert tcc(*calibrate, "-q").code == 0
    build = ("build", "tiny.yaml", "--precision", "int8", "--calibration", "c.json")
    outcome = tcc(*build, "--target", f"{target},onnxruntime", "--data", images, "--json")
    assert outcome.code == 0, outcome.err
    for bundle_report in outcome.document["bundles"]:
        assert all(comparison["difference"] == 0 for comparison in bundle_report["agreement"])
    folders = [f"build/tiny-{name}-int8" for name in (target, "onnxruntime")]
    manifest_json = json.loads((home / folders[0] / "manifest.json").read_text())
    assert manifest_json["input"]["dtype"] == "uint8"
    assert manifest_json["goldens"]["executor"] == "integers"
    assert manifest_json["calibration"]["inexact"] == []
    assert tcc("verify", folders[0]).code == 0
    evaluated = tcc("eval", folders[0], "--data", images)
    assert evaluated.code == 0, evaluated.err
    paths = sorted(images.rglob("*.png"))
    here, there = (tcc("run", folder, *paths, "--json").document for folder in folders)
    for prediction, other_prediction in zip(here["images"], there["images"], strict=True):
        assert (
            prediction["outputs"]["logits"]["raw"] == other_prediction["outputs"]["logits"]["raw"]
        )
