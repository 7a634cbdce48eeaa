"""Networks exported by both exporters of torch are imported."""

import contextlib
import io
import logging
import re
import textwrap
import warnings

import pytest
import torch
from reference_nets.ddsnet import DDSNet
from reference_nets.densenet import DenseNet
from reference_nets.efficientnet import EfficientNetB0
from reference_nets.fastnet import fastnet
from reference_nets.googlenet import GoogLeNet
from reference_nets.inception import InceptionV3
from reference_nets.mobilenet import MobileNetV2
from reference_nets.resnet import ResNet
from reference_nets.shufflenet import ShuffleNetV2
from reference_nets.squeezenet import SqueezeNet
from reference_nets.vgg import Vgg16Gap
from torch import nn
from torch.nn import functional
from zoo_nets import shrink_network

from tcc.compiler.frontend.spec import load
from tcc.compiler.zoo import shipped

slow = pytest.mark.slow
STILL = "the outputs hardly change between the test inputs; the check relies on single operators"
NETWORKS = [
    pytest.param(DDSNet, "ddsnet", id="ddsnet"),
    pytest.param(SqueezeNet, "squeezenet", id="squeezenet"),
    pytest.param(ShuffleNetV2, "shufflenet_v2", id="shufflenet_v2"),
    pytest.param(fastnet, "fastnet", id="fastnet", marks=slow),
    pytest.param(MobileNetV2, "mobilenet_v2", id="mobilenet_v2", marks=slow),
    pytest.param(EfficientNetB0, "efficientnet_b0", id="efficientnet_b0", marks=slow),
    pytest.param(GoogLeNet, "googlenet", id="googlenet", marks=slow),
    pytest.param(lambda: ResNet((2, 2, 2, 2), 7), "resnet18", id="resnet18", marks=slow),
    pytest.param(DenseNet, "densenet121", id="densenet121", marks=slow),
    pytest.param(InceptionV3, "inception_v3", id="inception_v3", marks=slow),
    pytest.param(Vgg16Gap, "vgg16_bn_gap", id="vgg16_bn_gap", marks=slow),
]
REPEATED = {"densenet121", "inception_v3", "resnet18", "squeezenet", "vgg16_bn_gap"}
"""Networks whose operators others have too: dynamo takes more than ten seconds for each."""


@pytest.fixture
def exported(tmp_path):
    """Writes a network as ONNX with one of the exporters, with a dynamic batch axis."""

    def run(network, shape, *, dynamo):
        _randomize_statistics(network)
        path = tmp_path / "network.onnx"
        x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
        with warnings.catch_warnings(), _silence_logging():
            warnings.simplefilter("ignore")
            if dynamo:
                axes = ({0: torch.export.Dim("N")},)
                torch.onnx.export(network, (x,), path, dynamo=True, dynamic_shapes=axes)
            else:
                axes = {"x": {0: "N"}, "y": {0: "N"}}
                names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
                torch.onnx.export(network, (x,), path, dynamo=False, **names)
        return path

    return run


@contextlib.contextmanager
def _silence_logging():
    log_level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(log_level)


def _randomize_statistics(network):
    """Give a network batch norm statistics as after training."""
    torch.manual_seed(0)
    for layer in network.eval().modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)


def assert_imports(network, spec, exported, imported, *, dynamo):
    shape = shrink_network(load(shipped.list_specs()[spec]).graph).inputs[0].type.shape
    model = imported(exported(network, shape, dynamo=dynamo))
    assert set(model.notes) <= {STILL}  # random weights reduce the signal
    assert model.difference < 1e-5


@pytest.mark.parametrize(("make", "spec"), NETWORKS)
def test_torch_exports_are_imported(make, spec, exported, imported):
    assert_imports(make(), spec, exported, imported, dynamo=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "spec"), [network for network in NETWORKS if network.id not in REPEATED]
)
def test_dynamo_exports_are_imported(make, spec, exported, imported):
    assert_imports(make(), spec, exported, imported, dynamo=True)


