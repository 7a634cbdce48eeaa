"""`-o`, `--output` and `--out`: one spelling of one option, whichever command writes."""

import pytest

WRITE = [
    ("build", "ddsnet", "--target", "ax620"),
    ("calibrate", "ddsnet"),
    ("show", "ddsnet"),
    ("import", "there-is-none.onnx"),
    ("import-weights", "ddsnet", "there-is-none.pth"),
]


@pytest.mark.parametrize("words", WRITE, ids=lambda words: words[0])
@pytest.mark.parametrize("option", ["-o", "--output", "--out"])
def test_every_command_that_writes_takes_each_spelling(tcc, tmp_path, monkeypatch, words, option):
    monkeypatch.chdir(tmp_path)
    outcome = tcc(*words, option, "missing/x")
    assert "No such option" not in outcome.err
    assert outcome.code == tcc(*words, "-o", "missing/x").code
    assert "--out " not in tcc(words[0], "--help").out


def test_the_old_spelling_writes(tcc, tmp_path):
    output_path = tmp_path / "graph.txt"
    assert tcc("show", "ddsnet", f"--out={output_path}").code == 0
    assert output_path.read_text()
