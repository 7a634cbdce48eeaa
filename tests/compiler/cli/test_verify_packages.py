"""Packages for AXERA's NPUs: their network runs here, and its weights are compared."""

import forged_bundles
import npu_packages
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

NPU_NOT_VERIFIED = "The NPU's outputs are not verified: run `sh "


@pytest.fixture
def package(tcc, home, odd, images, no_docker):
    """Build a package of a small network for a target."""

    def build(target, *args):
        odd("grey" if target == "ax620" else "two")
        outcome = npu_packages.build(tcc, target, images, *args)
        assert outcome.code == 0, outcome.err
        return home / f"build/odd-{target}-int8"

    return build


def change_tensor(path, min_size):
    """Change the last bit of the first number of a large enough tensor, and return its name."""
    model = onnx.load_model_from_string(path.read_bytes())
    tensor = next(t for t in model.graph.initializer if np.prod(t.dims) >= min_size and t.dims)
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1).view(np.uint8)[0] ^= 1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return tensor.name


@pytest.mark.parametrize("target", ["ax650", "ax620e"])
def test_int8_network_of_a_package_runs_here(tcc, package, target):
    folder = package(target)
    outcome = tcc("verify", folder)
    assert outcome.code == 0, outcome.err
    assert "model_qdq.onnx  1       logits" in outcome.out
    assert f"model_qdq.onnx ran in ONNX Runtime. {NPU_NOT_VERIFIED}" in outcome.err
    (bundle_report,) = tcc("verify", folder, "--json").document["bundles"]
    assert (bundle_report["simulated"], bundle_report["holds"], bundle_report["tool"]) == (
        "model_qdq.onnx",
        True,
        None,
    )
    assert all(comparison["difference"] < 1e-5 for comparison in bundle_report["agreement"])


def test_package_is_in_the_agreement_table(tcc, home, odd, images, no_docker):
    odd("two")
    args = ("--precision", "int8", "--agree", "2", "--json")
    outcome = npu_packages.build(tcc, "ax650,onnxruntime", images, *args)
    rows = {target["target"]: target for target in outcome.document["agreement"]["targets"]}
    assert rows["ax650"]["simulated"] == "model_qdq.onnx"
    assert rows["ax650"]["holds"] is True
    assert rows["ax650"]["inputs"] == 4
    assert rows["ax650"]["outputs"]["difference"] < 1e-5
    assert rows["onnxruntime"]["simulated"] is None
    # The NPU's outputs are not compared with those of other targets.
    assert outcome.document["agreement"]["pairs"] == []
    text = npu_packages.build(tcc, "ax650,onnxruntime", images, "--precision", "int8")
    assert "agrees: model_qdq.onnx in ONNX Runtime, not the NPU" in text.out
    assert "model_qdq.onnx, in ONNX Runtime, agrees with the reference within" in text.out
    assert "; the NPU itself cannot be run here" in text.out


def test_disagreeing_network_is_not_written(tcc, home, odd, images, no_docker, monkeypatch):
    from tcc.backends.pulsar.backend import SimulatedPackage

    infer = SimulatedPackage.infer

    def scale_outputs(*args):
        return [{k: 3 * v for k, v in outputs.items()} for outputs in infer(*args)]

    monkeypatch.setattr(SimulatedPackage, "infer", scale_outputs)
    odd("two")
    outcome = npu_packages.build(tcc, "ax650", images)
    assert outcome.code == 4
    assert not (home / "build/odd-ax650-int8").exists()


@pytest.mark.parametrize(
    ("target", "file"),
    [("ax620", "model.onnx"), ("ax650", "model.onnx"), ("ax650", "model_qdq.onnx")],
)
def test_changed_weight_of_a_package_is_named(tcc, package, target, file):
    folder = package(target)
    good = tcc("verify", folder, "--spec", "odd.yaml")
    assert good.code == 0, good.err
    assert f"{file}: " in good.out
    assert NPU_NOT_VERIFIED in good.err
    name = change_tensor(folder / "model" / file, 30)
    forged_bundles.forge_bundle(folder, target)
    outcome = tcc("verify", folder, "--spec", "odd.yaml")
    assert outcome.code == 4, outcome.out
    assert f"{file} differs from the network: layer `" in outcome.err
    assert f"tensor `{name}`[0, 0, 0, 0] is" in outcome.err


def test_program_in_the_package_is_compared(tcc, package):
    folder = package("ax650", "--probes")
    outcome = tcc("verify", folder)
    assert outcome.code == 0, outcome.err
    assert "model_qdq.onnx: " in outcome.out
    assert "model.onnx not compared with the network" in outcome.err


@pytest.mark.parametrize("target", ["ax620", "ax650"])
def test_package_without_its_network_is_reported(tcc, package, target):
    folder = package(target)
    (folder / "model/model.onnx").unlink()
    forged_bundles.forge_bundle(folder, target)
    outcome = tcc("verify", folder, "--spec", "odd.yaml")
    assert outcome.code == 4
    assert "model.onnx differs from the network: it is missing from the package" in outcome.err


def test_bisect_is_refused_for_packages(tcc, package):
    folder = package("ax650", "--probes")
    outcome = tcc("verify", folder, "--bisect")
    assert outcome.code == 2
    assert "error[E0601]: `--bisect` has no effect: these bundles are packages" in outcome.err
