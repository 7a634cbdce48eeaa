"""Resealed bundles that claim a lower precision than their artifacts have."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcc.compiler.bundle import manifest
from tcc.compiler.quant import calibration_document

INT8 = "calibration/inexact: `fc` is listed, but no layer is in float"


def read_manifest(folder: Path) -> manifest.Manifest:
    return manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")


def write_sealed_manifest(
    folder: Path, forged_manifest: manifest.Manifest, relative: float
) -> None:
    """Write a manifest with a tolerance as a forger would: with updated hashes and a valid seal."""
    files = tuple(
        replace(f, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for f in forged_manifest.files
        for data in [(folder / f.path).read_bytes()]
    )
    tolerance = replace(forged_manifest.goldens.tolerance, relative=relative)
    forged_manifest = replace(
        forged_manifest, files=files, goldens=replace(forged_manifest.goldens, tolerance=tolerance)
    )
    (folder / manifest.NAME).write_bytes(manifest.encode(forged_manifest))


def mark_fc_inexact(m: manifest.Manifest) -> manifest.Manifest:
    return replace(m, calibration=replace(m.calibration, inexact=("fc",)))


def set_precision(precision: str):
    calibrated = precision.startswith("int8")
    return lambda m: replace(
        m, precision=precision, calibration=m.calibration if calibrated else None
    )


FORGED = {
    "a layer that is in float": ("onnxruntime", "int8", mark_fc_inexact, 0.1, INT8),
    "such a layer, of unsigned weights": ("onnxruntime", "int8-u8u8", mark_fc_inexact, 0.1, INT8),
    "dynamic": (
        "onnxruntime", "int8", set_precision("dynamic"), 0.1,
        "precision: `dynamic` computes in float, but the artifact computes on integers",
    ),
    "fp16": ("onnxruntime", "int8", set_precision("fp16"), 0.01, "precision: `fp16` computes in float"),
    "fp32": ("onnxruntime", "int8", set_precision("fp32"), 1e-4, "precision: `fp32` computes in float"),
    "integers between floats": (
        "onnxruntime", "int8", set_precision("int8-qdq"), 0.1,
        "precision: `int8-qdq` multiplies floats, but the artifact does not",
    ),
    "tflite: a layer that is in float": ("tflite", "int8", mark_fc_inexact, 0.1, INT8),
    "tflite: such a layer, unsigned": ("tflite", "int8-u8", mark_fc_inexact, 0.1, INT8),
    "tflite: dynamic": ("tflite", "int8", set_precision("dynamic"), 0.1, "precision: `dynamic` computes in float"),
    "tflite: fp16": ("tflite", "int8", set_precision("fp16"), 0.01, "precision: `fp16` computes in float"),
}  # fmt: skip


@pytest.fixture
def build(tcc, home, images):
    """Build a bundle of the spec, wide enough that its weights are stored in a smaller type."""

    def build_bundle(target: str, precision: str) -> Path:
        if target == "tflite":
            pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
        data = ("--data", images) if precision.startswith("int8") else ()
        args = ("build", "tiny.yaml", "--target", target, "--precision", precision, "-q")
        outcome = tcc(*args, "--set", "width=32", *data)
        assert outcome.code == 0, outcome.err
        return home / f"build/tiny-{target}-{precision}"

    return build_bundle


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_manifest_that_contradicts_its_artifact_is_refused(tcc, build, picture, images, forged):
    target, precision, change, relative, label = forged
    folder = build(target, precision)
    write_sealed_manifest(folder, change(read_manifest(folder)), relative)
    for command in (
        ("run", folder, picture),
        ("verify", folder),
        ("eval", folder, "--data", images),
    ):
        outcome = tcc(*command)
        assert outcome.code == 4, (command, outcome.err)
        assert "error[E0656]: the manifest does not match the artifact" in outcome.err
        assert f"--> {folder / manifest.NAME}" in outcome.err
        assert label in outcome.err


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
@pytest.mark.parametrize(("precision", "relative"), [("fp16", 0.01), ("dynamic", 0.1)])
def test_unrounded_weights_get_the_float_tolerance(tcc, build, target, precision, relative):
    folder = build(target, "fp32")
    for path in folder.glob("goldens/*/output_0.bin"):
        path.write_bytes((np.fromfile(path, "<f4") + np.float32(1e-3)).tobytes())
    write_sealed_manifest(folder, set_precision(precision)(read_manifest(folder)), relative)
    outcome = tcc("verify", folder, "--json")
    assert outcome.code == 4
    allowed = [comparison["allowed"] for comparison in outcome.document["bundles"][0]["agreement"]]
    assert allowed == [1e-4, 1e-4]


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
@pytest.mark.parametrize(("precision", "relative"), [("fp16", 0.01), ("dynamic", 0.1)])
def test_rounded_weights_get_their_tolerance(tcc, build, target, precision, relative):
    outcome = tcc("verify", build(target, precision), "--json")
    assert outcome.code == 0, outcome.err
    allowed = [comparison["allowed"] for comparison in outcome.document["bundles"][0]["agreement"]]
    assert allowed == [relative, relative]


NORM = """\
tcc: 1
name: norm
input:
  image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8], mode: stretch}}}
