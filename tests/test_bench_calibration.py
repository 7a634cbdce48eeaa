"""The benchmark of calibration measures draws, keeps what it measured, and reports it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.zoo import shipped

CASES = """
[[networks]]
name = "small"
spec = "ddsnet"
settings = {{ size = "64" }}
weights = "{weights}"
sets = [
    {{ name = "drawings", folders = ["{images}"] }},
    {{ name = "denser", of = "drawings", density = 1.4 }},
    {{ name = "cells", folders = ["{cells}"] }},
]

[[networks]]
name = "elsewhere"
spec = "ddsnet"
weights = "none.safetensors"
sets = []
"""


@pytest.fixture(scope="module")
def bench(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    graph = load(shipped.list_specs()["ddsnet"], {"size": "64"}).graph
    file = folder / "w.safetensors"
    weights.write(file, weights.initialize_random(graph))
    sets = {"images": root / "zoo/samples", "cells": root / "zoo/cells"}
    (folder / "cases.toml").write_text(CASES.format(weights=file, **sets))

    def run(*given):
        words = ("--folder", folder / "build", "--cases", folder / "cases.toml", *given)
        command = [sys.executable, root / "tools/bench/calibration.py", *words]
        return subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)

    return run


def first(found, name):
    return found["networks"]["small"]["methods"]["minmax"]["sets"][name]


@pytest.mark.slow
def test_draws_are_measured_once_and_reported(bench, root):
    asked = ("run", "--draws", "2", "--images", "6", "--only", "minmax")
    found = bench(*asked)
    assert found.returncode == 0, found.stderr
    assert "elsewhere: its weights are not here" in found.stdout
    assert found.stdout.count("small minmax") == 2
    assert "small minmax" not in bench(*asked).stdout
    report = json.loads(bench("report").stdout)
    method = report["networks"]["small"]["methods"]["minmax"]
    assert method["draws"] == 2
    assert not method["failed"]
    assert method["cpu_s"] > 0.2  # the imports alone take that
    assert 50 < method["peak_mb"] < 2000
    images = len(list((root / "zoo/samples").rglob("*.png")))
    assert [first(report, each)["images"] for each in ("drawings", "denser")] == [images - 6] * 2
    assert first(report, "cells")["images"] == len(list((root / "zoo/cells").rglob("*.png")))
    for each in ("drawings", "denser", "cells"):
        one = first(report, each)
        assert 0 < one["loss"] <= one["worst_draw"] < 1000
        assert 0.9 < one["least_cosine"] < 1
        assert one["to_minmax"] == 1


def test_unknown_methods_are_named(bench):
    found = bench("run", "--only", "median")
    assert found.returncode == 1
    assert "unknown: median" in found.stderr


def test_a_measured_process_says_its_own_cost(root):
    program = root / "tools/bench/calibration_guests/measured_process.py"
    work = "import sys; x = bytearray(60 << 20); sum(range(3_000_000)); sys.exit(3)"
    words = [sys.executable, "-S", "-E", str(program), sys.executable, "-S", "-c", work]
    # What starts it is far larger, which is not its peak.
    room = bytearray(200 << 20)
    found = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    assert len(room) == 200 << 20
    assert found["status"] == 3
    assert 60 < found["peak_mb"] < 120
    assert 0.02 < found["cpu_s"] < 10


def test_cases_name_sets_that_are_made_of_known_ones(root):
    import tomllib

    cases = tomllib.loads((root / "tools/bench/calibration_cases.toml").read_text())["networks"]
    # Where no network is left that nothing was chosen on, the page says so.
    chosen = {one["name"] for one in cases if one.get("chosen")}
    page = (root / "docs/measuring.md").read_text()
    assert (chosen == {one["name"] for one in cases}) == ("no network here\nis one that" in page)
    for case in cases:
        known = [one["name"] for one in case["sets"] if "folders" in one]
        assert {one["of"] for one in case["sets"] if "of" in one} <= set(known)
        assert case["sets"][0]["name"] in known
        assert not any(
            Path(each).is_absolute() for s in case["sets"] for each in s.get("folders", ())
        )
