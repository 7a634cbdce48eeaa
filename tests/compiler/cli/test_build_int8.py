"""`tcc build --precision int8` on the command line."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from tcc.compiler.passes import RENAMED_PASSES
from tcc.compiler.quant import calibration_document
from tcc.compiler.quant.methods import fast

BUILD = ("build", "tiny.yaml", "--target", "onnxruntime", "--precision", "int8")
FOLDER = "build/tiny-onnxruntime-int8"


def test_bundle_has_the_program_and_its_calibration(tcc, home, images):
    outcome = tcc(*BUILD, "--data", images, "--json")
    assert outcome.code == 0, outcome.err
    (bundle_report,) = outcome.document["bundles"]
    assert bundle_report["path"] == FOLDER
    assert all(comparison["difference"] == 0 for comparison in bundle_report["agreement"])
    manifest = json.loads((home / FOLDER / "manifest.json").read_text())
    calibration = manifest["calibration"]
    assert calibration == bundle_report["calibration"]
    assert calibration["images"] == 24
    assert calibration["inexact"] == calibration["in_float"] == []
    assert calibration["measured"]["where"] == "held out of the calibration"
    assert calibration["measured"]["outputs"]["logits"]["cosine"] > 0.999
    assert manifest["input"]["dtype"] == "uint8"
    assert manifest["input"]["preprocess"]["raw"] is True
    assert manifest["goldens"]["executor"] == "integers"
    assert manifest["goldens"]["tolerance"]["relative"] == 0
    text = (home / FOLDER / "graph/int8.txt").read_text()
    assert "input %image : uint8[3x8x8] * 1" in text
    model = onnx.load(home / FOLDER / "model/model.onnx")
    assert {"QLinearConv"} <= {node.op_type for node in model.graph.node}


def test_report_lists_every_layer(tcc, home, images):
    outcome = tcc(*BUILD, "--data", images)
    assert outcome.code == 0, outcome.err
    assert "int8 against fp32 over 6 images held out of the calibration" in outcome.err
    assert "  logits (classes): mean cosine 1.0000" in outcome.err
    assert (
        "  logits on unseen images like the calibration's (95 % bounds, estimated from 24 images): mean cosine at least 0.99999"
        in outcome.err
    )
    assert "SNR dB" not in outcome.err
    assert "SNR dB" in tcc(*BUILD, "--data", images, "-v").err
    report = json.loads((home / FOLDER / "report/int8.json").read_text())
    expected_floor = {"cosine": 0.98, "drop": None, "correlation": 0.5, "error": None, "images": 16}
    assert report["floor"] == {"logits": expected_floor}
    assert report["layers"][0]["name"] == "image"
    assert report["quality"]["logits"]["images"] == 6


def test_same_inputs_give_the_same_bytes(tcc, home, images):
    assert tcc(*BUILD, "--data", images, "-q").code == 0
    assert tcc(*BUILD, "--data", images, "-q", "--out", "again").code == 0
    first_files, second_files = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (home / FOLDER, home / "again/tiny-onnxruntime-int8")
    )
    assert first_files == second_files


def test_limited_images_are_not_evaluated_as_unseen_ones(tcc, home, images, monkeypatch):
    few = ("-o", "c.json", "-q", "--images", 20)
    assert tcc("calibrate", "tiny.yaml", "--data", images, *few).code == 0
    outcome = tcc(*BUILD, "--calibration", "c.json", "--data", images)
    assert outcome.code == 0, outcome.err
    assert "int8 against fp32 over 5 images held out of the calibration" in outcome.err
    # A method that uses only a few images is also recognized, with and without a cache.
    monkeypatch.setattr(fast, "MAX_IMAGES", 20)
    for suffix in ("", "-again"):
        fast_outcome = tcc(
            *BUILD, "--method", "fast", "--data", images, "--out", f"fast{suffix}", "--json"
        )
        assert fast_outcome.code == 0, fast_outcome.err
        calibration = fast_outcome.document["bundles"][0]["calibration"]
        assert (calibration["images"], calibration["measured"]["where"]) == (
            20,
            "held out of the calibration",
        )
        assert calibration["measured"]["outputs"]["logits"]["images"] == 5


def test_calibration_file_may_use_old_pass_names(tcc, home, images):
    assert tcc("calibrate", "tiny.yaml", "--data", images, "-o", "c.json", "-q").code == 0
    calibration = calibration_document.read_document(home / "c.json")
    passes = calibration.passes
    for old, graph_pass in RENAMED_PASSES.items():
        assert graph_pass.name in passes
        passes = passes.replace(graph_pass.name, old)
    older = calibration_document.encode(replace(calibration, passes=passes))
    (home / "c.json").write_bytes(older)
    assert tcc(*BUILD, "--calibration", "c.json", "-q").code == 0


def test_calibration_file_builds_without_images(tcc, home, images):
    assert tcc("calibrate", "tiny.yaml", "--data", images, "-o", "c.json", "-q").code == 0
    outcome = tcc(*BUILD, "--calibration", "c.json", "-q")
    assert outcome.code == 0, outcome.err
    manifest = json.loads((home / FOLDER / "manifest.json").read_text())
    assert manifest["calibration"]["measured"]["where"] == "according to the calibration file"
    assert tcc(*BUILD, "--data", images, "-q", "--out", "fresh").code == 0
    files = (home / FOLDER, home / "fresh/tiny-onnxruntime-int8")
    assert len({(f / "model/model.onnx").read_bytes() for f in files}) == 1


def test_int8_without_images_is_refused(tcc, home):
    outcome = tcc(*BUILD)
    assert outcome.code == 2
    assert "error[E0616]: no images to calibrate with" in outcome.err
    assert not (home / "build").exists()


def test_calibration_without_figures_needs_images(tcc, home, images):
    assert tcc("calibrate", "tiny.yaml", "--data", images, "-o", "c.json", "-q").code == 0
    silent = replace(calibration_document.read_document(home / "c.json"), expected={})
    (home / "c.json").write_bytes(calibration_document.encode(silent))
    outcome = tcc(*BUILD, "--calibration", "c.json")
    assert outcome.code == 2
    assert "error[E0618]: the accuracy floor needs images" in outcome.err
    outcome = tcc(*BUILD, "--calibration", "c.json", "--floor", "min_cosine=0")
    assert outcome.code == 0, outcome.err
    assert "warning: no accuracy estimate for the int8 model" in outcome.err


def test_model_below_the_floor_is_not_written(tcc, home, images):
    outcome = tcc(*BUILD, "--data", images, "--floor", "min_cosine=1", "--json")
    assert outcome.code == 4
    assert not (home / FOLDER).exists()
    assert "error: int8 model: the mean cosine of `logits` is" in outcome.err
    assert "layers with the largest quantization error:" in outcome.err
    assert "tiny.yaml:" in outcome.err
    assert "use `--mixed`, which keeps the layers" in outcome.err
    assert outcome.document["exit"] == 4
    assert outcome.document["culprits"][0]["layer"]


def test_command_line_floor_overrides_the_spec(tcc, home, images):
    spec = (home / "tiny.yaml").read_text()
    (home / "tiny.yaml").write_text(spec + "\naccuracy: {min_cosine: 1.0}\n")
    assert tcc(*BUILD, "--data", images, "-q").code == 4
    assert tcc(*BUILD, "--data", images, "-q", "--floor", "min_cosine=0.9").code == 0


def test_mixed_precision_reaches_the_floor(tcc, home, images):
    outcome_before = tcc(*BUILD, "--data", images, "--floor", "min_cosine=0", "-q")
    assert outcome_before.code == 0, outcome_before.err
    manifest = json.loads((home / FOLDER / "manifest.json").read_text())
    cosine = manifest["calibration"]["measured"]["bounds"]["logits"]["cosine"]
    floor = 1 - (1 - cosine) / 3
    assert tcc(*BUILD, "--data", images, "--floor", f"min_cosine={floor}", "-q").code == 4
    outcome = tcc(*BUILD, "--data", images, "--floor", f"min_cosine={floor}", "--mixed")
    assert outcome.code == 0, outcome.err
    assert "in float: " in outcome.err
    manifest = json.loads((home / FOLDER / "manifest.json").read_text())
    calibration = manifest["calibration"]
    assert calibration["measured"]["bounds"]["logits"]["cosine"] >= floor
    assert calibration["measured"]["bounds"]["logits"]["images"] == 16
    expected_where = (
        "held out of the calibration, and 10 that the calibration used;"
        " other images chose the layers that stay in float"
    )
    assert calibration["measured"]["where"] == expected_where
    assert f"images {expected_where}" in outcome.err
    assert calibration["in_float"]
    assert calibration["inexact"]
    assert manifest["goldens"]["tolerance"]["relative"] > 0


@pytest.mark.parametrize(
    "options", [("--mixed",), ("--floor", "min_cosine=0.9"), ("--calibration", "c.json")], ids=str
)
def test_int8_options_are_refused_for_float_builds(tcc, home, options):
    outcome = tcc("build", "tiny.yaml", "--target", "onnxruntime", *options)
    assert outcome.code == 2
    assert f"`{options[0]}` has no effect: no target is built as int8" in outcome.err


def test_unsupported_int8_form_is_refused(tcc, home, images):
    args = ("--target", "host", "--precision", "int8-u8u8", "--data", images)
    outcome = tcc("build", "tiny.yaml", *args)
    assert outcome.code == 2
    assert "error[E0606]: host does not support precision `int8-u8u8`" in outcome.err
    assert "supported precisions: fp32, fp32-direct, int8, int8-i8, int8-counted" in outcome.err


def test_int8_predictions_match_the_float_model(tcc, home, images):
    assert tcc(*BUILD, "--data", images, "-q").code == 0
    paths = sorted(images.rglob("*.png"))
    int8_document = tcc("run", FOLDER, *paths, "--json").document
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    real = tcc("run", "build/tiny-onnxruntime-fp32", *paths, "--json").document
    for a, b in zip(int8_document["images"], real["images"], strict=True):
        int8_logits, float_logits = (np.array(x["outputs"]["logits"]["raw"]) for x in (a, b))
        assert np.abs(int8_logits - float_logits).max() < 0.02


def test_show_prints_the_int8_program(tcc, home, images):
    tokens = (
        "calibrate",
        "tiny.yaml",
        "--data",
        images,
        "--method",
        "minmax",
        "-o",
        "c.json",
        "-q",
    )
    assert tcc(*tokens).code == 0
    show = ("show", "tiny.yaml", "--stage", "int8", "--calibration", "c.json")
    outcome = tcc(*show)
    assert outcome.code == 0, outcome.err
    assert "  %relu = qconv(%image) {filters=4, " in outcome.out
    assert "low=0, high=255} : uint8[4x8x8] * 0." in outcome.out
    tokens = [node["op"] for node in tcc(*show, "--json").document["nodes"]]
    assert tokens == ["qconv", "qglobal_avg_pool", "real_conv", "flatten"]
    assert tcc(*show, "--format", "svg", "--level", "op", "-o", "net.svg").code == 0
    assert "qconv" in (home / "net.svg").read_text()
    assert tcc(*show, "--format", "onnx", "-o", "net.onnx").code == 0
    assert onnx.load(home / "net.onnx").graph.input[0].type.tensor_type.elem_type == 2


def test_int8_stage_needs_a_calibration(tcc, home):
    outcome = tcc("show", "tiny.yaml", "--stage", "int8")
    assert outcome.code == 2
    assert "the stage `int8` needs a calibration" in outcome.err
    outcome = tcc("show", "tiny.yaml", "--calibration", "c.json")
    assert outcome.code == 2
    assert "`--calibration` has no effect: only the stage `int8` has scales" in outcome.err


def test_slow_lookup_tables_are_reported(tcc, home, images, monkeypatch):
    # Only one runtime finds a processor without VNNI.
    flags = {"onnxruntime": {"avx2"}, "tflite": {"avx2", "avx_vnni"}}
    for runtime, features in flags.items():
        monkeypatch.setattr(
            f"tcc.backends.{runtime}.backend.read_features", lambda features=features: features
        )
    text = (home / "tiny.yaml").read_text()
    assert "- relu" in text
    (home / "tiny.yaml").write_text(text.replace("- relu", "- gelu", 1))
    outcome = tcc("build", "tiny.yaml", "--target", "onnxruntime,tflite", "--precision", "int8",
                "--data", images)  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("this processor has no VNNI: the int8 model may be slower") == 1
    for target in ("onnxruntime", "tflite"):
        assert f"warning[W0662]: {target} runs `" in outcome.err
    assert "`gelu` of quantized values is a table lookup, and gathering" in outcome.err
    # Other layers, tables over one pixel and float layers are not reported.
    assert tcc("check", "tiny.yaml", "--target", "onnxruntime").err.count("W0662") == 0
    assert (
        tcc("check", "tiny.yaml", "--target", "onnxruntime", "--precision", "int8").err.count(
            "W0662"
        )
        == 1
    )
