"""Winograd and the `accuracy` of a spec: its rounding is predicted and may disable it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from float_kernels import A7, make_conv_model, make_input

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.machine import FP32_DIRECT, MACHINES
from tcc.backends.arm.schedule import winograd_rounding
from tcc.compiler import passes
from tcc.compiler.cli import app
from tcc.compiler.data import weights
from tcc.compiler.driver import build_warnings
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import FP32
from tcc.compiler.ops import Conv, Relu
from tcc.compiler.reference import float_program

CONVOLUTIONS = {
    "3x3": (Conv(9, (3, 3), padding=1), (5, 13, 14)),
    "stem": (Conv(13, (7, 7), (2, 2), 3), (3, 45, 71)),
    "even rows": (Conv(4, (8, 8), (2, 2), 3), (2, 30, 31)),
    "5x6 of stride 2": (Conv(6, (5, 6), (2, 2), (2, 1)), (3, 20, 27)),
    "4x4": (Conv(8, (4, 4), padding=2, bias=False), (3, 9, 21)),
    "strides": (Conv(9, (3, 3), (2, 2), 1), (5, 27, 30)),
    "strides at an edge": (Conv(5, (3, 3), (2, 2), 2), (3, 3, 5)),
    "padding alone": (Conv(3, (3, 3), padding=2), (2, 1, 1)),
}
SPEC = """\
tcc: 1
name: bounded
input:
  image: {shape: [3, 32, 32], preprocess: {resize: {size: [32, 32], mode: stretch}}}
graph:
  - conv: {filters: 32, kernel: 3, padding: 1}
  - relu
  - conv: {filters: 32, kernel: 3, padding: 1}
  - relu
  - global_avg_pool
  - flatten
  - linear: {units: 4}
output:
  logits: {activation: softmax}
"""
TIGHT, WIDE = "accuracy: {max_error: 1e-12}\n", "accuracy: {max_error: 0.001}\n"


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_predicted_winograd_outputs_match_the_convolution(name: str) -> None:
    op, shape = CONVOLUTIONS[name]
    model = make_conv_model(op, shape, Relu())
    x = make_input(model)
    node = next(node for node in model.graph.nodes if isinstance(node.op, Conv))
    parameters = [model.weights[param] for param in node.params]
    expected = float_program.evaluate_node(
        model.graph, node, model.weights, {node.inputs[0]: x[None]}
    )
    actual = winograd_rounding.compute_convolution(op, x, *parameters)
    largest = np.abs(expected).max()
    assert 0 < np.abs(actual - expected[0]).max() < 8e-6 * largest


def choose_plan(text: str, folder: Path, name: str = "arm-a7") -> tuple[Plan, tuple[str, ...]]:
    """Return the build plan of a spec, and the layers reported as slower."""
    path = folder / "bounded.yaml"
    path.write_text(text)
    spec = load(path)
    target = next(m.target for m in MACHINES if m.target.name == name)
    model = passes.run(Model(spec.graph, weights.initialize_random(spec.graph)), Arm().passes(FP32))
    chosen_plan, warnings = build_warnings.choose_methods(
        spec, Plan(Device(Arm(), target), FP32), model
    )
    return chosen_plan, tuple(layer for warning in warnings for layer in warning.layers)


@pytest.mark.parametrize("name", ["arm-a7", "arm-a53", "host"])
def test_a_broken_accuracy_bound_disables_winograd(name: str, tmp_path: Path) -> None:
    chosen_plan, slower = choose_plan(SPEC + TIGHT, tmp_path, name)
    assert chosen_plan.precision is FP32_DIRECT
    assert "conv_2" in slower


@pytest.mark.parametrize("text", [SPEC, SPEC + WIDE, SPEC + "accuracy: {min_cosine: 0.999}\n"])
def test_a_met_accuracy_bound_keeps_winograd(text: str, tmp_path: Path) -> None:
    chosen_plan, slower = choose_plan(text, tmp_path)
    assert (chosen_plan.precision, slower) == (FP32, ())


@pytest.mark.slow
def test_a_build_reports_and_disables_winograd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(A7.qemu) is None:
        pytest.skip(f"needs {A7.qemu}: apt-get install qemu-user")
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    for name, accuracy in (("tight", TIGHT), ("wide", WIDE)):
        (tmp_path / f"{name}.yaml").write_text(SPEC + accuracy)
        arguments = ["build", f"{name}.yaml", "--target", "arm-a7", "--seed", "0", "-v"]
        outcome = CliRunner().invoke(app, arguments)
        assert outcome.exit_code == 0, outcome.stderr
        slower = name == "tight"
        output = outcome.stdout + outcome.stderr
        assert ("built as fp32-direct" in output) == slower
        assert ("winograd in winograd_neon" in output) != slower
        manifest = json.loads((tmp_path / "build/bounded-arm-a7-fp32/manifest.json").read_text())
        codes = [warning["code"] for warning in manifest.get("warnings", ())]
        assert codes == ["W0662"] * slower
