"""`tcc build` for several targets: one calibration, and a table of how they agree."""

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
    """Build for ONNX Runtime and TFLite with integers."""

    def run(*words):
        return tcc(*BOTH, *INT8, "--data", images, *words)

    return run


@pytest.fixture
def inner(monkeypatch):
    """Have ONNX Runtime show other levels of one layer than it computes."""

    def change(layer, by) -> None:
        right = OnnxRuntime.trace_quantized_values

        def levels(self, *arguments):
            for found in right(self, *arguments):
                yield {k: by(v) if k == layer else v for k, v in found.items()}

        monkeypatch.setattr(OnnxRuntime, "trace_quantized_values", levels)

    return change


def test_each_target_beside_the_reference(int8):
    ended = int8("--json")
    assert ended.code == 0, ended.err
    found = ended.document["agreement"]
    assert [each["target"] for each in found["targets"]] == ["onnxruntime", "tflite"]
    for each in found["targets"]:
        assert (each["inputs"], each["unchecked"], each["holds"]) == (2, None, True)
        assert each["outputs"] == {"values": 6, "differing": 0, "difference": 0}
        assert [layer["name"] for layer in each["layers"]][:2] == LAYERS
        assert all(layer["values"] and not layer["differing"] for layer in each["layers"])
    assert found["holds"] is True


def test_the_table(int8):
    lines = int8().out.splitlines()
    head = next(line for line in lines if line.startswith("target"))
    assert head.split()[:6] == ["target", "precision", "inputs", "layers", "values", "differ"]
    rows = lines[lines.index(head) + 1 :][:2]
    assert [row.split()[:3] for row in rows] == [
        ["onnxruntime", "int8", "2"],
        ["tflite", "int8", "2"],
    ]
    assert all(row.endswith("to the bit") for row in rows)


def test_ends_of_another_kind_are_said(int8):
    (pair,) = int8("--json").document["agreement"]["pairs"]
    assert pair["differing"] > 0
    assert pair["why"] == "tflite gives 8-bit levels at its end, which are the last layer's"


def test_one_program_for_both(tcc, images):
    ended = tcc(*BOTH, "--precision", "int8-i8", *METHOD, "--data", images, "--json")
    (pair,) = ended.document["agreement"]["pairs"]
    assert (pair["exact"], pair["differing"], pair["values"]) == (True, 0, 6)


def test_over_images_of_the_users(int8):
    found = int8("--json", "--agree", "5").document["agreement"]
    for each in found["targets"]:
        assert each["inputs"] == 7
        assert each["outputs"] == {"values": 21, "differing": 0, "difference": 0}
    assert found["pairs"][0]["inputs"] == 7


def test_floats_over_images(tcc, images):
    found = tcc(*BOTH, "--data", images, "--agree", "3", "--json").document["agreement"]
    for each in found["targets"]:
        assert (each["inputs"], each["layers"], each["holds"]) == (5, None, True)
        assert "order of their terms" in each["float"]


def test_images_without_a_folder(tcc):
    ended = tcc(*BOTH, "--agree", "3")
    assert ended.code == 2
    assert "error[E0616]: calibrate with which images?" in ended.err


def test_one_target_has_no_table(tcc, built):
    words = ("build", "tiny.yaml", "--target", "ort", "--json")
    assert "agreement" not in tcc(*words).document


def test_what_is_not_run_agrees_with_nothing(int8):
    ended = int8("--json", "--no-replay")
    found = ended.document["agreement"]
    assert [each["unchecked"] for each in found["targets"]] == ["--no-replay"] * 2
    assert [each["holds"] for each in found["targets"]] == [None, None]
    assert [each["inputs"] for each in found["targets"]] == [0, 0]
    assert found["pairs"] == []
    assert int8("--no-replay").out.count("not compared: --no-replay") == 2


def test_a_missing_emulator_is_said(int8, monkeypatch):
    missing = [replace_version(tool) for tool in OnnxRuntime().tools(OnnxRuntime().targets[0])]
    monkeypatch.setattr(OnnxRuntime, "tools", lambda self, target: missing)
    first, second = int8("--json").document["agreement"]["targets"]
    assert (first["unchecked"], first["holds"]) == ("onnxruntime is not here", None)
    assert second["holds"] is True


def replace_version(tool):
    from dataclasses import replace

    return tool if tool.builds else replace(tool, version=None)


@pytest.mark.parametrize(
    "by",
    [lambda v: v ^ np.array(1, v.dtype), np.zeros_like, lambda v: v.reshape(-1)[:-1]],
    ids=["one bit of each", "nothing", "one level less"],
)
def test_a_layer_that_differs_is_named_and_its_bundle_not_written(int8, home, inner, by):
    inner("relu", by)
    ended = int8()
    assert ended.code == 4
    assert "error: onnxruntime: what was built does not agree with the reference" in ended.err
    assert "the first layer that differs is `relu`" in ended.err
    assert not (home / "build/tiny-onnxruntime-int8").exists()


def test_a_later_target_that_differs_leaves_the_earlier_whole(tcc, home, images, inner):
    inner("relu", lambda v: v ^ np.array(1, v.dtype))
    words = (*INT8, "--data", images)
    assert tcc("build", "tiny.yaml", "--target", "tflite,ort", *words).code == 4
    assert tcc("verify", "build/tiny-tflite-int8").code == 0
    assert [path.name for path in (home / "build").iterdir()] == ["tiny-tflite-int8"]


def test_the_second_golden_counts(int8, home, monkeypatch):
    right = OnnxRuntime.infer

    def run(self, *arguments):
        first, *others = right(self, *arguments)
        return [first, *({k: v + np.float32(1) for k, v in one.items()} for one in others)]

    monkeypatch.setattr(OnnxRuntime, "infer", run)
    ended = int8()
    assert ended.code == 4
    assert "golden 2, output `logits`" in ended.err
    assert not (home / "build/tiny-onnxruntime-int8").exists()


def test_a_precision_that_one_lacks_is_refused_before_any_work(tcc, home):
    ended = tcc("build", "tiny.yaml", "--target", "ort,arm-a7,tflite", "--precision", "fp16")
    assert ended.code == 2
    assert "error[E0606]: arm-a7 does not build at precision `fp16`" in ended.err
    assert "--> command line: --precision fp16" in ended.err
    assert not (home / "build").exists()
