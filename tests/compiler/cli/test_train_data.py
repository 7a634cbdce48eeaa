"""`tcc train` and its images: shares, classes that become the spec's, and what is refused."""

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
    """A spec and twenty images of each of two classes, with odd names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(SPEC.replace("[yes, no]", '["yes", "no"]'))
    random = np.random.default_rng(0)
    for label, low in (("low grade", 0), ("Hoch's 'Ä'", 128)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(low, low + 128, (9, 11, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{number}.png")
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, ["train", "net.yaml", "--data", "set", "--epochs", "1", *words])


def test_the_folders_classes_become_the_specs(folder):
    done = run("--split", "2,1,1", "--json", "-o", "run")
    assert done.exit_code == 0, done.stderr
    assert "warning[E1208]" in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "the classes are the folders'" in line]
    words = shlex.split(said.partition("build with ")[2])
    assert words == ["--set", """labels=["Hoch's 'Ä'", "low grade"]""", "too"]
    assert json.loads(done.stdout)["test"]["images"] == 10


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "labels=[low grade, high]"], "E1207", "no class `Hoch's 'Ä'`"),
        (["--split", "1,0,0"], "E1212", "`1,0,0` is no split into three"),
        (["--corrupt", "mend"], "E0601", "say refuse or skip"),
        (["--data", "none"], "E0710", "not a data set"),
    ],
)
def test_what_is_refused_before_anything_is_learned(folder, words, code, said):
    done = run(*words, "-o", "run")
    assert done.exit_code == 2
    assert f"error[{code}]" in done.stderr
    assert said in done.stderr
    assert not (folder / "run").exists()


def test_a_damaged_image_is_named_then_skipped(folder):
    (folder / "set" / "low grade" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    done = run("-o", "run")
    assert done.exit_code == 2
    assert "set/low grade/3.png" in done.stderr
    assert "--corrupt skip" in done.stderr
    done = run("-o", "run", "--corrupt", "skip")
    assert done.exit_code == 0, done.stderr
    assert "1 damaged image is skipped" in done.stderr
