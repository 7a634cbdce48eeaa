"""Quantization-aware training: integer outputs forward, float gradients backward."""

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import random_nets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tcc
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.lower.torch import copy_trained_weights, create_module, find_network
from tcc.compiler.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    DepthwiseConv,
    Flatten,
    GlobalAvgPool,
    HardSwish,
    Linear,
    MaxPool,
    Mul,
    Pad,
    Relu,
    Relu6,
    Sigmoid,
    Slice,
    Softmax,
)
from tcc.compiler.passes import INT8, run
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import integer_program, onnxruntime_session
from tcc.compiler.train.fake_quantization import FakeQuantizedNetwork, build_trained_calibration
from tcc.compiler.train.pixel_store import normalize_pixels
from tcc.testing.int8_models import calibrate_on_input, lower_for_int8, sample_input
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import sample_weights

ROOT = Path(__file__).resolve().parents[3]


def build_full_graph(*outputs: Output) -> Graph:
    """Build a graph with each kind of operation that has an integer form."""
    add = NetBuilder(3, 13, 12, name="everything")
    add("stem", Conv(8, (3, 3), (2, 2), "same", bias=False))
    add("stem_bn", BatchNorm())
    start = add("stem_act", HardSwish())
    add("depthwise", DepthwiseConv((3, 3), padding=1, bias=False))
    add("depthwise_bn", BatchNorm())
    add("relu6", Relu6())
    add("pointwise", Conv(8, (1, 1)))
    add("residual", Add(), start, "pointwise")
    add("relu", Relu())
    add("gate_mean", GlobalAvgPool())
    add("gate_conv", Conv(8, (1, 1)))
    add("gate", Sigmoid())
    add("gated", Mul(), "relu", "gate")
    add("wide", Concat(), "gated", "residual")
    add("wide_bn", BatchNorm())
    add("slice", Slice(1, 14, 2))
    add("max_pool", MaxPool((3, 3), (2, 2), 1))
    add("pad", Pad(1, 0.5))
    add("avg_pool", AvgPool((3, 3), (2, 2), 1, count_include_pad=False))
    add("mean", GlobalAvgPool())
    add("flat", Flatten())
    add("fc", Linear(5))
    add("soft", Softmax())
    return add.build(*(outputs or (Output("logits", "fc"), Output("map", "max_pool"))))


def build_pair(graph: Graph, weights, stretch: float = 1.0):
    model = lower_for_int8(graph, weights)
    calibration = calibrate_on_input(model, sample_input(model.graph), stretch)
    return FakeQuantizedNetwork(graph, weights, calibration).eval(), quantize(model, calibration)


def compare_outputs(network, program, seeds=range(4)):
    """Return the module's outputs and the reference executor's, after comparing both gradient
    modes.
    """
    xs = [sample_input(program.graph, seed) for seed in seeds]
    expected = integer_program.run(program, xs)
    x = torch.tensor(np.stack(xs))
    with torch.no_grad():
        actual = network(x)
    traced = network(x)
    for name, y in actual.items():
        assert torch.equal(traced[name], y)
    return {n: (y.numpy(), np.stack([e[n] for e in expected])) for n, y in actual.items()}


@pytest.mark.parametrize(
    "graph", [build_dense(), build_gated(), build_full_graph()], ids=lambda g: g.name
)
def test_outputs_match_the_integer_program_bit_for_bit(graph):
    network, program = build_pair(graph, sample_weights(graph))
    assert integer_program.find_inexact_nodes(program.graph) == ()
    for actual, expected in compare_outputs(network, program).values():
        assert actual.tobytes() == expected.tobytes()


def check_random_networks(data) -> None:
    graph = random_nets.draw_graph(data.draw)
    weights = random_nets.draw_weights(data.draw, graph)
    network, program = build_pair(graph, weights)
    assert integer_program.find_inexact_nodes(program.graph) == ()
    for actual, expected in compare_outputs(network, program, range(2)).values():
        assert actual.tobytes() == expected.tobytes()


@given(st.data())
@settings(max_examples=10, deadline=None)
def test_random_networks_match_bit_for_bit(data):
    check_random_networks(data)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_more_random_networks_match_bit_for_bit(data):
    check_random_networks(data)


def test_float_layers_are_computed_in_float():
    graph = build_full_graph(Output("soft", "soft"), Output("logits", "fc"))
    network, program = build_pair(graph, sample_weights(graph))
    assert "soft" in integer_program.find_inexact_nodes(program.graph)
    output_pairs = compare_outputs(network, program)
    assert output_pairs["logits"][0].tobytes() == output_pairs["logits"][1].tobytes()
    np.testing.assert_allclose(*output_pairs["soft"], rtol=1e-6)


