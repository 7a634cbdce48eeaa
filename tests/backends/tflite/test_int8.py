"""Full int8 of the target `tflite`: under XNNPACK, every value matches the reference executor."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tables import looped

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

from hypothesis import given, settings
from hypothesis import strategies as st
from lite import KERNELS, create_interpreter, list_operators, parse_tflite
from lite_int8 import (
    BACKEND,
    TARGET,
    compute_max_steps,
    count_differing_elements,
    emit_int8,
    is_fully_delegated,
    quantize_graph,
    run,
)
from random_nets import draw_graph, draw_weights
from refused_ops import is_refused
from zoo_nets import shrink_network

from tcc.backends.tflite.integer_operators import is_float_exact
from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output, verify
from tcc.compiler.ir.preprocess import PixelResize, Preprocess, apply
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import (
    Concat,
    Conv,
    DepthwiseConv,
    Gelu,
    GlobalAvgPool,
    HardSigmoid,
    HardSwish,
    MaxPool,
    Op,
    Resize,
    Sigmoid,
    Silu,
    Tanh,
)
from tcc.compiler.ops.elementwise import ScalarFunction
from tcc.compiler.ops.integer import QAdd, QConv, QGlobalAvgPool, QMul, Table
from tcc.compiler.quant.calibration import Range
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_scale
from tcc.compiler.reference import integer_program
from tcc.testing.int8_models import (
    calibrate_on_input,
    create_quantized_type,
    lower_for_int8,
    sample_input,
    sample_quantized,
)
from tcc.testing.nets import NetBuilder, build_chain, build_dense, build_gated
from tcc.testing.op_cases import CASES, Case, build_one_input_model, sample_weights

SPEC = Path(__file__).resolve().parents[3] / "spec"
nets = pytest.mark.parametrize(
    "graph", [build_dense(), build_gated(), build_chain(30)], ids=lambda g: g.name
)
STEPS = 2.01
"""Allowed difference of kernels without XNNPACK in steps: they round in fixed point."""


def run_one(op: Op, *xs: TensorType, seed: int = 0, params: tuple[np.ndarray, ...] = ()) -> int:
    """Return how many quantized values of an op differ."""
    arrays = [sample_quantized(x, 1, seed + i)[0] for i, x in enumerate(xs)]
    inputs = tuple(Input(f"x{i}", x) for i, x in enumerate(xs))
    names = tuple(f"y.{i}" for i in range(len(params)))
    node = Node("y", op, tuple(i.name for i in inputs), names, op.infer(*xs))
    graph = verify(Graph("one", inputs, (node,), (Output("out", "y"),)))
    runtime = create_interpreter(emit_int8(Model(graph, dict(zip(names, params, strict=True)))))
    runner = runtime.get_signature_runner("serving_default")
    feeds = {}
    for source, x in zip(inputs, arrays, strict=True):
        signed_input = x.astype(np.int16) - (0 if x.dtype == np.int8 else 128)
        feeds[source.name] = signed_input.astype(np.int8).transpose(1, 2, 0)[None]
    y = runner(**feeds)["out"][0].transpose(2, 0, 1)
    expected = op.compute(xs, tuple(x[None] for x in arrays), params)[0]
    zero = 0 if expected.dtype == np.int8 else -128
    return int((y.astype(np.int16) - zero != expected).sum())


scales = st.floats(-18, 10).map(lambda e: float(np.float32(2.0**e)))
signs = st.booleans()


@settings(max_examples=80)
@given(data=st.data(), joining=st.sampled_from((QAdd, QMul)))
def test_adds_and_muls_of_any_scales_match(
    data: st.DataObject, joining: type[QAdd] | type[QMul]
) -> None:
    count = data.draw(st.integers(2, 4)) if joining is QAdd else 2
    y = create_quantized_type((), data.draw(scales), data.draw(signs))
    shapes = [(6, 5, 4), data.draw(st.sampled_from(((6, 5, 4), (6, 1, 1), (1, 5, 4))))]
    shapes += [(6, 5, 4)] * (count - 2)
    xs = [create_quantized_type(shape, data.draw(scales), data.draw(signs)) for shape in shapes]
    low, high = y.limits
    low = max(low, 0) if data.draw(st.booleans()) else low
    high = data.draw(st.sampled_from((high, high // 2, int(np.rint(min(6 / y.scale, high))))))
    op = joining(y.scale, y.dtype.value == "int8", low, max(high, low))
    assert run_one(op, *xs) == 0


@settings(max_examples=60)
@given(data=st.data(), channels=st.sampled_from((1, 4, 6)), exponent=st.integers(-40, 12))
def test_convolutions_of_any_scales_match(
    data: st.DataObject, channels: int, exponent: int
) -> None:
    groups = data.draw(st.sampled_from((1, 2, channels) if channels % 2 == 0 else (1,)))
    pads = tuple(data.draw(st.integers(0, 2)) for _ in range(4))
    kernel = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    stride = data.draw(st.sampled_from(((1, 1), (2, 2), (1, 2))))
    dilation = data.draw(st.sampled_from(((1, 1), (2, 1)))) if stride == (1, 1) else (1, 1)
    filters = groups * data.draw(st.integers(1, 3))
    conv = Conv(filters, kernel, stride, pads, dilation, groups)
    x = create_quantized_type((channels, 7, 8), 0.021, data.draw(signs))
    y = create_quantized_type((), 0.05, data.draw(signs))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    weight = random.integers(-127, 128, (filters, channels // groups, *kernel)).astype(np.int8)
    scale = (2.0**exponent * random.uniform(0.5, 2, filters)).astype(np.float32)
    max_bias = 2 ** data.draw(st.integers(4, 30))
    bias = random.integers(-max_bias, max_bias, filters).astype(np.int32)
    low, high = y.limits
    high = data.draw(st.sampled_from((high, high // 3, 120)))
    op = QConv(y.scale, y.dtype.value == "int8", low, high, conv)
    assert run_one(op, x, params=(weight, scale, bias)) == 0


@settings(max_examples=60)
@given(data=st.data(), exponent=st.integers(-40, 12), near_ties=st.booleans())
def test_global_means_of_any_scales_match(
    data: st.DataObject, exponent: int, near_ties: bool
) -> None:
    size = (data.draw(st.integers(1, 15)), data.draw(st.integers(1, 15)))
    count = size[0] * size[1]
    x = create_quantized_type((40, *size), 0.021, data.draw(signs))
    scale = 2.0**-exponent
    if near_ties:  # many sums are within a last bit of a tie
        scale = 0.021 * 2 * data.draw(st.integers(1, 2 * count)) / count
    y = create_quantized_type((), scale, data.draw(signs))
    op = QGlobalAvgPool(float(y.scale), y.dtype.value == "int8", *y.limits)
    if data.draw(st.booleans()):
        op = replace(op, low=max(op.low, 0), high=data.draw(st.integers(0, op.high)))
    assert run_one(op, x) == 0


def test_a_global_mean_stores_no_large_weights() -> None:
    add = NetBuilder(200, 12, 12)
    add("gap", GlobalAvgPool())
    add("last", Conv(2, (1, 1)))
    graph = add.build()
    lowered_model = lower_for_int8(graph, weights.initialize_random(graph, 0))
    ranges = replace(
        calibrate_on_input(lowered_model, sample_input(lowered_model.graph)), float_io=False
    )
    data = emit_int8(quantize(lowered_model, ranges))
    assert is_fully_delegated(data)
    assert max(len(b.data) for b in parse_tflite(data).buffers if b.data is not None) == 2 * 200


@pytest.mark.parametrize("signed", [False, True])
def test_table_lookups_match(signed: bool) -> None:
    entries = np.random.default_rng(0).integers(0, 256, 256).astype(np.uint8)
    x = create_quantized_type((4, 9, 9), 0.1, signed)
    op = Table(0.1, not signed, *create_quantized_type((), 0.1, not signed).limits, Sigmoid())
    assert run_one(op, x, params=(entries,)) == 0


@settings(max_examples=80)
@given(
    function=st.sampled_from((Sigmoid(), Silu(), Tanh(), HardSwish(), HardSigmoid(), Gelu())),
    exponent=st.floats(-16, 4),
    signs=st.tuples(st.booleans(), st.booleans()),
    stretch=st.floats(0.2, 3),
)
def test_functions_of_any_scales_match(
    function: ScalarFunction, exponent: float, signs: tuple[bool, bool], stretch: float
) -> None:
    signed, negative = signs
    x = create_quantized_type((4, 8, 8), 2.0**exponent, signed)
    real = (np.arange(256) + x.limits[0]) * np.float64(x.scale)
    top = float(np.abs(function.evaluate(real)).max()) * stretch
    y = Range(compute_scale(top, negative), negative)
    op = Table(y.scale, negative, *y.limits, function)
    assert run_one(op, x, params=(op.compute_table(x),)) == 0


def test_functions_with_uncertain_rounding_become_tables() -> None:
    x, op = create_quantized_type((4, 8, 8), 0.02, True), Table(0.01, True, -128, 127, Silu())
    entries = op.compute_table(x)
    assert is_float_exact(op, x, entries)
    assert not is_float_exact(op, x, np.roll(entries, 1))
    half = Table(float(np.float32(1 / 255)), False, 0, 255, Sigmoid())
    assert not is_float_exact(half, x, half.compute_table(x))  # of zero: 127.5


@nets
@pytest.mark.parametrize("precision", ["int8", "int8-u8"])
def test_every_value_matches(graph: Graph, precision: str) -> None:
    program = quantize_graph(graph, sample_weights(graph))
    for seed in range(3):
        assert (
            count_differing_elements(program, sample_input(graph, seed), precision=precision) == {}
        )


@nets
def test_other_kernel_sets_are_close(graph: Graph) -> None:
    program = quantize_graph(graph, sample_weights(graph))
    for kernels in ("optimised", "reference"):
        assert compute_max_steps(program, sample_input(graph, 1), kernels) <= STEPS


@looped(CASES)
def test_every_op_of_the_language_matches(case: Case) -> None:
    model = build_one_input_model(case)
    program = quantize_graph(model.graph, model.weights)
    if is_refused(BACKEND, TARGET, program.graph):
        return
    x = sample_input(model.graph, 1)
    if not integer_program.find_inexact_nodes(program.graph):
        assert count_differing_elements(program, x) == {}
    for kernels in KERNELS:
        assert compute_max_steps(program, x, kernels) <= STEPS


@settings(max_examples=60)
@given(data=st.data(), stretch=st.sampled_from((1.0, 0.03, 40.0)))
def test_random_networks_match(data: st.DataObject, stretch: float) -> None:
    graph = draw_graph(data.draw)
    program = quantize_graph(graph, draw_weights(data.draw, graph), stretch)
    assert count_differing_elements(program, sample_input(graph)) == {}, program


@pytest.mark.nightly
@settings(max_examples=400)
@given(data=st.data(), stretch=st.sampled_from((1.0, 0.03, 40.0)))
def test_many_random_networks_match(data: st.DataObject, stretch: float) -> None:
    graph = draw_graph(data.draw)
    program = quantize_graph(graph, draw_weights(data.draw, graph), stretch)
    assert count_differing_elements(program, sample_input(graph)) == {}, program


@settings(max_examples=20)
@given(data=st.data())
def test_random_mixed_precision_networks_match(data: st.DataObject) -> None:
    graph = draw_graph(data.draw, floats=True)
    program = quantize_graph(graph, draw_weights(data.draw, graph))
    actual = run(emit_int8(program), sample_input(graph))
    assert actual.keys() == {output.name for output in program.graph.outputs}


FAST = ("ddsnet", "fastnet", "fastnet_block", "mobilenet_v2")
MARKS = {**dict.fromkeys(FAST, ()), "vgg11": pytest.mark.nightly}
"""vgg11 has only layers of vgg16_bn_gap and squeezenet."""
zoo = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=MARKS.get(path.stem, pytest.mark.slow))
        for path in (*sorted(SPEC.glob("*.yaml")), *sorted((SPEC / "baselines").glob("*.yaml")))
    ],
)


def is_delegated(data: bytes) -> bool:
    """Whether XNNPACK runs every operator: it has no tables and no adds of more than two."""
    used = {name for name, _ in list_operators(data)}
    return not used & {"CAST", "GATHER", "RIGHT_SHIFT"}


@zoo
def test_every_value_of_the_zoo_matches(path: Path) -> None:
    graph = shrink_network(load(path).graph)
    program = quantize_graph(graph, weights.initialize_random(graph))
    x = sample_input(program.graph, seed=1)
    assert count_differing_elements(program, x) == {}
    data = emit_int8(program)
    assert is_fully_delegated(data) is is_delegated(data)
    for kernels in ("optimised", "reference"):
        assert compute_max_steps(program, x, kernels) <= STEPS


def test_xnnpack_runs_padded_pools_and_wide_concats() -> None:
    add = NetBuilder(3, 12, 12)
    stem = add("stem", Conv(4, (1, 1)))
    pads = [(2, 2, 0, 0), *[(1, 1, 1, 1)] * 6]
    parts = [add(f"pool{i}", MaxPool((3, 3), (1, 1), pad)) for i, pad in enumerate(pads)]
    add("wide", Concat(), stem, *parts)
    graph = add.build()
    program = quantize_graph(graph, sample_weights(graph))
    assert count_differing_elements(program, sample_input(graph)) == {}
    assert is_fully_delegated(emit_int8(program))


@pytest.mark.parametrize("factor", [2, 3, 49])
def test_nearest_resize_reads_the_right_pixels(factor: int) -> None:
    add = NetBuilder(2, 3, 2)
    add("up", Resize(scale=(factor, factor + 1)))
    graph = add.build()
    assert count_differing_elements(quantize_graph(graph, {}), sample_input(graph)) == {}


@pytest.mark.parametrize("precision", ["int8", "int8-u8"])
def test_raw_inputs_take_grey_levels(tmp_path: Path, precision: str) -> None:
    contract = Preprocess(resize=PixelResize((16, 16)), mean=(0.5,), std=(0.25,))
    graph = build_dense()
    graph = replace(graph, inputs=(replace(graph.inputs[0], preprocess=contract),))
    program = quantize_graph(graph, sample_weights(graph))
    source = program.graph.inputs[0]
    artifact = BACKEND.emit(TARGET, program, TARGET.find_precision(precision))
    for name, data in artifact.files.items():
        (tmp_path / name).write_bytes(data)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    (actual,) = Device(BACKEND, TARGET).run(tmp_path, source, [image])
    assert source.preprocess is not None
    (expected,) = integer_program.run(program, [apply(source.preprocess, image, (3, 16, 16))])
    assert actual.keys() == expected.keys()
    assert all(np.array_equal(actual[name], y) for name, y in expected.items())
    model = parse_tflite(emit_int8(program, precision))
    body = model.subgraphs[0]
    kinds = {body.tensors[i].type for i in (*body.inputs, *body.outputs)}
    assert kinds == {3 if precision == "int8-u8" else 9}
    (grey,) = (body.tensors[i].quantization for i in body.inputs)
    assert grey.scale == [1.0]
    assert grey.zeroPoint == [0 if precision == "int8-u8" else -128]


@nets
def test_builds_are_reproducible(graph: Graph) -> None:
    for precision in ("int8", "int8-u8"):
        assert emit_int8(quantize_graph(graph, sample_weights(graph)), precision) == emit_int8(
            quantize_graph(graph, sample_weights(graph)), precision
        )


def test_quantized_outputs_need_no_float_convolution() -> None:
    model = lower_for_int8(build_dense(), sample_weights(build_dense()))
    ranges = calibrate_on_input(model, sample_input(model.graph))
    op_names = {
        real_ends: [
            n.op.keyword for n in quantize(model, replace(ranges, float_io=real_ends)).graph.nodes
        ]
        for real_ends in (True, False)
    }
    assert op_names[True].count("real_conv") == 1
    assert "real_conv" not in op_names[False]
    assert op_names[False].count("qconv") == op_names[True].count("qconv") + 1


def test_grouped_convolutions_use_the_first_version_with_groups() -> None:
    add = NetBuilder(8, 6, 6)
    add("grouped", Conv(8, (3, 3), padding=1, groups=2))
    add("conv", Conv(8, (3, 3), padding=1))
    add("depthwise", DepthwiseConv((3, 3), padding=1))
    graph = add.build()
    used = list_operators(emit_int8(quantize_graph(graph, sample_weights(graph))))
    assert {("CONV_2D", 6), ("CONV_2D", 3), ("DEPTHWISE_CONV_2D", 3)} <= set(used)


def test_a_plain_network_has_only_int8_operators() -> None:
    used = {
        name
        for name, _ in list_operators(
            emit_int8(quantize_graph(build_dense(), sample_weights(build_dense())))
        )
    }
    mean = {"TRANSPOSE", "RESHAPE", "FULLY_CONNECTED"}
    assert used <= {"CONV_2D", "DEPTHWISE_CONV_2D", "CONCATENATION", "PAD"} | mean
