"""`tcc build` for several targets: one calibration, and a table of their agreement."""

import numpy as np
import pytest

from tcc.backends.onnxruntime.backend import OnnxRuntime

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

BOTH = ("build", "tiny.yaml", "--target", "ort,tflite")
METHOD = ("--method", "minmax")
INT8 = ("--precision", "int8", *METHOD)
LAYERS = ["relu", "global_avg_pool"]


@pytest.fixture
def int8(tcc, images):
    """Build int8 models for ONNX Runtime and TFLite."""

    def run(*args):
        return tcc(*BOTH, *INT8, "--data", images, *args)

    return run


@pytest.fixture
def replace_layer_values(monkeypatch):
    """Make ONNX Runtime report other quantized values of one layer than it computes."""

    def replace_values(layer, by) -> None:
        original_inner_levels = OnnxRuntime.trace_quantized_values

        def yield_values(self, *arguments):
            for layer_values in original_inner_levels(self, *arguments):
                yield {k: by(v) if k == layer else v for k, v in layer_values.items()}

        monkeypatch.setattr(OnnxRuntime, "trace_quantized_values", yield_values)

    return replace_values


def test_each_target_matches_the_reference(int8):
    outcome = int8("--json")
    assert outcome.code == 0, outcome.err
    agreement = outcome.document["agreement"]
    assert [target["target"] for target in agreement["targets"]] == ["onnxruntime", "tflite"]
    for target in agreement["targets"]:
        assert (target["inputs"], target["unchecked"], target["holds"]) == (2, None, True)
        assert target["outputs"] == {"values": 6, "differing": 0, "difference": 0}
        assert [layer["name"] for layer in target["layers"]][:2] == LAYERS
        assert all(layer["values"] and not layer["differing"] for layer in target["layers"])
    assert agreement["holds"] is True


def test_agreement_table(int8):
    lines = int8().out.splitlines()
    head = next(line for line in lines if line.startswith("target"))
    assert head.split()[:6] == ["target", "precision", "inputs", "layers", "values", "differ"]
    rows = lines[lines.index(head) + 1 :][:2]
    assert [row.split()[:3] for row in rows] == [
        ["onnxruntime", "int8", "2"],
        ["tflite", "int8", "2"],
    ]
    assert all(row.endswith("bit-exact") for row in rows)


def test_different_output_types_are_reported(int8):
    (pair,) = int8("--json").document["agreement"]["pairs"]
    assert pair["differing"] > 0
    assert pair["why"] == "tflite outputs the 8-bit quantized values of its last layer"


def test_one_program_for_both_targets_is_exact(tcc, images):
    outcome = tcc(*BOTH, "--precision", "int8-i8", *METHOD, "--data", images, "--json")
    (pair,) = outcome.document["agreement"]["pairs"]
    assert (pair["exact"], pair["differing"], pair["values"]) == (True, 0, 6)


def test_agreement_over_user_images(int8):
    agreement = int8("--json", "--agree", "5").document["agreement"]
    for target in agreement["targets"]:
        assert target["inputs"] == 7
        assert target["outputs"] == {"values": 21, "differing": 0, "difference": 0}
    assert agreement["pairs"][0]["inputs"] == 7


def test_float_agreement_over_images(tcc, images):
    agreement = tcc(*BOTH, "--data", images, "--agree", "3", "--json").document["agreement"]
    for target in agreement["targets"]:
        assert (target["inputs"], target["layers"], target["holds"]) == (5, None, True)
        assert "order of their terms" in target["float"]


def test_images_without_a_folder_are_refused(tcc):
    outcome = tcc(*BOTH, "--agree", "3")
    assert outcome.code == 2
    assert "error[E0616]: no images to calibrate with" in outcome.err


def test_one_target_has_no_agreement_table(tcc, built):
    args = ("build", "tiny.yaml", "--target", "ort", "--json")
    assert "agreement" not in tcc(*args).document


def test_no_replay_reports_no_agreement(int8):
    outcome = int8("--json", "--no-replay")
    agreement = outcome.document["agreement"]
    assert [target["unchecked"] for target in agreement["targets"]] == ["--no-replay"] * 2
    assert [target["holds"] for target in agreement["targets"]] == [None, None]
    assert [target["inputs"] for target in agreement["targets"]] == [0, 0]
    assert agreement["pairs"] == []
    assert int8("--no-replay").out.count("not compared: --no-replay") == 2


def test_missing_runtime_is_reported(int8, monkeypatch):
    missing = [replace_version(tool) for tool in OnnxRuntime().tools(OnnxRuntime().targets[0])]
    monkeypatch.setattr(OnnxRuntime, "tools", lambda self, target: missing)
    first_target, second_target = int8("--json").document["agreement"]["targets"]
    assert (first_target["unchecked"], first_target["holds"]) == (
        "onnxruntime is not installed",
        None,
    )
    assert second_target["holds"] is True


def replace_version(tool):
    from dataclasses import replace

    return tool if tool.builds else replace(tool, version=None)


@pytest.mark.parametrize(
    "by",
    [lambda v: v ^ np.array(1, v.dtype), np.zeros_like, lambda v: v.reshape(-1)[:-1]],
    ids=["one bit of each", "nothing", "one level less"],
)
def test_differing_layer_is_named_and_no_bundle_is_written(int8, home, replace_layer_values, by):
    replace_layer_values("relu", by)
    outcome = int8()
    assert outcome.code == 4
    assert (
        "error: onnxruntime: the built artifact does not match the reference outputs" in outcome.err
    )
    assert "the first layer that differs is `relu`" in outcome.err
    assert not (home / "build/tiny-onnxruntime-int8").exists()


def test_failed_second_target_keeps_the_first_bundle(tcc, home, images, replace_layer_values):
    replace_layer_values("relu", lambda v: v ^ np.array(1, v.dtype))
    args = (*INT8, "--data", images)
    assert tcc("build", "tiny.yaml", "--target", "tflite,ort", *args).code == 4
    assert tcc("verify", "build/tiny-tflite-int8").code == 0
    assert [path.name for path in (home / "build").iterdir()] == ["tiny-tflite-int8"]


def test_second_golden_is_compared(int8, home, monkeypatch):
    original_infer = OnnxRuntime.infer

    def run(self, *arguments):
        first_output, *other_outputs = original_infer(self, *arguments)
        return [
            first_output,
            *({k: v + np.float32(1) for k, v in output.items()} for output in other_outputs),
        ]

    monkeypatch.setattr(OnnxRuntime, "infer", run)
    outcome = int8()
    assert outcome.code == 4
    assert "golden 2, output `logits`" in outcome.err
    assert not (home / "build/tiny-onnxruntime-int8").exists()


def test_precision_missing_on_one_target_is_refused_early(tcc, home):
    outcome = tcc("build", "tiny.yaml", "--target", "ort,arm-a7,tflite", "--precision", "fp16")
    assert outcome.code == 2
    assert "error[E0606]: arm-a7 does not support precision `fp16`" in outcome.err
    assert "--> command line: --precision fp16" in outcome.err
    assert not (home / "build").exists()
