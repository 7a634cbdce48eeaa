"""README.md does what it says: its commands run, its links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
MAKE = {"make demo", "make test"}
"""What makes an environment and runs these very tests."""


def commands():
    """The commands of the shell blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    return [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path):
    """A folder with what a checkout offers a user, and a checkpoint of their own."""
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.lower.torch import module

    for name in ("spec", "zoo"):
        shutil.copytree(ROOT / name, tmp_path / name)
    if (ROOT / "tcc.toml").exists():
        shutil.copy(ROOT / "tcc.toml", tmp_path)
    network = module(load(ROOT / "spec/ddsnet.yaml").graph)
    torch.save(network.state_dict(), tmp_path / "checkpoint.pth")
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory):
    """One in which `tcc` is this Python's, installed or not."""
    place = tmp_path_factory.mktemp("bin")
    program = f"#!{sys.executable}\nfrom tcc.compiler.cli import main\nmain()\n"
    (place / "tcc").write_text(program)
    (place / "tcc").chmod(0o755)
    return os.environ | {"PATH": f"{place}:{os.environ['PATH']}"}


def test_every_command_runs(folder, environment):
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    for command in commands():
        if command in MAKE:
            continue
        if command.startswith("tcc run build/ddsnet-arm") and not shutil.which("qemu-arm"):
            continue  # what `make test` says when it cannot install it
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
    assert sorted(p.name for p in (folder / "build").iterdir()) == [
        "ddsnet-arm-a7-fp32",
        "ddsnet-ax620.calibration.json",
        "ddsnet-host-fp32",
        "ddsnet-onnxruntime-fp32",
        "ddsnet-onnxruntime-int8",
        "ddsnet-onnxruntime.calibration.json",
        "ddsnet-tflite-fp16",
    ]


def test_the_commands_are_found():
    found = commands()
    assert set(found) >= MAKE
    assert "tcc build spec/ddsnet.yaml --target arm-a7,onnxruntime" in found
    assert all(command.startswith("tcc ") for command in found if command not in MAKE)


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_target_and_extra_is_named():
    import tomllib

    from tcc.backends import BACKENDS

    for backend in BACKENDS:
        for target in backend.targets:
            assert f"`{target.name}`" in TEXT
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all(f"`{extra}`" in TEXT for extra in project["optional-dependencies"])
