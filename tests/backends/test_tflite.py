"""The target `tflite` in float: what it builds, refuses and computes."""

import json
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from lite import KERNELS, TensorType, delegates, difference, opened, operators, outputs
from nets import Steps, dense, gated
from op_cases import CASES, INTERNAL_CASES, Case, one_input, tensors, trained

from tcc.backends.base import Artifact, Backend, MissingTool
from tcc.backends.tflite import backend as module
from tcc.backends.tflite import writer
from tcc.backends.tflite.backend import FILE, TfLite
from tcc.compiler import reference
from tcc.compiler.graph import Graph, Model, Output
from tcc.compiler.ops import (
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool,
    Relu,
    Relu6,
    Sigmoid,
    Softmax,
)
from tcc.compiler.passes import INFERENCE, run
from tcc.compiler.preprocess import Preprocess, Resize
from tcc.compiler.source import UserError

BACKEND: Backend = TfLite()
(TARGET,) = BACKEND.targets
PRECISIONS = ("fp32", "fp16", "dynamic")
MEASURED = {"fp32": (3e-6, 1e-5), "fp16": (1e-3, 1e-3), "dynamic": (2e-2, 5e-2)}
"""Largest difference from the float32 reference, of one op and of a network, as a part of the
largest value; measured of ops: 1.4e-6, 5.8e-4 and 1.2e-2, and of dynamic networks 3.6e-2."""
every_op = pytest.mark.parametrize(
    "case", (CASES | INTERNAL_CASES).values(), ids=CASES | INTERNAL_CASES
)
nets = pytest.mark.parametrize("graph", [dense(), gated()], ids=lambda g: g.name)


def emitted(model: Model, precision: str = "fp32") -> bytes:
    return BACKEND.emit(TARGET, model, precision).files[FILE]


def written(folder: Path, artifact: Artifact) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in artifact.files.items():
        (folder / name).write_bytes(data)
    return folder


def fused(graph: Graph) -> Model:
    return run(Model(graph, trained(graph)), INFERENCE)


def test_its_target() -> None:
    assert (TARGET.name, TARGET.aliases) == ("tflite", ())
    assert set(PRECISIONS) <= set(TARGET.precisions)
    tools = {tool.name: tool.builds for tool in BACKEND.tools(TARGET)}
    assert tools == {"ai-edge-litert": True, "flatbuffers": True}


@every_op
def test_every_op_computes_what_the_reference_does(tmp_path: Path, case: Case) -> None:
    model = one_input(case)
    assert list(BACKEND.refusals(TARGET, model.graph)) == []
    (xs,) = tensors(model, batch=2)
    expected = reference.run(model, list(xs))
    for precision in PRECISIONS:
        folder = written(tmp_path / precision, BACKEND.emit(TARGET, model, precision))
        found = BACKEND.infer(TARGET, folder, model.graph.inputs[0], list(xs))
        for got, y in zip(found, expected, strict=True):
            assert difference(got, y) <= MEASURED[precision][0]


@every_op
def test_every_op_runs_with_all_kernels(case: Case) -> None:
    model = one_input(case)
    ((x,),) = tensors(model, batch=1)
    (expected,) = reference.run(model, [x])
    for precision in PRECISIONS:
        data = emitted(model, precision)
        for kernels in KERNELS:
            assert difference(outputs(data, x, kernels), expected) <= MEASURED[precision][0]


@nets
@pytest.mark.parametrize("precision", PRECISIONS)
def test_networks_compute_what_the_reference_does(
    tmp_path: Path, graph: Graph, precision: str
) -> None:
    plain = Model(graph, trained(graph))
    (xs,) = tensors(plain, batch=3)
    expected = reference.run(plain, list(xs))
    for name, model in {"plain": plain, "fused": fused(graph)}.items():
        folder = written(tmp_path / name, BACKEND.emit(TARGET, model, precision))
        found = BACKEND.infer(TARGET, folder, graph.inputs[0], list(xs))
        for got, y in zip(found, expected, strict=True):
            assert difference(got, y) <= MEASURED[precision][1]


@nets
def test_a_network_is_one_part_for_xnnpack(graph: Graph) -> None:
    for precision in ("fp32", "fp16"):
        assert delegates(emitted(fused(graph), precision)) == 1


def test_clamps_are_part_of_the_operator_before() -> None:
    add = Steps(3, 8, 8)
    add("conv", Conv(4, (3, 3)))
    shared = add("relu", Relu())
    add("pool", MaxPool((2, 2)))
    add("avg", AvgPool((3, 3), (1, 1), 1))
    add("relu6", Relu6())
    add("two", Conv(4, (1, 1)))
    both = add("kept", Relu())
    graph = add.graph(Output("y", both), Output("raw", "two"), Output("z", shared))
    model = Model(graph, trained(graph))
    data = emitted(model)
    # the second convolution's sums are an output, so its clamp stays
    assert [name for name, _ in operators(data)] == [
        "CONV_2D", "MAX_POOL_2D", "PAD", "AVERAGE_POOL_2D", "CONV_2D", "RELU",
    ]  # fmt: skip
    ((x,),) = tensors(model, batch=1)
    (expected,) = reference.run(model, [x])
    assert difference(outputs(data, x), expected) < 1e-5


