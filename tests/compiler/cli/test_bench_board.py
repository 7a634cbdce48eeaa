"""`tcc bench --ssh` and `--adb`. The test board is this machine, so it runs `host` bundles."""

import os
from pathlib import Path

import boards
import pytest
from typer.testing import CliRunner

from tcc.compiler.cli import app

SPEC = """\
tcc: 1
name: tiny
input: {image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8], mode: stretch}}}}
graph: [conv: {filters: 4, kernel: 3}, relu, global_avg_pool, flatten, linear: {units: 3}]
output: {logits: {activation: softmax}}
"""
LITERT = """\
#!/bin/sh
# the output of LiteRT's benchmark_model
case "$*" in *--num_threads=2*) ;; *) exit 1 ;; esac
[ -s model.tflite ] || exit 2
echo 'count=5 first=900 curr=310 min=300 max=900 avg=420 std=9'
echo 'count=7 first=310 curr=305 min=301 max=320 avg=306.5 std=5 p5=302 median=306 p95=319' >&2
echo 'Inference timings in us: Init: 1500, First inference: 900, Warmup (avg): 420, Inference (avg): 306.5' >&2
echo 'Memory footprint delta from the start of the tool (MB): init=1.5 overall=2.25' >&2
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for this machine."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "tiny.yaml").write_text(SPEC)
    args = ["build", str(folder / "tiny.yaml"), "--target", "host", "-q", "-o", str(folder)]
    assert CliRunner().invoke(app, args).exit_code == 0
    return folder / "tiny-host-fp32"


def extend_path(monkeypatch: pytest.MonkeyPatch, programs: Path) -> None:
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("make", "options"),
    [(boards.make_fake_adb, ["--adb"]), (boards.make_ssh_folder, ["--ssh", "board"])],
)
def test_bench_on_a_board_reports_times(tcc, bundle, tmp_path, monkeypatch, make, options):
    extend_path(monkeypatch, make(tmp_path))
    outcome = tcc("bench", bundle, *options, "--runs", "3", "--json")
    assert outcome.code == 0, outcome.err
    (bundle_report,) = outcome.document["bundles"]
    assert (
        bundle_report["how"]
        == f"{'adb' if make is boards.make_fake_adb else 'ssh board'}, one thread"
    )
    assert bundle_report["network"]["times"]["runs"] == 3
    assert bundle_report["preprocess"]["times"]["median"] > 0
    assert bundle_report["layers"]
    assert [golden["holds"] for golden in bundle_report["goldens"]] == [True] * len(
        bundle_report["goldens"]
    )
    assert len({golden["golden"] for golden in bundle_report["goldens"]}) > 1


def test_matching_outputs_are_reported_and_files_removed(tcc, bundle, tmp_path, monkeypatch):
    extend_path(monkeypatch, boards.make_fake_adb(tmp_path))
    assert "outputs match" in tcc("bench", bundle, "--adb", "--runs", "3").out
    assert not list((tmp_path / "device").iterdir())


def test_wrong_outputs_of_the_board_are_reported(tcc, bundle, tmp_path, monkeypatch):
    programs = boards.make_fake_adb(tmp_path)
    honest = (programs / "adb").read_text()
    zeros = 'case $2 in *cat*/raw*) set -- $1 "head -c 12 /dev/zero; echo tcc-status:0" ;; esac\n'
    boards.write_program(programs, "adb", honest.replace("case $1", zeros + "case $1", 1))
    extend_path(monkeypatch, programs)
    outcome = tcc("bench", bundle, "--adb", "--runs", "1")
    assert outcome.code == 4
    assert "error: on the board, output `logits` of golden 1 is wrong" in outcome.err
    assert "network" in outcome.out  # the times are shown anyway


def test_litert_benchmark_program_times_tflite_files(tcc, home, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    assert tcc("build", "tiny.yaml", "--target", "tflite", "-q").code == 0
    bundle = home / "build/tiny-tflite-fp32"
    (home / "elsewhere").mkdir()
    extend_path(monkeypatch, boards.make_fake_adb(home / "elsewhere"))
    boards.write_program(home, "benchmark", LITERT)
    args = ("bench", bundle, "--adb", "--benchmark-model", home / "benchmark")
    outcome = tcc(*args, "--threads", "2", "--json")
    assert outcome.code == 0, outcome.err
    (bundle_report,) = outcome.document["bundles"]
    times = bundle_report["network"]["times"]
    assert times == {"median": 0.306, "low": 0.302, "high": 0.319, "first": 0.9, "runs": 7}
    assert bundle_report["load"]["times"]["median"] == 1.5
    assert bundle_report["memory"]["peak"] == 2.25 * (1 << 20)
    assert bundle_report["goldens"] is None
    assert "its outputs are not the golden outputs" in bundle_report["caution"]
    refused = tcc(*args)  # one thread: the program fails
    assert refused.code == 2
    assert "error[E0651]" in refused.err
    absent = tcc("bench", bundle, "--adb")
    assert absent.code == 2
    assert "--benchmark-model" in absent.err


def test_bundle_that_no_board_runs_is_refused(tcc, built, tmp_path, monkeypatch):
    extend_path(monkeypatch, boards.make_fake_adb(tmp_path))
    outcome = tcc("bench", built, "--adb")
    assert outcome.code == 2
    assert "error[E0657]" in outcome.err
