"""The fuzzer: a few cases of every input kind are handled, and faults are detected."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

SHARE = 0.0005
"""Share of a full run, which takes hours: `python tools/fuzz`."""


QUICK = ("specs", "programs", "onnx", "checkpoints")
"""Fuzzed inputs that need no build first."""


@pytest.mark.parametrize(
    "fronts",
    [
        pytest.param(QUICK, marks=pytest.mark.slow, id="quick"),
        pytest.param((), marks=pytest.mark.nightly, id="all"),
    ],
)
def test_hostile_inputs_are_handled(root, tmp_path, fronts):
    counts = tmp_path / "counts.json"
    program = [
        sys.executable,
        root / "tools/fuzz",
        *fronts,
        "--share",
        str(SHARE),
        "--json",
        counts,
    ]
    completed = subprocess.run(program, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    front_counts = json.loads(counts.read_text())
    assert len(front_counts) == len(fronts) or (not fronts and len(front_counts) > len(QUICK))
    assert all(front["cases"] > 0 for front in front_counts)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_counts_are_reported_when_interrupted(root, tmp_path, number):
    counts, temporary = tmp_path / "counts.json", tmp_path / "tmp"
    temporary.mkdir()
    program = [sys.executable, root / "tools/fuzz", "specs", "--json", counts, "--start", "7"]
    variables = {**os.environ, "TMPDIR": str(temporary)}
    # In a background job of a shell, SIGINT is ignored, also in all child processes.
    command = ["env", "--default-signal=INT", *program]
    running = subprocess.Popen(command, env=variables, text=True, stdout=-1, stderr=-1)
    while not list(temporary.glob("*/specs-9-*")):  # two cases were counted
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(number)
    out, err = running.communicate()
    assert running.returncode == 130
    assert "Traceback" not in err
    (saved_counts,) = json.loads(counts.read_text())
    assert saved_counts["cases"] >= 2
    assert saved_counts["next"] == 7 + saved_counts["cases"]
    printed_counts = json.loads(out.splitlines()[-1])
    assert (printed_counts["cases"], printed_counts["next"]) == (
        saved_counts["cases"],
        saved_counts["next"],
    )
    assert list(temporary.iterdir()) == []


def burn():
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    sys.exit(0)


def fill():
    memory = bytearray(os.urandom(1)) * (256 << 20)
    sys.exit(not memory)


def hang():
    time.sleep(30)


def fall():
    raise ValueError


def print_traceback():
    sys.stderr.write("Traceback (most recent call last)")
    sys.exit(2)


@pytest.mark.parametrize(
    ("program", "wrong"),
    [
        (lambda: sys.exit(0), ""),
        (lambda: sys.exit(2), ""),
        (lambda: sys.exit(1), "exit 1"),
        (lambda: sys.exit("words"), "exit 1"),
        (lambda: os.kill(os.getpid(), 9), "exit -9"),
        (fall, "exit 1"),
        (print_traceback, "traceback"),
        (burn, "0 s"),
        (fill, "MiB"),
        (hang, "no exit"),
        (lambda: open("made", "w").close(), "made"),
    ],
)
def test_crashes_and_hangs_are_detected(root, monkeypatch, tmp_path, program, wrong):
    monkeypatch.syspath_prepend(str(root / "tools/fuzz"))
    import case
    import child
    import judge

    monkeypatch.setattr("tcc.compiler.cli.main", program)
    monkeypatch.setattr(child, "PATIENCE", 1 if program is hang else 60)
    monkeypatch.setattr(judge, "SECONDS", 0.2 if program is burn else 20)
    monkeypatch.setattr(judge, "PEAK", 50 << 20)

    def check(_, folder):
        return "made" if (folder / "made").exists() else ""

    fuzz_case = case.Case(("check", "spec.yaml"), {"spec.yaml": b"tcc: 1"}, check=check)
    (tmp_path / "case").mkdir()
    verdict = judge.check_outcome(
        child.run(fuzz_case, tmp_path / "case"), fuzz_case, tmp_path / "case"
    )
    assert wrong in verdict
    assert bool(verdict) == bool(wrong)
