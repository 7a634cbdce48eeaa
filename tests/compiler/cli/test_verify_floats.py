"""`tcc verify` against the network of a float32 bundle: layers, and the first wrong one."""

import hashlib
import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.compiler.bundle import manifest
from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load

SPEC = """\
tcc: 1
name: forked

input:
  image: {{shape: [3, 12, 12], preprocess: {{resize: {{size: [12, 12], mode: stretch}}}}}}

graph:
  - conv: {{filters: 8, kernel: 3, padding: 1}}
  - batch_norm
  - relu
  - add:
      - [conv: {{filters: 8, kernel: 3, padding: {padding}}}, relu]
      - [conv: {{filters: 8, kernel: 1}}]
  - relu
  - global_avg_pool
  - flatten
  - linear: {{units: 3}}

output:
  logits: {{activation: softmax}}
"""
BRANCH_LAYERS = ("conv_2", "relu_2", "relu_3")
"""Layers of the branch. A target may fuse them with the sum at its end."""
TARGETS = [
    "onnxruntime",
    "tflite",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("host", "web", "arm-a7")),
]


@pytest.fixture(params=TARGETS)
def target(request, tcc):
    """A target that can run here."""
    every = {
        target_json["name"]: target_json
        for target_json in tcc("targets", "--json").document["targets"]
    }
    if every[request.param]["missing"]:
        pytest.skip(f"{request.param} cannot run on this machine")
    return request.param


@pytest.fixture
def build_forked(tcc, home):
    """Build the network, with other weights or padding on request."""

    def build(target, out, change=None, padding="1"):
        spec = home / f"{out}.yaml"
        spec.write_text(SPEC.format(padding=padding))
        graph = load(spec).graph
        tensors = {
            name: np.array(tensor) for name, tensor in weights.initialize_random(graph, 3).items()
        }
        if change:
            change(tensors)
        weights.write(home / f"{out}.safetensors", tensors)
        args = ("--target", target, "--weights", f"{out}.safetensors", "-o", out, "-q")
        outcome = tcc("build", spec, *args, "--no-replay")
        assert outcome.code == 0, outcome.err
        return home / out / f"forked-{target}-fp32"

    return build


