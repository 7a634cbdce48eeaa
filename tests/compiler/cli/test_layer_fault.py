"""A kernel with wrong results: `tcc build` of one target names the layer."""

import pytest

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.schedule import kernel_choice
from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.compiler.ops import GlobalAvgPool
from tcc.compiler.ops.integer import QGlobalAvgPool, RealGlobalAvgPool


@pytest.fixture
def faulty_pool(monkeypatch):
    """Replace the pooling factor of ARM kernels by half of it."""
    for op in (QGlobalAvgPool, RealGlobalAvgPool):
        rule = kernel_choice.RULES[op]

        def build_faulty_call(op, site, rule=rule):
            factor = type(op).compute_factor
            monkeypatch.setattr(type(op), "compute_factor", lambda *args: factor(*args) / 2)
            call = rule(op, site)
            monkeypatch.setattr(type(op), "compute_factor", factor)
            return call

        monkeypatch.setitem(kernel_choice.RULES, op, build_faulty_call)


@pytest.mark.parametrize("target", ["host", pytest.param("arm-a7", marks=pytest.mark.slow)])
def test_wrong_int8_kernel_is_named(tcc, home, images, target, faulty_pool):
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    if Arm().tools(next(t for t in Arm().targets if t.name == target))[-1].version is None:
        pytest.skip(f"{target} cannot run on this machine")
    args = ("--precision", "int8", "--data", images, "--no-cache")
    outcome = tcc("build", "tiny.yaml", "--target", target, *args)
    assert outcome.code == 4, outcome.out
    assert "the first layer that differs is `global_avg_pool`" in outcome.err
    assert not (home / f"build/tiny-{target}-int8").exists()


def test_wrong_float_kernel_is_named(tcc, home, monkeypatch):
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    rule = kernel_choice.RULES[GlobalAvgPool]
    monkeypatch.setitem(kernel_choice.RULES, GlobalAvgPool, lambda op, site: _compute_maximum(site))
    outcome = tcc("build", "tiny.yaml", "--target", "host", "--no-cache")
    assert outcome.code == 4, outcome.out
    assert "the first layer that differs is `global_avg_pool`" in outcome.err
    assert rule


def _compute_maximum(site):
    return kernel_choice.call_channel_max(None, site)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_wrong_float_layer_of_a_runtime_is_named(tcc, monkeypatch, precision):
    """The file has another operator than the network, as after a wrong lowering."""
    from tcc.backends.onnxruntime import precision_conversion

    lower = precision_conversion.lower

    def lower_wrongly(model, opset):
        lowered = lower(model, opset)
        for node in lowered.graph.node:
            if node.op_type == "Relu":
                node.op_type = "Neg"
        return lowered

    monkeypatch.setattr(precision_conversion, "lower", lower_wrongly)
    outcome = tcc("build", "tiny.yaml", "--target", "ort", "--precision", precision, "--no-cache")
    assert outcome.code == 4, outcome.out
    assert "the first layer that differs is `relu`" in outcome.err


def test_fault_outside_the_layers_is_reported(tcc, monkeypatch):
    infer = OnnxRuntime.infer
    scale_outputs = lambda *args: [{k: 3 * v for k, v in o.items()} for o in infer(*args)]  # noqa: E731
    monkeypatch.setattr(OnnxRuntime, "infer", scale_outputs)
    outcome = tcc("build", "tiny.yaml", "--target", "ort", "--no-cache")
    assert outcome.code == 4
    assert "readable layers match for the golden inputs" in outcome.err
