"""The zoo networks as float TFLite files."""

import json
from pathlib import Path

import numpy as np
import pytest
from lite import count_delegates, create_interpreter, list_operators, run_tflite
from zoo_nets import shrink_network

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
"""Maximum difference from the float32 reference, relative to the largest output."""
LONGEST = ("resnet34", "vgg11")
"""Networks with the same layers as resnet18 and vgg16_bn_gap."""
zoo = pytest.mark.parametrize(
    "name",
    [
        *SMALL,
        *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES if n not in {*SMALL, *LONGEST}),
        *(pytest.param(n, marks=pytest.mark.nightly) for n in LONGEST),
    ],
)


def load_graph(name: str) -> Graph:
    return shrink_network(load(shipped.list_specs()[name]).graph)


@zoo
def test_every_network_matches_in_every_precision(name: str) -> None:
    graph = load_graph(name)
    model = Model(graph, weights.initialize_random(graph, 0))
    fused = run(model, INFERENCE)
    assert list(BACKEND.refusals(TARGET, fused.graph)) == []
    x = np.random.default_rng(0).standard_normal(graph.inputs[0].type.shape, np.float32)
    (expected,) = float_program.run(model, [x])
    sizes = {}
    for precision, bound in BOUND.items():
        data = BACKEND.emit(TARGET, fused, TARGET.find_precision(precision)).files[FILE]
        sizes[precision] = len(data)
        actual = run_tflite(data, x)
        for output, y in expected.items():
            assert np.abs(actual[output] - y).max() <= bound * np.abs(y).max()
        for kernels in ("optimised", "reference"):
            create_interpreter(data, kernels)
        assert count_delegates(data) == 1
        assert "TRANSPOSE" not in dict(list_operators(data)) or name == "shufflenet_v2"
    assert sizes["fp16"] < 0.53 * sizes["fp32"]
    assert sizes["dynamic"] < 0.35 * sizes["fp32"]


TOLERANCES = {"fp32": (0.9999999, 1e-6), "fp16": (0.999999, 3e-3), "dynamic": (0.9997, 3e-2)}
"""Minimum cosine and maximum difference relative to the largest logit: at least twice the measured."""


@pytest.mark.parametrize(
    ("name", "picture", "classes"), [("GC", "GC.png", 6), ("Sipak", "Sipak.bmp", 5)]
)
def test_ddsnet_checkpoints_are_close(
    shared: Path, root: Path, name: str, picture: str, classes: int
) -> None:
    checkpoint_folder = shared / "data" / "ddsnet_checkpoints"
    facts = json.loads((shared / "facts" / "ddsnet_reference.json").read_text())[name]
    graph = load(root / "spec" / "ddsnet.yaml", {"classes": str(classes)}).graph
    model = Model(graph, import_checkpoint(checkpoint_folder / facts["checkpoint"], graph).weights)
    image = images.read_image(checkpoint_folder / picture)
    for quarter_turns in range(2):
        view = np.ascontiguousarray(np.rot90(image, quarter_turns))
        x = apply(graph.inputs[0].preprocess, view, (3, 224, 224))
        ((y,),) = (
            reference_outputs.values() for reference_outputs in float_program.run(model, [x])
        )
        for precision, (min_cosine, max_difference) in TOLERANCES.items():
            file = BACKEND.emit(
                TARGET, run(model, INFERENCE), TARGET.find_precision(precision)
            ).files[FILE]
            (actual,) = run_tflite(file, x).values()
            assert actual @ y / np.linalg.norm(actual) / np.linalg.norm(y) > min_cosine
            assert np.abs(actual - y).max() < max_difference * np.abs(y).max()
            assert actual.argmax() == y.argmax()


@pytest.mark.parametrize("name", ["ddsnet", "fastnet"])
def test_all_kernel_sets_match(name: str) -> None:
    graph = load_graph(name)
    fused = run(Model(graph, weights.initialize_random(graph, 0)), INFERENCE)
    x = np.random.default_rng(0).standard_normal(graph.inputs[0].type.shape, np.float32)
    data = BACKEND.emit(TARGET, fused).files[FILE]
    expected = run_tflite(data, x)
    for kernels in ("optimised", "reference"):
        for output, y in run_tflite(data, x, kernels).items():
            assert np.abs(y - expected[output]).max() <= 1e-5 * np.abs(y).max()