def test_no_transposition_is_left_that_weights_can_take() -> None:
    add = Steps(3, 8, 8)
    add("conv", Conv(4, (3, 3)))
    add("flat", Flatten())
    add("gate", Sigmoid())
    add("one", Linear(5))
    model = Model(add.graph(), trained(add.graph()))
    data = emitted(model)
    assert "TRANSPOSE" not in dict(operators(data))
    ((x,),) = tensors(model, batch=1)
    assert difference(outputs(data, x), reference.run(model, [x])[0]) < 1e-5


def test_a_flat_feature_map_leaves_channel_by_channel() -> None:
    add = Steps(3, 4, 5)
    flat = add("flat", Flatten())
    add("soft", Softmax())
    graph = add.graph(Output("y", "soft"), Output("flat", flat))
    model = Model(graph, {})
    assert "TRANSPOSE" in dict(operators(emitted(model)))
    ((x,),) = tensors(model, batch=1)
    np.testing.assert_array_equal(outputs(emitted(model), x)["flat"], x.reshape(-1))


@pytest.mark.parametrize("count", [5, 6, 8, 9, 10, 25, 26, 31])
def test_xnnpack_joins_any_number_of_values(count: int) -> None:
    add = Steps(2, 3, 4)
    parts = [add(f"conv{i}", Conv(1 + i % 3, (1, 1)), "image") for i in range(count)]
    add("join", Concat(), *parts)
    add("shuffle", ChannelShuffle(1))
    model = Model(add.graph(), trained(add.graph()))
    data = emitted(model)
    joins = [op for op in opened(data).subgraphs[0].operators if len(op.inputs) > 3]
    assert all(len(op.inputs) <= 5 for op in joins)
    assert delegates(data) == 1
    ((x,),) = tensors(model, batch=1)
    assert difference(outputs(data, x), reference.run(model, [x])[0]) < 1e-5


def test_values_may_leave_twice_or_as_they_came() -> None:
    add = Steps(3, 4, 5)
    value = add("pool", GlobalAvgPool())
    graph = add.graph(Output("a", value), Output("b", value))
    model = Model(graph, {})
    ((x,),) = tensors(model, batch=1)
    assert difference(outputs(emitted(model), x), reference.run(model, [x])[0]) < 1e-6
    graph = replace(graph, outputs=(*graph.outputs, Output("image", "image")))
    np.testing.assert_array_equal(outputs(emitted(Model(graph, {})), x)["image"], x)


@nets
@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_are_the_same_every_time_and_aligned(graph: Graph, precision: str) -> None:
    data = emitted(fused(graph), precision)
    assert data == emitted(fused(graph), precision)
    found = opened(data)
    assert len(found.buffers) == len({bytes(b.data) for b in found.buffers[1:]}) + 1
    places = writer_places(data)
    assert len(places) == len(found.buffers) - 1
    assert all(place % 16 == 0 for place in places)


