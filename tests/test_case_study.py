"""Table 2 of the quantization study, as the tool computes it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tcc.compiler.data import weights
from tcc.compiler.driver import pipeline
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Model

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

SPEC = """\
tcc: 1
name: like_vgg
params:
  labels: {type: names, default: []}
  classes: 2

use: [blocks/vgg.yaml, blocks/conv.yaml]

input:
  image:
    shape: [3, 16, 16]
    preprocess: {resize: {size: [16, 16], mode: stretch}}

graph:
  - vgg_stage: {filters: 32, convs: 2, batch_norm: true}
  - vgg_stage: {filters: 128, convs: 2, batch_norm: true}
  - vgg_stage: {filters: 256, convs: 2, batch_norm: true}
  - vgg_stage: {filters: 256, convs: 2, batch_norm: true, pool: false}
  - classify: {classes: classes}

output:
  logits: {activation: softmax, labels: "labels if classes == len(labels) else []"}
"""
BRIGHT = (
    SPEC.partition("graph:")[0].replace("like_vgg", "bright")
    + "graph:\n  - conv: {filters: 1, kernel: 1}\n  - global_avg_pool\n  - flatten\n"
    + "  - linear: {units: classes}\n\noutput:"
    + SPEC.partition("output:")[2]
)
ROWS = ["No opt. (FP32)", "Dynamic-Range", "Half-Precision (FP16)", "Full-Integer (INT8)"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a VGG-like network and images in class folders, dark and bright ones."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "like_vgg.yaml").write_text(SPEC)
    (folder / "bright.yaml").write_text(BRIGHT)
    rng = np.random.default_rng(2)
    for number in range(16):
        path = folder / "data" / ("benign", "malignant")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        low = 128 * (number % 2)
        Image.fromarray(rng.integers(low, low + 128, (20, 18, 3), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def study(root, home):
    """Run the tool."""

    def run(*arguments, code=0):
        command = [sys.executable, root / "tools/case_study.py", *arguments]
        completed = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        assert completed.returncode == code, completed.stdout + completed.stderr
        return completed

    return run


@pytest.fixture(scope="module")
def table(study):
    """The table of a VGG-like network with random weights, as JSON."""
    return study("--data", "data", "--network", "V=like_vgg.yaml", "--format", "json")


def test_sizes_are_a_half_and_a_quarter_of_fp32(table, home):
    (network,) = json.loads(table.stdout)["networks"]
    forms = network["forms"]
    assert list(forms) == ["fp32", "dynamic", "fp16", "int8"]
    graph = load(home / "like_vgg.yaml").graph
    fused = pipeline.fuse_model(Model(graph, pipeline.create_random_weights(graph).tensors))
    fp32_bytes = sum(tensor.nbytes for tensor in fused.weights.values())
    assert forms["fp32"]["bytes"] == pytest.approx(fp32_bytes, rel=0.03)
    for name, share in (("fp16", 1 / 2), ("dynamic", 1 / 4), ("int8", 1 / 4)):
        assert forms[name]["of_fp32"] == pytest.approx(share, rel=0.03), name
        assert forms[name]["of_fp32"] == forms[name]["bytes"] / forms["fp32"]["bytes"]


def test_calibration_images_are_not_used_for_accuracy(table):
    document = json.loads(table.stdout)
    assert document["images"] == {"judge": 4, "calibration": 12}
    assert document["networks"][0]["weights"] == "random"
    assert "warning: V: random weights, so its accuracies are meaningless; give" in table.stderr


def test_accuracies_depend_on_the_weights(study, home):
    """A network that outputs the brightness classifies dark and bright images correctly."""
    graph = load(home / "bright.yaml").graph
    random_weights = weights.initialize_random(graph, 0)
    tensors = {name: np.zeros_like(tensor) for name, tensor in random_weights.items()}
    conv, linear = (next(n for n in random_weights if random_weights[n].ndim == d) for d in (4, 2))
    tensors[conv] += 1 / 3
    tensors[linear] += np.float32([[-1], [1]])
    (bias,) = (
        n
        for n in random_weights
        if n.startswith(linear.rpartition("/")[0]) and random_weights[n].shape == (2,)
    )
    tensors[bias] += np.float32([0.5, -0.5])
    weights.write(home / "bright.safetensors", tensors)
    arguments = ("--network", "B=bright.yaml", "--weights", "B=bright.safetensors")
    completed = study("--data", "data", "--calibrate-with", "data", *arguments)
    head, *rows = completed.stdout.splitlines()
    assert head.split() == ["Opt.", "type", "B", "Acc.", "B", "MB"]
    assert [row[: len(name)] for row, name in zip(rows, ROWS, strict=False)] == ROWS
    assert [row.split()[-2] for row in rows[:4]] == ["100.0%"] * 4
    assert (
        "16 images of data; int8 calibrated with 16, 16 of them are evaluation images too"
        in completed.stdout
    )
    assert "random" not in completed.stdout + completed.stderr


def test_markdown_has_the_columns_of_the_paper(study):
    arguments = ("--network", "V=bright.yaml", "--images", "4", "--format", "markdown")
    lines = study("--data", "data", *arguments).stdout.splitlines()
    assert lines[:2] == ["| Opt. type | V* Acc. | V* MB |", "|---|---:|---:|"]
    assert [line.split("|")[1].strip() for line in lines[2:6]] == ROWS
    assert lines[-1] == "* random weights: the accuracies are meaningless"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "error[E0710]: not a dataset"),
        (
            ("--data", "data", "--weights", "X=x"),
            "the network `X`; the networks are VGG16, GoogLeNet, ResNet34",
        ),
        (("--data", "data", "--network", "B"), "`B` does not have the form NAME=VALUE"),
        (
            ("--data", "data", "--network", "B=bright.yaml,classes=1"),
            "no output with classes or decisions",
        ),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(study, arguments, message):
    completed = study(*arguments, code=2)
    assert message in completed.stderr
    assert "Traceback" not in completed.stderr


@pytest.mark.nightly
def test_compression_ratios_of_googlenet_match_the_paper(study):
    """GoogLeNet has the most layers for its weights. Small images suffice for file sizes."""
    arguments = ("--data", "data", "--images", "1", "--format", "json")
    completed = study(*arguments, "--network", "GoogLeNet=googlenet,cam=1024,size=80")
    (network,) = json.loads(completed.stdout)["networks"]
    for name, share in (("fp16", 1 / 2), ("dynamic", 1 / 4), ("int8", 1 / 4)):
        assert network["forms"][name]["of_fp32"] == pytest.approx(share, rel=0.03), name
