"""The target `tflite` in float: what it builds, refuses and computes."""

from pathlib import Path

import numpy as np
import pytest
from op_cases import CASES, INTERNAL_CASES, Case, one_input, tensors

from tcc.backends.base import Artifact, Backend
from tcc.backends.tflite.backend import TfLite
from tcc.compiler import reference

BACKEND: Backend = TfLite()
(TARGET,) = BACKEND.targets


def written(folder: Path, artifact: Artifact) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in artifact.files.items():
        (folder / name).write_bytes(data)
    return folder


def assert_near(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], bound: float) -> None:
    assert got.keys() == expected.keys()
    for name, y in expected.items():
        assert got[name].shape == y.shape
        scale = max(1.0, float(np.abs(y).max()))
        assert np.abs(got[name] - y).max() <= bound * scale


@pytest.mark.parametrize("case", (CASES | INTERNAL_CASES).values(), ids=CASES | INTERNAL_CASES)
def test_every_op_case_builds_and_runs(tmp_path: Path, case: Case) -> None:
    model = one_input(case)
    assert list(BACKEND.refusals(TARGET, model.graph)) == []
    folder = written(tmp_path, BACKEND.emit(TARGET, model))
    xs = list(tensors(model, batch=2)[0])
    found = BACKEND.infer(TARGET, folder, model.graph.inputs[0], xs)
    for got, expected in zip(found, reference.run(model, xs), strict=True):
        assert_near(got, expected, 1e-5)
