"""`tcc build --target tflite` in float, as a user types it."""

import json

import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

FORMS = ("fp32", "fp16", "dynamic")


@pytest.mark.parametrize("form", FORMS)
def test_a_bundle_replays_its_goldens_and_runs(tcc, home, picture, form):
    found = tcc("build", "tiny.yaml", "--target", "tflite", "--precision", form, "--json")
    assert found.code == 0, found.err
    (listed,) = found.document["bundles"]
    assert listed["path"] == f"build/tiny-tflite-{form}"
    assert all(each["holds"] for each in listed["agreement"])
    manifest = json.loads((home / listed["path"] / "manifest.json").read_text())
    assert {"ai-edge-litert", "flatbuffers"} <= set(manifest["made_with"])
    assert "model/model.tflite" in json.dumps(manifest["files"])
    shown = tcc("run", listed["path"], picture)
    assert shown.code == 0, shown.err
    assert "dog" in shown.out


def test_one_command_builds_for_several_targets(tcc, home, picture):
    assert tcc("build", "tiny.yaml", "--target", "tflite,onnxruntime", "-q").code == 0
    names = ("tflite", "onnxruntime")
    runs = [tcc("run", f"build/tiny-{name}-fp32", picture, "--json").document for name in names]
    mine, theirs = (
        {c["index"]: c["value"] for c in run["images"][0]["outputs"]["logits"]["classes"]}
        for run in runs
    )
    assert mine == pytest.approx(theirs, abs=1e-6)


def test_a_damaged_file_is_refused(tcc, home, picture):
    assert tcc("build", "tiny.yaml", "--target", "tflite", "-q").code == 0
    file = home / "build/tiny-tflite-fp32/model/model.tflite"
    file.write_bytes(file.read_bytes()[:200])
    found = tcc("run", "build/tiny-tflite-fp32", picture)
    assert found.code == 2
    assert "model.tflite" in found.err
    assert "Traceback" not in found.err


def test_what_is_here_is_said(tcc):
    (listed,) = [t for t in tcc("targets", "--json").document["targets"] if t["name"] == "tflite"]
    assert set(FORMS) <= set(listed["precisions"])
    assert "ai-edge-litert" in tcc("dev", "doctor").out
