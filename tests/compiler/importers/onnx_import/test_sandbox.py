"""Native libraries read imported files in a separate process, which may fail in any way."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_nets import make_random_weights

from tcc.compiler.importers.onnx_import import ImportOptions, ModelRunner, import_onnx, sandbox
from tcc.compiler.support.diagnostics import UserError


def read_refusal(path):
    with pytest.raises(UserError) as caught:
        import_onnx(path, ImportOptions())
    return caught.value.diagnostics[0]


@pytest.fixture
def network(write_model):
    """A model with a reshape computed from a shape, as exporters write it."""
    text = (
        "g = GlobalAveragePool (x) s = Shape (g) n = Gather <axis = 0> (s, zero)"
        " m = Unsqueeze (n, zero1) t = Concat <axis = 0> (m, minus) f = Reshape (g, t)"
        " y = Gemm <transB = 1> (f, w)"
    )
    weights = {
        "zero": np.int64(0).reshape(()),
        "zero1": np.int64([0]),
        "minus": np.int64([-1]),
        "w": make_random_weights(3, 4),
    }
    return write_model(text, weights, outputs={"y": 2})


def test_the_sandbox_simplifies_and_compares(network, tmp_path, monkeypatch):
    """Modules in the working folder are not imported as libraries."""
    monkeypatch.chdir(tmp_path)
    for library in ("onnx", "onnxsim", "numpy"):
        Path(f"{library}.py").write_text("raise SystemExit('a stranger')")
    imported = import_onnx(network, ImportOptions())
    assert "- flatten\n" in imported.text
    assert imported.notes == ()
    assert imported.difference < 1e-6


def test_an_invalid_graph_is_refused(write_model):
    path = write_model("y = Relu (x)")
    model = onnx.load(path)
    model.graph.node[0].input[0] = "nowhere"
    onnx.save(model, path)
    diagnostic = read_refusal(path)
    assert (diagnostic.code, diagnostic.message) == ("E0902", "this is not a valid ONNX model")
    assert "nowhere" in diagnostic.label


def test_a_constant_much_larger_than_the_file_is_not_computed(write_model):
    sizes = {"shape": np.array([1 << 14, 1 << 13]), "few": np.array([2, 3])}
    path = write_model(
        "a = ConstantOfShape (shape) b = ReduceMax (a) c = ConstantOfShape (few)"
        " d = ReduceMax (c) e = Add (b, d) y = Add (x, e)",
        sizes,
    )
    model, completed = sandbox.clean(onnx.load(path))
    assert completed.steps == ("checked", "simplified")
    assert "ConstantOfShape" in [node.op_type for node in model.graph.node]
    assert model.ByteSize() < 10_000


def test_a_hanging_library_is_stopped(network, monkeypatch):
    monkeypatch.setattr(sandbox, "TIMEOUT_SECONDS", 0.001)
    assert read_refusal(network).label == "it took longer than 0.001 s"


def test_a_crashing_library_is_reported(network, monkeypatch):
    monkeypatch.setattr(sandbox.sys, "executable", "/bin/false")
    assert read_refusal(network).message == "this is not a valid ONNX model"


def test_a_division_by_zero_in_a_library_is_reported(write_model):
    path = write_model("y = Conv <strides = [0, 1]> (x, w)", {"w": make_random_weights(4, 4, 3, 3)})
    with pytest.raises(UserError) as caught:
        import_onnx(path, ImportOptions())
    refusal, warning = caught.value.diagnostics
    assert (refusal.code, refusal.message) == (
        "E0911",
        "Conv: its stride is (0, 1); the minimum is 1",
    )
    assert warning.message.startswith(
        "onnxsim could not simplify the file; it is imported without this step: "
    )


def test_a_file_that_onnxsim_cannot_simplify_is_imported_as_it_is(write_model):
    """If onnxsim fails, the file is used unchanged and a note reports it."""

    def clean(model):
        return model, sandbox.TaskResult(("checked",), "SomeError: no")

    imported = import_onnx(
        write_model("a = Relu (x) y = Tanh (a)"),
        ImportOptions(),
        ModelRunner(clean, sandbox.run_model),
    )
    assert imported.difference < 1e-6
    assert imported.notes == (
        "onnxsim could not simplify the file; it is imported without this step: SomeError: no",
    )


def test_a_file_that_cannot_be_run_is_refused(write_model):
    """ONNX Runtime does not support this padding of max pooling, so its meaning is unknown."""
    path = write_model(
        'y = MaxPool <kernel_shape = [1, 1], strides = [2, 2], auto_pad = "SAME_UPPER"> (x)'
    )
    diagnostic = read_refusal(path)
    assert (diagnostic.code, diagnostic.at.file) == ("E0921", str(path))
    assert diagnostic.message == (
        "ONNX Runtime cannot run this file, so the spec cannot be compared with it"
    )
    assert "padding values must be non-negative" in diagnostic.label


def test_a_refusal_reports_why_simplifying_failed(write_model):
    path = write_model("s = Shape (x) y = Reshape (x, s)")

    def clean(model):
        return model, sandbox.TaskResult(("checked",), "SomeError: no")

    with pytest.raises(UserError) as caught:
        import_onnx(path, ImportOptions(), ModelRunner(clean, sandbox.run_model))
    refusal, warning = caught.value.diagnostics
    assert (refusal.code, warning.severity) == ("E0910", "warning")
    assert "SomeError: no" in warning.message


def test_a_huge_constant_is_not_computed(write_model):
    """Computing it would need a terabyte."""
    path = write_model(
        "c = ConstantOfShape (size) m = ReduceMean <keepdims = 0> (c) y = Add (x, m)",
        {"size": np.int64([1 << 20, 1 << 18])},
    )
    assert read_refusal(path).code == "E0910"


def test_onnx_functions_are_inlined(tmp_path):
    body = [helper.make_node("Relu", ["a"], ["b"])]
    twice = helper.make_function("mine", "twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    node = helper.make_node("twice", ["x"], ["y"], domain="mine")
    tensors = [helper.make_tensor_value_info(n, 1, [1, 4, 6, 6]) for n in "xy"]
    graph = helper.make_graph([node], "net", tensors[:1], tensors[1:])
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=domains, functions=[twice], ir_version=9)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    assert "- relu\n" in import_onnx(path, ImportOptions()).text
