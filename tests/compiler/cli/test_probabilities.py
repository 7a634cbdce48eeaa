"""Calibration errors and decision curves in `tcc eval`, `tcc plot`, a training and its report page."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from training_nets import RECIPE, draw
from training_nets import SPEC as TRAINED_SPEC

from tcc.backends.onnxruntime.backend import OnnxRuntime

LABELS = ("cat", "dog", "owl")


@pytest.fixture
def calibrated(home, monkeypatch):
    """Make an artifact state probabilities that are right, or `sharpness` times too sure."""

    def draw_images(count, sharpness=1.0, seed=0):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 1.5, (count, 3)).astype(np.float32)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        truth = [rng.choice(3, p=row / row.sum()) for row in shares]
        for number, label in enumerate(truth):
            path = home / "set" / LABELS[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(path)

        def run(self, target, folder, pictures):
            numbers = [int(p[0, 0, 0]) + 256 * int(p[0, 0, 1]) for p in pictures]
            return [{"logits": logits[n] * np.float32(sharpness)} for n in numbers]

        monkeypatch.setattr(OnnxRuntime, "run", run, raising=False)
        return logits * sharpness, np.array(truth)

    return draw_images


def compute_error(logits, truth):
    """The ECE by its definition."""
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence, correct = shares.max(axis=1), shares.argmax(axis=1) == truth
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs((correct - confidence)[bins == k].sum()) for k in range(15)]
    return sum(gaps) / len(truth)


@pytest.mark.parametrize("count", [12, 300])
def test_calibrated_network_is_not_called_miscalibrated(tcc, built, calibrated, count):
    logits, truth = calibrated(count)
    outcome = tcc("eval", built, "--data", "set")
    assert outcome.code == 0, outcome.err
    assert "miscalibrated" not in outcome.out
    assert "no error beyond chance is shown" in outcome.out
    (measured,) = tcc("eval", built, "--data", "set", "--json").document["calibration_errors"]
    assert measured["error"] == pytest.approx(compute_error(logits, truth), abs=1e-6)
    assert f"ECE {measured['error']:.4f} on {count} images;" in outcome.out
    assert measured["miscalibrated"] is False
    assert measured["error"] <= measured["limit"]
    assert (measured["images"], measured["cases"], measured["level"]) == (count, None, 0.95)
    assert sum(row["images"] for row in measured["bins"]) == count


def test_overconfident_network_is_called_miscalibrated(tcc, built, calibrated):
    logits, truth = calibrated(300, sharpness=3.0)
    outcome = tcc("eval", built, "--data", "set")
    assert "% of draws: miscalibrated (mean confidence 0." in outcome.out
    (measured,) = tcc("eval", built, "--data", "set", "--json").document["calibration_errors"]
    assert measured["miscalibrated"] is True
    assert measured["error"] == pytest.approx(compute_error(logits, truth), abs=1e-6)


def test_temperature_of_the_operating_point_applies(tcc, home, built, calibrated):
    """The probabilities are those that users of the bundle see."""
    calibrated(400, sharpness=3.0)
    for path in sorted((home / "set").glob("*/*.png")):
        side = home / "sides" / ("val" if int(path.stem) % 2 else "test") / path.parent.name
        side.mkdir(parents=True, exist_ok=True)
        path.rename(side / path.name)
    before = tcc("eval", built, "--data", "sides/test", "--json").document
    fitted = tcc("eval", built, "--data", "sides", "--fit", "--json").document
    assert before["calibration_errors"][0]["miscalibrated"] is True
    assert fitted["calibration_errors"][0]["miscalibrated"] is False


def test_decision_curve_of_each_class(tcc, built, calibrated):
    logits, truth = calibrated(60)
    document = tcc("eval", built, "--data", "set", "--json").document
    assert [curve["classes"] for curve in document["decision_curves"]] == [
        ["cat"],
        ["dog"],
        ["owl"],
    ]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for k, curve in enumerate(document["decision_curves"]):
        acts, weight = shares[:, k] >= 0.25, 0.25 / 0.75
        benefit = ((truth == k) & acts).mean() - weight * ((truth != k) & acts).mean()
        index = curve["thresholds"].index(0.25)
        assert curve["net_benefit"][index] == pytest.approx(benefit)
        assert curve["low"][index] < benefit < curve["high"][index]
        assert curve["treat_all"][index] == pytest.approx(
            (truth == k).mean() - weight * (truth != k).mean()
        )
        assert curve["treat_none"] == 0
        assert curve["positives"] == (truth == k).sum()
    text = tcc("eval", built, "--data", "set").out
    assert re.search(r"\ncat    -?0\.\d{4} \(all -?0\.\d{4}\)", text)


def test_decision_curve_of_target_classes(tcc, built, calibrated):
    logits, truth = calibrated(60)
    command = ("eval", built, "--data", "set", "--class", "OWL+cat")
    (curve,) = tcc(*command, "--json").document["decision_curves"]
    assert curve["classes"] == ["cat", "owl"]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    acts, positive = shares[:, [0, 2]].sum(axis=1) >= 0.5, truth != 1
    benefit = (positive & acts).mean() - (~positive & acts).mean()
    assert curve["net_benefit"][49] == pytest.approx(benefit)
    text = tcc(*command).out
    assert f"net benefit of acting on `cat+owl`, on 60 images, {positive.mean():.2%} of" in text
    assert f"\n50%        {benefit:.4f} ({curve['low'][49]:.4f}-{curve['high'][49]:.4f})" in text


def test_positive_class_of_the_operating_point_has_the_curve(tcc, home, built, calibrated):
    calibrated(200)
    for path in sorted((home / "set").glob("*/*.png")):
        side = home / "sides" / ("val" if int(path.stem) % 2 else "test") / path.parent.name
        side.mkdir(parents=True, exist_ok=True)
        path.rename(side / path.name)
    outcome = tcc("eval", built, "--data", "sides", "--fit", "--positive", "dog", "--json")
    assert outcome.code == 0, outcome.err
    assert [c["classes"] for c in outcome.document["decision_curves"]] == [["dog"]]


def test_networks_are_compared_with_their_errors(tcc, built, calibrated):
    calibrated(60)
    outcome = tcc("eval", built, "tiny.yaml", "--data", "set")
    assert outcome.code == 0, outcome.err
    assert f"{built}: ECE " in outcome.out
    assert "\ntiny: ECE " in outcome.out


def test_outputs_without_probabilities_have_neither(tcc, home, images):
    text = (home / "tiny.yaml").read_text()
    (home / "tiny.yaml").write_text(text.replace("activation: softmax, ", ""))
    command = ("eval", "tiny.yaml", "--data", images)
    outcome = tcc(*command)
    assert outcome.code == 0, outcome.err
    assert "calibration error" not in outcome.out
    assert "decision curve" not in outcome.out
    document = tcc(*command, "--json").document
    assert (document["calibration_errors"], document["decision_curves"]) == ([], [])
    refused = tcc(*command, "--class", "cat")
    assert (refused.code, refused.out) == (2, "")
    assert "`--class` has no effect: `logits` has no probabilities" in refused.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cta", "did you mean `cat`?"),
        ("cat+", "the network has no class ``"),
        ("cat+dog+owl", "every image is positive"),
        ("7", "the network has no class `7`"),
    ],
)
def test_unknown_target_classes_are_refused(tcc, built, images, name, message):
    outcome = tcc("eval", built, "--data", images, "--class", name)
    assert (outcome.code, outcome.out) == (2, "")
    assert "error[E1262]" in outcome.err
    assert message in outcome.err


def test_many_classes_need_a_name(tcc, home, images):
    command = ("--data", images, "--set", "classes=13")
    (images / "cat").rename(images / "4")
    (images / "dog").rename(images / "0")
    document = tcc("eval", "tiny.yaml", *command, "--json").document
    assert document["decision_curves"] == []
    document = tcc("eval", "tiny.yaml", *command, "--class", "4", "--json").document
    assert document["decision_curves"][0]["positives"] == 12


class TestPlots:
    @pytest.fixture(autouse=True)
    def require_matplotlib(self):
        pytest.importorskip("matplotlib")

    def test_diagram_shows_the_bins(self, tcc, home, built, calibrated):
        calibrated(60)
        command = ("plot", "reliability", built, "--data", "set", "-o", "r.svg")
        outcome = tcc(*command, "--json")
        assert outcome.code == 0, outcome.err
        (measured,) = outcome.document["calibration_errors"]
        evaluated = tcc("eval", built, "--data", "set", "--json").document["calibration_errors"][0]
        assert {**measured, "miscalibrated": False} == evaluated
        first = (home / "r.svg").read_bytes()
        assert first.startswith(b"<?xml")
        assert tcc(*command).code == 0
        assert (home / "r.svg").read_bytes() == first

    def test_figures_have_the_numbers_and_both_alternatives(self, tcc, built, calibrated):
        from tcc.compiler.data.probability_quality import DecisionCurve, Reliability
        from tcc.compiler.plots import drawing, probability_plots
        from tcc.compiler.support import json_records

        calibrated(60)
        document = tcc("plot", "decision-curve", built, "--data", "set", "--class", "dog+owl",
                       "-o", "c.png", "--json").document  # fmt: skip
        (curve,) = (json_records.decode(DecisionCurve, c) for c in document["decision_curves"])
        figure = drawing.draw_styled(lambda: probability_plots.draw_curves([curve], "title"))
        (axes,) = figure.axes
        lines = {line.get_label(): line.get_ydata() for line in axes.lines}
        assert set(lines) == {"network", "all", "none"}
        assert list(lines["network"]) == list(curve.net_benefit)
        assert list(lines["all"]) == list(curve.treat_all)
        assert not any(lines["none"])
        measured = tcc("eval", built, "--data", "set", "--json").document["calibration_errors"][0]
        verdict = measured.pop("miscalibrated")
        reliability = json_records.decode(Reliability, measured)
        figure = drawing.draw_styled(
            lambda: probability_plots.draw_reliability([reliability], "title")
        )
        (axes,) = figure.axes
        assert f"ECE {reliability.error:.4f}" in axes.get_title()
        assert ("miscalibrated" in axes.get_title()) is verdict is False
        points = next(line for line in axes.lines if line.get_marker() == "o")
        assert list(points.get_ydata()) == [b.accuracy for b in reliability.bins]

    @pytest.mark.parametrize("kind", ["reliability", "decision-curve"])
    def test_outputs_without_probabilities_are_refused(self, tcc, home, images, kind):
        text = (home / "tiny.yaml").read_text()
        (home / "tiny.yaml").write_text(text.replace("activation: softmax, ", ""))
        outcome = tcc("plot", kind, "tiny.yaml", "--data", images)
        assert (outcome.code, "`logits` has no probabilities to plot" in outcome.err) == (2, True)

    def test_too_many_classes_are_refused(self, tcc, images):
        (images / "cat").rename(images / "4")
        (images / "dog").rename(images / "0")
        outcome = tcc(
            "plot", "decision-curve", "tiny.yaml", "--data", images, "--set", "classes=13"
        )
        assert outcome.code == 2
        assert "13 classes are too many for one figure" in outcome.err
        assert "with `--class`" in outcome.err

    def test_python_plots_match_the_commands(self, tcc, home, images):
        from tcc import plot

        plot.reliability("tiny.yaml", images, "python.svg")
        plot.decision_curve("tiny.yaml", images, "curve.svg", shown="cat")
        assert tcc("plot", "reliability", "tiny.yaml", "--data", images, "-o", "a.svg").code == 0
        command = ("plot", "decision-curve", "tiny.yaml", "--data", images, "--class", "cat")
        assert tcc(*command, "-o", "b.svg").code == 0
        assert (home / "python.svg").read_bytes() == (home / "a.svg").read_bytes()
        assert (home / "curve.svg").read_bytes() == (home / "b.svg").read_bytes()


@pytest.fixture
def trained(tcc, home):
    """A training whose images are of patients, four each."""
    pytest.importorskip("torch")
    (home / "net.yaml").write_text(TRAINED_SPEC)
    (home / "own.yaml").write_text(RECIPE)
    lines = ["file,label,group,split"]
    for number in range(48):
        label = ("blue", "red")[number % 2]
        draw(home / "set" / f"{number}.png", label, number)
        side = ("train", "val", "test")[number // 4 % 3]
        lines.append(f"{number}.png,{label},patient {number // 4},{side}")
    (home / "set/index.csv").write_text("\n".join(lines) + "\n")
    outcome = tcc("train", "net.yaml", "--data", "set", "--recipe", "own.yaml", "--epochs", 1,
                  "--threads", 1, "-o", "run", "-q")  # fmt: skip
    assert outcome.code == 0, outcome.err
    return home


def test_cases_count_in_the_training_and_the_evaluation(tcc, trained):
    test = json.loads((trained / "run/report.json").read_text())["test"]
    command = ("eval", "net.yaml", "--weights", "run/weights.safetensors", "--data", "set")
    document = tcc(*command, "--json").document
    (measured,) = document["calibration_errors"]
    assert (measured["images"], measured["cases"]) == (16, 4)
    assert {**test["calibration_errors"][0], "miscalibrated": measured["miscalibrated"]} == measured
    assert [curve["cases"] for curve in document["decision_curves"]] == [4, 4]
    assert "on 16 images of 4 cases" in tcc(*command).out
    for short, full in zip(test["decision_curves"], document["decision_curves"], strict=True):
        assert short["classes"] == full["classes"]
        assert len(short["thresholds"]) == 19
        indices = [full["thresholds"].index(t) for t in short["thresholds"]]
        for key in ("net_benefit", "low", "high", "treat_all"):
            assert short[key] == [full[key][i] for i in indices]


def test_report_page_has_both(tcc, trained):
    build = ("build", "net.yaml", "--target", "ort", "--weights", "run/weights.safetensors")
    outcome = tcc(*build, "--report", "-q")
    assert outcome.code == 0, outcome.err
    page = trained / "build/tiny-onnxruntime-fp32/report.html"
    text = page.read_text()
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings[1:4] == ["Accuracy by class", "Calibration of probabilities", "Decision curves"]
    test = json.loads((trained / "run/report.json").read_text())["test"]
    (measured,) = test["calibration_errors"]
    assert f"ECE {measured['error']:.4f} on 16 images of 4 cases;" in text
    curve = test["decision_curves"][1]
    i = curve["thresholds"].index(0.2)
    cells = f'<th scope="row">red</th><td class="n">20%</td><td class="n">{curve["net_benefit"][i]:.4f}</td>'
    assert cells in text
    assert text.count('alt="decision curve of ') == 2
    assert text.count('alt="reliability diagram') == 1
    before = page.read_bytes()
    assert tcc(*build, "--report", "-q", "-o", "again").code == 0
    assert (trained / "again/tiny-onnxruntime-fp32/report.html").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda test: test["calibration_errors"][0].update(error=float("nan")),
        lambda test: test["calibration_errors"][0].update(images=17),
        lambda test: test["calibration_errors"][0]["bins"][0].update(accuracy=1.5),
        lambda test: test["calibration_errors"][0].update(more=1),
        lambda test: test["decision_curves"][0]["low"].pop(),
        lambda test: test["decision_curves"][0].update(positives=99),
        lambda test: test["decision_curves"][0]["high"].__setitem__(0, float("inf")),
    ],
)
def test_invalid_records_of_a_training_are_ignored(trained, change):
    """A report that was changed by hand is no record of these weights."""
    from tcc.compiler.data import training_record

    path = trained / "run/report.json"
    report = json.loads(path.read_text())
    assert training_record.read_run(trained / "run", report["weights"]).reliability
    change(report["test"])
    path.write_text(json.dumps(report))
    assert training_record.read_run(trained / "run", report["weights"]) is None


def test_training_without_probabilities_and_old_reports_have_no_sections(tcc, trained):
    path = trained / "run/report.json"
    report = json.loads(path.read_text())
    for key in ("calibration_errors", "decision_curves"):
        del report["test"][key]
    path.write_text(json.dumps(report))
    build = ("build", "net.yaml", "--target", "ort", "--weights", "run/weights.safetensors")
    assert tcc(*build, "--report", "-q").code == 0
    text = (trained / "build/tiny-onnxruntime-fp32/report.html").read_text()
    assert "Accuracy by class" in text
    assert "Calibration of probabilities" not in text
    assert "Decision curves" not in text
