"""`tcc import --spec`: read a checkpoint with the layer names of a spec."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load

NAMES = {
    "conv": "features.0",
    "batch_norm": "features.1",
    "linear": "classifier",
}
ROLES = {"mean": "running_mean", "var": "running_var"}


@pytest.fixture
def tensors(home):
    """The network's weights with third-party names."""
    random_weights = weights.initialize_random(load(home / "tiny.yaml").graph, 3)
    renamed_tensors = {}
    for name, value in random_weights.items():
        layer, role = name.rsplit(".", 1)
        renamed_tensors[f"{NAMES[layer]}.{ROLES.get(role, role)}"] = np.asarray(value)
    return renamed_tensors


@pytest.fixture
def checkpoint(home, tensors):
    save_file(tensors, home / "theirs.safetensors")
    (home / "rules.yaml").write_text(
        "rules:\n"
        "  - {from: features.0, to: conv}\n"
        "  - {from: features.1, to: batch_norm}\n"
        "  - {from: classifier, to: linear}\n"
    )
    return home / "theirs.safetensors"


def test_every_tensor_is_listed_and_written(tcc, home, checkpoint, tensors):
    outcome = tcc("import", checkpoint, "--spec", "tiny.yaml", "--rules", "rules.yaml")
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (outcome.code, outcome.err) == (
        0,
        f"checkpoint: theirs.safetensors, SHA-256 {digest}; the format has no checksums; compare"
        " the SHA-256 with the one that the source publishes\n",
    )
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["checkpoint", "spec", "shape", "how"]
    assert ["features.1.running_var", "batch_norm.var", "4", "rule"] in lines
    assert ["classifier.weight", "linear.weight", "3x4", "rule"] in lines
    assert len(lines) == 1 + len(tensors) + 2
    assert outcome.out.endswith("\nweights.safetensors\n")
    written_tensors = load_file(home / "weights.safetensors")
    np.testing.assert_array_equal(written_tensors["linear.weight"], tensors["classifier.weight"])
    build = tcc("build", "tiny.yaml", "--target", "ort", "--weights", "weights.safetensors")
    digest = hashlib.sha256((home / "weights.safetensors").read_bytes()).hexdigest()
    weights_line = f"weights: weights.safetensors, SHA-256 {digest}\n"
    assert (build.code, build.err) == (0, weights_line)


@pytest.mark.parametrize(("old", "has_checksums"), [(True, False), (False, True)])
def test_checkpoint_digest_is_reported(tcc, home, tensors, old, has_checksums):
    """Files of old PyTorch releases have no checksums. Archives have one for each tensor."""
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    torch.save(state, home / "net.pt", _use_new_zipfile_serialization=not old)
    outcome = tcc("import", "net.pt", "--spec", "tiny.yaml", "--json")
    digest = hashlib.sha256((home / "net.pt").read_bytes()).hexdigest()
    assert outcome.document["checkpoint"] == {
        "file": "net.pt", "sha256": digest, "checksums": has_checksums
    }  # fmt: skip
    assert outcome.err.count(digest) == 1
    assert ("the format has no checksums" in outcome.err) == old
    assert tcc("import", "net.pt", "--spec", "tiny.yaml", "-q").err == ""


def test_import_weights_as_json(tcc, checkpoint):
    args = ("import", checkpoint, "--spec", "tiny.yaml", "--rules", "rules.yaml", "-o", "w.st")
    document = tcc(*args, "--json").document
    assert document["output"] == "w.st"
    assert {
        "source": "classifier.bias",
        "name": "linear.bias",
        "shape": [3],
        "how": "rule",
    } in document["tensors"]


def test_only_a_weights_file_is_replaced(tcc, home, checkpoint):
    args = ("import", checkpoint, "--spec", "tiny.yaml", "--rules", "rules.yaml", "-q")
    assert tcc(*args).code == 0
    assert tcc(*args).code == 0
    checkpoint_before = checkpoint.read_bytes()
    outcome = tcc(*args, "-o", checkpoint)
    assert outcome.code == 2
    assert "cannot replace this: it exists already" in outcome.err
    assert checkpoint.read_bytes() == checkpoint_before


def test_checkpoint_of_another_network_is_refused(tcc, home, tensors):
    save_file(
        {k: v for k, v in tensors.items() if "classifier" not in k}, home / "part.safetensors"
    )
    outcome = tcc("import", "part.safetensors", "--spec", "tiny.yaml", "--json")
    assert outcome.code == 2
    assert outcome.document["diagnostics"][0]["code"] == "E0511"
    assert not (home / "weights.safetensors").exists()


