"""A file given to the wrong command: the error names its kind and the right command."""

import io

import numpy as np
import pytest
from onnx import parser


def make_onnx_model():
    text = '<ir_version: 8, opset_import: ["" : 17]> net (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }'
    return parser.parse_model(text).SerializeToString()


def make_arrays():
    buffer = io.BytesIO()
    np.savez(buffer, images=np.zeros((1, 2, 2, 3), np.uint8))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "kind", "command"),
    [
        (
            "net.onnx",
            make_onnx_model,
            "an ONNX model",
            "use `tcc import FILE` to make a spec and weights from it",
        ),
        (
            "net",
            make_onnx_model,
            "an ONNX model",
            "use `tcc import FILE` to make a spec and weights from it",
        ),
        (
            "cut.onnx",
            bytes,
            "an ONNX model",
            "use `tcc import FILE` to make a spec and weights from it",
        ),
        ("data.npz", make_arrays, "a file of NumPy arrays", "`tcc calibrate` and `tcc eval` read"),
        ("data", make_arrays, "a file of NumPy arrays", "`tcc calibrate` and `tcc eval` read"),
    ],
)
def test_import_spec_names_the_kind_of_other_files(tcc, home, name, content, kind, command):
    (home / name).write_bytes(content())
    outcome = tcc("import", name, "--spec", "tiny.yaml")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error[E0510]: this is {kind}, not a checkpoint\n  --> {name}\n")
    assert f"help: {command}" in outcome.err
    assert not (home / "weights.safetensors").exists()


def test_import_names_the_kind_of_a_weights_file(tcc, home):
    (home / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    outcome = tcc("import", "weights.safetensors", "-o", "new/net.yaml")
    assert outcome.code == 2
    assert outcome.err.startswith("error[E0902]: this is a safetensors file, not an ONNX model\n")
    assert "use `tcc import FILE --spec SPEC` to read its weights for a spec" in outcome.err


@pytest.mark.parametrize(
    "command", ["run", "verify", "eval", "bench", "show", "serve", "plot confusion", "sign --key k"]
)
def test_folder_of_bundles_lists_them(tcc, built, command, picture):
    outcome = tcc(*command.split(), "build", *([picture] if command == "run" else []))
    assert outcome.code == 2
    assert "error[E0620]: there is no bundle here\n  --> build\n" in outcome.err
    assert f"= help: name one: `build/{built.name}`" in outcome.err
