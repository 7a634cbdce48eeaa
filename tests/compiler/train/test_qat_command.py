"""`tcc train --qat` continues from trained weights with a calibration."""

import json

import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner


@pytest.fixture
def calibrated(train, home, pictures):
    """Trained weights and their calibration."""
    from tcc.compiler.cli import app

    assert train("-o", "float").exit_code == 0
    arguments = (
        "calibrate",
        "tiny.yaml",
        "--weights",
        "float/weights.safetensors",
        "--method",
        "minmax",
    )
    arguments += ("--data", pictures / "train", "--target", "onnxruntime", "-o", "scales.json")
    completed = CliRunner().invoke(app, list(map(str, arguments)))
    assert completed.exit_code == 0, completed.output
    (home / "qat.yaml").write_text(
        "tcc_recipe: 1\nepochs: 1\nbatch: 8\nprecision: fp32\nlearning_rate: {peak: 0.001}\n"
    )
    return ("--weights", "float/weights.safetensors", "--qat", "scales.json", "-o", "qat")


def test_run_folder_has_weights_and_their_calibration(train, home, pictures, calibrated):
    from tcc.compiler.cli import app

    completed = train(*calibrated, recipe="qat.yaml")
    assert completed.exit_code == 0, completed.output
    old, new = (load_file(home / f / "weights.safetensors") for f in ("float", "qat"))
    assert any((old[name] != new[name]).any() for name in old)
    folder, val, test, build = completed.stdout.splitlines()
    assert (folder, val.endswith(" of 12 images, int8")) == ("qat", True)
    assert test.endswith("%), fp32")
    assert build == "  to build the int8 model, give --calibration qat/calibration.json"
    report = json.loads((home / "qat/report.json").read_text())
    arguments = ("build", "tiny.yaml", "--target", "onnxruntime", "--precision", "int8", "--weights",
             "qat/weights.safetensors", "--calibration", "qat/calibration.json",
             "--data", pictures / "train", "--floor", "max_drop=1")  # fmt: skip
    completed = CliRunner().invoke(app, list(map(str, arguments)))
    assert completed.exit_code == 0, completed.output
    arguments = ("eval", "build/tiny-onnxruntime-int8", "--data", pictures / "val", "--json")
    completed = CliRunner().invoke(app, [*map(str, arguments), "--saturation"])
    evaluation = json.loads(completed.stdout)
    assert evaluation["accuracy"] == report["val"]["accuracy"]
    assert evaluation["saturation"]["calibration_images"] > 0  # of the training


def test_resuming_needs_the_same_calibration(train, home, pictures, calibrated, monkeypatch):
    """Without it, or with another one, a half-done or finished run would be another training."""
    from tcc.compiler.cli import app
    from tcc.compiler.train import loop

    arguments = (
        "calibrate",
        "tiny.yaml",
        *calibrated[:2],
        "--method",
        "percentile",
        "-o",
        "p.json",
    )
    completed = CliRunner().invoke(app, [*arguments, "--data", str(pictures / "train")])
    assert completed.exit_code == 0, completed.output
    floats = (*calibrated[:2], *calibrated[4:])
    other_arguments = (*calibrated[:3], "p.json", *calibrated[4:])
    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingRun, "_is_time_over", lambda _: True)
        assert train(*calibrated, recipe="qat.yaml").exit_code == 0
    for finished in (False, True):
        for arguments in (floats, other_arguments):
            completed = train(*arguments, "--resume", recipe="qat.yaml")
            assert completed.exit_code == 2, completed.output
            assert "started with different inputs: calibration (--qat)\n" in completed.stderr
        assert train(*calibrated, "--resume", recipe="qat.yaml").exit_code == 0
        assert json.loads((home / "qat/report.json").read_text())["finished"], finished


def test_calibration_of_other_weights_is_refused(train, home, calibrated):
    assert train("-o", "other", "--seed", 5).exit_code == 0
    completed = train("--weights", "other/weights.safetensors", *calibrated[2:], recipe="qat.yaml")
    assert completed.exit_code == 2
    assert "error[E073" in completed.stderr
    completed = train(*calibrated[2:], recipe="qat.yaml")
    assert (completed.exit_code, "error[E0601]" in completed.stderr) == (2, True)