def copy_model(folder, other_bundle):
    """Replace a bundle's artifact with another one, as a code defect would."""
    shutil.rmtree(folder / "model")
    shutil.copytree(other_bundle / "model", folder / "model")
    original_manifest = manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")
    files = tuple(
        replace(f, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for f in original_manifest.files
        for data in [(folder / f.path).read_bytes()]
    )
    (folder / manifest.NAME).write_bytes(manifest.encode(replace(original_manifest, files=files)))
    return folder


def verify_bundle(tcc, folder, *args):
    spec_args = ("--spec", "right.yaml", "--weights", "right.safetensors")
    outcome = tcc("verify", folder, *spec_args, "--json", *args)
    assert outcome.code in (0, 4), outcome.err
    return outcome.code, outcome.document["bundles"][0]


def change_weight(tensors):
    tensors["conv_2.weight"][3, 2] *= 1.05


def test_correct_bundle_agrees_layer_by_layer(tcc, build_forked, target):
    code, bundle_report = verify_bundle(tcc, build_forked(target, "right"), "--bisect")
    assert code == 0
    assert bundle_report["reproducer"] is None
    layers = {layer["name"]: layer for layer in bundle_report["network"]["layers"]}
    assert layers.keys() & {*BRANCH_LAYERS}
    assert layers["relu_1"]["values"] == 2 * 8 * 12 * 12
    assert all(layer["difference"] < 1e-5 for layer in layers.values())


@pytest.mark.parametrize(
    ("change", "padding", "expected_layers"),
    [
        (change_weight, "1", BRANCH_LAYERS),
        (None, "[0, 2, 2, 0]", BRANCH_LAYERS),
        pytest.param(
            lambda t: t["linear.bias"].__iadd__(0.01), "1", ("linear",), marks=pytest.mark.slow
        ),
    ],
    ids=["a weight", "a border", "the last"],
)
def test_first_wrong_layer_is_named(tcc, build_forked, target, change, padding, expected_layers):
    right_bundle = build_forked(target, "right")
    folder = copy_model(right_bundle, build_forked(target, "wrong", change, padding))
    code, bundle_report = verify_bundle(tcc, folder, "--bisect")
    assert code == 4
    assert bundle_report["network"]["first_wrong"] in expected_layers
    assert bundle_report["reproducer"]["layer"] == bundle_report["network"]["first_wrong"]


def test_reproducer_runs_on_both_runtimes(tcc, build_forked, home):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    folder = copy_model(
        build_forked("onnxruntime", "right"), build_forked("onnxruntime", "wrong", change_weight)
    )
    _, bundle_report = verify_bundle(tcc, folder, "--bisect")
    reproducer_folder = home / bundle_report["reproducer"]["path"]
    reproducer_json = json.loads((reproducer_folder / "reproducer.json").read_text())
    assert (reproducer_json["name"], reproducer_json["dtype"], reproducer_json["shape"]) == (
        "conv_2", "float32", [8, 12, 12],
    )  # fmt: skip
    expected_values, actual_values = (
        np.fromfile(reproducer_folder / name, "<f4") for name in ("expected.bin", "found.bin")
    )
    assert np.abs(expected_values - actual_values).max() == pytest.approx(
        reproducer_json["largest"]
    )
    assert tcc("check", reproducer_folder / "spec.yaml").out.count("conv") == 1
    _, *args = shlex.split(bundle_report["reproducer"]["command"])
    outcome = tcc(*args, "--json")
    assert outcome.code == 0, outcome.err
    for target_row in outcome.document["agreement"]["targets"]:
        assert target_row["outputs"]["values"] == 3 * expected_values.size
        assert target_row["holds"]


def test_reproducer_of_a_layer_with_several_inputs(tcc, build_forked, home):
    """The inputs are concatenated into one tensor."""

    def change_tensors(tensors):
        tensors["conv_3.bias"] += 0.5

    folder = copy_model(
        build_forked("host", "right"), build_forked("host", "wrong", change_tensors)
    )
    _, bundle_report = verify_bundle(tcc, folder, "--bisect")
    reproducer_folder = home / bundle_report["reproducer"]["path"]
    assert bundle_report["reproducer"]["command"], "no spec"
    assert tcc("check", reproducer_folder / "spec.yaml").code == 0


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (lambda layer_values: {}, "the artifact contains none of the network's layers"),
        (
            lambda layer_values: {**layer_values, "relu_1": layer_values["relu_1"] * np.nan},
            "layer that differs is `relu_1`",
        ),
        (
            lambda layer_values: {**layer_values, "relu_1": layer_values["relu_1"][:, :4]},
            "layer that differs is `relu_1`",
        ),
    ],
    ids=["nothing", "no numbers", "less"],
)
def test_invalid_layer_values_are_reported(tcc, build_forked, monkeypatch, by, message):
    original_inner_values = OnnxRuntime.trace_float_values
    monkeypatch.setattr(
        OnnxRuntime,
        "trace_float_values",
        lambda self, *args: map(by, original_inner_values(self, *args)),
    )
    folder = build_forked("onnxruntime", "right")
    spec_args = ("--spec", "right.yaml", "--weights", "right.safetensors")
    outcome = tcc("verify", folder, *spec_args)
    assert outcome.code == 4
    assert message in outcome.err


def test_other_weights_than_those_of_the_bundle_are_refused(tcc, build_forked):
    folder = build_forked("onnxruntime", "right")
    build_forked("onnxruntime", "wrong", change_weight)
    outcome = tcc("verify", folder, "--spec", "right.yaml", "--weights", "wrong.safetensors")
    assert outcome.code == 2
    assert "error[E0664]" in outcome.err
