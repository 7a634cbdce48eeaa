"""`tcc verify` beside the network of a bundle of float32: layers, and the first that breaks."""

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
INNER = ("conv_2", "relu_2", "relu_3")
"""What has the branch: a target may compute it with the sum that it ends in."""
TARGETS = [
    "onnxruntime",
    "tflite",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("host", "web", "arm-a7")),
]


@pytest.fixture(params=TARGETS)
def target(request, tcc):
    """A target that runs here."""
    every = {one["name"]: one for one in tcc("targets", "--json").document["targets"]}
    if every[request.param]["missing"]:
        pytest.skip(f"{request.param} does not run here")
    return request.param


@pytest.fixture
def forked(tcc, home):
    """Build the network, with other weights or another border where that is said."""

    def build(target, out, change=None, padding="1"):
        spec = home / f"{out}.yaml"
        spec.write_text(SPEC.format(padding=padding))
        graph = load(spec).graph
        tensors = {name: np.array(one) for name, one in weights.initialize_random(graph, 3).items()}
        if change:
            change(tensors)
        weights.write(home / f"{out}.safetensors", tensors)
        words = ("--target", target, "--weights", f"{out}.safetensors", "-o", out, "-q")
        ended = tcc("build", spec, *words, "--no-replay")
        assert ended.code == 0, ended.err
        return home / out / f"forked-{target}-fp32"

    return build


def with_model_of(folder, other):
    """Put another bundle's artifact into a bundle, as a defect of its code would make it."""
    shutil.rmtree(folder / "model")
    shutil.copytree(other / "model", folder / "model")
    found = manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")
    files = tuple(
        replace(f, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for f in found.files
        for data in [(folder / f.path).read_bytes()]
    )
    (folder / manifest.NAME).write_bytes(manifest.encode(replace(found, files=files)))
    return folder


def verified(tcc, folder, *words):
    named = ("--spec", "right.yaml", "--weights", "right.safetensors")
    ended = tcc("verify", folder, *named, "--json", *words)
    assert ended.code in (0, 4), ended.err
    return ended.code, ended.document["bundles"][0]


def weight(tensors):
    tensors["conv_2.weight"][3, 2] *= 1.05


def test_what_is_right_agrees_layer_by_layer(tcc, forked, target):
    code, found = verified(tcc, forked(target, "right"), "--bisect")
    assert code == 0
    assert found["reproducer"] is None
    layers = {one["name"]: one for one in found["network"]["layers"]}
    assert layers.keys() & {*INNER}
    assert layers["relu_1"]["values"] == 2 * 8 * 12 * 12
    assert all(one["difference"] < 1e-5 for one in layers.values())


@pytest.mark.parametrize(
    ("change", "padding", "first"),
    [
        (weight, "1", INNER),
        (None, "[0, 2, 2, 0]", INNER),
        pytest.param(
            lambda t: t["linear.bias"].__iadd__(0.01), "1", ("linear",), marks=pytest.mark.slow
        ),
    ],
    ids=["a weight", "a border", "the last"],
)
def test_the_first_layer_that_is_off_is_named(tcc, forked, target, change, padding, first):
    right = forked(target, "right")
    folder = with_model_of(right, forked(target, "wrong", change, padding))
    code, found = verified(tcc, folder, "--bisect")
    assert code == 4
    assert found["network"]["first_wrong"] in first
    assert found["reproducer"]["layer"] == found["network"]["first_wrong"]


def test_the_layer_by_itself_runs_on_both_runtimes(tcc, forked, home):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    folder = with_model_of(forked("onnxruntime", "right"), forked("onnxruntime", "wrong", weight))
    _, found = verified(tcc, folder, "--bisect")
    made = home / found["reproducer"]["path"]
    said = json.loads((made / "reproducer.json").read_text())
    assert (said["name"], said["dtype"], said["shape"]) == (
        "conv_2", "float32", [8, 12, 12],
    )  # fmt: skip
    right, wrong = (np.fromfile(made / name, "<f4") for name in ("expected.bin", "found.bin"))
    assert np.abs(right - wrong).max() == pytest.approx(said["largest"])
    assert tcc("check", made / "spec.yaml").out.count("conv") == 1
    _, *words = shlex.split(found["reproducer"]["command"])
    ended = tcc(*words, "--json")
    assert ended.code == 0, ended.err
    for each in ended.document["agreement"]["targets"]:
        assert each["outputs"]["values"] == 3 * right.size
        assert each["holds"]


def test_a_join_by_itself(tcc, forked, home):
    """What reads several values: they lie side by side in one."""

    def other(tensors):
        tensors["conv_3.bias"] += 0.5

    folder = with_model_of(forked("host", "right"), forked("host", "wrong", other))
    _, found = verified(tcc, folder, "--bisect")
    made = home / found["reproducer"]["path"]
    assert found["reproducer"]["command"], "no spec"
    assert tcc("check", made / "spec.yaml").code == 0


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (lambda shown: {}, "none of its network's layers is in it"),
        (
            lambda shown: {**shown, "relu_1": shown["relu_1"] * np.nan},
            "layer that differs is `relu_1`",
        ),
        (
            lambda shown: {**shown, "relu_1": shown["relu_1"][:, :4]},
            "layer that differs is `relu_1`",
        ),
    ],
    ids=["nothing", "no numbers", "less"],
)
def test_what_is_not_the_layers_at_all(tcc, forked, monkeypatch, by, said):
    right = OnnxRuntime.trace_float_values
    monkeypatch.setattr(
        OnnxRuntime, "trace_float_values", lambda self, *words: map(by, right(self, *words))
    )
    folder = forked("onnxruntime", "right")
    named = ("--spec", "right.yaml", "--weights", "right.safetensors")
    ended = tcc("verify", folder, *named)
    assert ended.code == 4
    assert said in ended.err


def test_other_weights_are_no_network_of_the_bundle(tcc, forked):
    folder = forked("onnxruntime", "right")
    forked("onnxruntime", "wrong", weight)
    ended = tcc("verify", folder, "--spec", "right.yaml", "--weights", "wrong.safetensors")
    assert ended.code == 2
    assert "error[E0664]" in ended.err
