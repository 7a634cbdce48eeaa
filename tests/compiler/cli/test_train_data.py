"""`tcc train` and its images: splits, labels of the spec, and refused datasets."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tcc.compiler.cli import app

SPEC = """\
tcc: 1
name: tiny
params:
  labels: {type: names, default: [yes, no]}
input: {image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8]}}}}
graph:
  - conv: {filters: 4, kernel: 3}
  - batch_norm
  - relu
  - global_avg_pool
  - flatten
  - linear: {units: len(labels)}
output: {logits: {activation: softmax, labels: labels}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A spec and twenty images for each of two classes with unusual names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(SPEC.replace("[yes, no]", '["yes", "no"]'))
    random = np.random.default_rng(0)
    for label, low in (("low grade", 0), ("Hoch's 'Ä'", 128)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(low, low + 128, (9, 11, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{number}.png")
    return tmp_path


def run(*args):
    return CliRunner().invoke(app, ["train", "net.yaml", "--data", "set", "--epochs", "1", *args])


SETTING = """labels=["Hoch's 'Ä'", "low grade"]"""


def test_other_labels_are_refused_with_the_setting_to_use(folder):
    outcome = run("-o", "run")
    assert outcome.exit_code == 2
    assert "error[E1207]: the network has no class `Hoch's 'Ä'`, `low grade`, and" in outcome.stderr
    assert "there are no images of the network's classes yes, no" in outcome.stderr
    assert not (folder / "run").exists()
    setting = outcome.stderr.partition("train and build with `")[2].partition("`\n")[0]
    assert shlex.split(setting) == ["--set", SETTING]
    outcome = run(*shlex.split(setting), "--split", "2,1,1", "--json", "-o", "run")
    assert outcome.exit_code == 0, outcome.stderr
    assert "warning[E1208]" in outcome.stderr
    assert json.loads(outcome.stdout)["test"]["images"] == 10


@pytest.mark.parametrize(
    "labels", ["[\"Hoch's 'Ä'\"]", "[low grade, Hoch's 'Ä', more]"], ids=["extra", "missing"]
)
def test_extra_or_missing_class_is_refused(folder, labels):
    (folder / "net.yaml").write_text(SPEC.replace("[yes, no]", labels))
    outcome = run("-o", "run")
    assert outcome.exit_code == 2
    assert "error[E1207]" in outcome.stderr
    assert ("no class `low grade`" in outcome.stderr) == ("more" not in labels)
    assert ("no images of the network's classes more" in outcome.stderr) == ("more" in labels)


def test_folder_order_and_case_do_not_matter(folder):
    (folder / "net.yaml").write_text(SPEC.replace("[yes, no]", "[Low Grade, Hoch's 'Ä']"))
    outcome = run("-o", "run", "--json")
    assert outcome.exit_code == 0, outcome.stderr
    report = json.loads((folder / "run/report.json").read_text())
    assert report["data"]["classes"] == ["Low Grade", "Hoch's 'Ä'"]


def test_spec_without_labels_uses_the_folder_names(folder):
    text = SPEC.replace("[yes, no]", "[]").replace("  labels:", "  classes: 2\n  labels:")
    text = text.replace("units: len(labels)", "units: classes")
    text = text.replace("labels: labels}", 'labels: "labels if classes == len(labels) else []"}')
    (folder / "net.yaml").write_text(text)
    outcome = run("-o", "run", "--json")
    assert outcome.exit_code == 0, outcome.stderr
    (note,) = [line for line in outcome.stderr.splitlines() if "the spec names no classes" in line]
    assert shlex.split(note.partition("build with ")[2]) == ["--set", SETTING]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--set", "labels=[low grade, high]"], "E1207", "no class `Hoch's 'Ä'`"),
        (["--split", "1,0,0"], "E1212", "`1,0,0` is not a valid split"),
        (["--set", SETTING, "--corrupt", "mend"], "E0601", "`--corrupt` must be refuse or skip"),
        (["--data", "none"], "E0710", "not a dataset"),
    ],
)
def test_wrong_options_are_refused_before_training(folder, options, code, message):
    outcome = run(*options, "-o", "run")
    assert outcome.exit_code == 2
    assert f"error[{code}]" in outcome.stderr
    assert message in outcome.stderr
    assert not (folder / "run").exists()


def test_damaged_image_is_refused_or_skipped(folder):
    (folder / "set" / "low grade" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    outcome = run("-o", "run", "--set", SETTING)
    assert outcome.exit_code == 2
    assert "set/low grade/3.png" in outcome.stderr
    assert "--corrupt skip" in outcome.stderr
    outcome = run("-o", "run", "--set", SETTING, "--corrupt", "skip")
    assert outcome.exit_code == 0, outcome.stderr
    assert "1 damaged image is skipped" in outcome.stderr
