"""`tcc build --target tflite` in float on the command line."""

import json

import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

FORMS = ("fp32", "fp16", "dynamic")


@pytest.mark.parametrize("form", FORMS)
def test_bundle_replays_its_goldens_and_runs(tcc, home, picture, form):
    outcome = tcc("build", "tiny.yaml", "--target", "tflite", "--precision", form, "--json")
    assert outcome.code == 0, outcome.err
    (bundle_report,) = outcome.document["bundles"]
    assert bundle_report["path"] == f"build/tiny-tflite-{form}"
    assert all(comparison["holds"] for comparison in bundle_report["agreement"])
    manifest = json.loads((home / bundle_report["path"] / "manifest.json").read_text())
    assert {"ai-edge-litert", "flatbuffers"} <= set(manifest["made_with"])
    assert "model/model.tflite" in json.dumps(manifest["files"])
    run_outcome = tcc("run", bundle_report["path"], picture)
    assert run_outcome.code == 0, run_outcome.err
    assert "dog" in run_outcome.out


def test_one_command_builds_several_targets(tcc, home, picture):
    assert tcc("build", "tiny.yaml", "--target", "tflite,onnxruntime", "-q").code == 0
    names = ("tflite", "onnxruntime")
    runs = [tcc("run", f"build/tiny-{name}-fp32", picture, "--json").document for name in names]
    own_logits, other_logits = (
        {c["index"]: c["value"] for c in run["images"][0]["outputs"]["logits"]["classes"]}
        for run in runs
    )
    assert own_logits == pytest.approx(other_logits, abs=1e-6)


def test_damaged_tflite_file_is_refused(tcc, home, picture):
    assert tcc("build", "tiny.yaml", "--target", "tflite", "-q").code == 0
    file = home / "build/tiny-tflite-fp32/model/model.tflite"
    file.write_bytes(file.read_bytes()[:200])
    outcome = tcc("run", "build/tiny-tflite-fp32", picture)
    assert outcome.code == 2
    assert "model.tflite" in outcome.err
    assert "Traceback" not in outcome.err


def test_targets_and_doctor_list_tflite(tcc):
    (target_json,) = [
        t for t in tcc("targets", "--json").document["targets"] if t["name"] == "tflite"
    ]
    assert set(FORMS) <= set(target_json["precisions"])
    assert "ai-edge-litert" in tcc("dev", "doctor").out
