"""The page "A target in an afternoon": its files, installed as by pip and run unchanged."""

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


def find_block(language, index=0):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[index]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the files of the page and an entry point like an installed package."""
    folder = tmp_path_factory.mktemp("openvino")
    (folder / "pyproject.toml").write_text(find_block("toml"))
    (folder / "tcc_openvino.py").write_text(find_block("python"))
    (folder / "test_openvino.py").write_text(find_block("python", 1))
    entry_point = re.search(
        r'^\[project\.entry-points\."(.*?)"\]\n(.*?)\n', find_block("toml"), re.MULTILINE
    )
    dist_info = folder / "tcc_openvino-1.0.dist-info"
    dist_info.mkdir()
    (dist_info / "METADATA").write_text("Metadata-Version: 2.1\nName: tcc-openvino\nVersion: 1.0\n")
    (dist_info / "entry_points.txt").write_text(
        f"[{entry_point[1]}]\n{entry_point[2]}\n".replace('"', "")
    )
    return folder


def run(site, *arguments):
    command = [sys.executable, *arguments]
    env_path = {"PYTHONPATH": str(site)}
    return subprocess.run(
        command, cwd=site, env=os.environ | env_path, capture_output=True, text=True, check=False
    )


TCC = ("-c", "import sys; from tcc.compiler.cli import main; sys.exit(main())")


def test_the_target_is_listed_built_and_verified(site):
    targets = json.loads(run(site, *TCC, "targets", "--json").stdout)["targets"]
    (target,) = (listed_target for listed_target in targets if listed_target["name"] == "openvino")
    assert (target["distribution"], target["builds"], target["runs"]) == (
        "tcc-openvino 1.0",
        True,
        True,
    )
    built = run(site, *TCC, "build", "ddsnet-blood", "--target", "openvino", "-q")
    assert built.returncode == 0, built.stderr
    verified = run(site, *TCC, "verify", built.stdout.strip())
    assert verified.returncode == 0, verified.stderr


@pytest.mark.slow
def test_the_conformance_kit_passes(site):
    arguments = ("-m", "pytest", "-q", "-p", "tcc_pytest", "-p", "no:cacheprovider")
    completed = run(site, *arguments)
    assert completed.returncode == 0, completed.stdout[-4000:]
    passed = re.search(r"(\d+) passed, 1 skipped", completed.stdout)
    assert passed, completed.stdout[-400:]
    assert int(passed[1]) > 390


def test_the_conformance_kit_passes_for_some_ops(site):
    test = "test_openvino.py::test_openvino"
    arguments = ("-m", "pytest", "-q", "-p", "tcc_pytest", "-p", "no:cacheprovider", "-k")
    completed = run(site, *arguments, "op-scale or op-conv-1x1 or replay or planted or tools", test)
    assert completed.returncode == 0, completed.stdout[-4000:]
    assert " failed" not in completed.stdout
