"""The files of the target `tflite` in float: their content, and refused models."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from lite import (
    TensorType,
    compute_difference,
    count_delegates,
    list_operators,
    parse_tflite,
    run_tflite,
)
from lite_float import BACKEND, PRECISIONS, TARGET, emit_tflite, fuse_graph, write_artifact

from tcc.backends.tflite import backend as module
from tcc.backends.tflite import writer
from tcc.backends.tflite.backend import FILE
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.ops import Conv, ConvTranspose, DepthwiseConv, Relu
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.external_tools import MissingTool
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import sample_inputs, sample_weights

nets = pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=lambda g: g.name)


@nets
@pytest.mark.parametrize("precision", PRECISIONS)
def test_builds_are_reproducible_and_aligned(graph: Graph, precision: str) -> None:
    data = emit_tflite(fuse_graph(graph), precision)
    assert data == emit_tflite(fuse_graph(graph), precision)
    parsed = parse_tflite(data)
    assert len(parsed.buffers) == len({bytes(b.data) for b in parsed.buffers[1:]}) + 1
    offsets = find_buffer_offsets(data)
    assert len(offsets) == len(parsed.buffers) - 1
    assert all(offset % 16 == 0 for offset in offsets)


def find_buffer_offsets(data: bytes) -> list[int]:
    """Return the offset of each buffer from the schema reader."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    return [b._tab.Vector(b._tab.Offset(4)) for b in buffers if not b.DataIsNone()]


def test_equal_shapes_and_zero_points_are_written_once() -> None:
    from ai_edge_litert import schema_py_generated as schema

    add = NetBuilder(16, 8, 8)
    for i in range(4):
        add(f"conv{i}", Conv(16, (3, 3), padding=1))
        add(f"relu{i}", Relu())
    graph = schema.Model.GetRootAs(emit_tflite(fuse_graph(add.build()), "dynamic")).Subgraphs(0)
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    shapes = {t._tab.Vector(t._tab.Offset(4)): tuple(t.ShapeAsNumpy()) for t in tensors}
    assert len(set(shapes.values())) == len(shapes)
    scaled = [q for t in tensors if (q := t.Quantization()) is not None]
    assert len(scaled) == 4
    assert len({q._tab.Vector(q._tab.Offset(10)) for q in scaled}) == 1
    assert len({q._tab.Vector(q._tab.Offset(8)) for q in scaled}) == 4
    assert all((q.ZeroPointAsNumpy() == np.zeros(16)).all() for q in scaled)


def test_file_metadata() -> None:
    contract = Preprocess(resize=PixelResize((16, 16)), mean=(0.5,), std=(0.25,))
    graph = build_dense()
    graph = replace(
        graph,
        inputs=(replace(graph.inputs[0], preprocess=contract),),
        outputs=tuple(
            replace(o, activation="softmax", labels=("a", "ü")) if o.name == "logits" else o
            for o in graph.outputs
        ),
    )
    parsed = parse_tflite(emit_tflite(fuse_graph(graph)))
    assert parsed.description.startswith(b"tcc ")
    assert parsed.version == 3
    (signature,) = parsed.signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert [tensor_map.name for tensor_map in signature.inputs] == [b"image"]
    assert [tensor_map.name for tensor_map in signature.outputs] == [b"logits"]
    (metadata,) = parsed.metadata
    assert metadata.name == b"tcc"
    document = json.loads(bytes(parsed.buffers[metadata.buffer].data))
    assert document["model"] == "dense"
    (source,) = document["inputs"]
    assert (source["name"], source["layout"]) == ("image", "NHWC")
    assert source["preprocess"]["mean"] == [0.5]
    assert document["outputs"] == [
        {"name": "logits", "activation": "softmax", "labels": ["a", "ü"]}
    ]


def test_operator_versions_match_their_types() -> None:
    model = fuse_graph(build_dense())
    versions = {p: dict(list_operators(emit_tflite(model, p))) for p in PRECISIONS}
    assert versions["fp32"]["CONV_2D"] == versions["fp16"]["CONV_2D"] == 1
    assert versions["fp16"]["DEQUANTIZE"] == 3
    assert versions["dynamic"]["CONV_2D"] == 5
    assert versions["dynamic"]["FULLY_CONNECTED"] == 12
    codes = parse_tflite(emit_tflite(model)).operatorCodes
    assert all(code.deprecatedBuiltinCode == min(code.builtinCode, 127) for code in codes)


