"""Every architecture of the zoo equals a second, independent definition with the same weights."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
import pytest
import torch
from reference_nets.ddsnet import DDSNet
from reference_nets.densenet import DenseNet
from reference_nets.efficientnet import EfficientNetB0
from reference_nets.fastnet import fastnet, multi_branch, multi_scale, one_block
from reference_nets.googlenet import GoogLeNet
from reference_nets.inception import InceptionV3
from reference_nets.mobilenet import MobileNetV2
from reference_nets.resnet import ResNet
from reference_nets.shufflenet import ShuffleNetV2
from reference_nets.squeezenet import SqueezeNet
from reference_nets.vgg import Vgg11, Vgg16Gap
from torch import nn
from zoo_nets import shrink_network

import tcc
from tcc.compiler.driver import pipeline
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.frontend.spec_tests import check_expectations
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.precision import FP32
from tcc.compiler.lower.onnx import lower
from tcc.compiler.lower.torch import create_module
from tcc.compiler.support.diagnostics import NOWHERE
from tcc.compiler.support.progress import silent
from tcc.compiler.targets import devices
from tcc.compiler.zoo import shipped

TOLERANCE = 1e-4
"""Largest difference of two outputs, relative to the largest output."""
ROLES = {"mean": "running_mean", "var": "running_var"}


@dataclass(frozen=True)
class Pair:
    """A spec with settings, and a second definition of the same network.

    `gain` is the factor by which a layer increases the signal's variance, before an activation
    halves it.
    """

    spec: str
    twin: Callable[[], nn.Module]
    settings: dict[str, object] = field(default_factory=dict)
    slow: bool = False
    nightly: bool = False
    gain: float = 2.0

    def __str__(self) -> str:
        return "-".join([self.spec, *(f"{k}={v}" for k, v in self.settings.items())])


def _create_scales(n):
    block = {"separable": False, "scales": n, "merge": "sum"}
    return Pair("fastnet_block", lambda: one_block(multi_scale(8, 1, 4, **block)), {"scales": n})


def _create_branches(n):
    settings = {"block": "multi_branch", "branches": n}
    return Pair(
        "fastnet_block", lambda: one_block(multi_branch(8, 1, n, separable=False)), settings
    )


PAIRS = [
    Pair("ddsnet", DDSNet),
    Pair(
        "ddsnet",
        lambda: DDSNet(3, growth=8, layers=2),
        {"classes": 3, "growth": 8, "layers": [2] * 4},
    ),
    Pair("fastnet", fastnet),
    Pair("fastnet", lambda: fastnet(shortcut=False), {"shortcut": False}, slow=True),
    Pair("fastnet", lambda: fastnet(separable=False), {"convolution": "standard"}),
    Pair(
        "fastnet",
        lambda: fastnet(separable=False, shortcut=False),
        {"convolution": "standard", "shortcut": False},
        slow=True,
    ),
    *map(_create_scales, (1, 2, 3, 4)),
    *map(_create_branches, (1, 2, 4, 8, 16)),
    Pair("squeezenet", SqueezeNet),
    Pair("shufflenet_v2", ShuffleNetV2, gain=1.6),
    Pair("mobilenet_v2", MobileNetV2),
    Pair("mobilenet_v2", lambda: MobileNetV2(5, width=1.4), {"width": 1.4, "classes": 5}),
    Pair("efficientnet_b0", EfficientNetB0, gain=1.6),
    Pair("googlenet", GoogLeNet),
    Pair("googlenet", lambda: GoogLeNet(large=3), {"large": 3}, slow=True),
    Pair("googlenet", lambda: GoogLeNet(cam=1024), {"cam": 1024}, slow=True),
    Pair("resnet18", lambda: ResNet((2, 2, 2, 2), 7)),
    Pair("resnet34", lambda: ResNet((3, 4, 6, 3), 2), slow=True),
    Pair("densenet121", DenseNet, slow=True),
    Pair("inception_v3", InceptionV3, slow=True),
    Pair("vgg11", Vgg11, slow=True, nightly=True),
    Pair("vgg16_bn_gap", Vgg16Gap, slow=True),
    Pair("vgg16_bn_gap", lambda: Vgg16Gap(cam=1024), {"cam": 1024}, slow=True),
]


def _list_marks(pair):
    # vgg11 is nightly: it has a hundred million weights, and no more layers than vgg16_bn_gap.
    return [pytest.mark.nightly] * pair.nightly or [pytest.mark.slow] * pair.slow


pairs = pytest.mark.parametrize(
    "pair", [pytest.param(p, id=str(p), marks=_list_marks(p)) for p in PAIRS]
)
every = pytest.mark.parametrize("pair", PAIRS, ids=str)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Use one thread: test processes run in parallel, one per core."""
    thread_count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(thread_count)


def load_spec(pair: Pair) -> Spec:
    return tcc.load(pair.spec, **pair.settings)


def build_twin(pair: Pair) -> nn.Module:
    """Build the second definition without memory for weights."""
    with torch.device("meta"):
        return pair.twin()


@dataclass(frozen=True)
class Run:
    """A layer with weights and its multiply-accumulates for one image."""

    name: str
    layer: nn.Module
    macs: int