def test_full_disk_leaves_no_file(tcc, home, checkpoint, full_disk):
    with full_disk():
        outcome = tcc("import", checkpoint, "--spec", "tiny.yaml", "--rules", "rules.yaml")
    assert outcome.code == 1
    assert "No space left on device" in outcome.err
    assert sorted(p.name for p in home.iterdir()) == [
        "rules.yaml",
        "theirs.safetensors",
        "tiny.yaml",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "settings", "label", "value"),
    [
        ("GC", "classes=6", "TUM", 0.9998),
        ("Sipak", "labels=[DYS, KOI, MET, PAR, SUP]", "DYS", 0.9987),
    ],
)
def test_third_party_checkpoints_give_the_published_predictions(
    tcc, shared, case, settings, label, value
):
    folder = shared / "data/ddsnet_checkpoints"
    (checkpoint,) = folder.glob(f"{case}_DDS_*.pth")
    (image,) = (p for p in folder.glob(f"{case}.*") if p.suffix != ".pth")
    spec = ("ddsnet", "--set", settings)
    assert tcc("import", checkpoint, "--spec", *spec, "-q").code == 0
    args = ("build", *spec, "--target", "ort", "--weights", "weights.safetensors", "-q")
    assert tcc(*args).code == 0
    (prediction,) = tcc("run", "build/ddsnet-onnxruntime-fp32", image, "--json").document["images"]
    top_class = prediction["outputs"]["logits"]["classes"][0]
    assert (top_class["label"], round(top_class["value"], 4)) == (label, value)
    facts = json.loads((shared / "facts/ddsnet_reference.json").read_text())
    (reference,) = (f for f in facts.values() if "image" in f and f["image"] == image.name)
    expected = reference["runs"]["resize224_bilinear"]["logits"]
    assert prediction["outputs"]["logits"]["raw"] == pytest.approx(expected, abs=1e-4)


def test_used_and_ignored_weights_are_reported(tcc, home, tensors):
    import torch

    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    averaged = {name: value + 1 for name, value in state.items()}
    both = {"model": {**state, "criterion.weight": torch.ones(2)}, "model_ema": averaged}
    torch.save({**both, "epoch": 3}, home / "both.pth")
    args = ("import", "both.pth", "--spec", "tiny.yaml", "-o", "w.st")
    outcome = tcc(*args)
    assert outcome.code == 0
    assert (
        "note: imported the weights of `model`; other entries: `model_ema` (`--entry NAME`)"
        in outcome.err
    )
    assert "note: not imported: model_ema, epoch" in outcome.err
    assert "note: ignored, because only training uses them: criterion" in outcome.err
    np.testing.assert_array_equal(
        load_file(home / "w.st")["linear.bias"], tensors["classifier.bias"]
    )
    outcome = tcc(*args, "--entry", "model_ema", "--json")
    assert outcome.code == 0
    assert outcome.document["notes"][0] == (
        "imported the weights of `model_ema`; other entries: `model` (`--entry NAME`)"
    )
    written_bias = load_file(home / "w.st")["linear.bias"]
    np.testing.assert_array_equal(written_bias, tensors["classifier.bias"] + 1)
    outcome = tcc(*args, "--entry", "none")
    assert (outcome.code, outcome.out) == (2, "")
    assert "error[E0515]: no entry is called `none`" in outcome.err


PIXELS = """\
tcc: 1
name: seen
params: {pixels: {type: enum, values: [VALUES], default: maximum}}
input:
  image:
    shape: [3, 8, 8]
    preprocess:
      resize: {size: [8, 8], mode: stretch}
      scale: "'max' if pixels == 'maximum' else 255"
      mean: "[0.485, 0.456, 0.406] if pixels == 'imagenet' else [0]"
      std: "[0.229, 0.224, 0.225] if pixels == 'imagenet' else [1]"
graph:
  - conv: {filters: 4, kernel: 1}
  - global_avg_pool
  - flatten
  - linear: {units: 2}
output: {logits: {}}
"""
PIXEL_NOTE = (
    "torchvision's weights with these names expect RGB pixels divided by 255,"
    " mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]; this spec has rgb pixels divided by "
)


@pytest.mark.parametrize(
    ("values", "settings", "warning"),
    [
        ("maximum, plain, imagenet", [], "the image's largest value, mean: [0.0], std: [1.0]; "
         "if you use those weights, import and build with `--set pixels=imagenet`"),
        ("maximum, plain, imagenet", ["pixels=plain"], "255, mean: [0.0], std: [1.0]; "
         "if you use those weights, import and build with `--set pixels=imagenet`"),
        ("maximum, plain", [], "the image's largest value, mean: [0.0], std: [1.0]; "
         "if you use those weights, write "
         "`mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]` in the spec's `preprocess`, "
         "with `color: rgb`"),
        ("maximum, plain, imagenet", ["pixels=imagenet"], None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [(), ("--quiet",)])
def test_weights_for_other_pixel_statistics_give_a_warning(
    tcc, home, values, settings, warning, options
):
    (home / "seen.yaml").write_text(PIXELS.replace("VALUES", values))
    random_weights = weights.initialize_random(load(home / "seen.yaml").graph, 3)
    names = {"conv": "features.0", "linear": "classifier.0"}
    renamed = {
        k.replace(part, names[part]): v
        for k, v in random_weights.items()
        for part in names
        if part in k
    }
    save_file({k: np.asarray(v) for k, v in renamed.items()}, home / "theirs.safetensors")
    set_args = [arg for setting in settings for arg in ("--set", setting)]
    outcome = tcc("import", "theirs.safetensors", "--spec", "seen.yaml", *set_args, *options)
    assert outcome.code == 0, outcome.err
    warned = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert warned == ([f"warning: {PIXEL_NOTE}{warning}"] if warning else [])
    second_outcome = tcc("import", "theirs.safetensors", "--spec", "seen.yaml", *set_args, "--json")
    assert [n for n in second_outcome.document["notes"] if "pixels" in n] == (
        [PIXEL_NOTE + warning] if warning else []
    )
