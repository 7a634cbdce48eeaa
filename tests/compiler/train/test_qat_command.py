"""`tcc train --qat` continues from trained weights with a calibration."""

import json

import pytest
from msgspec.structs import replace
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
    folder, val, gain, test, build = completed.stdout.splitlines()
    assert (folder, val.endswith(" of 12 images, int8")) == ("qat", True)
    assert gain.startswith("  int8 before this training: accuracy ")
    assert gain.endswith("%; of 12 validation images")
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


def build_and_evaluate(home, pictures, weights, scales, target, split="val"):
    """Build an int8 bundle, and return its evaluation on a split."""
    from tcc.compiler.cli import app

    arguments = ("build", "tiny.yaml", "--target", target, "--precision", "int8", "--weights", weights,
             "--calibration", scales, "--data", pictures / "train", "--floor", "max_drop=1",
             "-o", home / "bundles" / target)  # fmt: skip
    completed = CliRunner().invoke(app, list(map(str, arguments)))
    assert completed.exit_code == 0, completed.output
    (bundle,) = (home / "bundles" / target).glob("**/manifest.json")
    arguments = ("eval", bundle.parent, "--data", pictures / split, "--split", "none", "--json")
    completed = CliRunner().invoke(app, list(map(str, arguments)))
    assert completed.exit_code == 0, completed.output
    return json.loads(completed.stdout)


def test_reported_start_is_the_bundle_that_the_calibration_builds(
    train, home, pictures, calibrated
):
    """With rounding and bias correction of the method, not rounded to nearest."""
    from tcc.compiler.cli import app

    arguments = (
        "calibrate",
        "tiny.yaml",
        *calibrated[:2],
        "--data",
        pictures / "train",
        "-o",
        "b.json",
    )
    assert CliRunner().invoke(app, list(map(str, arguments))).exit_code == 0
    completed = train(*calibrated[:3], "b.json", "-o", "qat", recipe="qat.yaml")
    assert completed.exit_code == 0, completed.output
    report = json.loads((home / "qat/report.json").read_text())
    start = build_and_evaluate(home, pictures, calibrated[1], "b.json", "onnxruntime")
    assert report["start_val"]["accuracy"] == start["accuracy"]
    recalls = [row["recall"] for row in start["classes"]]
    assert report["start_val"]["balanced_accuracy"] == pytest.approx(sum(recalls) / len(recalls))


@pytest.mark.parametrize("rate", [0, 0.3])
def test_learned_ranges_are_in_the_calibration_and_in_the_bundle(
    train, home, pictures, calibrated, rate
):
    (home / "qat.yaml").write_text(
        "tcc_recipe: 1\nepochs: 2\nbatch: 8\nprecision: fp32\nlearning_rate: {peak: 0.01}\n"
        f"range_rate: {rate}\nkeep: balanced\n"
    )
    completed = train(*calibrated, recipe="qat.yaml")
    assert completed.exit_code == 0, completed.output
    before, after = (
        {
            name: value["scale"]
            for name, value in json.loads((home / file).read_text())["values"].items()
        }
        for file in ("scales.json", "qat/calibration.json")
    )
    changed = [name for name in before if before[name] != after[name]]
    assert "image" not in changed
    assert bool(set(changed) - {"linear", "flatten"}) == bool(rate)
    report = json.loads((home / "qat/report.json").read_text())
    weights, scales = "qat/weights.safetensors", "qat/calibration.json"
    for target in ("onnxruntime", "tflite"):
        evaluation = build_and_evaluate(home, pictures, weights, scales, target)
        assert evaluation["accuracy"] == report["val"]["accuracy"], target


def test_interrupted_training_with_learned_ranges_gives_the_same_bytes(
    train, home, calibrated, monkeypatch
):
    from tcc.compiler.train import loop

    assert train(*calibrated[:4], "-o", "whole", recipe="qat.yaml").exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingRun, "_is_time_over", lambda run: run.position.step == 2)
        assert train(*calibrated, recipe="qat.yaml").exit_code == 0
    assert not json.loads((home / "qat/report.json").read_text())["finished"]
    assert train(*calibrated, "--resume", recipe="qat.yaml").exit_code == 0
    for name in ("weights.safetensors", "calibration.json", "report.json", "metrics.jsonl"):
        assert (home / "qat" / name).read_bytes() == (home / "whole" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("accuracy", "balanced_accuracy", "warning"),
    [
        (0.9, 0.8, ""),
        (0.8, 0.9, ""),
        (0.8, 0.8, "gained no accuracy on the validation images"),
        (0.9, 0.7, "lowered the balanced accuracy of the int8 model"),
        (0.7, 0.8, "lowered the accuracy of the int8 model"),
        (0.7, 0.7, "lowered the accuracy and the balanced accuracy of the int8 model"),
    ],
)
def test_gain_is_reported_only_if_it_was_measured(
    train, home, calibrated, capsys, accuracy, balanced_accuracy, warning
):
    from tcc.compiler.report import train_report
    from tcc.compiler.support.console import Report
    from tcc.compiler.train import run_folder

    assert train(*calibrated, recipe="qat.yaml").exit_code == 0
    training = run_folder.read_report(home / "qat")
    before = replace(training.val, accuracy=0.8, balanced_accuracy=0.8)
    after = replace(training.val, accuracy=accuracy, balanced_accuracy=balanced_accuracy)
    train_report.print_training(
        Report(), home / "qat", replace(training, start_val=before, val=after)
    )
    printed = capsys.readouterr()
    numbers = f"accuracy 80.00%, balanced accuracy 80.00%; after: {accuracy:.2%}, "
    assert f"{numbers}{balanced_accuracy:.2%}; of 12 validation images\n" in printed.out
    assert ("warning" in printed.err) == bool(warning)
    assert warning in printed.err


def test_output_range_contains_the_outputs_after_training(train, home, calibrated, monkeypatch):
    """A target with 8-bit outputs would clip logits that have grown, here 4-fold."""
    from tcc.compiler.train import evaluation

    measure, peaks = evaluation.measure_output_peaks, []

    def measure_grown(*arguments):
        peaks.append(4 * measure(*arguments)["logits"])
        return {"logits": peaks[0]}

    monkeypatch.setattr(evaluation, "measure_output_peaks", measure_grown)
    completed = train(*calibrated, recipe="qat.yaml")
    assert completed.exit_code == 0, completed.output
    before, after = (
        json.loads((home / file).read_text())["values"]["linear"]["scale"] * 127
        for file in ("scales.json", "qat/calibration.json")
    )
    assert peaks[0] > before
    assert after == pytest.approx(peaks[0])