def test_dynamic_files_store_slow_int8_layers_as_float16() -> None:
    add = NetBuilder(64, 8, 8)
    add("depthwise", DepthwiseConv((3, 3), padding=1))
    add("grouped", Conv(64, (3, 3), padding=1, groups=4))
    add("conv", Conv(64, (3, 3)))
    add("grown", ConvTranspose(16, (2, 2), (2, 2)))
    model = fuse_graph(add.build())
    data = emit_tflite(model, "dynamic")
    subgraph = parse_tflite(data).subgraphs[0]
    kinds = {tensor.name.decode(): tensor.type for tensor in subgraph.tensors if tensor.name}
    assert kinds["conv.weight"] == TensorType.INT8
    assert list_operators(data).count(("DEQUANTIZE", 3)) == 3
    assert {("CONV_2D", 5), ("CONV_2D", 6), ("DEPTHWISE_CONV_2D", 1)} <= set(list_operators(data))
    assert count_delegates(data) == 1


def test_file_sizes_match_the_weight_sizes() -> None:
    add = NetBuilder(32, 4, 4)
    add("conv", Conv(512, (3, 3)))
    model = fuse_graph(add.build())
    size = {precision: len(emit_tflite(model, precision)) for precision in PRECISIONS}
    assert size["fp16"] < 0.51 * size["fp32"]
    assert size["dynamic"] < 0.27 * size["fp32"]


def test_weights_too_large_for_float16_stay_float32() -> None:
    add = NetBuilder(32, 4, 4)
    add("conv", Conv(64, (3, 3)))
    graph = add.build()
    weights = {name: tensor * np.float32(1e6) for name, tensor in sample_weights(graph).items()}
    model = Model(graph, weights)
    ((x,),) = sample_inputs(model, batch=1)
    assert (
        compute_difference(
            run_tflite(emit_tflite(model, "fp16"), x), float_program.run(model, [x])[0]
        )
        < 1e-5
    )


def test_a_file_of_two_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_CONSTANT_BYTES", 1000)
    with pytest.raises(UserError) as caught:
        emit_tflite(fuse_graph(build_dense()))
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == (
        "E0450",
        "the weights of dense are too large for a TFLite file",
    )


def test_an_op_without_a_rule_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Odd(Relu):
        keyword = "odd"

    graph = build_gated()
    nodes = tuple(replace(n, op=Odd()) if n.op == Relu() else n for n in graph.nodes)
    refusals = list(BACKEND.refusals(TARGET, replace(graph, nodes=nodes)))
    assert [(r.node.name, r.reason) for r in refusals] == [
        ("shrink_relu", "TFLite has no rule for odd")
    ]


def test_images_are_preprocessed_by_the_input_contract(tmp_path: Path) -> None:
    graph = build_dense()
    contract = Preprocess(resize=PixelResize((16, 16)), mean=(0.5,), std=(0.25,))
    source = replace(graph.inputs[0], preprocess=contract)
    model = Model(graph, sample_weights(graph))
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, model))
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    (actual,) = Device(BACKEND, TARGET).run(folder, source, [image])
    x = (image.astype(np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.25
    assert compute_difference(actual, float_program.run(model, [x.astype(np.float32)])[0]) < 1e-5
    with pytest.raises(UserError, match="this network does not take an image"):
        Device(BACKEND, TARGET).run(folder, graph.inputs[0], [image])


def test_damaged_files_are_user_errors(tmp_path: Path) -> None:
    valid_file = emit_tflite(fuse_graph(build_dense()))
    source = build_dense().inputs[0]
    for data in (
        b"",
        b"TFL3",
        b"not a model" * 9,
        valid_file[:100],
        valid_file[: len(valid_file) // 2],
    ):
        (tmp_path / FILE).write_bytes(data)
        with pytest.raises(UserError) as caught:
            BACKEND.infer(TARGET, tmp_path, source, [])
        (diagnostic,) = caught.value.diagnostics
        assert (diagnostic.code, diagnostic.message) == ("E0651", "LiteRT cannot run the model")
        assert diagnostic.at.file == str(tmp_path / FILE)


def test_the_file_of_another_network_is_a_user_error(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, fuse_graph(build_dense())))
    source = replace(build_dense().inputs[0], name="other")
    with pytest.raises(UserError, match="LiteRT cannot run the model"):
        BACKEND.infer(TARGET, folder, source, [np.zeros((3, 16, 16), np.float32)])
    wrong = np.zeros((3, 4, 4), np.float32)
    with pytest.raises(UserError, match="LiteRT cannot run the model"):
        BACKEND.infer(TARGET, folder, build_dense().inputs[0], [wrong])


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, fuse_graph(build_dense())))
    BACKEND.infer(TARGET, folder, build_dense().inputs[0], [np.zeros((3, 16, 16), np.float32)])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("absent", ["ai-edge-litert", "flatbuffers"])
def test_missing_packages_are_reported_with_their_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    def get_version(name: str) -> str | None:
        return None if name == absent else "1"

    monkeypatch.setattr(module, "installed_version", get_version)
    for step in (
        lambda: emit_tflite(fuse_graph(build_dense())),
        lambda: BACKEND.infer(TARGET, tmp_path, build_dense().inputs[0], []),
    ):
        with pytest.raises(MissingTool, match=rf"{absent} is needed .*'tcc-compiler\[tflite\]'"):
            step()
