"""The ONNX form of a model: its names, omitted parts and outputs."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxsim
import pytest
import torch

from tcc import __version__
from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.lower.onnx import MAX_OPSET, lower
from tcc.compiler.lower.torch import create_module
from tcc.compiler.ops import Conv, Linear, Relu
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.nets import NetBuilder, build_chain, build_dense, build_gated
from tcc.testing.op_cases import CASES, build_op_model, sample_inputs, sample_weights

OPSETS = (11, 13, 17, MAX_OPSET)
SPECS = Path(__file__).resolve().parents[3] / "spec"
graphs = pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=lambda g: g.name)


def build_model(graph: Graph) -> Model:
    return Model(graph, sample_weights(graph))


def create_image(graph: Graph, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(
        (batch, *graph.inputs[0].type.shape), np.float32
    )


def run_onnx(lowered: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(lowered.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {session.get_inputs()[0].name: x})
    return dict(zip(names, values, strict=True))


def run_torch(source_model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
    network = create_module(source_model.graph, source_model.weights).eval()
    with torch.no_grad():
        return {name: y.numpy() for name, y in network(torch.from_numpy(x)).items()}


def assert_agree(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, y in expected.items():
        bound = 1e-5 * float(np.abs(y).max())
        np.testing.assert_allclose(got[name], y, rtol=1e-5, atol=bound, err_msg=name)


@graphs
@pytest.mark.parametrize("opset", OPSETS)
def test_onnx_outputs_match_torch(graph: Graph, opset: int) -> None:
    lowered = lower(build_model(graph), opset)
    onnx.checker.check_model(lowered, full_check=True)
    assert_agree(
        run_onnx(lowered, create_image(graph)), run_torch(build_model(graph), create_image(graph))
    )


@graphs
@pytest.mark.parametrize("opset", [11, 17])
def test_simplified_files_give_the_same_outputs(graph: Graph, opset: int) -> None:
    simple, sound = onnxsim.simplify(lower(build_model(graph), opset))
    assert sound
    assert len(simple.graph.node) < len(lower(build_model(graph), opset).graph.node)
    assert_agree(
        run_onnx(simple, create_image(graph)), run_torch(build_model(graph), create_image(graph))
    )


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.yaml")), ids=lambda p: p.stem)
def test_onnx_outputs_of_shipped_specs_match_torch(path: Path) -> None:
    graph = load(path).graph
    lowered = lower(build_model(graph))
    onnx.checker.check_model(lowered, full_check=True)
    x = create_image(graph, 1)
    expected = run_torch(build_model(graph), x)
    assert_agree(run_onnx(lowered, x), expected)
    assert_agree(run_onnx(onnxsim.simplify(lowered)[0], x), expected)


@graphs
def test_weights_inputs_and_outputs_keep_the_names_of_the_spec(graph: Graph) -> None:
    lowered = lower(build_model(graph)).graph
    params = [name for name in graph.params if not name.startswith("aux")]
    assert [t.name for t in lowered.initializer if "." in t.name and ":" not in t.name] == params
    assert [i.name for i in lowered.input] == ["image"]
    assert [o.name for o in lowered.output] == [o.name for o in graph.outputs if not o.train_only]
    assert lowered.name == graph.name
    for tensor in lowered.initializer[: len(params)]:
        expected = sample_weights(graph)[tensor.name]
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), expected)


def test_values_are_named_by_the_paths_of_their_steps() -> None:
    lowered = lower(build_model(build_dense())).graph
    value_names = [name for node in lowered.node for name in node.output]
    assert value_names[:4] == ["stem", "stem_bn", "stem_relu", "layer/depthwise"]
    assert [node.name for node in lowered.node] == value_names
    types = {v.name: v.type.tensor_type for v in lowered.value_info}
    shape = [d.dim_param or d.dim_value for d in types["concat"].shape.dim]
    assert shape == ["N", 16, 8, 8]


def test_training_only_parts_are_removed() -> None:
    lowered = lower(build_model(build_dense())).graph
    text = str(lowered)
    assert "aux" not in text
    unused = {**sample_weights(build_dense()), "other.weight": np.ones(3, np.float32)}
    assert lower(Model(build_dense(), unused)).graph == lowered


def test_an_output_may_have_the_name_of_another_value() -> None:
    add = NetBuilder(2, 3, 3)
    first_conv = add("first", Conv(2, (1, 1)))
    second = add("second", Relu())
    graph = add.build(Output("second", first_conv), Output("first", second))
    assert_agree(
        run_onnx(lower(build_model(graph)), create_image(graph)),
        run_torch(build_model(graph), create_image(graph)),
    )


def test_a_value_may_be_two_outputs_and_the_input_may_be_one() -> None:
    add = NetBuilder(2, 3, 3)
    relu = add("relu", Relu())
    graph = add.build(
        Output("a", relu), Output("b", relu), Output("relu", relu), Output("raw", "image")
    )
    got = run_onnx(lower(build_model(graph)), create_image(graph))
    assert_agree(got, run_torch(build_model(graph), create_image(graph)))
    assert set(got) == {"a", "b", "relu", "raw"}


def test_the_batch_axis_is_dynamic_or_fixed() -> None:
    graph = build_gated()
    for batch, dim in ((None, "N"), (3, 3)):
        lowered = lower(build_model(graph), batch=batch).graph
        for value in (*lowered.input, *lowered.output, *lowered.value_info):
            batch_dim = value.type.tensor_type.shape.dim[0]
            assert (batch_dim.dim_param or batch_dim.dim_value) == dim, value.name


@pytest.mark.parametrize(("opset", "ir"), [(11, 6), (13, 7), (17, 8), (21, 10)])
def test_the_ir_version_is_the_oldest_of_the_opset(opset: int, ir: int) -> None:
    lowered = lower(build_model(build_gated()), opset)
    assert lowered.ir_version == ir
    assert [(o.domain, o.version) for o in lowered.opset_import] == [("", opset)]


def test_metadata_names_the_producer_but_no_place_or_time() -> None:
    lowered = lower(build_model(build_dense()))
    assert (lowered.producer_name, lowered.producer_version) == ("tcc", __version__)
    assert not lowered.doc_string
    assert not lowered.metadata_props
    assert not any(n.doc_string for n in lowered.graph.node)
    assert b"net.yaml" not in lowered.SerializeToString()


PROGRAM = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from tcc.testing.nets import build_dense
from tcc.testing.op_cases import sample_weights
from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx import lower
graph = build_dense()
data = lower(Model(graph, sample_weights(graph))).SerializeToString(deterministic=True)
print(hashlib.sha256(data).hexdigest())
"""


