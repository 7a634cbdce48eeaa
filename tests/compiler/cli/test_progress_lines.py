"""Without a terminal, long work prints its progress from time to time."""

import time

import pytest

from tcc.compiler.support import console
from tcc.compiler.support.console import ProgressLines, Report


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(console, "LOG_INTERVAL", 0.1)


def report_stages(report, seconds=0.5):
    with report.track_stages() as stages:
        stages("images", 0, 40)
        stages("images", 10, 40)
        time.sleep(seconds)
        stages.finish_stage()


def test_long_stage_prints_lines_on_standard_error(capsys):
    report_stages(Report())
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert 2 <= len(lines) <= 5
    assert set(lines) <= {"images: 25%, after 0 min 00 s", "images: 25%, after 0 min 01 s"}


def test_short_or_quiet_stages_print_nothing(capsys):
    report_stages(Report(), 0)
    report_stages(Report(quiet=True))
    assert capsys.readouterr() == ("", "")


def test_other_output_postpones_progress_lines(capsys):
    report = Report()
    with report.track_stages() as stages:
        stages("training", 1, 9)
        for epoch in range(10):
            time.sleep(0.04)
            report.print_note(f"epoch {epoch}")
            stages.record_output()
    assert all(line.startswith("epoch ") for line in capsys.readouterr().err.splitlines())


def test_stage_with_one_part_has_no_percentage():
    lines = []
    watching = ProgressLines(lines.append)
    watching.update("write", 0, 1)
    watching.add_detail("model.onnx")
    watching.start()
    time.sleep(0.25)
    watching.stop()
    assert lines
    assert set(lines) == {"write: model.onnx, after 0 min 00 s"}
    count = len(lines)
    time.sleep(0.15)
    assert len(lines) == count