def test_float_layers_and_equalized_channels_match_the_program():
    add = NetBuilder(3, 8, 8)
    add("a", Conv(4, (3, 3)))
    add("relu", Relu())
    add("b", DepthwiseConv((3, 3), padding=1))
    add("c", Conv(4, (1, 1)))
    add("mean", GlobalAvgPool())
    graph = add.build()
    weights = sample_weights(graph)
    model = lower_for_int8(graph, weights)
    base_calibration = calibrate_on_input(model, sample_input(model.graph))
    factors = {"relu": np.array([0.5, 1.0, 0.25, 1.0], np.float32)}
    factors["a"] = factors["relu"]
    network = FakeQuantizedNetwork(
        graph, weights, Calibration(base_calibration.ranges, factors=factors)
    ).eval()
    program = quantize(model, network.compute_calibration())
    for actual, expected in compare_outputs(network, program).values():
        assert actual.tobytes() == expected.tobytes()
    mixed = Calibration(base_calibration.ranges, in_float=frozenset({"b"}))
    network = FakeQuantizedNetwork(graph, weights, mixed)
    for actual, expected in compare_outputs(network, quantize(model, mixed)).values():
        np.testing.assert_allclose(actual, expected, rtol=0.02, atol=1e-3)
    network(torch.tensor(sample_input(graph)[None]))["logits"].sum().backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_sums_beyond_float32_precision_are_exact():
    add = NetBuilder(700, 3, 3)
    add("conv", Conv(3, (3, 3)))
    add("relu", Relu())
    add("mean", GlobalAvgPool())
    graph = add.build()
    weights = {
        "conv.weight": np.random.default_rng(0).uniform(0.5, 1, (3, 700, 3, 3)).astype(np.float32),
        "conv.bias": np.array([0.5, 9e4, -3e5], np.float32),
    }
    model = lower_for_int8(graph, weights)
    ranges = {"image": Range(0.1, signed=False), "relu": Range(3e3, signed=False)}
    ranges["mean"] = Range(3e3, signed=False)
    calibration = Calibration(ranges)
    network, program = (
        FakeQuantizedNetwork(graph, weights, calibration),
        quantize(model, calibration),
    )
    x = np.random.default_rng(1).uniform(0, 25, (2, 700, 3, 3)).astype(np.float32)
    expected = np.stack([r["logits"] for r in integer_program.run(program, list(x))])
    with torch.no_grad():
        assert network(torch.tensor(x))["logits"].numpy().tobytes() == expected.tobytes()
    assert network._build_program(torch.device("cpu")).wide == {"relu"}


def test_gradients_match_the_float_network_within_rounding():
    graph = build_full_graph(Output("logits", "fc"))
    weights = sample_weights(graph)
    network, _ = build_pair(graph, weights, stretch=1.5)
    floats = create_module(graph, weights).eval()
    x = torch.tensor(np.stack([sample_input(graph, seed) for seed in range(8)])) * 0.7
    output_gradient = torch.linspace(-1, 1, 40).reshape(8, 5)
    for tested_network in (network, floats):
        (tested_network(x)["logits"] * output_gradient).sum().backward()
    for (name, a), (_, b) in zip(
        network.named_parameters(), floats.named_parameters(), strict=True
    ):
        cosine = torch.nn.functional.cosine_similarity(a.grad.flatten(), b.grad.flatten(), 0)
        assert cosine > 0.9, name
        assert 0.5 < a.grad.norm() / b.grad.norm() < 2, name


def test_state_dict_and_copies_match_the_float_module():
    graph = build_dense()
    network, program = build_pair(graph, sample_weights(graph))
    assert list(network.state_dict()) == list(graph.params)
    assert find_network(torch.optim.swa_utils.AveragedModel(network)).graph == graph
    x = torch.tensor(sample_input(graph)[None])
    for copied_network in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):  # noqa: S301
        assert torch.equal(copied_network(x)["logits"], network(x)["logits"])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(x)["logits"], network(x)["logits"].float())
    for actual, expected in compare_outputs(network, program).values():
        assert actual.tobytes() == expected.tobytes()


def test_changed_weights_change_the_program():
    graph = build_gated()
    network, _ = build_pair(graph, sample_weights(graph))
    x = torch.tensor(sample_input(graph)[None])
    with torch.no_grad():
        original_features = network(x)["features"]
        network.get_parameter("reduce.weight").mul_(-0.5)
        changed_features = network(x)["features"]
    assert not torch.equal(original_features, changed_features)
    weights = {n: t.detach().numpy() for n, t in network.named_weights().items()}
    program = quantize(lower_for_int8(graph, weights), network.compute_calibration())
    for actual, expected in compare_outputs(network, program).values():
        assert actual.tobytes() == expected.tobytes()


def test_replaced_weights_are_used():
    """As for averaged weights: other tensors, in memory that was used before."""
    graph = build_gated()
    network, _ = build_pair(graph, sample_weights(graph))
    x = torch.tensor(sample_input(graph)[None])
    with torch.no_grad():
        for factor in (1.0, -0.5, 0.25):
            other_weights = {n: t * factor for n, t in network.named_parameters()}
            swapped_outputs = torch.func.functional_call(network, other_weights, (x,))
            copied_network = copy.deepcopy(network)
            copied_network.load_state_dict({**network.state_dict(), **other_weights})
            assert torch.equal(swapped_outputs["logits"], copied_network(x)["logits"])
            del other_weights
            for parameter in network.parameters():
                parameter.data.mul_(0.9)


