"""Weight files: writing, reading and refusing them."""

import json
import os
import struct
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tcc.compiler.data import weights
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ops import BatchNorm, Conv, Linear, Relu
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import Diagnostic, UserError
from tcc.testing.nets import NetBuilder, build_dense, build_gated, create_span
from tcc.testing.op_cases import sample_weights

RECORDED = [
    "0x1.bcb2e40000000p-6",
    "0x1.58142a0000000p-3",
    "0x1.48d6e40000000p-4",
    "-0x1.12616e0000000p-3",
]
DIGEST = "20e9aacfa693be24c0171c95293235595fbeb391afbcbaf6b543d1d89a334c30"


def build_graph() -> Graph:
    add = NetBuilder(3, 4, 4, name="tiny")
    add("conv", Conv(2, (1, 1)), at=create_span(3))
    add("bn", BatchNorm(), at=create_span(4, "  - batch_norm"))
    return add.build()


def read_refusal(path: Path, net: Graph | None = None) -> str:
    with pytest.raises(UserError) as caught:
        weights.read_weights(path, net or build_graph())
    return str(caught.value).replace(str(path), "w.safetensors")


def write_file(folder: Path, **changes: np.ndarray | None) -> Path:
    tensors = {
        **sample_weights(build_graph()),
        **{k.replace("__", "."): v for k, v in changes.items()},
    }
    path = folder / "w.safetensors"
    save_file({k: v for k, v in tensors.items() if v is not None}, path)
    return path


def test_written_weights_are_read_back(tmp_path: Path) -> None:
    net = build_dense()
    path = tmp_path / "w.safetensors"
    weights.write(path, sample_weights(net), {"spec": "dense"})
    loaded = weights.read_weights(path, net)
    assert list(loaded) == list(net.params)
    for name, values in sample_weights(net).items():
        np.testing.assert_array_equal(loaded[name], values)
    assert load_file(path).keys() == net.params.keys()


