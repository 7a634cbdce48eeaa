"""TFLite files with content that tcc never writes are refused before they run."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from lite import parse_tflite
from lite_float import BACKEND, TARGET, emit_tflite, fuse_graph

from tcc.backends.tflite import file_inspection
from tcc.backends.tflite.backend import FILE
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.nets import build_dense

FLOW = ("WHILE", "IF", "CALL_ONCE", "CALL", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE",
        "HASHTABLE", "STABLEHLO_WHILE", "STABLEHLO_COMPOSITE", "CUSTOM", "RANDOM_UNIFORM")  # fmt: skip


def pack_model(model: object) -> bytes:
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def data() -> bytes:
    return emit_tflite(fuse_graph(build_dense()), "fp32")


def replace_op_code(data: bytes, op_name: str, *, old: bool) -> bytes:
    """Return a file with another last operator code, in one of the two fields."""
    model = parse_tflite(data)
    code, number = model.operatorCodes[-1], getattr(schema.BuiltinOperator, op_name)
    code.builtinCode = 0 if old else number
    code.deprecatedBuiltinCode = min(number, 127) if old or number > 127 else number
    return pack_model(model)


@pytest.mark.parametrize("operator_name", FLOW)
def test_unknown_operators_are_refused(data: bytes, operator_name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"it has the operator `{operator_name}`, which tcc does not write"
    ):
        file_inspection.read_graph(replace_op_code(data, operator_name, old=False))


@pytest.mark.parametrize("operator_name", ["WHILE", "IF", "CUSTOM"])
def test_unknown_operators_in_the_old_field_are_refused(data: bytes, operator_name: str) -> None:
    with pytest.raises(ValueError, match=rf"it has the operator `{operator_name}`"):
        file_inspection.read_graph(replace_op_code(data, operator_name, old=True))


def test_additional_subgraphs_are_refused(data: bytes) -> None:
    model = parse_tflite(data)
    model.subgraphs.append(model.subgraphs[0])
    with pytest.raises(ValueError, match="it has 2 graphs; files that tcc builds have 1"):
        file_inspection.read_graph(pack_model(model))


def test_invalid_files_are_refused(data: bytes) -> None:
    random = np.random.default_rng(3)
    texts = [b"", b"TFL3", b"\0" * 64, b"\xff" * 4 + b"TFL3" + b"\xff" * 64]
    texts += [data[:n] for n in (8, 20, 100, len(data) // 2)]
    for _ in range(200):
        damaged = bytearray(data)
        for index in random.integers(8, 4096, 8):
            damaged[index] = random.integers(256)
        texts.append(bytes(damaged))
    for text in texts:
        with suppress(ValueError):  # many are still valid
            file_inspection.read_numbers(text)
    for text in texts[:8]:
        with pytest.raises(ValueError, match=r"not a TFLite file|graphs"):
            file_inspection.read_numbers(text)


def test_refused_files_are_not_run(data: bytes, tmp_path: Path, monkeypatch) -> None:
    from ai_edge_litert import interpreter

    def fail_on_load(**_: object) -> None:
        pytest.fail("it is loaded")

    monkeypatch.setattr(interpreter, "Interpreter", fail_on_load)
    (tmp_path / FILE).write_bytes(replace_op_code(data, "WHILE", old=False))
    (source,) = build_dense().inputs
    with pytest.raises(UserError, match="LiteRT cannot run the model") as caught:
        BACKEND.infer(TARGET, tmp_path, source, [np.zeros(source.type.shape, np.float32)])
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.label) == (
        "E0651",
        "it has the operator `WHILE`, which tcc does not write",
    )
    with pytest.raises(UserError, match="LiteRT cannot run the model"):
        BACKEND.read_number_types(TARGET, tmp_path)