def test_pixel_values_are_recovered_from_normalized_images():
    contract = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    add = NetBuilder(3, 16, 16)
    add("conv", Conv(4, (3, 3), padding=1))
    add("mean", GlobalAvgPool())
    graph = add.build()
    graph = replace(graph, inputs=(replace(graph.inputs[0], preprocess=contract),))
    network, program = build_pair(graph, sample_weights(graph))
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)
    with torch.no_grad():
        logits = network(normalize_pixels(contract, pixels))["logits"].numpy()
        assert logits.tobytes() == network(pixels)["logits"].numpy().tobytes()
    (expected,) = integer_program.run(program, [pixels[0].numpy()])
    assert logits[0].tobytes() == expected["logits"].tobytes()


@pytest.mark.filterwarnings("ignore::tcc.CalibrationWarning")
def test_build_uses_the_trained_weights_and_calibration(tmp_path):
    """The spec's weights and the calibration file give an artifact of the same integers."""
    spec = tcc.load(ROOT / "docs/examples/tiles.yaml", width=4)
    document = tcc.calibrate(spec, ROOT / "zoo/samples", method="minmax")
    floats = tcc.torch(spec)
    calibration = calibration_file.decode_calibration(document, lower_network(floats), "c.json")
    network = FakeQuantizedNetwork(spec.graph, copy_trained_weights(floats), calibration)
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), np.uint8)
    x = torch.tensor(images / np.float32(255))
    optimizer = torch.optim.SGD(network.train().parameters(), 0.1)
    torch.nn.functional.cross_entropy(network(x)["tissue"], torch.tensor([0, 1, 1, 0])).backward()
    optimizer.step()
    weights, scales = tmp_path / "w.safetensors", tmp_path / "c.json"
    tcc.save_weights(network, weights)
    trained_document = build_trained_calibration(network, document)
    scales.write_bytes(calibration_document.encode(trained_document))
    bundle = tcc.build(
        spec, "onnxruntime", weights, tmp_path, precision="int8", calibration=scales,
        data=ROOT / "zoo/samples", floors={"min_cosine": 0, "min_correlation": 0},
    )  # fmt: skip
    model = (bundle.model / "model.onnx").read_bytes()
    session = onnxruntime_session.create_session(model, exact_products=True)  # without VNNI as well
    with torch.no_grad():
        scores = network.eval()(x)["tissue"].numpy()
        assert scores.tobytes() == network(torch.tensor(images))["tissue"].numpy().tobytes()
    for image, y in zip(images, scores, strict=True):
        (expected,) = session.run(["tissue"], {session.get_inputs()[0].name: image[None]})
        assert expected.tobytes() == y.tobytes()


def lower_network(network):
    return run(Model(network.graph, copy_trained_weights(network)), INT8)


def build_unequal_network(random) -> tuple[Graph, dict[str, np.ndarray]]:
    """Build a depthwise network with channel ranges that differ 500-fold. The next layer undoes
    this.
    """
    add = NetBuilder(3, 8, 8, name="unequal")
    add("stem", Conv(8, (3, 3), padding=1))
    add("depthwise", DepthwiseConv((3, 3), padding=1))
    add("act", HardSwish())
    add("head", Conv(8, (1, 1)))
    add("relu", Relu())
    add("mean", GlobalAvgPool())
    add("flat", Flatten())
    add("fc", Linear(3))
    graph = add.build()
    network = create_module(graph).train()
    x, truth = create_classes(random, 96)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(network(x)["logits"], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = {n: t.detach().numpy().copy() for n, t in network.named_weights().items()}
    size = np.float32([500, 1, 500, 1, 1, 1, 1, 1])
    weights["stem.weight"] *= size[:, None, None, None]
    weights["stem.bias"] *= size
    weights["depthwise.weight"] /= size[:, None, None, None]
    return graph, weights


def create_classes(random, count):
    """Create noise images with a stripe, a column or neither."""
    truth = torch.tensor(random.integers(0, 3, count))
    x = torch.tensor(random.normal(0, 0.5, (count, 3, 8, 8)).astype(np.float32))
    for image, label in zip(x, truth, strict=True):
        position = int(random.integers(0, 7))
        if label == 1:
            image[:, position] += 1.5
        elif label == 2:
            image[:, :, position] += 1.5
    return x, truth


def measure_accuracy(network, x, truth):
    with torch.no_grad():
        return (network.eval()(x)["logits"].argmax(1) == truth).float().mean().item()


@pytest.mark.slow
def test_training_recovers_the_accuracy_that_rounding_lost():
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    graph, weights = build_unequal_network(random)
    x, truth = create_classes(random, 96)
    held_out_images, answers = create_classes(np.random.default_rng(1), 150)
    network, _ = build_pair(graph, weights)
    floats = measure_accuracy(create_module(graph, weights), held_out_images, answers)
    collapsed = measure_accuracy(network, held_out_images, answers)
    assert floats > 0.9
    assert collapsed < floats - 0.2
    optimizer = torch.optim.Adam(network.train().parameters(), 3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(network(x)["logits"], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert measure_accuracy(network, held_out_images, answers) > floats - 0.05
