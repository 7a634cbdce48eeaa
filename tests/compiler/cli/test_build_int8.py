"""`tcc build --precision int8`, as a user types it."""

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


def test_a_bundle_holds_the_program_and_how_it_came_about(tcc, home, images):
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


def test_the_report_has_every_layer(tcc, home, images):
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


def test_the_same_inputs_give_the_same_bytes(tcc, home, images):
    assert tcc(*BUILD, "--data", images, "-q").code == 0
    assert tcc(*BUILD, "--data", images, "-q", "--out", "again").code == 0
    first_files, second_files = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (home / FOLDER, home / "again/tiny-onnxruntime-int8")
    )
    assert first_files == second_files


def test_a_part_of_the_images_is_not_judged_as_others(tcc, home, images, monkeypatch):
    few = ("-o", "c.json", "-q", "--images", 20)
    assert tcc("calibrate", "tiny.yaml", "--data", images, *few).code == 0
    outcome = tcc(*BUILD, "--calibration", "c.json", "--data", images)
    assert outcome.code == 0, outcome.err
    assert "int8 against fp32 over 5 images held out of the calibration" in outcome.err
    # A method that takes no more than a few is told apart as well, with a cache and without.
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


def test_a_calibration_file_may_name_passes_as_they_were_called_before(tcc, home, images):
    assert tcc("calibrate", "tiny.yaml", "--data", images, "-o", "c.json", "-q").code == 0
    calibration = calibration_document.read_document(home / "c.json")
    passes = calibration.passes
    for old, graph_pass in RENAMED_PASSES.items():
        assert graph_pass.name in passes
        passes = passes.replace(graph_pass.name, old)
    older = calibration_document.encode(replace(calibration, passes=passes))
    (home / "c.json").write_bytes(older)
    assert tcc(*BUILD, "--calibration", "c.json", "-q").code == 0


def test_a_calibration_file_is_as_good_as_its_images(tcc, home, images):
    assert tcc("calibrate", "tiny.yaml", "--data", images, "-o", "c.json", "-q").code == 0
    outcome = tcc(*BUILD, "--calibration", "c.json", "-q")
    assert outcome.code == 0, outcome.err
    manifest = json.loads((home / FOLDER / "manifest.json").read_text())
    assert manifest["calibration"]["measured"]["where"] == "according to the calibration file"
    assert tcc(*BUILD, "--data", images, "-q", "--out", "fresh").code == 0
    files = (home / FOLDER, home / "fresh/tiny-onnxruntime-int8")
    assert len({(f / "model/model.onnx").read_bytes() for f in files}) == 1


def test_without_images_there_are_no_integers(tcc, home):
    outcome = tcc(*BUILD)
    assert outcome.code == 2
    assert "error[E0616]: no images to calibrate with" in outcome.err
    assert not (home / "build").exists()


def test_what_judges_nothing_needs_images(tcc, home, images):
    assert tcc("calibrate", "tiny.yaml", "--data", images, "-o", "c.json", "-q").code == 0
    silent = replace(calibration_document.read_document(home / "c.json"), expected={})
    (home / "c.json").write_bytes(calibration_document.encode(silent))
    outcome = tcc(*BUILD, "--calibration", "c.json")
    assert outcome.code == 2
    assert "error[E0618]: the accuracy floor needs images" in outcome.err
    outcome = tcc(*BUILD, "--calibration", "c.json", "--floor", "min_cosine=0")
    assert outcome.code == 0, outcome.err
    assert "warning: no accuracy estimate for the int8 model" in outcome.err


def test_below_the_floor_nothing_is_written(tcc, home, images):
    outcome = tcc(*BUILD, "--data", images, "--floor", "min_cosine=1", "--json")
    assert outcome.code == 4
    assert not (home / FOLDER).exists()
    assert "error: int8 model: the mean cosine of `logits` is" in outcome.err
    assert "layers with the largest quantization error:" in outcome.err
    assert "tiny.yaml:" in outcome.err
    assert "use `--mixed`, which keeps the layers" in outcome.err
    assert outcome.document["exit"] == 4
    assert outcome.document["culprits"][0]["layer"]


