"""Programs of the ARM targets in qemu: outputs from an image on match the reference."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from arm_graphs import make_random_model

from tcc.backends.arm.backend import Arm
from tcc.compiler.data import images
from tcc.compiler.data.weights import initialize_random
from tcc.compiler.frontend.spec import load
from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.target import Artifact, Target
from tcc.compiler.passes import INFERENCE, run
from tcc.compiler.reference import float_program
from tcc.testing.nets import build_gated

ARM = Arm()
TARGETS = {t.name: t for t in ARM.targets}


SLOW = pytest.mark.slow  # zig needs half a minute for their C library


@pytest.fixture(
    params=[
        "arm-a7",
        pytest.param("arm-a53", marks=SLOW),
        pytest.param("arm-a72", marks=SLOW),
        pytest.param("arm-a76", marks=SLOW),
    ]
)
def target(request: pytest.FixtureRequest) -> Target:
    selected: Target = TARGETS[request.param]
    return selected


@pytest.fixture(autouse=True)
def _qemu() -> None:
    for program in ("qemu-arm", "qemu-aarch64"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install qemu-user")


def write_artifact(folder: Path, artifact: Artifact) -> Path:
    for name, content in artifact.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)
    return folder


def assert_agrees(target: Target, model: Model, folder: Path) -> None:
    write_artifact(folder, ARM.emit(target, model))
    source = model.graph.inputs[0]
    rng = np.random.default_rng(0)
    tensors = [rng.standard_normal(source.type.shape, np.float32) for _ in range(2)]
    all_outputs = ARM.infer(target, folder, source, tensors)
    for actual, expected in zip(all_outputs, float_program.run(model, tensors), strict=True):
        assert actual.keys() == expected.keys()
        for name, output in expected.items():
            bound = 2e-5 * float(np.abs(output).max())
            np.testing.assert_allclose(actual[name], output, rtol=2e-5, atol=bound)


def test_outputs_match_the_reference(target: Target, tmp_path: Path) -> None:
    graph = build_gated()
    assert_agrees(target, Model(graph, initialize_random(graph)), tmp_path)


@pytest.mark.slow
def test_random_networks_match_the_reference(target: Target, tmp_path: Path) -> None:
    """A different network per target. The test of ops on this machine has twelve."""
    seed = list(TARGETS).index(target.name)
    assert_agrees(target, make_random_model(seed, steps=40), tmp_path)


def test_the_target_names_its_tools() -> None:
    (qemu,) = (t for t in ARM.tools(TARGETS["arm-a7"]) if not t.builds)
    assert (qemu.name, qemu.install) == ("qemu-arm", "apt-get install qemu-user")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network", "labels"), [("arm-a7", "GC", None), ("host", "Sipak", "[D, K, M, P, S]")]
)
def test_published_weights_give_the_published_classes(
    name: str, network: str, labels: str | None, root: Path, shared: Path, tmp_path: Path
) -> None:
    facts = json.loads((shared / "facts" / "ddsnet_reference.json").read_text())[network]
    folder = shared / "data" / "ddsnet_checkpoints"
    spec = load(root / "spec" / "ddsnet.yaml", {"labels": labels} if labels else {})
    weights = import_checkpoint(folder / facts["checkpoint"], spec.graph).weights
    model = run(Model(spec.graph, weights), INFERENCE)
    write_artifact(tmp_path, ARM.emit(TARGETS[name], model))
    pixels = images.read_image(folder / facts["image"])
    (outputs,) = Device(ARM, TARGETS[name]).run(tmp_path, model.graph.inputs[0], [pixels])
    (logits,) = outputs.values()
    np.testing.assert_allclose(
        logits, facts["runs"]["resize224_bilinear"]["logits"], rtol=0, atol=1e-4
    )
