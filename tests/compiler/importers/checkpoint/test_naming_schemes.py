"""Unchanged state dicts of torchvision and timm give our specs the original logits.

Covers all zoo networks that one of the two has unmodified, except vgg16_bn_gap: neither has its
head. timm has no googlenet, squeezenet and shufflenet.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from zoo_nets import shrink_network

from tcc.compiler.frontend.spec import load
from tcc.compiler.importers.checkpoint import ImportedWeights, import_checkpoint, naming_schemes
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.lower.torch import create_module
from tcc.compiler.zoo import shipped

CLASSES = 5


@dataclass(frozen=True)
class Pair:
    """A network of torchvision or timm, and the matching spec with settings."""

    program: str
    source_network: str
    spec_name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    slow: bool = True
    auxiliary: bool = False

    def __str__(self) -> str:
        option_texts = [str(v) for v in self.options.values()]
        return "-".join([self.program, self.source_network, *option_texts])


def shuffle(*channels: int) -> dict[str, str]:
    return {"channels": str(list(channels))}


PAIRS = [
    Pair("torchvision", "densenet121", "densenet121"),
    Pair("torchvision", "efficientnet_b0", "efficientnet_b0"),
    Pair("torchvision", "googlenet", "googlenet", {"large": "3"}, {"aux_logits": True}),
    Pair("torchvision", "googlenet", "googlenet", {"large": "3"}, {"aux_logits": False}),
    Pair("torchvision", "inception_v3", "inception_v3", {}, {"aux_logits": True}, auxiliary=True),
    Pair("torchvision", "inception_v3", "inception_v3", {}, {"aux_logits": False}),
    *(
        Pair("torchvision", "mobilenet_v2", "mobilenet_v2", {"width": w}, {"width_mult": float(w)}, w != "0.35")
        for w in ("0.1", "0.35", "1.4")
    ),
    Pair("torchvision", "resnet18", "resnet18"),
    Pair("torchvision", "resnet34", "resnet34"),
    Pair("torchvision", "shufflenet_v2_x0_5", "shufflenet_v2", shuffle(48, 96, 192), slow=False),
    Pair("torchvision", "shufflenet_v2_x1_5", "shufflenet_v2", shuffle(176, 352, 704)),
    Pair("torchvision", "squeezenet1_0", "squeezenet", slow=False),
    Pair("torchvision", "vgg11", "vgg11"),
    Pair("timm", "densenet121", "densenet121"),
    Pair("timm", "efficientnet_b0", "efficientnet_b0"),
    Pair("timm", "inception_v3", "inception_v3"),
    Pair("timm", "inception_v3", "inception_v3", {}, {"aux_logits": True}, auxiliary=True),
    Pair("timm", "mobilenetv2_035", "mobilenet_v2", {"width": "0.35"}, slow=False),
    Pair("timm", "mobilenetv2_140", "mobilenet_v2", {"width": "1.4"}),
    Pair("timm", "resnet18", "resnet18"),
    Pair("timm", "resnet34", "resnet34"),
    Pair("timm", "vgg11", "vgg11"),
]  # fmt: skip


def list_params(pairs: list[Pair]) -> list[object]:
    slow = pytest.mark.slow
    return [pytest.param(pair, id=str(pair), marks=[slow] if pair.slow else []) for pair in pairs]


def import_program(name: str) -> ModuleType:
    """Import the models of torchvision, or timm.

    The torchvision wheel in the registry is built for GPUs. Without one, its custom operators do
    not load, and registering their metadata fails. None of these networks uses them.
    """
    described = "torchvision._meta_registrations"
    sys.modules.setdefault(described, ModuleType(described))
    return importlib.import_module({"torchvision": "torchvision.models"}.get(name, name))


def randomize_statistics(network: torch.nn.Module) -> torch.nn.Module:
    """Give batch norms distinct statistics, as after training."""
    numbers = torch.Generator().manual_seed(5)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for values, low, high in (
                (part.weight, 0.7, 1.4), (part.bias, -0.3, 0.3),
                (part.running_mean, -0.3, 0.3), (part.running_var, 0.5, 1.5),
            ):  # fmt: skip
                values.data.uniform_(low, high, generator=numbers)
    return network.eval()


def build_network(pair: Pair) -> torch.nn.Module:
    torch.manual_seed(3)
    library = import_program(pair.program)
    if pair.program == "timm":
        return randomize_statistics(
            library.create_model(pair.source_network, num_classes=CLASSES, **pair.options)
        )
    extra_options = (
        {"init_weights": False} if pair.source_network in ("googlenet", "inception_v3") else {}
    )
    return randomize_statistics(
        getattr(library, pair.source_network)(num_classes=CLASSES, **pair.options, **extra_options)
    )


def load_graph(pair: Pair) -> Graph:
    settings = {"classes": str(CLASSES), **pair.settings}
    return load(shipped.list_specs()[pair.spec_name], settings).graph


def compute_logits(network: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        outputs = network(images)
    if isinstance(outputs, tuple):  # plus those of an auxiliary head
        outputs = outputs[0]
    return (outputs["logits"] if isinstance(outputs, dict) else outputs).numpy()


def assert_same(
    imported: ImportedWeights, pair: Pair, graph: Graph, network: torch.nn.Module
) -> None:
    # the first linear layer of our vgg11 and the auxiliary head of timm fit only one size
    run = graph if graph.name == "vgg11" or pair.auxiliary else shrink_network(graph)
    images = torch.rand((1, *run.inputs[0].type.shape), generator=torch.Generator().manual_seed(1))
    expected = compute_logits(network, images * 2 - 1)
    weights = {name: imported.weights[name] for name in run.params}
    actual = compute_logits(create_module(run, weights).eval(), images * 2 - 1)
    assert np.ptp(expected) > 1e-3  # a real output, not only the biases of the last layer
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    matched_by_name = {row.name for row in imported.rows if row.how == "names"}
    assert matched_by_name == set(
        (graph if pair.auxiliary else extract_inference_graph(graph)).params
    )


@pytest.mark.parametrize("pair", list_params(PAIRS))
def test_torchvision_and_timm_state_dicts_import_unchanged(tmp_path: Path, pair: Pair) -> None:
    network, graph = build_network(pair), load_graph(pair)
    state = network.state_dict()
    torch.save(state, tmp_path / "net.pth")
    imported = import_checkpoint(tmp_path / "net.pth", graph)
    assert_same(imported, pair, graph, network)
    if pair.slow:
        return  # the other file format is read before any name
    save_file(state, tmp_path / "net.safetensors")
    reimported = import_checkpoint(tmp_path / "net.safetensors", graph)
    assert imported.weights.keys() == reimported.weights.keys()
    for name, values in imported.weights.items():
        np.testing.assert_array_equal(reimported.weights[name], values, err_msg=name)


def test_every_torchvision_scheme_has_its_preprocessing() -> None:
    for naming in naming_schemes.load_naming_schemes():
        assert (naming.pixels is not None) == ("torchvision" in naming.title), naming.title


@pytest.mark.parametrize("name", ["vgg16_bn_gap", *sorted({pair.spec_name for pair in PAIRS})])
def test_every_spec_supports_the_preprocessing_of_its_scheme(name: str) -> None:
    kin = name.partition("_")[0].rstrip("0123456789")
    pixel_settings = [
        n.pixels
        for n in naming_schemes.load_naming_schemes()
        if n.pixels and n.title.startswith(kin)
    ]
    spec = load(shipped.list_specs()[name])
    assert pixel_settings
    for pixels in pixel_settings:
        settings = [{"pixels": value} for value in spec.choices.get("pixels", ())]
        graphs = [spec.graph, *(spec.recompile(setting).graph for setting in settings)]
        assert any(pixels.matches(graph.inputs[0].preprocess) for graph in graphs)
