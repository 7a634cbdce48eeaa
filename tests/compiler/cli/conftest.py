"""The `tcc` command, run in this process for speed, or in a separate one."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forged_bundles
import npu_packages
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

SPEC = """\
tcc: 1
name: tiny
params: {classes: 3, width: 4}

input:
  image:
    shape: [3, 8, 8]
    preprocess: {resize: {size: [8, 8], mode: stretch}}

graph:
  - conv: {filters: width, kernel: 3, padding: 1}
  - batch_norm
  - relu
  - global_avg_pool
  - flatten
  - linear: {units: classes}

output:
  logits: {activation: softmax, labels: "['cat', 'dog', 'owl'] if classes == 3 else []"}

tests: {params: 135}
"""
PROGRAM = "import sys; from tcc.compiler.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class CommandOutcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The only JSON document on standard output."""
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A working folder that contains only a spec."""
    (tmp_path / "tiny.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TCC_DEBUG", raising=False)
    return tmp_path


@pytest.fixture
def tcc(home):
    """Run a command in this process."""
    from tcc.compiler.cli import app

    def run(*args: object, input: bytes | None = None) -> CommandOutcome:
        outcome = CliRunner().invoke(app, list(map(str, args)), input=input)
        return CommandOutcome(outcome.exit_code, outcome.stdout, outcome.stderr)

    return run


@pytest.fixture
def process(home):
    """Run a command in a separate process."""

    def run(*args: object, program: str = PROGRAM, **options: Any) -> CommandOutcome:
        env = os.environ | options.pop("env", {})
        command = [sys.executable, "-c", program, *map(str, args)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        completed = subprocess.run(command, check=False, text=True, env=env, **streams)
        return CommandOutcome(completed.returncode, completed.stdout or "", completed.stderr or "")

    return run


@pytest.fixture
def built(tcc, home) -> Path:
    """A bundle of the spec for ONNX Runtime."""
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    return home / "build/tiny-onnxruntime-fp32"


@pytest.fixture(scope="session")
def built_for_host(tmp_path_factory) -> Path:
    """A bundle of the spec for this machine, built once. A test that changes it copies it first."""
    from tcc.compiler.cli import app

    folder = tmp_path_factory.mktemp("host")
    (folder / "tiny.yaml").write_text(SPEC)
    args = ("build", folder / "tiny.yaml", "--target", "host", "-o", folder / "build", "-q")
    outcome = CliRunner().invoke(app, list(map(str, args)))
    assert outcome.exit_code == 0, outcome.stderr
    return folder / "build/tiny-host-fp32"


@pytest.fixture
def picture(home) -> Path:
    """An image."""
    from PIL import Image

    path = home / "one.png"
    Image.effect_mandelbrot((20, 10), (-2, -1, 1, 1), 20).convert("RGB").save(path)
    return path


@pytest.fixture
def images(home):
    """Twenty-four images in two class folders, in several sizes. One is grey."""
    rng = np.random.default_rng(5)
    for number in range(24):
        shape = (8 + number % 9, 11, 3) if number else (9, 9)
        path = home / "set" / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    return home / "set"


@pytest.fixture
def odd(home):
    """Write an unusual spec by its name."""

    from tcc.compiler.frontend.spec import load

    def write(name):
        source, output = npu_packages.ODD[name]
        text = npu_packages.SPEC.format(input=source, steps=npu_packages.STEPS, output=output)
        (home / "odd.yaml").write_text(text)
        return load(home / "odd.yaml", {})

    return write


@pytest.fixture
def docker(home, monkeypatch):
    """Put a fake docker first on PATH."""
    program = home / "bin" / "docker"
    program.parent.mkdir()
    tests = Path(npu_packages.__file__).parent
    command = f"PYTHONPATH={tests} exec {sys.executable} {tests}/npu_tool.py"
    program.write_text(f'#!/bin/sh\n{command} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return monkeypatch


@pytest.fixture
def no_docker(monkeypatch, home):
    """Hide docker."""
    folder = home / "nothing"
    folder.mkdir()
    for name in ("sh", "c++"):
        if program_path := shutil.which(name):
            (folder / name).symlink_to(program_path)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    """A separate state folder for the test."""
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture
def untrusted_bundle(tcc, home, state) -> Path:
    """A complete, sealed bundle for this machine. Its program writes a file."""
    tcc("build", "tiny.yaml", "--target", "onnxruntime")
    folder = home / "build/tiny-onnxruntime-fp32"
    (folder / "model/model.onnx").unlink()
    program = folder / "model/tiny-run"
    program.write_text(f"#!/bin/sh\necho ran > {home}/ran\n")
    program.chmod(0o755)
    return forged_bundles.forge_bundle(folder, "host")