def test_file_bytes_depend_only_on_the_content() -> None:
    tensors = sample_weights(build_graph())
    metadata = {"b": "2", "a": "1", "spec": "tiny", "z": "é"}
    data = weights.encode(tensors, metadata)
    backwards = dict(reversed(tensors.items()))
    assert weights.encode(backwards, dict(reversed(metadata.items()))) == data
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    assert header["__metadata__"] == metadata
    assert size % 8 == 0
    changed = weights.encode(tensors | {"bn.bias": tensors["bn.bias"] + 1}, metadata)
    assert changed != data


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from hashlib import sha256
from tcc.testing.nets import build_dense
from tcc.compiler.data import weights
data = weights.encode(weights.initialize_random(build_dense(), 7), {c: c for c in "abcdefgh"})
print(sha256(data).hexdigest())
"""


def test_file_bytes_are_equal_in_every_process() -> None:
    local_bytes = weights.encode(
        weights.initialize_random(build_dense(), 7), {c: c for c in "abcdefgh"}
    )
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[2])]
    for seed in ("1", "2"):
        completed = subprocess.run(
            command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert completed.stdout.strip() == sha256(local_bytes).hexdigest()


def test_digest_differs_for_other_weights() -> None:
    first_weights, second_weights = (
        weights.initialize_random(build_graph(), 1),
        weights.initialize_random(build_graph(), 2),
    )
    assert (
        weights.digest(first_weights)
        == weights.digest(dict(first_weights))
        != weights.digest(second_weights)
    )
    assert len(weights.digest(first_weights)) == 64


def test_random_weights_match_the_recorded_ones() -> None:
    random_weights = weights.initialize_random(build_dense(), 0)
    start = random_weights["stem.weight"].ravel()[:4]
    assert [float(v).hex() for v in start] == RECORDED
    assert weights.digest(random_weights) == DIGEST


def test_random_weights_depend_only_on_layer_name_and_seed() -> None:
    small_net, large_net = NetBuilder(3, 4, 4), NetBuilder(3, 4, 4)
    large_net("first", Conv(3, (3, 3), padding=1))
    for add in (small_net, large_net):
        add("conv", Conv(2, (1, 1)))
    small_weights, large_weights = (
        weights.initialize_random(small_net.build()),
        weights.initialize_random(large_net.build()),
    )
    np.testing.assert_array_equal(small_weights["conv.weight"], large_weights["conv.weight"])
    assert not np.array_equal(
        small_weights["conv.weight"], weights.initialize_random(small_net.build(), 1)["conv.weight"]
    )


def test_random_weights_are_distributed_as_in_pytorch() -> None:
    add = NetBuilder(64)
    add("fc", Linear(5000))
    values = weights.initialize_random(add.build())["fc.weight"]
    assert values.shape == (5000, 64)
    assert -0.125 <= values.min() < -0.1249
    assert 0.1249 < values.max() <= 0.125
    assert abs(values.mean()) < 1e-3
    assert abs(values.std() - 0.125 / 3**0.5) < 1e-4
    assert len(np.unique(values)) > 300_000


def test_he_initialization_keeps_the_signal_through_relu() -> None:
    add = NetBuilder(32, 4, 4)
    for number in range(6):
        add(f"conv{number}", Conv(32, (1, 1)))
        add(f"relu{number}", Relu())
    add("bn", BatchNorm())
    graph = add.build()
    he_weights = weights.initialize_he(graph)
    assert not he_weights["conv3.bias"].any()
    assert he_weights["bn.weight"].all()
    image = np.random.default_rng(0).normal(size=(32, 4, 4)).astype(np.float32)
    he, torchs = (
        float(np.square(*float_program.create_runner(Model(graph, variant))(image).values()).mean())
        for variant in (he_weights, weights.initialize_random(graph))
    )
    assert 0.5 < he < 4
    assert torchs < 0.1


def test_batch_norm_starts_as_the_identity() -> None:
    random_weights = weights.initialize_random(build_graph())
    for role, value in {"weight": 1, "bias": 0, "mean": 0, "var": 1}.items():
        np.testing.assert_array_equal(random_weights[f"bn.{role}"], np.full(2, value, np.float32))


def test_block_size_does_not_change_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = weights.sample_uniform((1000,), 1.0, "key")
    monkeypatch.setattr(weights, "BLOCK_NUMBERS", 64)
    np.testing.assert_array_equal(weights.sample_uniform((1000,), 1.0, "key"), reference)


def test_missing_weights_are_all_listed(tmp_path: Path) -> None:
    path = write_file(tmp_path, conv__bias=None, bn__var=None, bn__va=np.ones(2, np.float32))
    assert read_refusal(path) == (
        "error[E0502]: 2 of 6 weights of tiny are missing\n"
        "  --> w.safetensors\n"
        "   = conv.bias (2), net.yaml:3:5\n"
        "   = bn.var (2), like bn.va, net.yaml:4:5\n"
        "   = help: check that the weights belong to this spec and to these parameters (`--set`)\n"
        "\n"
        "error[E0503]: 1 tensors of the file are not weights of tiny\n"
        "  --> w.safetensors\n"
        "   = bn.va (2), like bn.var\n"
        "   = help: if the names are those of another project, use `tcc import --spec`"
    )


def test_control_characters_in_names_are_replaced(tmp_path: Path) -> None:
    path = write_file(tmp_path, **{"\x1b[2J\n\u202e": np.ones(1, np.float32)})
    assert "   = \ufffd[2J\ufffd\ufffd (1)\n" in read_refusal(path)


def test_a_wrong_shape_names_the_layer(tmp_path: Path) -> None:
    path = write_file(tmp_path, conv__weight=np.ones((2, 4, 1, 1), np.float32))
    assert read_refusal(path) == (
        "error[E0504]: conv.weight has shape 2x4x1x1, not 2x3x1x1\n"
        " --> net.yaml:3:5\n"
        "  |\n"
        "3 |   - conv: {filters: 8}\n"
        "  |     ^^^^ this layer\n"
        "   = help: check that the weights were trained with these parameters of the spec (`--set`)"
    )


def test_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    weight = np.array([1, np.nan, np.inf, -np.inf, np.nan, 0], np.float32).reshape(2, 3, 1, 1)
    path = write_file(tmp_path, conv__weight=weight, bn__mean=np.array([0, np.inf], np.float32))
    assert read_refusal(path) == (
        "error[E0506]: 4 of 6 values of conv.weight are not finite\n"
        " --> net.yaml:3:5\n"
        "  |\n"
        "3 |   - conv: {filters: 8}\n"
        "  |     ^^^^ in conv: 2 are NaN, 2 are infinite\n"
        "   = help: the training diverged or the file is damaged: use an earlier checkpoint\n"
        "\n"
        "error[E0506]: 1 of 2 values of bn.mean are not finite\n"
        " --> net.yaml:4:5\n"
        "  |\n"
        "4 |   - batch_norm\n"
        "  |     ^^^^ in bn: 0 are NaN, 1 are infinite\n"
        "   = help: the training diverged or the file is damaged: use an earlier checkpoint"
    )


def test_a_negative_variance_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, bn__var=np.array([1, -0.5], np.float32))
    assert read_refusal(path).splitlines()[0] == "error[E0507]: bn.var has invalid variances"
    assert "the smallest is -0.5, and eps is 1e-05" in read_refusal(path)


@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_float_types_are_converted_with_a_warning(tmp_path: Path, kind: type) -> None:
    values = np.array([0.5, -1.25], np.float32)
    path = write_file(tmp_path, bn__bias=values.astype(kind), bn__mean=values.astype(kind))
    warnings: list[Diagnostic] = []
    loaded = weights.read_weights(path, build_graph(), warnings.append)
    np.testing.assert_array_equal(loaded["bn.bias"], values)
    assert loaded["bn.bias"].dtype == np.float32
    (warning,) = warnings
    assert warning.severity == "warning"
    name = np.dtype(kind).name
    message = f"2 tensors are {name} and are converted to float32: bn.bias, bn.mean"
    assert warning.message == message


def test_float64_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, bn__bias=np.array([1e300, 0]))
    assert "1 of 2 values of bn.bias are not finite" in read_refusal(path)


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.bool_, np.int64])
def test_other_types_are_refused(tmp_path: Path, kind: type) -> None:
    path = write_file(tmp_path, bn__bias=np.ones(2, kind))
    type_name = {"int32": "I32", "uint8": "U8", "bool": "BOOL", "int64": "I64"}[np.dtype(kind).name]
    assert read_refusal(path).splitlines()[0] == f"error[E0505]: bn.bias has the type {type_name}"


def encode_raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
    "empty": b"",
    "three bytes": b"abc",
    "header of 2^60 bytes": struct.pack("<Q", 1 << 60) + b"{}",
    "header cut": encode_raw(b'{"conv.bias":'),
    "no JSON": encode_raw(b"\xff\xfe{"),
    "nested brackets": encode_raw(b"[" * 50_000),
    "data cut": encode_raw({"bn.bias": TENSOR}, b"\0" * 7),
    "data left over": encode_raw({"bn.bias": TENSOR}, b"\0" * 9),
    "offsets backwards": encode_raw({"bn.bias": {**TENSOR, "data_offsets": [8, 0]}}, b"\0" * 8),
    "shape too large": encode_raw({"bn.bias": {**TENSOR, "shape": [1 << 40, 1 << 40]}}, b"\0" * 8),
    "shape negative": encode_raw({"bn.bias": {**TENSOR, "shape": [-2]}}, b"\0" * 8),
    "unknown type": encode_raw({"bn.bias": {**TENSOR, "dtype": "F3"}}, b"\0" * 8),
    "offsets that overlap": encode_raw(
        {"a": TENSOR, "b": {**TENSOR, "data_offsets": [4, 12]}}, b"\0" * 12
    ),
    "a gap": encode_raw({"a": TENSOR, "b": {**TENSOR, "data_offsets": [12, 20]}}, b"\0" * 20),
    "one place for two": encode_raw({"a": TENSOR, "b": TENSOR}, b"\0" * 8),
    "offsets beyond 2^63": encode_raw({"a": {**TENSOR, "data_offsets": [1 << 64, (1 << 64) + 8]}}),
    "shape of reals": encode_raw({"bn.bias": {**TENSOR, "shape": [2.0]}}, b"\0" * 8),
    "shape of truths": encode_raw({"bn.bias": {**TENSOR, "shape": [True, 2]}}, b"\0" * 8),
    "a name twice": encode_raw(b'{"a": 1, "a": 2}'),
    "no tensor": encode_raw({"bn.bias": 3}),
    "no object": encode_raw([TENSOR]),
    "metadata of numbers": encode_raw({"__metadata__": {"a": 1}}),
    "long numbers": encode_raw(b'{"a": ' + b"9" * 5000 + b"}"),
    "too many tensors": encode_raw(
        {str(i): {**TENSOR, "shape": [0], "data_offsets": [0, 0]} for i in range(50_001)}
    ),
    "a long header": encode_raw(b"{" + b" " * (16 << 20) + b"}"),
    "a zip file": b"PK\x03\x04" + b"\0" * 60,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_damaged_and_hostile_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    first_line, *_, last_line = read_refusal(path).splitlines()
    assert first_line == "error[E0501]: not a valid safetensors file"
    assert last_line == "   = help: to read a PyTorch checkpoint, use `tcc import --spec`"


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(0, 400), flip=st.integers(0, 400), byte=st.integers(0, 255))
def test_damaged_header_is_never_accepted(tmp_path: Path, cut: int, flip: int, byte: int) -> None:
    data = bytearray(weights.encode(sample_weights(build_graph())))
    data[flip % len(data)] = byte
    path = tmp_path / "w.safetensors"
    path.write_bytes(data[: len(data) - cut] if cut % 3 == 0 else data)
    codes: set[str] = set()
    loaded = None
    try:
        loaded = weights.read_weights(path, build_graph())
    except UserError as error:
        codes = {d.code for d in error.diagnostics}
    assert (loaded is None) == bool(codes)
    assert codes <= {"E0501", "E0502", "E0503", "E0504", "E0505", "E0506", "E0507"}


def test_missing_file_is_reported(tmp_path: Path) -> None:
    assert read_refusal(tmp_path / "w.safetensors") == (
        "error[E0501]: cannot read the weights\n  --> w.safetensors\n   = No such file or directory"
    )


def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.safetensors")
    assert read_refusal(tmp_path / "w.safetensors").endswith("   = it is a pipe, not a file")


def test_shapes_are_compared_before_a_tensor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    many = {f"{i}.weight": {**TENSOR, "data_offsets": [8 * i, 8 * i + 8]} for i in range(100)}
    size = (1 << 40) - 800
    large = {"large": {"dtype": "U8", "shape": [size], "data_offsets": [800, 800 + size]}}
    path.write_bytes(encode_raw({**many, **large}))
    os.truncate(path, path.stat().st_size + (1 << 40))
    refusal = read_refusal(path)
    assert "6 of its 6 tensors do not fit" in refusal
    assert "101 not in tiny: 0.weight, 1.weight, 10.weight, ..." in refusal


def test_folder_is_refused(tmp_path: Path) -> None:
    assert (
        read_refusal(tmp_path).splitlines()[0]
        == "error[E0501]: cannot read the weights: this is a folder, not a file"
    )


def test_weights_of_another_network_are_reported_as_such(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights.write(path, sample_weights(build_gated()))
    refusal = read_refusal(path, build_dense())
    assert refusal.startswith(
        "error[E1410]: these weights do not belong to dense, or have other names: "
        "19 of its 19 tensors do not fit\n"
    )
    assert "= 17 missing: " in refusal
    assert "= 2 with another shape: " in refusal
    assert refusal.count("error[") == 1
