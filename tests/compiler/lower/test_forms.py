"""Other ONNX forms of a model: small weights, unsigned weights, QDQ."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxsim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantised import (
    EXACT_LEVELS,
    LEVELS,
    SATURATES,
    count_differing_elements,
    open_session,
)
from random_nets import draw_graph, draw_weights
from tables import looped

from tcc.backends.onnxruntime.precision_conversion import encode_onnx
from tcc.backends.onnxruntime.precisions import INT8
from tcc.compiler.bundle import program_check
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.lower.integer_variants import convert_to_unsigned, pad_channels
from tcc.compiler.lower.onnx import MAX_OPSET, lower
from tcc.compiler.lower.onnx_inspection import INTEGERS, add_inner_outputs
from tcc.compiler.lower.qdq import convert_to_qdq
from tcc.compiler.lower.small_weights import convert_float16, quantize_dynamic
from tcc.compiler.ops import (
    Add,
    Concat,
    Conv,
    DepthwiseConv,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool,
)
from tcc.compiler.ops.integer import QConv, RealConv
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import float_program, integer_program
from tcc.testing.int8_models import (
    build_int8_model,
    calibrate_on_input,
    lower_for_int8,
    sample_input,
)
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import CASES, Case, build_one_input_model, sample_weights

Form = Callable[[Model], Model]
SMALL: dict[str, tuple[Form, float]] = {
    "half": (convert_float16, 2e-3),
    "dynamic": (quantize_dynamic, 5e-2),
}
"""The form and its allowed output difference, relative to the largest output."""
small = pytest.mark.parametrize(("form", "bound"), SMALL.values(), ids=SMALL)
nets = pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=lambda g: g.name)
SPEC = Path(__file__).resolve().parents[3] / "spec"


def run_outputs(
    model: Model, x: np.ndarray, level: str = "ORT_ENABLE_ALL"
) -> dict[str, np.ndarray]:
    runtime_session = open_session(lower(model), level)
    source = model.graph.inputs[0]
    names = [o.name for o in runtime_session.get_outputs()]
    got = runtime_session.run(names, {source.name: x[None].astype(source.type.dtype.value)})
    return {name: y[0] for name, y in zip(names, got, strict=True)}


def assert_near(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], bound: float) -> None:
    assert got.keys() == expected.keys()
    for name, y in expected.items():
        assert np.isfinite(got[name]).all()
        assert np.abs(got[name] - y).max() <= bound * max(np.abs(y).max(), 1e-6), name


@small
@nets
@pytest.mark.parametrize("level", LEVELS)
def test_small_weights_are_close(graph: Graph, form: Form, bound: float, level: str) -> None:
    model = Model(graph, sample_weights(graph))
    for seed in range(3):
        x = sample_input(graph, seed)
        (expected,) = float_program.run(model, [x])
        assert_near(run_outputs(form(model), x, level), dict(expected), bound)


@looped(CASES, small=SMALL)
def test_every_op_supports_small_weights(case: Case, small: tuple[Form, float]) -> None:
    form, bound = small
    model = build_one_input_model(case)
    x = sample_input(model.graph)
    (expected,) = float_program.run(model, [x])
    assert_near(run_outputs(form(model), x), dict(expected), bound)


@settings(max_examples=40)
@given(data=st.data(), name=st.sampled_from(tuple(SMALL)))
def test_random_networks_stay_finite_with_any_weights(data: st.DataObject, name: str) -> None:
    graph = draw_graph(data.draw, floats=True)
    form, _ = SMALL[name]
    x = sample_input(graph)
    tensors = run_outputs(form(Model(graph, draw_weights(data.draw, graph))), x)
    assert all(np.isfinite(y).all() for y in tensors.values())


@pytest.mark.parametrize("factor", [1e-7, 1e6])
def test_weights_beyond_float16_stay_float32(factor: float) -> None:
    add = NetBuilder(3, 5, 5)
    add("plain", Conv(4, (3, 3)))
    add("far", Conv(4, (3, 3)))
    graph = add.build()
    weights = sample_weights(graph)
    weights["far.weight"] = weights["far.weight"] * np.float32(factor)
    half_model = convert_float16(Model(graph, weights))
    assert {n.name: n.op.keyword for n in half_model.graph.nodes} == {
        "plain": "half",
        "far": "conv",
    }
    assert half_model.weights["plain.weight"].dtype == np.float16
    assert half_model.weights["far.weight"].dtype == np.float32


def test_weights_keep_their_names_and_shrink() -> None:
    add = NetBuilder(64, 4, 4)
    add("conv", Conv(256, (3, 3)))
    graph = add.build()
    model = Model(graph, sample_weights(graph))
    sizes = {
        f.__name__: lower(f(model)).ByteSize()
        for f in (lambda m: m, convert_float16, quantize_dynamic)
    }
    assert sizes["convert_float16"] < 0.52 * sizes["<lambda>"]
    assert sizes["quantize_dynamic"] < 0.28 * sizes["<lambda>"]
    for form, element in (
        (convert_float16, onnx.TensorProto.FLOAT16),
        (quantize_dynamic, onnx.TensorProto.INT8),
    ):
        tensors = {t.name: t.data_type for t in lower(form(model)).graph.initializer}
        assert tensors["conv.weight"] == element
        assert tensors["conv.bias"] == onnx.TensorProto.FLOAT


def test_tied_layers_still_share_their_weights() -> None:
    add = NetBuilder(4)
    add("first", Linear(4))
    add("second", Linear(4))
    first_node, second_node = add.build().nodes
    tied = Graph("tied", add.inputs, (first_node, second_node), add.build().outputs)
    object.__setattr__(second_node, "params", first_node.params)
    model = Model(tied, sample_weights(tied))
    x = sample_input(tied)
    (expected,) = float_program.run(model, [x])
    for form, bound in SMALL.values():
        assert_near(run_outputs(form(model), x), dict(expected), bound)


def test_a_dynamic_linear_layer_scales_its_input_at_run_time() -> None:
    add = NetBuilder(50)
    add("fc", Linear(7))
    model = Model(add.build(), sample_weights(add.build()))
    dynamic_model = quantize_dynamic(model)
    assert Counter(n.op_type for n in lower(dynamic_model).graph.node)["MatMulInteger"] == 1
    for scale in (1e-3, 1.0, 1e4):
        x = sample_input(model.graph) * np.float32(scale)
        (expected,) = float_program.run(
            Model(model.graph, {**model.weights, "fc.bias": np.zeros(7, np.float32)}), [x]
        )
        got = run_outputs(
            quantize_dynamic(
                Model(model.graph, {**model.weights, "fc.bias": np.zeros(7, np.float32)})
            ),
            x,
        )
        assert_near(got, dict(expected), 2e-2)


@nets
@pytest.mark.parametrize("level", LEVELS)
def test_unsigned_weights_change_no_value(graph: Graph, level: str) -> None:
    program = build_int8_model(graph, sample_weights(graph))
    unsigned_model = convert_to_unsigned(program)
    assert {n.op.keyword for n in unsigned_model.graph.nodes if isinstance(n.op, QConv)} == {
        "unsigned_qconv"
    }
    x = sample_input(graph, 5)
    assert count_differing_elements(unsigned_model, x, level) == {}
    expected = integer_program.run(program, [x], keep_all=True)[0]
    got = integer_program.run(unsigned_model, [x], keep_all=True)[0]
    assert all(np.array_equal(got[name], y) for name, y in expected.items())


@settings(max_examples=40)
@given(data=st.data())
def test_unsigned_weights_change_no_value_of_random_networks(data: st.DataObject) -> None:
    graph = draw_graph(data.draw)
    model = lower_for_int8(graph, draw_weights(data.draw, graph))
    x = sample_input(graph)
    assert (
        count_differing_elements(
            convert_to_unsigned(quantize(model, calibrate_on_input(model, x))), x
        )
        == {}
    )


@nets
@pytest.mark.parametrize("level", EXACT_LEVELS)
def test_zero_padded_channels_change_no_value(graph: Graph, level: str) -> None:
    program = build_int8_model(graph, sample_weights(graph))
    wide_model = pad_channels(program)
    # A stem of three channels. In the other network, all windowed layers have complete words.
    stems = {"dense": ["wide_qconv"], "gated": []}
    assert [n.op.keyword for n in wide_model.graph.nodes if n.op.keyword == "wide_qconv"] == stems[
        graph.name
    ]
    x = sample_input(graph, 5)
    assert count_differing_elements(wide_model, x, level) == {}
    expected = integer_program.run(program, [x], keep_all=True)[0]
    got = integer_program.run(wide_model, [x], keep_all=True)[0]
    assert all(np.array_equal(got[name], y) for name, y in expected.items())


@settings(max_examples=20)
@given(data=st.data())
def test_zero_padded_channels_change_no_value_of_random_networks(data: st.DataObject) -> None:
    graph = draw_graph(data.draw)
    model = lower_for_int8(graph, draw_weights(data.draw, graph))
    x = sample_input(graph)
    assert (
        count_differing_elements(pad_channels(quantize(model, calibrate_on_input(model, x))), x)
        == {}
    )


def build_narrow_graph() -> Graph:
    """Return maps of few channels with all kinds of readers: windows, joins, sums, pools, outputs."""
    add = NetBuilder(3, 14, 14, name="few")
    stem = add("stem", Conv(5, (3, 3), padding=1))
    add("depthwise", DepthwiseConv((3, 3), padding=1))
    split = add("mix", Conv(6, (1, 1)))
    left_conv = add("one", Conv(4, (1, 1)), split)
    add("two_depthwise", DepthwiseConv((5, 5), padding=2), split)
    right_conv = add("two", Conv(3, (1, 1)))
    wide = add("wide", Conv(20, (1, 1)), split)
    add("joined", Concat(), left_conv, right_conv, wide)
    add("out", Conv(5, (1, 1)))
    total = add("sum", Add(), stem, "out")
    add("again", Concat(), total, wide)
    add("pool", MaxPool((2, 2)))
    add("down", Conv(2, (3, 3), (2, 2)))
    add("gap", GlobalAvgPool())
    add("flat", Flatten())
    return add.build(Output("features", "two"), Output("logits", "flat"))


def test_maps_of_few_channels_are_zero_padded_and_keep_their_values() -> None:
    program = build_int8_model(build_narrow_graph(), sample_weights(build_narrow_graph()))
    wide_model = pad_channels(program)
    names = {name for name in wide_model.graph.types if name.endswith(":wide")}
    # `wide` has enough channels, `two` is an output, and an add reads `out`.
    assert names == {
        f"{name}:wide" for name in ("stem", "depthwise", "mix", "one", "two_depthwise", "joined")
    } | {"down:wide"}
    assert {wide_model.graph.types[name].shape[0] for name in names} == {16, 39}
    x = sample_input(program.graph, 5)
    for level in EXACT_LEVELS:
        assert count_differing_elements(wide_model, x, level) == {}
    (expected,) = integer_program.run(program, [x], keep_all=True)
    (actual,) = integer_program.run(wide_model, [x], keep_all=True)
    assert all(np.array_equal(actual[name], y) for name, y in expected.items())
    for name in names:
        channels = program.graph.types[name.removesuffix(":wide")].shape[0]
        if name != "joined:wide":
            assert not actual[name][channels:].any()


@pytest.mark.parametrize(
    "graph", [build_narrow_graph(), build_dense(), build_gated()], ids=lambda g: g.name
)
def test_layer_outputs_of_a_file_cover_the_program(graph: Graph) -> None:
    program = build_int8_model(graph, sample_weights(graph))
    data, names = add_inner_outputs(encode_onnx(program, INT8, 17), INTEGERS)
    runtime_session = open_session(onnx.load_model_from_string(data))
    x = sample_input(program.graph, 3)
    source = program.graph.inputs[0]
    got = runtime_session.run(list(names), {source.name: x[None].astype(source.type.dtype.value)})
    probed = {name: y[0] for name, y in zip(names, got, strict=True)}
    (expected,) = integer_program.run(program, [x], keep_all=True)
    layers = program_check.compare_layers(program.graph, [(expected, probed)])
    scaled_nodes = [node.name for node in program.graph.nodes if node.type.scale is not None]
    assert [layer.name for layer in layers] == scaled_nodes
    assert all(layer.values and not layer.differing for layer in layers)


def test_a_foreign_value_without_channels_is_skipped() -> None:
    kind = onnx.helper.make_tensor_value_info("x:wide", onnx.TensorProto.UINT8, [1, 16])
    bare = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [])
    source = onnx.helper.make_tensor_value_info("in", onnx.TensorProto.UINT8, [1, 16])
    node = onnx.helper.make_node("Identity", ["in"], ["x:wide"])
    graph = onnx.helper.make_graph([node], "odd", [source], [kind], value_info=[bare])
    data = onnx.helper.make_model(graph).SerializeToString()
    assert add_inner_outputs(data, INTEGERS)[1] == ("x:wide",)


def measure_steps_apart(program: Model, x: np.ndarray, level: str) -> float:
    """Return the largest output difference from the integer program, in quantization steps."""
    got = run_outputs(convert_to_qdq(program), x, level)
    (expected,) = integer_program.run(program, [x])
    inputs = {node.name: program.graph.get_input_types(node)[0] for node in program.graph.nodes}
    max_steps = 0.0
    for output in program.graph.outputs:
        y = expected[output.name]
        step = inputs[output.value].scale or float(np.abs(y).max(initial=0)) / 127 or 1.0
        max_steps = max(max_steps, float(np.abs(got[output.name] - y).max(initial=0)) / step)
    return max_steps


@nets
@pytest.mark.parametrize("level", LEVELS)
def test_qdq_outputs_are_within_two_quantization_steps(graph: Graph, level: str) -> None:
    program = build_int8_model(graph, sample_weights(graph))
    for seed in range(3):
        assert measure_steps_apart(program, sample_input(graph, seed), level) < 2.01


@looped(CASES)
def test_every_op_has_a_qdq_form(case: Case) -> None:
    case_model = build_one_input_model(case)
    program = build_int8_model(case_model.graph, case_model.weights)
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        assert measure_steps_apart(program, sample_input(case_model.graph), level) < 2.01


@settings(max_examples=60)
@given(data=st.data(), exact=st.booleans())
def test_random_networks_have_qdq_forms(data: st.DataObject, exact: bool) -> None:
    graph = draw_graph(data.draw, floats=True)
    model = lower_for_int8(graph, draw_weights(data.draw, graph))
    x = sample_input(graph)
    program = quantize(model, calibrate_on_input(model, x))
    lowered = lower(convert_to_qdq(program))
    onnx.checker.check_model(lowered, full_check=True)
    for proto in (lowered, lower(program)):
        tensors = open_session(proto, exact=exact).run(None, {"image": x[None]})
        assert all(np.isfinite(y).all() for y in tensors)


def test_each_qdq_operation_has_quantize_and_dequantize_nodes() -> None:
    program = build_int8_model(build_dense(), sample_weights(build_dense()))
    lowered = lower(convert_to_qdq(program))
    producers = {name: node for node in lowered.graph.node for name in node.output}
    float_convs = {n.name for n in program.graph.nodes if isinstance(n.op, RealConv)}
    for node in lowered.graph.node:
        if node.op_type == "Conv" and not node.output[0].startswith(tuple(float_convs)):
            assert [producers[name].op_type for name in node.input] == ["DequantizeLinear"] * 3
            (y,) = node.output
            (reader,) = (n for n in lowered.graph.node if y in n.input)
            assert reader.op_type in {"QuantizeLinear", "Relu", "Clip"}
    kinds = {t.name: t.data_type for t in lowered.graph.initializer}
    weight = next(n.name for n in program.graph.nodes if isinstance(n.op, QConv))
    assert kinds[f"{weight}.weight"] == onnx.TensorProto.INT8
    assert kinds[f"{weight}.bias"] == onnx.TensorProto.INT32


def test_onnx_runtime_fuses_qdq_into_integer_operators(tmp_path: Path) -> None:
    program = build_int8_model(build_gated(), sample_weights(build_gated()))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    data = lower(convert_to_qdq(program)).SerializeToString()
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    kinds = Counter(n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node)
    convolutions = sum(isinstance(n.op, QConv) for n in program.graph.nodes)
    assert kinds["QLinearConv"] == convolutions
    float_count = sum(isinstance(n.op, RealConv) for n in program.graph.nodes)
    assert kinds["Conv"] + kinds["FusedConv"] == float_count == 1


def build_forms(graph: Graph) -> dict[str, Model]:
    float_model = Model(graph, sample_weights(graph))
    program = build_int8_model(graph, sample_weights(graph))
    return {
        "half": convert_float16(float_model),
        "dynamic": quantize_dynamic(float_model),
        "int8": program,
        "unsigned": convert_to_unsigned(program),
        "simulated": convert_to_qdq(program),
    }


@nets
@pytest.mark.parametrize("opset", [13, 17, MAX_OPSET])
def test_files_are_valid_and_reproducible(graph: Graph, opset: int) -> None:
    rebuilt = build_forms(graph)
    for name, model in build_forms(graph).items():
        lowered = lower(model, opset)
        onnx.checker.check_model(lowered, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(lowered, strict_mode=True, data_prop=True)
        types = {v.name: v.type for v in inferred.graph.value_info}
        assert all(types[v.name] == v.type for v in lowered.graph.value_info)
        first_file, second_file = (
            lower(m, opset).SerializeToString(deterministic=True) for m in (model, rebuilt[name])
        )
        assert first_file == second_file


@nets
def test_onnxsim_accepts_them(graph: Graph) -> None:
    x = sample_input(graph)
    for name, model in build_forms(graph).items():
        simple, sound = onnxsim.simplify(lower(model))
        assert sound, name
        if SATURATES and name in ("int8", "simulated"):
            continue  # with merged constants, ONNX Runtime does not load them as unsigned
        runtime_session = open_session(simple)
        source = model.graph.inputs[0]
        feed = {source.name: x[None].astype(source.type.dtype.value)}
        names = [o.name for o in runtime_session.get_outputs()]
        got = dict(zip(names, (y[0] for y in runtime_session.run(names, feed)), strict=True))
        assert_near(got, run_outputs(model, x), 1e-2)


@pytest.mark.parametrize("path", sorted(SPEC.glob("ddsnet.yaml")), ids=lambda p: p.stem)
def test_forms_of_a_zoo_network_match(path: Path) -> None:
    graph = load(path).graph
    weights = sample_weights(graph)
    x = sample_input(graph)
    (expected,) = float_program.run(Model(graph, weights), [x])
    for form, bound in SMALL.values():
        assert_near(run_outputs(form(Model(graph, weights)), x), dict(expected), bound)
