"""The page "A target in an afternoon": its files, installed as pip does and run as they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="needs openvino, of the extra `dev`")

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/new-target.md").read_text()


def block(language, place=0):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[place]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the page's files, its entry point where an installed distribution has it."""
    folder = tmp_path_factory.mktemp("openvino")
    (folder / "pyproject.toml").write_text(block("toml"))
    (folder / "tcc_openvino.py").write_text(block("python"))
    (folder / "test_openvino.py").write_text(block("python", 1))
    entry = re.search(r'^\[project\.entry-points\."(.*?)"\]\n(.*?)\n', block("toml"), re.MULTILINE)
    info = folder / "tcc_openvino-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tcc-openvino\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{entry[1]}]\n{entry[2]}\n".replace('"', ""))
    return folder


def run(site, *words):
    command = [sys.executable, *words]
    env_path = {"PYTHONPATH": str(site)}
    return subprocess.run(
        command, cwd=site, env=os.environ | env_path, capture_output=True, text=True, check=False
    )


TCC = ("-c", "import sys; from tcc.compiler.cli import main; sys.exit(main())")


def test_the_target_is_listed_built_and_verified(site):
    listed = json.loads(run(site, *TCC, "targets", "--json").stdout)["targets"]
    (own,) = (each for each in listed if each["name"] == "openvino")
    assert (own["distribution"], own["builds"], own["runs"]) == ("tcc-openvino 1.0", True, True)
    built = run(site, *TCC, "build", "ddsnet-blood", "--target", "openvino", "-q")
    assert built.returncode == 0, built.stderr
    verified = run(site, *TCC, "verify", built.stdout.strip())
    assert verified.returncode == 0, verified.stderr


@pytest.mark.slow
def test_the_kit_passes(site):
    words = ("-m", "pytest", "-q", "-p", "tcc_pytest", "-p", "no:cacheprovider")
    found = run(site, *words)
    assert found.returncode == 0, found.stdout[-4000:]
    passed = re.search(r"(\d+) passed, 1 skipped", found.stdout)
    assert passed, found.stdout[-400:]
    assert int(passed[1]) > 390


def test_the_kit_passes_for_some_ops(site):
    test = "test_openvino.py::test_openvino"
    words = ("-m", "pytest", "-q", "-p", "tcc_pytest", "-p", "no:cacheprovider", "-k")
    found = run(site, *words, "op-scale or op-conv-1x1 or replay or planted or tools", test)
    assert found.returncode == 0, found.stdout[-4000:]
    assert " failed" not in found.stdout