def test_the_spec_sets_the_floor_and_the_command_line_goes_before_it(tcc, home, images):
    spec = (home / "tiny.yaml").read_text()
    (home / "tiny.yaml").write_text(spec + "\naccuracy: {min_cosine: 1.0}\n")
    assert tcc(*BUILD, "--data", images, "-q").code == 4
    assert tcc(*BUILD, "--data", images, "-q", "--floor", "min_cosine=0.9").code == 0


def test_mixed_precision_keeps_the_floor(tcc, home, images):
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
    "words", [("--mixed",), ("--floor", "min_cosine=0.9"), ("--calibration", "c.json")], ids=str
)
def test_floats_take_no_option_of_integers(tcc, home, words):
    outcome = tcc("build", "tiny.yaml", "--target", "onnxruntime", *words)
    assert outcome.code == 2
    assert f"`{words[0]}` has no effect: no target is built as int8" in outcome.err


def test_a_target_without_a_form_of_integers_says_so(tcc, home, images):
    args = ("--target", "host", "--precision", "int8-u8u8", "--data", images)
    outcome = tcc("build", "tiny.yaml", *args)
    assert outcome.code == 2
    assert "error[E0606]: host does not support precision `int8-u8u8`" in outcome.err
    assert "supported precisions: fp32, fp32-direct, int8, int8-i8, int8-counted" in outcome.err


def test_predictions_come_from_the_pixels(tcc, home, images):
    assert tcc(*BUILD, "--data", images, "-q").code == 0
    paths = sorted(images.rglob("*.png"))
    int8_document = tcc("run", FOLDER, *paths, "--json").document
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    real = tcc("run", "build/tiny-onnxruntime-fp32", *paths, "--json").document
    for a, b in zip(int8_document["images"], real["images"], strict=True):
        int8_logits, float_logits = (np.array(x["outputs"]["logits"]["raw"]) for x in (a, b))
        assert np.abs(int8_logits - float_logits).max() < 0.02


def test_the_integer_program_is_shown(tcc, home, images):
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


def test_a_stage_and_a_calibration_go_together(tcc, home):
    outcome = tcc("show", "tiny.yaml", "--stage", "int8")
    assert outcome.code == 2
    assert "the stage `int8` needs a calibration" in outcome.err
    outcome = tcc("show", "tiny.yaml", "--calibration", "c.json")
    assert outcome.code == 2
    assert "`--calibration` has no effect: only the stage `int8` has scales" in outcome.err


def test_tables_over_maps_are_said_to_be_slow(tcc, home, images, monkeypatch):
    # Only one of the two finds a processor without VNNI, as is said of it.
    flags = {"onnxruntime": {"avx2"}, "tflite": {"avx2", "avx_vnni"}}
    for runtime, found in flags.items():
        monkeypatch.setattr(
            f"tcc.backends.{runtime}.backend.read_features", lambda found=found: found
        )
    text = (home / "tiny.yaml").read_text()
    assert "- relu" in text
    (home / "tiny.yaml").write_text(text.replace("- relu", "- gelu", 1))
    found = tcc("build", "tiny.yaml", "--target", "onnxruntime,tflite", "--precision", "int8",
                "--data", images)  # fmt: skip
    assert found.code == 0, found.err
    assert found.out.count("this processor has no VNNI: the int8 model may be slower") == 1
    for target in ("onnxruntime", "tflite"):
        assert f"warning[W0662]: {target} runs `" in found.err
    assert "`gelu` of quantized values is a table lookup, and gathering" in found.err
    # What is no table, or over one pixel, is not named, and neither are floats.
    assert tcc("check", "tiny.yaml", "--target", "onnxruntime").err.count("W0662") == 0
    assert (
        tcc("check", "tiny.yaml", "--target", "onnxruntime", "--precision", "int8").err.count(
            "W0662"
        )
        == 1
    )
