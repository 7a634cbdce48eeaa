"""A spec that computes something else is refused, even if the file hides it."""

import numpy as np
import onnx
import onnx_nets
import pytest
from onnx_nets import make_random_weights

from tcc.compiler.importers.onnx_import import ImportOptions, ModelRunner, import_onnx
from tcc.compiler.importers.onnx_import.convert import CONVERTERS, layers, pools
from tcc.compiler.ops import AvgPool, LeakyRelu, Relu6
from tcc.compiler.support.diagnostics import UserError


def convert_counting_padding(call):
    """Convert an AveragePool as if it always counted its padding."""
    return call.emit(AvgPool((3, 3), (1, 1), 1), call.get_map())


def convert_crossed(call):
    """Convert a Gemm with its first two units swapped."""
    step = layers.convert_gemm(call)
    weight = call.builder.weights[f"{step.value}.weight"]
    weight[:2] = weight[1::-1].copy()
    return step


FAULTY_CONVERTERS = {
    "AveragePool": convert_counting_padding,
    "Relu": lambda call: call.emit_elementwise(Relu6(), call.get_view()),
    "LeakyRelu": lambda call: call.emit_elementwise(LeakyRelu(0.02), call.get_view()),
    "Gemm": convert_crossed,
    "GlobalMaxPool": pools.convert_global_avg_pool,
}
HEAD = "g = GlobalAveragePool (p) f = Flatten (g) l = Gemm <transB = 1> (f, w, b)"
NETS = {
    "saturated": f"p = AveragePool <kernel_shape=[3, 3], pads=[1, 1, 1, 1]> (x) {HEAD} y = Softmax <axis = 1> (l)",
    "dead": (
        "q = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x) d = Sub (q, huge)"
        f" p = Clip (d, zero) {HEAD} y = Identity (l)"
    ),
    "bounded": f"r = Relu (x) t = Tanh (r) p = Mul (t, tiny) {HEAD} y = Sigmoid (l)",
    "slope": f"r = LeakyRelu (x) p = Mul (r, tiny) {HEAD} y = Softmax <axis = 1> (l)",
    "classes": f"p = Mul (x, nought) {HEAD} y = Sigmoid (l)",
    "largest": "m = GlobalMaxPool (x) z = Mul (m, nought) f = Flatten (z) y = Gemm <transB = 1> (f, w, b)",
}  # fmt: skip
LOCATIONS = {
    "saturated": "AveragePool_0", "dead": "AveragePool_0", "bounded": "Relu_0",
    "slope": "LeakyRelu_0", "classes": "Gemm_", "largest": "GlobalMaxPool_0",
}  # fmt: skip


@pytest.fixture
def hidden(write_model):
    """A file for which a wrong converter changes the outputs little or not at all."""

    def run(name):
        weights = {
            "w": make_random_weights(3, 4) * np.float32(1e3 if name == "saturated" else 1e-3),
            "b": np.float32([5e3, 0, 0] if name == "saturated" else [5, 5, 5]),
            "huge": np.float32(1e6).reshape(()),
            "zero": np.float32(0).reshape(()),
            "tiny": np.float32(1e-9).reshape(()),
            "nought": np.float32(0).reshape(()),
        }
        used = {key: value for key, value in weights.items() if key in NETS[name]}
        return write_model(NETS[name], used, outputs={"y": 2})

    return run


@pytest.mark.parametrize("name", NETS)
def test_a_wrong_step_is_detected(hidden, imported, monkeypatch, name):
    path = hidden(name)
    model = onnx.load(path)
    assert imported(path).difference < 1e-5
    op_type = next(n.op_type for n in model.graph.node if LOCATIONS[name].startswith(n.op_type))
    monkeypatch.setitem(CONVERTERS, op_type, FAULTY_CONVERTERS[op_type])
    with pytest.raises(UserError) as caught:
        imported(path)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == (
        "E0920",
        "the imported spec does not compute the same values as the file",
    )
    assert diagnostic.at.file.startswith(f"{path}: node `{LOCATIONS[name]}")
    assert diagnostic.label.startswith(f"the step for this {op_type} differs by ")


def test_constant_outputs_are_reported(hidden, imported):
    note = "the outputs hardly change between the test inputs; the check relies on single operators"
    assert imported(hidden("classes")).notes == (note,)
    assert imported(hidden("saturated")).notes == ()


@pytest.mark.parametrize(
    ("end", "label"),
    [
        ("Softmax <axis = 1> (f)", "its output `y` before its softmax differs by 0.0099 of its largest value"),
        ("Sigmoid (f)", "its output `y` before its sigmoid differs by 0.0099 of its largest value"),
    ],
)  # fmt: skip
def test_values_before_the_activation_are_compared(write_model, end, label):
    """As after an error in the spec text: each single step is correct."""
    huge = np.float32(1e4).reshape(())
    path = write_model(
        f"g = GlobalAveragePool (x) m = Mul (g, huge) f = Flatten (m) y = {end}",
        {"huge": huge},
        outputs={"y": 2},
    )

    def outputs(model, feeds):
        runs, runner = onnx_nets.run_feeds(model, feeds)
        has_input = any("x" in feed for feed in feeds)
        return [
            {n: v * np.float32(1.01 if n == "f" and has_input else 1) for n, v in run.items()}
            for run in runs
        ], runner

    with pytest.raises(UserError) as caught:
        import_onnx(path, ImportOptions(), ModelRunner(onnx_nets.check_and_simplify, outputs))
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.at.file, diagnostic.label) == ("E0920", str(path), label)