def trace_layers(network: nn.Module, spec: Spec) -> list[Run]:
    """Return the layers with weights in the order in which they run in training."""
    runs = []

    def create_hook(name):
        def hook(layer, inputs, output):
            norm = isinstance(layer, nn.BatchNorm2d)
            macs_per_output = 0 if norm else layer.weight[0].numel()
            runs.append(Run(name, layer, output[0].numel() * macs_per_output))

        return hook

    hooks = [
        layer.register_forward_hook(create_hook(name))
        for name, layer in network.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
    network(torch.empty(2, *spec.graph.inputs[0].type.shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return runs


def create_weights(graph: Graph, gain: float) -> dict[str, np.ndarray]:
    """Create weights that keep the signal at any depth, and batch norm statistics that are not
    trivial.
    """
    random = np.random.default_rng(7)

    def draw_parameter(name, param):
        role = name.rpartition(".")[2]
        low, high = (0.5, 1.5) if role == "var" else (-0.3, 0.3)
        if role == "weight":
            bound = (3 * gain / param.fan_in) ** 0.5
            low, high = (-bound, bound) if len(param.shape) > 1 else (0.5, 1.5)
        part = random.random(param.shape, np.float32)
        part *= np.float32(high - low)
        part += np.float32(low)
        return part

    return {name: draw_parameter(name, param) for name, param in graph.params.items()}


def fill_weights(network: nn.Module, spec: Spec, weights: dict[str, np.ndarray]) -> nn.Module:
    """Load the spec's weights into the second definition, layer by layer in execution order."""
    nodes = [node for node in spec.graph.nodes if node.params]
    state = {
        name: torch.zeros((), dtype=torch.long)
        for name in network.state_dict()
        if name.endswith("num_batches_tracked")
    }
    for node, run in zip(nodes, trace_layers(network, spec), strict=True):
        for name in node.params:
            role = name.rpartition(".")[2]
            state[f"{run.name}.{ROLES.get(role, role)}"] = torch.from_numpy(weights[name].copy())
    network.load_state_dict(state, assign=True)
    return network


def create_images(graph: Graph) -> np.ndarray:
    """Create two different images."""
    random = np.random.default_rng(11)
    shape = graph.inputs[0].type.shape
    bright = np.broadcast_to(np.linspace(0, 4, shape[2], dtype=np.float32), shape)
    return np.stack([random.standard_normal(shape, np.float32), bright])


def compute_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def run_onnx_runtime(model: Model, batch: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    proto = lower(model).SerializeToString()
    session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {model.graph.inputs[0].name: batch})[0]


@pairs
def test_outputs_match_the_second_definition(pair):
    spec = load_spec(pair)
    weights = create_weights(spec.graph, pair.gain)
    # vgg11's first linear layer accepts only one input size
    graph = spec.graph if pair.spec == "vgg11" else shrink_network(spec.graph)
    batch = create_images(graph)
    second = fill_weights(build_twin(pair), spec, weights).eval()
    with torch.inference_mode():
        expected = second(torch.from_numpy(batch)).numpy()
        actual = create_module(graph, weights).eval()(torch.from_numpy(batch))["logits"].numpy()
    assert compute_difference(expected[:1], expected[1:]) > 0.05, (
        "the outputs hardly depend on the image"
    )
    assert compute_difference(actual, expected) < TOLERANCE
    assert compute_difference(run_onnx_runtime(Model(graph, weights), batch), expected) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ddsnet", "fastnet", "squeezenet", "shufflenet_v2", "mobilenet_v2"]
)
def test_host_program_matches_the_second_definition(name, tmp_path):
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    pair = next(p for p in PAIRS if p.spec == name)
    spec = load_spec(pair)
    weights = create_weights(spec.graph, pair.gain)
    batch = create_images(spec.graph)
    second = fill_weights(build_twin(pair), spec, weights).eval()
    with torch.inference_mode():
        expected = second(torch.from_numpy(batch)).numpy()
    host = devices.find("host", NOWHERE)
    artifact = host.emit(pipeline.fuse_model(Model(spec.graph, weights)), FP32, silent)
    for path, data in artifact.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
        (tmp_path / path).chmod(0o755 if path in artifact.executable else 0o644)
    outputs = host.backend.infer(host.target, tmp_path, spec.graph.inputs[0], [*batch])
    actual = np.stack([output["logits"] for output in outputs])
    assert compute_difference(actual, expected) < TOLERANCE


@every
def test_parameters_and_macs_match_the_second_definition(pair):
    spec = load_spec(pair)
    network = build_twin(pair)
    total = compute_cost(spec.graph)
    assert total.params == sum(p.numel() for p in network.parameters())
    assert total.macs == sum(
        run.macs for run in trace_layers(network, spec) if "auxiliary" not in run.name
    )


@pytest.mark.slow
def test_inception_trains_with_its_auxiliary_head():
    pair = next(p for p in PAIRS if p.spec == "inception_v3")
    spec = load_spec(pair)
    weights = create_weights(spec.graph, pair.gain)
    network, second_network = (
        create_module(spec.graph, weights).train(),
        fill_weights(build_twin(pair), spec, weights).train(),
    )
    batch = torch.from_numpy(create_images(spec.graph))
    torch.manual_seed(3)
    outputs = network(batch)
    torch.manual_seed(3)
    logits, auxiliary = second_network(batch)
    assert set(outputs) == {"logits", "auxiliary"}
    assert (
        compute_difference(outputs["logits"].detach().numpy(), logits.detach().numpy()) < TOLERANCE
    )
    assert (
        compute_difference(outputs["auxiliary"].detach().numpy(), auxiliary.detach().numpy())
        < TOLERANCE
    )


@pytest.mark.parametrize("name", shipped.list_specs())
def test_every_spec_has_a_second_definition_and_states_its_costs(name):
    assert name in {pair.spec for pair in PAIRS}
    assert {fact.subject for fact in check_expectations(tcc.load(name))} >= {"params", "macs"}