graph:
  - conv: {filters: 8, kernel: 3, padding: 1}
  - relu
  - side: {as: early, body: [global_avg_pool, flatten, linear: {units: 3}]}
  - layer_norm
  - conv: {filters: 8, kernel: 3, padding: 1}
  - relu
  - global_avg_pool
  - flatten
  - linear: {units: 3}
output:
  late: {}
  early: {from: early}
"""
"""A float layer between int8 layers, and an output that does not depend on it."""


@pytest.fixture
def norm(tcc, home, images):
    """Build a bundle of `NORM` with random weights. Its accuracy does not matter."""

    def build_norm(target: str) -> Path:
        if target == "tflite":
            pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
        (home / "norm.yaml").write_text(NORM)
        args = ("build", "norm.yaml", "--target", target, "--precision", "int8", "--data", images)
        bounds = ("--floor=min_cosine=0", "--floor=max_error=9", "--floor=min_correlation=0")
        outcome = tcc(*args, "-q", *bounds)
        assert outcome.code == 0, outcome.err
        return home / f"build/norm-{target}-int8"

    return build_norm


def read_tolerances(outcome) -> dict[str, float]:
    return {
        comparison["output"]: comparison["allowed"]
        for comparison in outcome.document["bundles"][0]["agreement"]
    }


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_float_layer_gives_a_tolerance_to_later_outputs(tcc, norm, target):
    folder = norm(target)
    assert read_manifest(folder).calibration.inexact == ("layer_norm",)
    outcome = tcc("verify", folder, "--json")
    assert outcome.code == 0, outcome.err
    assert read_tolerances(outcome) == {"late": 0.05, "early": 0.0}
    path = folder / "goldens/1/output_1.bin"
    golden_values = np.fromfile(path, "<f4")
    path.write_bytes((golden_values * np.float32(1 + 1e-6)).tobytes())
    write_sealed_manifest(folder, read_manifest(folder), 0.1)
    assert tcc("verify", folder).code == 4


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_data_movement_in_float_gives_no_tolerance(tcc, home, images, target):
    if target == "tflite":
        pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    shuffled = NORM.replace("layer_norm", "channel_shuffle: {groups: 2}\n  - gelu")
    (home / "norm.yaml").write_text(shuffled)
    assert tcc("calibrate", "norm.yaml", "--data", images, "-o", "c.json", "-q").code == 0
    calibration = calibration_document.read_document(home / "c.json")
    calibration = replace(calibration, in_float=("channel_shuffle", "gelu"))
    (home / "c.json").write_bytes(calibration_document.encode(calibration))
    args = ("build", "norm.yaml", "--target", target, "--precision", "int8")
    bounds = ("--floor=min_cosine=0", "--floor=max_error=9", "--floor=min_correlation=0")
    outcome = tcc(*args, "--calibration", "c.json", "-q", *bounds)
    assert outcome.code == 0, outcome.err
    folder = home / f"build/norm-{target}-int8"
    assert read_manifest(folder).calibration.inexact == ("gelu",)
    assert read_tolerances(tcc("verify", folder, "--json")) == {"late": 0.05, "early": 0.0}


LISTED_LAYERS = {
    "no layer of the program": (("fc",), "`fc` is not a layer of graph/int8.txt"),
    "another in addition": (("layer_norm", "fc"), "`fc` is not a layer of graph/int8.txt"),
    "an int8 layer in addition": (
        ("layer_norm", "relu_2"),
        "`relu_2` is listed, but is not in",
    ),
    "a layer of integers in its place": (("relu_2",), "`layer_norm:float` is in float, but is not"),
}


@pytest.mark.parametrize(("names", "label"), LISTED_LAYERS.values(), ids=LISTED_LAYERS)
def test_names_that_are_not_float_layers_are_refused(tcc, norm, picture, names, label):
    folder = norm("onnxruntime")
    original_manifest = read_manifest(folder)
    calibrated = replace(original_manifest.calibration, inexact=names)
    write_sealed_manifest(folder, replace(original_manifest, calibration=calibrated), 0.1)
    for args in (("run", folder, picture), ("verify", folder)):
        outcome = tcc(*args)
        assert outcome.code == 4, (args, outcome.err)
        assert "error[E0656]: the manifest does not match the artifact" in outcome.err
        assert f"calibration/inexact: {label}" in outcome.err


def test_names_that_are_not_float_layers_of_a_tflite_file_are_refused(tcc, norm):
    folder = norm("tflite")
    original_manifest = read_manifest(folder)
    for names, label in LISTED_LAYERS.values():
        calibrated = replace(original_manifest.calibration, inexact=names)
        write_sealed_manifest(folder, replace(original_manifest, calibration=calibrated), 0.1)
        outcome = tcc("verify", folder)
        assert outcome.code == 4, (names, outcome.err)
        assert f"calibration/inexact: {label.partition(':')[0]}" in outcome.err


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", None])
def test_invalid_printed_program_is_refused(tcc, norm, text):
    folder = norm("onnxruntime")
    path = folder / "graph/int8.txt"
    forged_manifest = read_manifest(folder)
    if text is None:
        path.unlink()
        forged_manifest = replace(
            forged_manifest,
            files=tuple(f for f in forged_manifest.files if f.path != "graph/int8.txt"),
        )
    else:
        path.write_bytes(text)
    write_sealed_manifest(folder, forged_manifest, 0.1)
    outcome = tcc("verify", folder)
    assert outcome.code == 4
    assert "error[E0656]" in outcome.err


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_float_layers_without_later_rounding_get_the_float_tolerance(tcc, home, images, target):
    args = ("build", "tiny.yaml", "--target", target, "--precision", "int8", "--data", images)
    measured = tcc(*args, "--floor", "min_cosine=0", "-q")
    assert measured.code == 0, measured.err
    folder = home / f"build/tiny-{target}-int8"
    cosine = read_manifest(folder).calibration.measured.outputs["logits"].cosine
    floor = 1 - (1 - cosine) / 3
    assert tcc(*args, "--floor", f"min_cosine={floor}", "--mixed", "-q").code == 0
    assert read_manifest(folder).calibration.inexact
    assert read_manifest(folder).goldens.tolerance.relative == 1e-4
    write_sealed_manifest(folder, read_manifest(folder), 0.1)
    outcome = tcc("verify", folder, "--json")
    assert outcome.code == 0, outcome.err
    assert read_tolerances(outcome) == {"logits": 1e-4}
    for path in folder.glob("goldens/*/output_0.bin"):
        path.write_bytes((np.fromfile(path, "<f4") + np.float32(1e-3)).tobytes())
    write_sealed_manifest(folder, read_manifest(folder), 0.1)
    assert tcc("verify", folder).code == 4
