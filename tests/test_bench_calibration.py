"""The benchmark of calibration runs, and says what it did not measure."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.zoo import shipped


def run(root, *given):
    command = [sys.executable, str(root / "tools/bench/calibration.py"), *map(str, given)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_it_prints_quality_and_cost(root, tmp_path):
    graph = load(shipped.specs()["ddsnet"]).graph
    weights.write(tmp_path / "w.safetensors", weights.random(graph))
    found = run(
        root, "--weights", tmp_path / "w.safetensors", "--data", root / "zoo/samples",
        "--images", 8, "--judge", 2, "--runs", 1, "--only", "minmax", "--only", "nncf",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert set(report["methods"]) == {"minmax", "onnxruntime MinMax u8", "nncf"}
    ours, peer = (report["methods"][name] for name in ("minmax", "onnxruntime MinMax u8"))
    for one in (ours, peer):
        assert 0.9 < one["least_cosine"] <= one["cosine"] <= 1
        assert one["seconds"] > 0
        assert 50 < one["peak_mb"] < 4000
    assert peer["ratio"] == 1
    assert ours["ratio"] == pytest.approx(ours["seconds"] / peer["seconds"], abs=1e-3)
    if importlib.util.find_spec("nncf") is None:
        assert "not installed" in report["methods"]["nncf"]["absent"]


@pytest.mark.slow
def test_images_must_be_left_to_learn_from(root, tmp_path):
    graph = load(shipped.specs()["ddsnet"]).graph
    weights.write(tmp_path / "w.safetensors", weights.random(graph))
    found = run(
        root, "--weights", tmp_path / "w.safetensors", "--data", root / "zoo/samples",
        "--worker", "minmax",
    )  # fmt: skip
    assert found.returncode == 1
    assert "leaves no image" in found.stderr