def writer_places(data: bytes) -> list[int]:
    """Return where the bytes of each buffer begin, by the schema's reader."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    return [b._tab.Vector(b._tab.Offset(4)) for b in buffers if not b.DataIsNone()]


def test_what_a_file_says_of_itself() -> None:
    contract = Preprocess(resize=Resize((16, 16)), mean=(0.5,), std=(0.25,))
    graph = dense()
    graph = replace(
        graph,
        inputs=(replace(graph.inputs[0], preprocess=contract),),
        outputs=tuple(
            replace(o, activation="softmax", labels=("a", "ü")) if o.name == "logits" else o
            for o in graph.outputs
        ),
    )
    found = opened(emitted(fused(graph)))
    assert found.description.startswith(b"tcc ")
    assert found.version == 3
    (signature,) = found.signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert [each.name for each in signature.inputs] == [b"image"]
    assert [each.name for each in signature.outputs] == [b"logits"]
    (metadata,) = found.metadata
    assert metadata.name == b"tcc"
    document = json.loads(bytes(found.buffers[metadata.buffer].data))
    assert document["model"] == "dense"
    (source,) = document["inputs"]
    assert (source["name"], source["layout"]) == ("image", "NHWC")
    assert source["preprocess"]["mean"] == [0.5]
    assert document["outputs"] == [
        {"name": "logits", "activation": "softmax", "labels": ["a", "ü"]}
    ]


def test_operators_are_of_the_version_that_their_types_need() -> None:
    model = fused(dense())
    versions = {p: dict(operators(emitted(model, p))) for p in PRECISIONS}
    assert versions["fp32"]["CONV_2D"] == versions["fp16"]["CONV_2D"] == 1
    assert versions["fp16"]["DEQUANTIZE"] == 3
    assert versions["dynamic"]["CONV_2D"] == 5
    assert versions["dynamic"]["FULLY_CONNECTED"] == 12
    codes = opened(emitted(model)).operatorCodes
    assert all(code.deprecatedBuiltinCode == min(code.builtinCode, 127) for code in codes)


def test_what_int8_would_not_make_smaller_is_float16_in_a_dynamic_file() -> None:
    add = Steps(64, 8, 8)
    add("depthwise", DepthwiseConv((3, 3), padding=1))
    add("grouped", Conv(64, (3, 3), padding=1, groups=4))
    add("conv", Conv(64, (3, 3)))
    add("grown", ConvTranspose(16, (2, 2), (2, 2)))
    model = fused(add.graph())
    data = emitted(model, "dynamic")
    found = opened(data).subgraphs[0]
    kinds = {tensor.name.decode(): tensor.type for tensor in found.tensors if tensor.name}
    assert kinds["conv.weight"] == TensorType.INT8
    assert operators(data).count(("DEQUANTIZE", 3)) == 3
    assert {("CONV_2D", 5), ("CONV_2D", 6), ("DEPTHWISE_CONV_2D", 1)} <= set(operators(data))
    assert delegates(data) == 1


def test_each_form_is_as_small_as_its_weights() -> None:
    add = Steps(32, 4, 4)
    add("conv", Conv(512, (3, 3)))
    model = fused(add.graph())
    size = {precision: len(emitted(model, precision)) for precision in PRECISIONS}
    assert size["fp16"] < 0.51 * size["fp32"]
    assert size["dynamic"] < 0.27 * size["fp32"]


def test_weights_too_large_for_float16_stay() -> None:
    add = Steps(32, 4, 4)
    add("conv", Conv(64, (3, 3)))
    graph = add.graph()
    weights = {name: values * np.float32(1e6) for name, values in trained(graph).items()}
    model = Model(graph, weights)
    ((x,),) = tensors(model, batch=1)
    assert difference(outputs(emitted(model, "fp16"), x), reference.run(model, [x])[0]) < 1e-5


def test_a_file_of_two_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LARGEST", 1000)
    with pytest.raises(UserError) as caught:
        emitted(fused(dense()))
    (found,) = caught.value.diagnostics
    assert (found.code, found.message) == ("E0450", "dense is too large for a TFLite file")


def test_an_op_without_a_rule_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Odd(Relu):
        word = "odd"

    graph = gated()
    nodes = tuple(replace(n, op=Odd()) if n.op == Relu() else n for n in graph.nodes)
    found = list(BACKEND.refusals(TARGET, replace(graph, nodes=nodes)))
    assert [(r.node.name, r.why) for r in found] == [("shrink_relu", "TFLite has no rule for odd")]


def test_images_go_through_the_contract(tmp_path: Path) -> None:
    graph = dense()
    contract = Preprocess(resize=Resize((16, 16)), mean=(0.5,), std=(0.25,))
    source = replace(graph.inputs[0], preprocess=contract)
    model = Model(graph, trained(graph))
    folder = written(tmp_path, BACKEND.emit(TARGET, model))
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    (found,) = BACKEND.run(TARGET, folder, source, [image])
    x = (image.astype(np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.25
    assert difference(found, reference.run(model, [x.astype(np.float32)])[0]) < 1e-5
    with pytest.raises(UserError, match="this network does not take an image"):
        BACKEND.run(TARGET, folder, graph.inputs[0], [image])


def test_damaged_files_are_the_users_error(tmp_path: Path) -> None:
    whole = emitted(fused(dense()))
    source = dense().inputs[0]
    for data in (b"", b"TFL3", b"not a model" * 9, whole[:100], whole[: len(whole) // 2]):
        (tmp_path / FILE).write_bytes(data)
        with pytest.raises(UserError) as caught:
            BACKEND.infer(TARGET, tmp_path, source, [])
        (found,) = caught.value.diagnostics
        assert (found.code, found.message) == ("E0651", "LiteRT cannot run the model")
        assert found.at.file == str(tmp_path / FILE)


def test_another_networks_file_is_the_users_error(tmp_path: Path) -> None:
    folder = written(tmp_path, BACKEND.emit(TARGET, fused(dense())))
    source = replace(dense().inputs[0], name="other")
    with pytest.raises(UserError, match="LiteRT cannot run the model"):
        BACKEND.infer(TARGET, folder, source, [np.zeros((3, 16, 16), np.float32)])
    wrong = np.zeros((3, 4, 4), np.float32)
    with pytest.raises(UserError, match="LiteRT cannot run the model"):
        BACKEND.infer(TARGET, folder, dense().inputs[0], [wrong])


def test_it_loads_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path, BACKEND.emit(TARGET, fused(dense())))
    BACKEND.infer(TARGET, folder, dense().inputs[0], [np.zeros((3, 16, 16), np.float32)])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("absent", ["ai-edge-litert", "flatbuffers"])
def test_what_is_missing_comes_with_its_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    def version(name: str) -> str:
        if name == absent:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(module, "version", version)
    for step in (
        lambda: emitted(fused(dense())),
        lambda: BACKEND.infer(TARGET, tmp_path, dense().inputs[0], []),
    ):
        with pytest.raises(MissingTool, match=rf"{absent} is needed .*'tcc-compiler\[tflite\]'"):
            step()
