"""Calibrations damaged on purpose: every image gets the same output, and the build is refused."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcc.compiler.quant import calibration_document
from tcc.compiler.reference.accuracy_floor import MIN_IMAGES

HEAD = """\
tcc: 1
name: net
input:
  image:
    shape: [3, 12, 12]
    preprocess: {resize: {size: [12, 12], mode: stretch}}
graph:
  - conv: {filters: 6, kernel: 3, padding: same}
  - relu
"""
BODY = """\
  - conv: {filters: 6, kernel: 3, padding: same}
  - relu:
    id: last
  - global_avg_pool
  - flatten
"""
SIDE_BRANCH = """\
  - side:
      as: other
      body:
        - conv: {filters: 6, kernel: 3, padding: same}
        - relu:
          id: second
        - global_avg_pool
        - flatten
        - linear: {units: 1}
"""
SINGLE_OUTPUTS = {
    "one sigmoid": ("units: 1", "activation: sigmoid"),
    "several sigmoids": ("units: 4", "activation: sigmoid, labels: [a, b, c, d]"),
    "two classes": ("units: 2", "activation: softmax"),
    "six classes": ("units: 6", "activation: softmax"),
    "classes by their labels": ("units: 3", "labels: [a, b, c]"),
    "one quantity": ("units: 1", "activation: none"),
    "three quantities": ("units: 3", "activation: none"),
    "declared classes": ("units: 3", "kind: classes"),
    "declared quantities": ("units: 2", "activation: sigmoid, kind: regression"),
}
TARGETS = ("onnxruntime", "tflite")


def format_spec(units: str, output: str) -> str:
    """Return a spec with one output."""
    return f"{HEAD}{BODY}  - linear: {{{units}}}\noutput:\n  found: {{{output}}}\n"


def format_two_outputs(activation: str) -> str:
    """Return a spec with an output of classes and another output."""
    outputs = f"  found: {{activation: softmax}}\n  other: {{activation: {activation}}}\n"
    return f"{HEAD}{SIDE_BRANCH}{BODY}  - linear: {{units: 3}}\noutput:\n{outputs}"


@pytest.fixture
def pictures(home) -> Path:
    """Twenty-four images with different brightness and colour."""
    rng = np.random.default_rng(1)
    tint = rng.uniform(0.2, 1, (24, 1, 1, 3))
    values = (rng.integers(0, 256, (24, 12, 12, 3)) * tint).astype(np.uint8)
    np.savez(home / "set.npz", images=values)
    return home / "set.npz"


@pytest.fixture
def collapse_layer(tcc, home, pictures) -> Callable[[str], Path]:
    """Write a calibration that reduces all values of one layer to zero."""

    def make(step: str, method: str = "minmax") -> Path:
        args = ("calibrate", "net.yaml", "--seed", 1, "--data", pictures, "--method", method)
        assert tcc(*args, "-o", "c.json", "-q").code == 0
        calibration = calibration_document.read_document(home / "c.json")
        scale = calibration.values[step].scale
        values = {
            name: replace(value_range, scale=2.0**20) if value_range.scale == scale else value_range
            for name, value_range in calibration.values.items()
        }
        bad = replace(calibration, values=values, rounded={})
        (home / "bad.json").write_bytes(calibration_document.encode(bad))
        return home / "bad.json"

    return make


def build(tcc, pictures, target, *options):
    build_args = (
        "net.yaml",
        "--seed",
        1,
        "--target",
        target,
        "--precision",
        "int8",
        "--data",
        pictures,
    )
    return tcc("build", *build_args, *options)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", SINGLE_OUTPUTS)
def test_same_output_for_every_image_is_refused(tcc, home, pictures, collapse_layer, case, target):
    (home / "net.yaml").write_text(format_spec(*SINGLE_OUTPUTS[case]))
    outcome = build(tcc, pictures, target, "--calibration", collapse_layer("last"), "--json")
    assert outcome.code == 4, outcome.err
    assert (
        "`found` does not distinguish the images: its correlation with the fp32 model is"
        in outcome.err
    )
    assert outcome.document["quality"]["found"]["correlation"] == 0
    assert not (home / f"build/net-{target}-int8").exists()


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", SINGLE_OUTPUTS)
def test_models_that_follow_the_float_model_are_built(tcc, home, pictures, case, target):
    (home / "net.yaml").write_text(format_spec(*SINGLE_OUTPUTS[case]))
    # Outputs of random weights vary little, so rounding removes much of the variation. From so few
    # images it is not certain that other images keep half of it.
    low = () if target == "onnxruntime" else ("--floor", "min_correlation=0.2")
    outcome = build(tcc, pictures, target, *low, "--json")
    assert outcome.code == 0, outcome.err
    measured = outcome.document["bundles"][0]["calibration"]["measured"]["outputs"]
    assert measured["found"]["correlation"] > (0.95 if target == "onnxruntime" else 0.5)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_each_output_is_checked_separately(tcc, home, pictures, collapse_layer, activation, target):
    (home / "net.yaml").write_text(format_two_outputs(activation))
    outcome = build(tcc, pictures, target, "--calibration", collapse_layer("second"), "--json")
    assert outcome.code == 4, outcome.err
    assert "`other` does not distinguish the images" in outcome.err
    assert "`found` " not in outcome.document["error"]
    assert outcome.document["quality"]["found"]["correlation"] > 0.95
    assert build(tcc, pictures, target, "-q").code == 0


def test_train_only_outputs_are_not_checked(tcc, home, pictures, collapse_layer):
    (home / "net.yaml").write_text(format_two_outputs("sigmoid, train_only: true"))
    outcome = build(tcc, pictures, "onnxruntime", "--json")
    assert outcome.code == 0, outcome.err
    measured = outcome.document["bundles"][0]["calibration"]["measured"]["outputs"]
    assert set(measured) == {"found"}


def test_no_method_prefers_a_collapsed_model(tcc, home, pictures):
    (home / "net.yaml").write_text(format_spec(*SINGLE_OUTPUTS["one sigmoid"]))
    for method in ("best", "kl-cosine"):
        args = (
            "calibrate",
            "net.yaml",
            "--seed",
            1,
            "--data",
            pictures,
            "--method",
            method,
            "--json",
        )
        document = tcc(*args).document
        losses = {
            name: judgement["found"]["loss"] for name, judgement in document["judged"].items()
        }
        assert document["judged"][document["used"]]["found"]["correlation"] > 0.95
        # the cosine of a single value would be 1 for all methods
        assert len(set(losses.values())) > 1


def test_equal_images_are_reported_as_insufficient(tcc, home, pictures):
    # The network does not read the last row and column.
    text = format_spec(*SINGLE_OUTPUTS["one sigmoid"]).replace(
        "kernel: 3, padding: same", "kernel: 1, stride: 2", 1
    )
    (home / "net.yaml").write_text(text)
    single_message, alike = "one image cannot show", "images with the same fp32 output"
    for count, step, message in ((1, 0, single_message), (3, 0, single_message), (3, 1, alike)):
        pixels = np.full((count, 12, 12, 3), 90, np.uint8)
        pixels[:, 11, 11] += step * np.arange(count, dtype=np.uint8)[:, None]
        np.savez(home / "same.npz", images=pixels)
        outcome = build(tcc, home / "same.npz", "onnxruntime", "-q", "--allow-few")
        assert outcome.code == 0, outcome.err
        assert message in outcome.err
        assert "whether `found` of the int8 model distinguishes images" in outcome.err


def test_margins_explain_changed_classes(tcc, home, pictures):
    """Two classes that are almost equal: ties decide."""
    body = f"{HEAD}{BODY}  - linear: {{units: 1}}\n  - scale: {{factor: -0.001, offset: 5}}\n"
    joined = f"{body}  - concat: [[], [scale: {{factor: -1, offset: 10}}]]\n"
    (home / "net.yaml").write_text(f"{joined}output:\n  found: {{activation: softmax}}\n")
    outcome = build(tcc, pictures, "tflite", "--floor", "min_correlation=0")
    assert outcome.code == 0, outcome.err
    assert "same 0.0%" in outcome.err
    assert "`found`: half of the fp32 model's decisions are less than" in outcome.err
    assert (
        "; 100% of the changed decisions were at most twice this change from a tie" in outcome.err
    )
    (home / "net.yaml").write_text(format_spec(*SINGLE_OUTPUTS["six classes"]))
    outcome = build(tcc, pictures, "onnxruntime", "-v")
    assert "`found`: half of the fp32 model's decisions are less than" in outcome.err


def test_floors_for_correlation_and_error(tcc, home, pictures):
    (home / "net.yaml").write_text(format_spec(*SINGLE_OUTPUTS["one quantity"]))
    outcome = build(tcc, pictures, "onnxruntime", "--floor", "max_error=1e-9")
    assert outcome.code == 4
    assert "the error of `found`, relative to its standard deviation, is 0.0" in outcome.err
    outcome = build(tcc, pictures, "onnxruntime", "--floor", "min_correlation=1")
    assert outcome.code == 4
    assert "the correlation of `found` with the fp32 model is 0.99" in outcome.err
    # it follows the float model, but less closely than requested
    assert "distinguish" not in outcome.err
    text = (home / "net.yaml").read_text()
    (home / "net.yaml").write_text(text + "accuracy: {max_error: 1e-9, min_correlation: 0.9}\n")
    assert build(tcc, pictures, "onnxruntime", "-q").code == 4
    outcome = build(
        tcc, pictures, "onnxruntime", "--floor", "max_error=0.5", "--floor", "min_cosine=0.9"
    )
    assert outcome.code == 0, outcome.err
    assert "`min_cosine` has no effect on an output of one value" in outcome.err


def test_one_collapsed_decision_is_refused(tcc, home, pictures, collapse_layer):
    """Good decisions do not compensate for a collapsed decision with its own branch."""
    head = HEAD + SIDE_BRANCH.replace("units: 1", "units: 1")
    joined = f"{head}{BODY}  - linear: {{units: 3}}\n  - concat: [[], other]\n"
    (home / "net.yaml").write_text(f"{joined}output:\n  found: {{activation: sigmoid}}\n")
    outcome = build(
        tcc, pictures, "onnxruntime", "--calibration", collapse_layer("second"), "--json"
    )
    assert outcome.code == 4, outcome.err
    assert "`found` does not distinguish the images" in outcome.document["error"]


def test_collapse_is_detected_without_images(tcc, home, pictures, collapse_layer):
    """Without images, the build tries a few inputs of random pixels."""
    (home / "net.yaml").write_text(format_spec(*SINGLE_OUTPUTS["one sigmoid"]))
    args = ("build", "net.yaml", "--seed", 1, "--target", "onnxruntime", "--precision", "int8")
    outcome = tcc(*args, "--calibration", collapse_layer("last", "best"))
    assert outcome.code == 4, outcome.err
    assert "`found` is the same for 4 inputs that the fp32 model separates" in outcome.err
    assert tcc(*args, "--calibration", home / "c.json", "-q").code == 0


@pytest.mark.parametrize("method", ["minmax", "fast"])
@pytest.mark.parametrize("count", [3, 24])
def test_calibrate_warns_of_what_build_refuses(tcc, home, method, count):
    # One image with a few pixels changed by 1: the int8 model cannot separate them, and no cosine
    # shows it.
    rng = np.random.default_rng(5)
    pixels = np.repeat(rng.integers(100, 120, (1, 12, 12, 3)), count, axis=0)
    pixels += rng.random(pixels.shape) < np.linspace(0, 0.2, count).reshape(-1, 1, 1, 1)
    np.savez(home / "alike.npz", images=pixels.astype(np.uint8))
    (home / "net.yaml").write_text(format_spec("units: 3", "activation: softmax"))
    args = ("net.yaml", "--seed", 1, "--data", "alike.npz", "--method", method)
    outcome = tcc("calibrate", *args, "-o", "c.json")
    assert outcome.code == 0
    refused = tcc("build", "net.yaml", "--seed", 1, "--data", "alike.npz", "--calibration", "c.json",
                  "--precision", "int8", "--target", "onnxruntime")  # fmt: skip
    assert refused.code == 4
    few = count < MIN_IMAGES
    is_refused = (
        "error[E0722]: the accuracy floor needs at least 16 different images" in refused.err
    )
    assert is_refused == few
    words_of_it = "(the|its) correlation (of `found` )?with the fp32 model"
    assert few or re.search(words_of_it, refused.err)
    assert re.search(f"`build` will refuse this int8 model: .*{words_of_it}", outcome.err)
    # Without the bound there is no warning.
    text = (home / "net.yaml").read_text()
    (home / "net.yaml").write_text(f"{text}accuracy: {{min_correlation: 0}}\n")
    stderr_text = tcc("calibrate", *args, "-o", "c.json").err
    assert ("`build` will refuse" in stderr_text) == few
    assert (f"only {count} different images: the floor needs 16" in stderr_text) == few
