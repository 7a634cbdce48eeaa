"""`-o`, `--output` and `--out` are the same option in every command that writes."""

import pytest

WRITE = [
    ("build", "ddsnet", "--target", "ax620"),
    ("calibrate", "ddsnet"),
    ("show", "ddsnet"),
    ("import", "there-is-none.onnx"),
    ("import-weights", "ddsnet", "there-is-none.pth"),
]


@pytest.mark.parametrize("command", WRITE, ids=lambda command: command[0])
@pytest.mark.parametrize("option", ["-o", "--output", "--out"])
def test_every_writing_command_accepts_each_spelling(tcc, tmp_path, monkeypatch, command, option):
    monkeypatch.chdir(tmp_path)
    outcome = tcc(*command, option, "missing/x")
    assert "No such option" not in outcome.err
    assert outcome.code == tcc(*command, "-o", "missing/x").code
    assert "--out " not in tcc(command[0], "--help").out


def test_old_spelling_writes(tcc, tmp_path):
    output_path = tmp_path / "graph.txt"
    assert tcc("show", "ddsnet", f"--out={output_path}").code == 0
    assert output_path.read_text()
