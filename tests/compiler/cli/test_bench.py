"""`tcc bench`: what a bundle costs, in text and in JSON."""

import pytest

from tcc.compiler.bundle import benchmark
from tcc.compiler.bundle.benchmark import CostComparison, CostVerdict


def test_a_bundle_is_timed(tcc, built):
    ended = tcc("bench", built, "--runs", "3")
    assert ended.code == 0, ended.err
    head, columns, *rows, memory, _ = ended.out.splitlines()
    assert head.startswith(f"{built}: ONNX Runtime ")
    assert columns.split("  ")[-1].strip() == "first ms"
    assert [row.split()[0] for row in rows] == ["load", "preprocess", "network"]
    assert memory.startswith("memory: ")


def test_the_document_has_all_of_it(tcc, built):
    (found,) = tcc("bench", built, "--runs", "3", "--json").document["bundles"]
    assert (found["target"], found["precision"]) == ("onnxruntime", "fp32")
    for part in ("load", "preprocess", "network"):
        times = found[part]["times"]
        assert 0 < times["low"] <= times["median"] <= times["high"]
        assert found[part]["cycles"] is None
    assert found["network"]["times"]["runs"] == 3
    assert found["memory"]["files"] == (built / "model/model.onnx").stat().st_size


def test_two_are_compared(tcc, built):
    ended = tcc("bench", built, built, "--runs", "3", "--json")
    comparison = ended.document["comparison"]
    assert comparison["by"] == "time"
    first, second = ended.document["bundles"]
    medians = [each["network"]["times"]["median"] for each in (first, second)]
    assert comparison["ratio"] == pytest.approx(medians[1] / medians[0])
    assert " times the time of " in tcc("bench", built, built, "--runs", "3", "-q").out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["{0}", "{0}", "{0}"], "E0601"),
        (["{0}", "--threads", "2"], "E0601"),
        (["nowhere"], "E0620"),
    ],
)
def test_mistakes(tcc, built, words, code):
    ended = tcc("bench", *(word.format(built) for word in words))
    assert ended.code == 2
    assert f"error[{code}]" in ended.err


def test_a_damaged_model_is_not_measured(tcc, built):
    (built / "model/model.onnx").write_bytes(b"no model")
    ended = tcc("bench", built)
    assert ended.code == 2
    assert "error[E0622]" in ended.err


SLOWER = "integers take longer than floats here"


@pytest.fixture
def in_integers(tcc, home, images):
    words = ("build", "tiny.yaml", "--target", "onnxruntime", "--precision", "int8")
    assert tcc(*words, "--data", images, "-q").code == 0
    return home / "build/tiny-onnxruntime-int8"


def test_slower_integers_are_told(tcc, built, in_integers, monkeypatch):
    folders = {"f": built, "i": in_integers}
    cases = {
        ("fi", 1.5): True,
        ("fi", 0.5): False,
        ("fi", 1.1): False,  # undecided
        ("if", 0.5): True,
        ("if", 1.5): False,
        ("ff", 1.5): False,
        ("ii", 0.5): False,
    }
    for (order, ratio), said in cases.items():
        away = abs(ratio - 1) > benchmark.MIN_COST_DIFFERENCE
        verdict = ("more" if ratio > 1 else "less") if away else "undecided"
        found = CostComparison("time", ratio, CostVerdict(verdict))
        monkeypatch.setattr(benchmark, "compare_costs", lambda *_, found=found: found)
        ended = tcc("bench", *(folders[which] for which in order), "--runs", "1", "-q")
        assert (SLOWER in ended.err) is said, (order, ratio)