def test_files_are_reproducible_in_every_process() -> None:
    local_bytes = lower(build_model(build_dense())).SerializeToString(deterministic=True)
    for seed in ("1", "2"):
        completed = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[2])],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert completed.stdout.strip() == sha256(local_bytes).hexdigest()


@pytest.mark.parametrize("opset", [-1, 10, MAX_OPSET + 1, 99])
def test_an_opset_that_is_not_supported_is_refused(opset: int) -> None:
    with pytest.raises(UserError) as caught:
        lower(build_model(build_gated()), opset)
    assert str(caught.value) == (
        f"error[E0650]: ONNX opset {opset} is not supported\n"
        "  --> gated\n"
        f"   = help: choose one from 11 to {MAX_OPSET}; 17 is the default"
    )


def test_a_model_over_two_gigabytes_is_refused_before_copying() -> None:
    add = NetBuilder(30_000, name="huge")
    add("fc", Linear(20_000))
    graph = add.build()

    class Unread(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            raise AssertionError(f"{name} is copied")

    with pytest.raises(UserError) as caught:
        lower(Model(graph, Unread()))
    assert str(caught.value) == (
        "error[E0450]: huge is too large for an ONNX file\n"
        "  --> huge\n"
        "   = its weights take 2.40 GB; the limit is 2.13 GB\n"
        "   = help: build a smaller network, or use a precision that takes fewer bytes"
    )


def test_several_inputs_keep_their_names() -> None:
    case_model = build_op_model(CASES["add-gate"])
    lowered = lower(case_model)
    assert [i.name for i in lowered.graph.input] == ["x0", "x1"]
    session = onnxruntime.InferenceSession(lowered.SerializeToString())
    a, b = sample_inputs(case_model)
    (y,) = session.run(["y"], {"x1": b, "x0": a})
    np.testing.assert_allclose(y, a + b, rtol=1e-6)


def test_a_thousand_layers_are_lowered() -> None:
    graph = build_chain(1000)
    lowered = lower(Model(graph, weights.initialize_random(graph)))
    assert len(lowered.graph.node) == len(graph.nodes)
    onnx.checker.check_model(lowered)
