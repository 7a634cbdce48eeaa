"""Bundles sealed again that claim less exact numbers than their artifacts compute with."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcc.compiler.bundle import manifest
from tcc.compiler.quant import calibration_document

INT8 = "calibration/inexact: `fc` is there, and no layer is in float"


def about(folder: Path) -> manifest.Manifest:
    return manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")


def sealed(folder: Path, found: manifest.Manifest, relative: float) -> None:
    """Write a manifest with a tolerance as a forger would: files hashed anew, sealed."""
    files = tuple(
        replace(f, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for f in found.files
        for data in [(folder / f.path).read_bytes()]
    )
    within = replace(found.goldens.tolerance, relative=relative)
    found = replace(found, files=files, goldens=replace(found.goldens, tolerance=within))
    (folder / manifest.NAME).write_bytes(manifest.encode(found))


def inexact(m: manifest.Manifest) -> manifest.Manifest:
    return replace(m, calibration=replace(m.calibration, inexact=("fc",)))


def of(precision: str):
    calibrated = precision.startswith("int8")
    return lambda m: replace(
        m, precision=precision, calibration=m.calibration if calibrated else None
    )


FORGED = {
    "a layer that is in float": ("onnxruntime", "int8", inexact, 0.1, INT8),
    "such a layer, of unsigned weights": ("onnxruntime", "int8-u8u8", inexact, 0.1, INT8),
    "dynamic": (
        "onnxruntime", "int8", of("dynamic"), 0.1,
        "precision: `dynamic` is of floats, and the artifact computes on integers",
    ),
    "fp16": ("onnxruntime", "int8", of("fp16"), 0.01, "precision: `fp16` is of floats"),
    "fp32": ("onnxruntime", "int8", of("fp32"), 1e-4, "precision: `fp32` is of floats"),
    "integers between floats": (
        "onnxruntime", "int8", of("int8-qdq"), 0.1,
        "precision: `int8-qdq` has products of floats, and the artifact none",
    ),
    "tflite: a layer that is in float": ("tflite", "int8", inexact, 0.1, INT8),
    "tflite: such a layer, unsigned": ("tflite", "int8-u8", inexact, 0.1, INT8),
    "tflite: dynamic": ("tflite", "int8", of("dynamic"), 0.1, "precision: `dynamic` is of floats"),
    "tflite: fp16": ("tflite", "int8", of("fp16"), 0.01, "precision: `fp16` is of floats"),
}  # fmt: skip


@pytest.fixture
def build(tcc, home, images):
    """Build a bundle of the spec; a wide one has weights that are worth a smaller type."""

    def made(target: str, precision: str) -> Path:
        if target == "tflite":
            pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
        data = ("--data", images) if precision.startswith("int8") else ()
        words = ("build", "tiny.yaml", "--target", target, "--precision", precision, "-q")
        found = tcc(*words, "--set", "width=32", *data)
        assert found.code == 0, found.err
        return home / f"build/tiny-{target}-{precision}"

    return made


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_manifest_that_its_artifact_belies(tcc, build, picture, images, forged):
    target, precision, change, relative, label = forged
    folder = build(target, precision)
    sealed(folder, change(about(folder)), relative)
    for command in (
        ("run", folder, picture),
        ("verify", folder),
        ("eval", folder, "--data", images),
    ):
        found = tcc(*command)
        assert found.code == 4, (command, found.err)
        assert "error[E0656]: the manifest says of the artifact what it is not" in found.err
        assert f"--> {folder / manifest.NAME}" in found.err
        assert label in found.err


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
@pytest.mark.parametrize(("precision", "relative"), [("fp16", 0.01), ("dynamic", 0.1)])
def test_weights_that_nobody_rounded_earn_what_floats_do(tcc, build, target, precision, relative):
    folder = build(target, "fp32")
    for path in folder.glob("goldens/*/output_0.bin"):
        path.write_bytes((np.fromfile(path, "<f4") + np.float32(1e-3)).tobytes())
    sealed(folder, of(precision)(about(folder)), relative)
    found = tcc("verify", folder, "--json")
    assert found.code == 4
    allowed = [one["allowed"] for one in found.document["bundles"][0]["agreement"]]
    assert allowed == [1e-4, 1e-4]


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
@pytest.mark.parametrize(("precision", "relative"), [("fp16", 0.01), ("dynamic", 0.1)])
def test_rounded_weights_earn_their_tolerance(tcc, build, target, precision, relative):
    found = tcc("verify", build(target, precision), "--json")
    assert found.code == 0, found.err
    allowed = [one["allowed"] for one in found.document["bundles"][0]["agreement"]]
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
"""A layer in float between others, and an output that is none of its."""


@pytest.fixture
def norm(tcc, home, images):
    """Build a bundle of `NORM`; its weights are random, and what it loses is of no matter."""

    def made(target: str) -> Path:
        if target == "tflite":
            pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
        (home / "norm.yaml").write_text(NORM)
        words = ("build", "norm.yaml", "--target", target, "--precision", "int8", "--data", images)
        bounds = ("--floor=min_cosine=0", "--floor=max_error=9", "--floor=min_correlation=0")
        found = tcc(*words, "-q", *bounds)
        assert found.code == 0, found.err
        return home / f"build/norm-{target}-int8"

    return made


def allowed(found) -> dict[str, float]:
    return {one["output"]: one["allowed"] for one in found.document["bundles"][0]["agreement"]}


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_a_layer_in_float_earns_a_tolerance_for_what_comes_behind_it(tcc, norm, target):
    folder = norm(target)
    assert about(folder).calibration.inexact == ("layer_norm",)
    found = tcc("verify", folder, "--json")
    assert found.code == 0, found.err
    assert allowed(found) == {"late": 0.05, "early": 0.0}
    path = folder / "goldens/1/output_1.bin"
    levels = np.fromfile(path, "<f4")
    path.write_bytes((levels * np.float32(1 + 1e-6)).tobytes())
    sealed(folder, about(folder), 0.1)
    assert tcc("verify", folder).code == 4


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_floats_that_are_only_moved_are_no_layer_in_float(tcc, home, images, target):
    if target == "tflite":
        pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    shuffled = NORM.replace("layer_norm", "channel_shuffle: {groups: 2}\n  - gelu")
    (home / "norm.yaml").write_text(shuffled)
    assert tcc("calibrate", "norm.yaml", "--data", images, "-o", "c.json", "-q").code == 0
    kept = calibration_document.read_document(home / "c.json")
    kept = replace(kept, in_float=("channel_shuffle", "gelu"))
    (home / "c.json").write_bytes(calibration_document.encode(kept))
    words = ("build", "norm.yaml", "--target", target, "--precision", "int8")
    bounds = ("--floor=min_cosine=0", "--floor=max_error=9", "--floor=min_correlation=0")
    found = tcc(*words, "--calibration", "c.json", "-q", *bounds)
    assert found.code == 0, found.err
    folder = home / f"build/norm-{target}-int8"
    assert about(folder).calibration.inexact == ("gelu",)
    assert allowed(tcc("verify", folder, "--json")) == {"late": 0.05, "early": 0.0}


LISTED = {
    "no layer of the program": (("fc",), "`fc` is no layer of graph/int8.txt"),
    "another beside it": (("layer_norm", "fc"), "`fc` is no layer of graph/int8.txt"),
    "a layer of integers beside it": (("layer_norm", "relu_2"), "`relu_2` is there, and is not in"),
    "a layer of integers in its place": (("relu_2",), "`layer_norm:float` is in float, and is not"),
}


@pytest.mark.parametrize(("names", "label"), LISTED.values(), ids=LISTED)
def test_names_that_are_no_layers_in_float(tcc, norm, picture, names, label):
    folder = norm("onnxruntime")
    found = about(folder)
    calibrated = replace(found.calibration, inexact=names)
    sealed(folder, replace(found, calibration=calibrated), 0.1)
    for words in (("run", folder, picture), ("verify", folder)):
        ended = tcc(*words)
        assert ended.code == 4, (words, ended.err)
        assert "error[E0656]: the manifest says of the artifact what it is not" in ended.err
        assert f"calibration/inexact: {label}" in ended.err


def test_names_that_are_no_layers_in_float_of_a_tflite_file(tcc, norm):
    folder = norm("tflite")
    found = about(folder)
    for names, label in LISTED.values():
        calibrated = replace(found.calibration, inexact=names)
        sealed(folder, replace(found, calibration=calibrated), 0.1)
        ended = tcc("verify", folder)
        assert ended.code == 4, (names, ended.err)
        assert f"calibration/inexact: {label.partition(':')[0]}" in ended.err


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", None])
def test_a_printed_program_that_says_nothing(tcc, norm, text):
    folder = norm("onnxruntime")
    path = folder / "graph/int8.txt"
    found = about(folder)
    if text is None:
        path.unlink()
        found = replace(found, files=tuple(f for f in found.files if f.path != "graph/int8.txt"))
    else:
        path.write_bytes(text)
    sealed(folder, found, 0.1)
    ended = tcc("verify", folder)
    assert ended.code == 4
    assert "error[E0656]" in ended.err


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_floats_that_nothing_rounds_again_earn_what_floats_do(tcc, home, images, target):
    words = ("build", "tiny.yaml", "--target", target, "--precision", "int8", "--data", images)
    measured = tcc(*words, "--floor", "min_cosine=0", "-q")
    assert measured.code == 0, measured.err
    folder = home / f"build/tiny-{target}-int8"
    cosine = about(folder).calibration.measured.outputs["logits"].cosine
    floor = 1 - (1 - cosine) / 3
    assert tcc(*words, "--floor", f"min_cosine={floor}", "--mixed", "-q").code == 0
    assert about(folder).calibration.inexact
    assert about(folder).goldens.tolerance.relative == 1e-4
    sealed(folder, about(folder), 0.1)
    found = tcc("verify", folder, "--json")
    assert found.code == 0, found.err
    assert allowed(found) == {"logits": 1e-4}
    for path in folder.glob("goldens/*/output_0.bin"):
        path.write_bytes((np.fromfile(path, "<f4") + np.float32(1e-3)).tobytes())
    sealed(folder, about(folder), 0.1)
    assert tcc("verify", folder).code == 4
