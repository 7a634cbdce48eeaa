"""Adding a calibration method: its file and one entry in the list of methods are enough."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

ACIQ = '''
"""Analytical clipping of values that are Laplace: Banner et al., arXiv 1810.05723, section 2."""

from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import make_value_search

SIGNED, UNSIGNED = 9.89, 11.16
"""The clipping of least square error in mean absolute deviations, for 8 bits and, since the half
line of unsigned values has twice the levels, for 9."""


def share(group):
    import numpy as np

    numbers = np.concatenate([sample.reshape(-1) for sample in group.samples])
    middle = float(numbers.mean()) if group.range.signed else 0.0
    deviation = float(np.abs(numbers - middle).mean())
    return (SIGNED if group.range.signed else UNSIGNED) * deviation / group.top


ACIQ = RangeMethod("aciq", "clipping for Laplace values, in closed form", make_value_search(share), in_best=True)
'''
"""The source file of the method."""
PROGRAM = """
import sys
from tcc.compiler.quant import methods
from aciq import ACIQ
methods.SEARCHES = (*methods.SEARCHES, ACIQ)
methods.METHODS = (*methods.SEARCHES, methods.Best(methods.SEARCHES))
methods.DEFAULT = methods.METHODS[-1]
from tcc.compiler.cli import main
sys.exit(main())
"""
"""The command, with the method added to the list of methods."""


@pytest.fixture
def with_aciq(process, home, images):
    (home / "aciq.py").write_text(ACIQ)
    return lambda *args: process(*args, program=PROGRAM, env={"PYTHONPATH": str(home)})


@pytest.mark.slow
def test_help_names_the_method(with_aciq):
    for command in ("calibrate", "build"):
        help_text = " ".join(with_aciq(command, "--help").out.split())
        assert "minmax, percentile, mse, kl-cosine, aciq or best. Default: best." in help_text
    calibrate_help = with_aciq("calibrate", "--help").out
    assert "    aciq         clipping for Laplace values, in closed form\n" in calibrate_help
    outcome = with_aciq("calibrate", "tiny.yaml", "--data", "set", "--method", "aciqq")
    assert outcome.code == 2
    assert "did you mean `aciq`?" in outcome.err


def test_method_calibrates_and_its_file_builds(with_aciq, tcc, home):
    # 8 bits hardly clip such a small network, so the test uses the clipping for 2 bits.
    (home / "aciq.py").write_text(ACIQ.replace("9.89, 11.16", "2.83, 3.89"))
    args = ("calibrate", "tiny.yaml", "--data", "set", "-q")
    assert with_aciq(*args, "--method", "aciq", "-o", "a.json").code == 0
    assert tcc(*args, "--method", "minmax", "-o", "m.json").code == 0
    aciq_calibration, minmax_calibration = (
        json.loads((home / f"{name}.json").read_text()) for name in "am"
    )
    assert (aciq_calibration["method"], aciq_calibration["used"]) == ("aciq", "aciq")
    scales = [
        (aciq_calibration["values"][name]["scale"], minmax_calibration["values"][name]["scale"])
        for name in minmax_calibration["values"]
    ]
    assert all(aciq_scale <= minmax_scale for aciq_scale, minmax_scale in scales)
    assert any(aciq_scale < minmax_scale for aciq_scale, minmax_scale in scales)
    build = (
        "build",
        "tiny.yaml",
        "--target",
        "onnxruntime",
        "--precision",
        "int8",
        "--data",
        "set",
    )
    floors = ("--floor", "min_cosine=0", "--floor", "min_correlation=0")
    outcome = tcc(*build, "--calibration", "a.json", *floors, "-q")
    assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_best_tries_the_method(with_aciq, home):
    outcome = with_aciq("calibrate", "tiny.yaml", "--data", "set", "-q", "-o", "best.json")
    assert outcome.code == 0, outcome.err
    assert list(json.loads((home / "best.json").read_text())["judged"])[1:] == [
        "minmax", "aciq",
    ]  # fmt: skip


def test_clipping_matches_the_paper():
    names = {}
    exec(ACIQ, names)  # noqa: S102 - the text above
    numbers = np.random.default_rng(0).laplace(size=(1 << 16, 1)).astype(np.float32)
    group = SimpleNamespace(samples=(numbers,), range=SimpleNamespace(signed=True), top=30.0)
    assert names["share"](group) == pytest.approx(9.89 / 30, rel=0.02)
