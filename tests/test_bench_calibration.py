"""The calibration benchmark measures trials, keeps measured ones and reports them."""

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

    def run(*extra_arguments):
        arguments = (
            "--folder",
            folder / "build",
            "--cases",
            folder / "cases.toml",
            *extra_arguments,
        )
        command = [sys.executable, root / "tools/bench/calibration.py", *arguments]
        return subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)

    return run


def get_scores(report, name):
    return report["networks"]["small"]["methods"]["minmax"]["sets"][name]


@pytest.mark.slow
def test_trials_are_measured_once_and_reported(bench, root):
    arguments = ("run", "--draws", "2", "--images", "6", "--only", "minmax")
    completed = bench(*arguments)
    assert completed.returncode == 0, completed.stderr
    assert "elsewhere: skipped, because its weights are missing" in completed.stdout
    assert completed.stdout.count("small minmax") == 2
    assert "small minmax" not in bench(*arguments).stdout
    report = json.loads(bench("report").stdout)
    method = report["networks"]["small"]["methods"]["minmax"]
    assert method["draws"] == 2
    assert not method["failed"]
    assert method["cpu_s"] > 0.2  # the imports alone take this long
    assert 50 < method["peak_mb"] < 2000
    images = len(list((root / "zoo/samples").rglob("*.png")))
    assert [get_scores(report, set_name)["images"] for set_name in ("drawings", "denser")] == [
        images - 6
    ] * 2
    assert get_scores(report, "cells")["images"] == len(list((root / "zoo/cells").rglob("*.png")))
    for set_name in ("drawings", "denser", "cells"):
        scores = get_scores(report, set_name)
        assert 0 < scores["loss"] <= scores["worst_draw"] < 1000
        assert 0.9 < scores["least_cosine"] < 1
        assert scores["to_minmax"] == 1


def test_unknown_methods_are_named(bench):
    completed = bench("run", "--only", "median")
    assert completed.returncode == 1
    assert "unknown methods: median; the methods are minmax, " in completed.stderr


def test_a_measured_process_reports_its_own_cost(root):
    program = root / "tools/bench/calibration_guests/measured_process.py"
    work = "import sys; x = bytearray(60 << 20); sum(range(3_000_000)); sys.exit(3)"
    command = [sys.executable, "-S", "-E", str(program), sys.executable, "-S", "-c", work]
    # The parent process is much larger. Its size must not count.
    ballast = bytearray(200 << 20)
    measurements = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(ballast) == 200 << 20
    assert measurements["status"] == 3
    assert 60 < measurements["peak_mb"] < 120
    assert 0.02 < measurements["cpu_s"] < 10


def test_cases_refer_to_declared_image_sets(root):
    import tomllib

    cases = tomllib.loads((root / "tools/bench/calibration_cases.toml").read_text())["networks"]
    # If every network was used for tuning, the page says so.
    tuned_networks = {record["name"] for record in cases if record.get("chosen")}
    page = (root / "docs/measuring.md").read_text()
    assert (tuned_networks == {record["name"] for record in cases}) == (
        "no network here\nis one that" in page
    )
    for case in cases:
        folder_sets = [record["name"] for record in case["sets"] if "folders" in record]
        assert {record["of"] for record in case["sets"] if "of" in record} <= set(folder_sets)
        assert case["sets"][0]["name"] in folder_sets
        assert not any(
            Path(folder).is_absolute() for s in case["sets"] for folder in s.get("folders", ())
        )
