"""The target `onnxruntime`: what it builds, refuses and computes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tables import looped

from tcc.backends.onnxruntime.backend import MODEL_FILE, OnnxRuntime
from tcc.compiler.data import images
from tcc.compiler.frontend.spec import load
from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.compiler.ir.backend import Builder
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.precision import FP32
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.ir.target import Artifact
from tcc.compiler.lower.torch import create_module
from tcc.compiler.ops import AvgPool, MaxPool, Op, Pad, Relu
from tcc.compiler.passes import INFERENCE, run
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import CASES, Case, build_one_input_model, sample_inputs, sample_weights

BACKEND: Builder = OnnxRuntime()
(TARGET,) = BACKEND.targets


def write_artifact(folder: Path, artifact: Artifact) -> Path:
    for name, content in artifact.files.items():
        (folder / name).write_bytes(content)
    return folder


def run_torch(model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
    network = create_module(model.graph, model.weights).eval()
    with torch.no_grad():
        return {name: y.numpy() for name, y in network(torch.from_numpy(x)).items()}


def assert_agree(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for name, y in expected.items():
        assert actual[name].shape == y.shape
        bound = 2e-5 * max(1.0, float(np.abs(y).max()))
        np.testing.assert_allclose(actual[name], y, rtol=2e-5, atol=bound)


def test_target_properties() -> None:
    assert (TARGET.name, TARGET.aliases, TARGET.calibrates) == ("onnxruntime", ("ort",), True)
    tools = {tool.name: tool for tool in BACKEND.tools(TARGET)}
    assert {name: tool.builds for name, tool in tools.items()} == {
        "onnx": True,
        "onnxruntime": False,
    }
    assert tools["onnx"].version == onnx.__version__


@pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=lambda g: g.name)
@pytest.mark.parametrize("fused", [False, True])
def test_the_artifact_computes_the_model(tmp_path: Path, graph: Graph, fused: bool) -> None:
    original_model = Model(graph, sample_weights(graph))
    model = run(original_model, INFERENCE) if fused else original_model
    assert list(BACKEND.refusals(TARGET, model.graph)) == []
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, model))
    (x,) = sample_inputs(model, batch=3)
    batch_outputs = BACKEND.infer(TARGET, folder, graph.inputs[0], list(x))
    expected = run_torch(original_model, x)
    assert len(batch_outputs) == 3
    for i, outputs in enumerate(batch_outputs):
        assert_agree(outputs, {name: y[i] for name, y in expected.items()})


@looped(CASES)
def test_every_op_case_builds_and_runs(tmp_path: Path, case: Case) -> None:
    model = build_one_input_model(case)
    assert list(BACKEND.refusals(TARGET, model.graph)) == []
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, model))
    (x,) = sample_inputs(model, batch=1)
    (outputs,) = BACKEND.infer(TARGET, folder, model.graph.inputs[0], list(x))
    assert_agree(outputs, {name: y[0] for name, y in run_torch(model, x).items()})


def test_the_artifact_contains_the_weights_of_the_spec() -> None:
    graph = build_dense()
    artifact = BACKEND.emit(TARGET, Model(graph, sample_weights(graph)))
    assert list(artifact.files) == [MODEL_FILE]
    assert artifact.executable == frozenset()
    proto = onnx.load_from_string(artifact.files[MODEL_FILE])
    names = {t.name for t in proto.graph.initializer}
    assert {n for n in graph.params if not n.startswith("aux")} <= names
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_builds_are_reproducible() -> None:
    graph = build_gated()
    model = Model(graph, sample_weights(graph))
    assert BACKEND.emit(TARGET, model).files == BACKEND.emit(TARGET, model).files


def test_outputs_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    graph = build_gated()
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, Model(graph, sample_weights(graph))))
    (x,) = sample_inputs(Model(graph, {}), batch=4)
    source = graph.inputs[0]
    batch_outputs = BACKEND.infer(TARGET, folder, source, list(x))
    single_outputs = [BACKEND.infer(TARGET, folder, source, [sample])[0] for sample in x[::-1]][
        ::-1
    ]
    for a, b in zip(batch_outputs, single_outputs, strict=True):
        for name in a:
            assert a[name].tobytes() == b[name].tobytes()


def test_progress_is_reported() -> None:
    graph = build_gated()
    reports: list[tuple[str, int, int]] = []
    BACKEND.emit(
        TARGET, Model(graph, sample_weights(graph)), FP32, lambda *step: reports.append(step)
    )
    assert reports == [("onnxruntime", 0, 1), ("onnxruntime", 1, 1)]


def test_an_op_without_a_rule_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Odd(Relu):
        keyword = "odd"

    graph = build_gated()
    nodes = tuple(replace(n, op=Odd()) if n.op == Relu() else n for n in graph.nodes)
    refusals = list(BACKEND.refusals(TARGET, replace(graph, nodes=nodes)))
    assert [(r.node.name, r.reason) for r in refusals] == [
        ("shrink_relu", "ONNX Runtime has no rule for odd")
    ]


def test_images_are_preprocessed_by_the_input_contract(tmp_path: Path) -> None:
    graph = build_dense()
    contract = Preprocess(resize=PixelResize((16, 16)), mean=(0.5,), std=(0.25,))
    source = replace(graph.inputs[0], preprocess=contract)
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, Model(graph, sample_weights(graph))))
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    (outputs,) = Device(BACKEND, TARGET).run(folder, source, [image])
    x = (image.astype(np.float32).transpose(2, 0, 1)[None] / 255 - 0.5) / 0.25
    expected = run_torch(Model(graph, sample_weights(graph)), x.astype(np.float32))
    assert_agree(outputs, {name: y[0] for name, y in expected.items()})


def test_a_network_without_an_input_contract_refuses_images(tmp_path: Path) -> None:
    graph = build_dense()
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, Model(graph, sample_weights(graph))))
    with pytest.raises(UserError, match="this network does not take an image"):
        Device(BACKEND, TARGET).run(folder, graph.inputs[0], [np.zeros((16, 16, 3), np.uint8)])


@pytest.mark.parametrize("data", [b"", b"\x08\x08", b"not a model" * 9])
def test_a_damaged_file_is_a_user_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / MODEL_FILE).write_bytes(data)
    with pytest.raises(UserError) as caught:
        BACKEND.infer(TARGET, tmp_path, build_dense().inputs[0], [])
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == ("E0651", "ONNX Runtime cannot load the model")


def looped(model: onnx.ModelProto) -> str:
    """Put a loop of one iteration before the output. The file looks like one with an endless loop."""
    make_value_info, body = onnx.helper.make_tensor_value_info, ("turn", "on", "value")
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [a], [f"{a}:next"]) for a in body[1:]],
        "body",
        [make_value_info(a, kind, None) for a, kind in zip(body, (7, 9, 1), strict=True)],
        [
            make_value_info(f"{a}:next", kind, None)
            for a, kind in zip(body[1:], (9, 1), strict=True)
        ],
    )
    last_node = model.graph.node[-1]
    output_name, last_node.output[0] = last_node.output[0], "before"
    model.graph.initializer.append(onnx.helper.make_tensor("turns", 7, [], [1]))
    loop = onnx.helper.make_node("Loop", ["turns", "", "before"], [output_name], body=inner)
    model.graph.node.append(loop)
    return "it has control flow (`Loop`)"


def add_function(model: onnx.ModelProto) -> str:
    nodes = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(
        onnx.helper.make_function("other", "Same", ["x"], ["y"], nodes, model.opset_import)
    )
    return "it defines functions"


@pytest.mark.parametrize("forge", [looped, add_function])
def test_a_file_with_control_flow_is_refused(tmp_path: Path, forge: Any) -> None:
    graph = build_dense()
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, Model(graph, sample_weights(graph))))
    model = onnx.load(folder / MODEL_FILE)
    label = forge(model)
    onnx.save(model, folder / MODEL_FILE)
    with pytest.raises(UserError) as caught:
        BACKEND.infer(TARGET, folder, graph.inputs[0], [])
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.label.split(":")[0]) == ("E0651", label)


@pytest.mark.parametrize(
    ("name", "picture", "classes"), [("GC", "GC.png", 6), ("Sipak", "Sipak.bmp", 5)]
)
def test_reference_images_get_their_classes(
    shared: Path, root: Path, tmp_path: Path, name: str, picture: str, classes: int
) -> None:
    checkpoint_folder = shared / "data" / "ddsnet_checkpoints"
    facts = json.loads((shared / "facts" / "ddsnet_reference.json").read_text())[name]
    graph = load(root / "spec" / "ddsnet.yaml", {"classes": str(classes)}).graph
    weights = import_checkpoint(checkpoint_folder / facts["checkpoint"], graph).weights
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, Model(graph, weights)))
    (outputs,) = Device(BACKEND, TARGET).run(
        folder, graph.inputs[0], [images.read_image(checkpoint_folder / picture)]
    )
    expected = facts["runs"]["resize224_bilinear"]["logits"]
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-4)


def test_the_file_of_another_network_is_a_user_error(tmp_path: Path) -> None:
    graph = build_dense()
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, Model(graph, sample_weights(graph))))
    source = replace(graph.inputs[0], name="picture")
    tensor = np.zeros(source.type.shape, np.float32)
    for wrong_source, x in ((source, tensor), (graph.inputs[0], tensor[:, :5])):
        with pytest.raises(UserError) as caught:
            BACKEND.infer(TARGET, folder, wrong_source, [x])
        (diagnostic,) = caught.value.diagnostics
        assert (diagnostic.code, diagnostic.message) == (
            "E0651",
            "ONNX Runtime cannot run the model",
        )


@pytest.mark.parametrize("pool", [MaxPool((2, 2)), AvgPool((2, 2))], ids=["max", "mean"])
def test_border_of_zeros_before_a_pooling_keeps_its_zeros(tmp_path: Path, pool: Op) -> None:
    """ONNX Runtime makes a border of +0.0 padding of the pooling, which is another function."""
    steps = NetBuilder(2, 5, 5)
    steps("border", Pad((0, 1, 2, 0)))
    steps("pool", pool)
    graph = steps.build()
    model = Model(graph, sample_weights(graph))
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, model))
    x = -1 - np.random.default_rng(0).random((1, 2, 5, 5), np.float32)  # a zero is the maximum
    (outputs,) = BACKEND.infer(TARGET, folder, graph.inputs[0], list(x))
    assert_agree({name: y[None] for name, y in outputs.items()}, run_torch(model, x))
