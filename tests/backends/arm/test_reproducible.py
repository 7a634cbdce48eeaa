"""The same model gives the same bytes for every target in any process."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcc.backends.arm.backend import Arm
from tcc.compiler.data.weights import initialize_random
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.target import Artifact
from tcc.testing.nets import build_dense

ARM = Arm()


def compute_digest(artifact: Artifact) -> str:
    parts = [f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in artifact.files.items()]
    return "\n".join(parts)


def build_digest() -> str:
    graph = build_dense()
    model = Model(graph, initialize_random(graph))
    targets = [target for target in ARM.targets if target.name in {"arm-a7", "arm-a76", "host"}]
    return "\n".join(compute_digest(ARM.emit(target, model)) for target in targets)


@pytest.mark.nightly  # tests/compiler/cli/test_same_bytes.py covers all targets with a small model
def test_another_process_builds_the_same_bytes() -> None:
    tests_folder = str(Path(__file__).parent)
    path = os.pathsep.join([tests_folder, *(p for p in sys.path if p)])
    other_process = subprocess.run(
        [sys.executable, "-c", "import test_reproducible as t; print(t.build_digest())"],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": path},
        cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert other_process.stdout.strip() == build_digest()
