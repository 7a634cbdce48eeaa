"""`tcc bench`: the cost of a bundle, as text and JSON."""

import pytest

from tcc.compiler.bundle import benchmark
from tcc.compiler.bundle.benchmark import CostComparison, CostVerdict


def test_bench_prints_a_table(tcc, built):
    outcome = tcc("bench", built, "--runs", "3")
    assert outcome.code == 0, outcome.err
    head, columns, *rows, memory, _ = outcome.out.splitlines()
    assert head.startswith(f"{built}: ONNX Runtime ")
    assert columns.split("  ")[-1].strip() == "first ms"
    assert [row.split()[0] for row in rows] == ["load", "preprocess", "network"]
    assert memory.startswith("memory: ")


def test_json_has_all_measurements(tcc, built):
    (bundle_report,) = tcc("bench", built, "--runs", "3", "--json").document["bundles"]
    assert (bundle_report["target"], bundle_report["precision"]) == ("onnxruntime", "fp32")
    for part in ("load", "preprocess", "network"):
        times = bundle_report[part]["times"]
        assert 0 < times["low"] <= times["median"] <= times["high"]
        assert bundle_report[part]["cycles"] is None
    assert bundle_report["network"]["times"]["runs"] == 3
    assert bundle_report["memory"]["files"] == (built / "model/model.onnx").stat().st_size


def test_two_bundles_are_compared(tcc, built):
    outcome = tcc("bench", built, built, "--runs", "3", "--json")
    comparison = outcome.document["comparison"]
    assert comparison["by"] == "time"
    first_report, second_report = outcome.document["bundles"]
    medians = [
        bundle_report["network"]["times"]["median"]
        for bundle_report in (first_report, second_report)
    ]
    assert comparison["ratio"] == pytest.approx(medians[1] / medians[0])
    assert " times the time of " in tcc("bench", built, built, "--runs", "3", "-q").out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["{0}", "{0}", "{0}"], "E0601"),
        (["{0}", "--threads", "2"], "E0601"),
        (["nowhere"], "E0620"),
    ],
)
def test_wrong_arguments_are_refused(tcc, built, arguments, code):
    outcome = tcc("bench", *(arg.format(built) for arg in arguments))
    assert outcome.code == 2
    assert f"error[{code}]" in outcome.err


def test_damaged_bundle_is_refused(tcc, built):
    (built / "model/model.onnx").write_bytes(b"no model")
    outcome = tcc("bench", built)
    assert outcome.code == 2
    assert "error[E0622]" in outcome.err


SLOWER_MESSAGE = "the int8 model is slower here than the fp32 model"


@pytest.fixture
def int8_bundle(tcc, home, images):
    args = ("build", "tiny.yaml", "--target", "onnxruntime", "--precision", "int8")
    assert tcc(*args, "--data", images, "-q").code == 0
    return home / "build/tiny-onnxruntime-int8"


def test_slower_int8_model_is_reported(tcc, built, int8_bundle, monkeypatch):
    folders = {"f": built, "i": int8_bundle}
    cases = {
        ("fi", 1.5): True,
        ("fi", 0.5): False,
        ("fi", 1.1): False,  # undecided
        ("if", 0.5): True,
        ("if", 1.5): False,
        ("ff", 1.5): False,
        ("ii", 0.5): False,
    }
    for (order, ratio), is_reported in cases.items():
        away = abs(ratio - 1) > benchmark.MIN_COST_DIFFERENCE
        verdict = ("more" if ratio > 1 else "less") if away else "undecided"
        comparison = CostComparison("time", ratio, CostVerdict(verdict))
        monkeypatch.setattr(
            benchmark, "compare_costs", lambda *_, comparison=comparison: comparison
        )
        outcome = tcc("bench", *(folders[which] for which in order), "--runs", "1", "-q")
        assert (SLOWER_MESSAGE in outcome.err) is is_reported, (order, ratio)