class Gate(nn.Module):
    """Squeeze and excite with linear layers, as in the paper's code."""

    def __init__(self, channels):
        super().__init__()
        down = nn.Linear(channels, channels // 4, bias=False)
        up = nn.Linear(channels // 4, channels, bias=False)
        self.layers = nn.Sequential(down, nn.ReLU(), up, nn.Sigmoid())

    def forward(self, x):
        n, c, _, _ = x.size()
        gate = self.layers(functional.adaptive_avg_pool2d(x, 1).view(n, c))
        return x * gate.view(n, c, 1, 1).expand_as(x)


class Shuffle(nn.Module):
    """A shuffle unit written with view and transpose."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.right = nn.Sequential(nn.Conv2d(half, half, 3, padding=1, groups=half), nn.Hardswish())

    def forward(self, x):
        left_half, right_half = x.chunk(2, 1)
        y = torch.cat((left_half, self.right(right_half)), 1)
        n, c, h, w = y.size()
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class Pixelwise(nn.Module):
    """A ConvNeXt block: layer norm and linear layers on the channels of each pixel."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide, self.narrow = nn.Linear(channels, 32), nn.Linear(32, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(functional.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


class Mixed(nn.Module):
    """Ops that the reference networks lack."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU()
        )
        self.body = nn.Sequential(Gate(8), Shuffle(8), Shuffle(8), Pixelwise(8))
        self.up = nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1)
        self.pool = nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        red, other_channels = x[:, 0], x[:, 1:]
        x = torch.cat((torch.unsqueeze(red, 1) * 0.458 - 0.03, other_channels), 1)
        x = self.pool(self.up(self.body(self.stem(x))))
        y = functional.interpolate(functional.max_pool2d(x, 3), size=x.shape[2:], mode="bilinear")
        x = torch.cat([functional.leaky_relu(x, 0.2), functional.hardsigmoid(x), y], 1)
        x = functional.dropout(x.mean((2, 3)), 0.2, self.training)
        return torch.softmax(self.fc(x), 1)


MIXED = """\
- concat: [[slice: {stop: 1}, scale: {factor: 0.458, offset: -0.03}], [slice: {start: 1}]]
- conv: {filters: 8, kernel: 3, stride: 2, padding: 1}
- silu
- mul:
    - []
    - - global_avg_pool
      - conv: {filters: 2, kernel: 1, bias: false}
      - relu
      - conv: {filters: 8, kernel: 1, bias: false}
      - sigmoid
- repeat:
    times: 2
    body:
      - concat:
          - [slice: {stop: 4}]
          - [slice: {start: 4}, depthwise_conv: {kernel: 3, padding: 1}, hard_swish]
      - channel_shuffle: {groups: 2}
- add:
    - []
    - - depthwise_conv: {kernel: 7, padding: 3}
      - layer_norm: {eps: 1e-06}
      - conv: {filters: 32, kernel: 1}
      - gelu
      - conv: {filters: 8, kernel: 1}
      - scale_shift
- conv_transpose: {filters: 8, kernel: 3, stride: 2, padding: 1, output_padding: 1}
- avg_pool: {kernel: 3, stride: 2, padding: 1, ceil: true, count_include_pad: false}
- concat:
    - [leaky_relu: {slope: 0.2}]
    - [hard_sigmoid]
    - [max_pool: {kernel: 3}, resize: {size: 17, mode: bilinear}]
- global_avg_pool
- flatten
- linear: {units: 5}
"""


def strip_names(text):
    """Return the steps of a spec without their names."""
    graph = text.partition("graph:\n")[2].partition("\noutput:")[0]
    graph = re.sub(r"\{(.*), id: \w+\}$|\n +id: \w+$", r"\1", graph, flags=re.MULTILINE)
    return re.sub(r"scale_shift: \{\}", "scale_shift", textwrap.dedent(graph))


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=slow)], ids=["old", "dynamo"])
def test_exports_become_the_expected_spec(dynamo, exported, imported):
    model = imported(exported(Mixed(), (3, 32, 32), dynamo=dynamo))
    assert model.difference < 1e-5
    assert strip_names(model.text) == MIXED
    assert model.spec.graph.outputs[0].activation == "softmax"
    expected_names = {
        "stem_0.bias",
        "body_0_layers_2.weight",
        "body_3_norm.bias",
        "up.weight",
        "fc.bias",
    }
    assert expected_names <= set(model.weights)


def test_imported_layers_keep_their_names(exported, imported):
    network = SqueezeNet()
    model = imported(exported(network, (3, 64, 64), dynamo=False), fold=False)
    state_names = {
        name.replace(".", "_").replace("_weight", ".weight").replace("_bias", ".bias")
        for name, _ in network.named_parameters()
    }
    assert set(model.weights) == state_names
