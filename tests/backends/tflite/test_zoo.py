"""The networks of the zoo as TFLite files in float."""

import json
from pathlib import Path

import numpy as np
import pytest
from lite import delegates, interpreter, operators, outputs
from zoo_nets import small

from tcc.backends.tflite.backend import FILE, TfLite
from tcc.compiler.data import images, weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.preprocess import apply
from tcc.compiler.passes import INFERENCE, run
from tcc.compiler.reference import float_program
from tcc.compiler.zoo import shipped

BACKEND = TfLite()
(TARGET,) = BACKEND.targets
SMALL = ("ddsnet", "fastnet", "squeezenet", "shufflenet_v2")
NAMES = sorted(name for name in shipped.list_specs() if name != "fastnet_block")
BOUND = {"fp32": 1e-5, "fp16": 2e-3, "dynamic": 6e-2}
"""Largest difference from the float32 reference, as a part of the largest output."""
LONGEST = ("resnet34", "vgg11")
"""Made of the same layers as resnet18 and vgg16_bn_gap."""
zoo = pytest.mark.parametrize(
    "name",
    [
        *SMALL,
        *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES if n not in {*SMALL, *LONGEST}),
        *(pytest.param(n, marks=pytest.mark.nightly) for n in LONGEST),
    ],
)


def graph_of(name: str) -> Graph:
    return small(load(shipped.list_specs()[name]).graph)


@zoo
def test_every_form_of_every_network_computes_the_same(name: str) -> None:
    graph = graph_of(name)
    model = Model(graph, weights.initialize_random(graph, 0))
    fused = run(model, INFERENCE)
    assert list(BACKEND.refusals(TARGET, fused.graph)) == []
    x = np.random.default_rng(0).standard_normal(graph.inputs[0].type.shape, np.float32)
    (expected,) = float_program.run(model, [x])
    sizes = {}
    for precision, bound in BOUND.items():
        data = BACKEND.emit(TARGET, fused, TARGET.find_precision(precision)).files[FILE]
        sizes[precision] = len(data)
        got = outputs(data, x)
        for output, y in expected.items():
            assert np.abs(got[output] - y).max() <= bound * np.abs(y).max()
        for kernels in ("optimised", "reference"):
            interpreter(data, kernels)
        assert delegates(data) == 1
        assert "TRANSPOSE" not in dict(operators(data)) or name == "shufflenet_v2"
    assert sizes["fp16"] < 0.53 * sizes["fp32"]
    assert sizes["dynamic"] < 0.35 * sizes["fp32"]


NEAR = {"fp32": (0.9999999, 1e-6), "fp16": (0.999999, 3e-3), "dynamic": (0.9997, 3e-2)}
"""Least cosine, and largest difference as a part of the largest logit; measured: half, or less."""


@pytest.mark.parametrize(
    ("name", "picture", "classes"), [("GC", "GC.png", 6), ("Sipak", "Sipak.bmp", 5)]
)
def test_the_authors_networks_come_near(
    shared: Path, root: Path, name: str, picture: str, classes: int
) -> None:
    data = shared / "data" / "ddsnet_checkpoints"
    facts = json.loads((shared / "facts" / "ddsnet_reference.json").read_text())[name]
    graph = load(root / "spec" / "ddsnet.yaml", {"classes": str(classes)}).graph
    model = Model(graph, import_checkpoint(data / facts["checkpoint"], graph).weights)
    image = images.read_image(data / picture)
    for turns in range(2):
        view = np.ascontiguousarray(np.rot90(image, turns))
        x = apply(graph.inputs[0].preprocess, view, (3, 224, 224))
        ((y,),) = (found.values() for found in float_program.run(model, [x]))
        for precision, (least, most) in NEAR.items():
            file = BACKEND.emit(
                TARGET, run(model, INFERENCE), TARGET.find_precision(precision)
            ).files[FILE]
            (got,) = outputs(file, x).values()
            assert got @ y / np.linalg.norm(got) / np.linalg.norm(y) > least
            assert np.abs(got - y).max() < most * np.abs(y).max()
            assert got.argmax() == y.argmax()


@pytest.mark.parametrize("name", ["ddsnet", "fastnet"])
def test_all_kernels_compute_the_same(name: str) -> None:
    graph = graph_of(name)
    fused = run(Model(graph, weights.initialize_random(graph, 0)), INFERENCE)
    x = np.random.default_rng(0).standard_normal(graph.inputs[0].type.shape, np.float32)
    data = BACKEND.emit(TARGET, fused).files[FILE]
    expected = outputs(data, x)
    for kernels in ("optimised", "reference"):
        for output, y in outputs(data, x, kernels).items():
            assert np.abs(y - expected[output]).max() <= 1e-5 * np.abs(y).max()
