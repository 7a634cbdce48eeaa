"""A network that a target supports only at int8: its fp32 size is unknown."""

import pytest

from tcc.backends.arm.kernels.pointwise import POINTWISE
from tcc.backends.arm.schedule import kernel_choice
from tcc.backends.tflite import description, float_operators, integer_operators
from tcc.compiler.ops import Silu
from tcc.compiler.support.diagnostics import fail, make_file_span


@pytest.fixture
def build(tcc, home, images):
    """Build the example with a Silu layer at int8 for a target."""
    text = (home / "tiny.yaml").read_text()
    (home / "tiny.yaml").write_text(text.replace("  - relu\n", "  - silu\n"))

    def run(target, *args):
        build_args = ("--target", target, "--precision", "int8", "--data", images, "--no-cache")
        return tcc("build", "tiny.yaml", *build_args, "--floor", "min_cosine=0.5", *args)

    return run


def test_op_without_a_float_kernel(tcc, build, monkeypatch):
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    monkeypatch.delitem(POINTWISE, Silu)
    monkeypatch.delitem(kernel_choice.RULES, Silu)
    outcome = build("host")
    assert outcome.code == 0, outcome.err
    assert "fp32 size unknown: the target cannot build this network at fp32" in outcome.out
    (bundle,) = build("host", "--json").document["bundles"]
    assert bundle["artifact_bytes_fp32"] is None
    refused = tcc("build", "tiny.yaml", "--target", "host", "--no-cache")
    assert refused.code == 2
    assert "error[E0607]" in refused.err


def test_op_without_a_tflite_float_operator(build, monkeypatch):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    reduced = {op: rule for op, rule in float_operators.FLOAT.items() if op is not Silu}
    for module in (float_operators, description, integer_operators):
        monkeypatch.setattr(module, "FLOAT", reduced)
    outcome = build("tflite")
    assert outcome.code == 0, outcome.err
    assert "fp32 size unknown" in outcome.out


def test_float_network_above_a_size_limit(build, monkeypatch):
    from tcc.backends.onnxruntime.backend import OnnxRuntime

    emit = OnnxRuntime.emit

    def emit_or_fail(self, target, model, precision, progress):
        if precision.full:
            raise fail(
                "E0450", "the weights exceed the file size limit", make_file_span("tiny.yaml")
            )
        return emit(self, target, model, precision, progress)

    monkeypatch.setattr(OnnxRuntime, "emit", emit_or_fail)
    outcome = build("onnxruntime")
    assert outcome.code == 0, outcome.err
    assert "fp32 size unknown" in outcome.out
