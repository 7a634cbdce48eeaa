"""`tcc eval --fit` and the commands that use its result; single decisions; several networks."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from paired_split import write_split
from PIL import Image

from tcc.compiler.ir.device import Device

LABELS = ("cat", "dog", "owl")


def draw(folder, shades):
    """Write an image for each shade of each class. Images differ by number and class."""
    for label, values in shades.items():
        for number, shade in enumerate(values):
            path = folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(
                "RGB", (8, 8), (shade, number, LABELS.index(label) if label in LABELS else 9)
            ).save(path)


@pytest.fixture
def answers(monkeypatch):
    """Make the artifact compute its outputs from the shade of the first pixel."""

    def set_logits(row, name="logits"):
        def run(self, folder, source, pictures):
            return [{name: np.float32(row(int(p[0, 0, 0])))} for p in pictures]

        # Not the backend: it would become an image runner, and `isinstance` caches that.
        monkeypatch.setattr(Device, "run", run)

    return set_logits


@pytest.fixture
def splits(home):
    # owls have shades 40, 60, 80, others 10 to 50: in `val` the best threshold is between 30 and 40
    draw(home / "set/val", {"cat": [10, 20], "dog": [30, 50], "owl": [40, 60, 80]})
    draw(home / "set/test", {"cat": [12, 33], "dog": [52], "owl": [34, 36, 70]})
    return home / "set"


def compute_owl_logits(shade):
    return [1.0, 0.0, shade / 10]


def test_fit_uses_one_split_and_evaluates_on_the_other(tcc, built, splits, answers, home):
    answers(compute_owl_logits)
    files_before = {
        p: p.read_bytes() for p in built.rglob("*") if p.is_file() and p.name != "manifest.json"
    }
    outcome = tcc("eval", built, "--data", splits, "--fit", "--positive", "owl", "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.document
    point = document["operating_point"]
    assert point["positive"] == 2
    low, high = (compute_owl_log_odds(point, shade) for shade in (30, 40))
    assert point["thresholds"] == [pytest.approx((low + high) / 2)]
    assert point["fitted"]["images"] == 7
    assert point["fitted"]["program"] == "onnxruntime fp32"
    before_it, with_it = point["fitted"]["likelihood"]
    assert with_it < before_it
    assert document["data"]["images"] == 6
    assert document["classes"][2]["predicted"] == 3  # 36, 52 and 70
    assert document["classes"][2]["sensitivity"] == pytest.approx(2 / 3)
    assert document["classes"][2]["specificity"] == pytest.approx(2 / 3)
    assert {p: p.read_bytes() for p in files_before} == files_before
    manifest_json = json.loads((built / "manifest.json").read_text())
    assert manifest_json["operating_points"][0]["thresholds"] == point["thresholds"]
    assert tcc("show", built).code == 0
    second_outcome = tcc("eval", built, "--data", splits, "--json")
    assert second_outcome.document["confusion"] == document["confusion"]
    assert second_outcome.document["operating_point"]["stored"] is None
    assert "evaluated on" in second_outcome.err


def compute_owl_log_odds(point, shade):
    """Return the log-odds of `compute_owl_logits` for a shade."""
    t = point["temperature"]
    return shade / 10 / t - math.log(math.exp(1 / t) + 1)


def test_verify_and_run_use_the_stored_operating_point(tcc, built, splits, picture):
    plain_output = tcc("run", built, picture, "--json").document["images"][0]["outputs"]["logits"]
    fit = ("eval", built, "--data", splits, "--fit", "--positive", "dog", "--sensitivity", "0.95",
           "--confidence", 0)  # fmt: skip
    assert tcc(*fit).code == 0
    assert tcc("verify", built).code == 0
    point = json.loads((built / "manifest.json").read_text())["operating_points"][0]
    assert point["criterion"] == "sensitivity of 0.95 or more"
    fitted_output = tcc("run", built, picture, "--json").document["images"][0]["outputs"]["logits"]
    assert fitted_output["raw"] == plain_output["raw"]
    powers = np.exp(np.array(fitted_output["raw"]) / point["temperature"])
    values = {class_row["label"]: class_row["value"] for class_row in fitted_output["classes"]}
    assert [values[label] for label in LABELS] == pytest.approx(powers / powers.sum())
    assert fitted_output["temperature"] == point["temperature"]
    raw = np.array(fitted_output["raw"]) / point["temperature"]
    odds = raw[1] - math.log(math.exp(raw[0]) + math.exp(raw[2]))
    other_class = "cat" if raw[0] >= raw[2] else "owl"
    expected_class = "dog" if odds >= point["thresholds"][0] else other_class
    assert [class_row["label"] for class_row in fitted_output["decision"]] == [expected_class]
    assert f"  decision: {expected_class}\n" in tcc("run", built, picture).out


def compute_shy_owl_logits(shade):
    """Without a threshold, shades from 51 are owls: two of 40, 60 and 80 are detected."""
    return [5.0, 0.0, shade / 10]


FIT_OWL = ("--fit", "--positive", "OWL", "--json", "--confidence", 0, "--sensitivity")


def test_sensitivity_is_reached_and_never_below_the_default(tcc, built, splits, answers):
    answers(compute_shy_owl_logits)
    args = ("eval", built, "--data", splits, *FIT_OWL)
    for min_sensitivity, between in (
        (1.0, (30, 40)),
        (0.6, (50, 60)),
        (0.3, (50, 60)),
        (0.01, (50, 60)),
    ):
        outcome = tcc(*args, min_sensitivity)
        assert outcome.code == 0, (min_sensitivity, outcome.err)
        point = outcome.document["operating_point"]
        low, high = (compute_shy_log_odds(point, shade) for shade in between)
        assert low < point["thresholds"][0] < high
        assert point["target"] == min_sensitivity


def compute_shy_log_odds(point, shade):
    t = point["temperature"]
    return shade / 10 / t - math.log(math.exp(5 / t) + 1)


def test_missed_sensitivity_is_a_warning_kept_in_the_bundle(tcc, built, splits, answers, picture):
    answers(compute_owl_logits)
    outcome = tcc("eval", built, "--data", splits, *FIT_OWL, 0.95, "-q")
    assert outcome.code == 0
    assert "warning[W0681]: the requested sensitivity of 0.95 for `owl` is not confirmed" in (
        outcome.err
    )
    assert "2 of 3 images are detected, a sensitivity of 0.6667" in outcome.err
    # 0.95^59 is the first power below 0.05; with one missed image, 93 are needed.
    assert "you need 59 images of `owl`, all detected, or 93 if 1 are missed." in outcome.err
    document = outcome.document
    assert document["warnings"][0]["code"] == "W0681"
    assert document["operating_point"]["positives_needed"] == [93]
    operating_point = json.loads((built / "manifest.json").read_text())["operating_points"][0]
    (check,) = operating_point["judged"]["thresholds"]
    assert (check["target"], check["positives"], check["detected"]) == (0.95, 3, 2)
    assert (check["label"], check["reached"]) == ("owl", False)
    assert check["at_least"] == pytest.approx(0.1353, abs=1e-4)  # Clopper and Pearson, one-sided
    ran = tcc("run", built, picture, "-q")
    assert ran.code == 0
    assert "warning: the requested sensitivity of 0.95 for `owl` is not confirmed" in ran.err
    assert "is not confirmed" in tcc("show", built).out
    second_outcome = tcc("eval", built, "--data", splits, "--json")
    assert "W0681" in second_outcome.err


def test_missed_sensitivity_is_an_error_with_strict(tcc, built, splits, answers):
    answers(compute_owl_logits)
    manifest_before = (built / "manifest.json").read_bytes()
    outcome = tcc("eval", built, "--data", splits, *FIT_OWL, 0.95, "--strict")
    assert outcome.code == 2
    assert outcome.document["diagnostics"][0]["code"] == "W0681"
    assert "error[W0681]" in outcome.err
    assert (built / "manifest.json").read_bytes() == manifest_before


def test_strict_needs_fitted_values(tcc, built, splits, answers):
    answers(compute_owl_logits)
    outcome = tcc("eval", built, "--data", splits, "--strict")
    assert outcome.code == 2
    assert "`--strict` has no effect: it is for specs and for fitted values" in outcome.err
    assert tcc("eval", built, "--data", splits, *FIT_OWL, 0.95).code == 0
    second_outcome = tcc("eval", built, "--data", splits, "--strict")
    assert second_outcome.code == 2
    assert "error[W0681]" in second_outcome.err


def test_confirmed_sensitivity_gives_no_warning(tcc, built, home, answers, picture):
    draw(home / "set/val", {"cat": [0, 1], "owl": [90, 91]})
    draw(home / "set/test", {"cat": [2, 3], "owl": range(60, 74)})
    answers(compute_owl_logits)
    outcome = tcc("eval", built, "--data", "set", *FIT_OWL, 0.8, "--strict")
    assert outcome.code == 0, outcome.err
    (check,) = outcome.document["operating_point"]["judged"]["thresholds"]
    assert check["reached"]  # 0.8^14 is below 0.05
    assert outcome.document["warnings"] == []
    assert "W06" not in outcome.err
    assert "asked for" not in tcc("run", built, picture).err


def test_largest_output_decides_if_no_threshold_is_as_good(tcc, built, splits, answers):
    # Owls near two other classes have smaller log-odds than others near one class, whichever output
    # is largest.
    values = {40: [3.95, 3.95, 4], 60: [3.95, 3.95, 4], 80: [0, 0, 4],
              10: [4.1, -9, 4], 20: [4.1, -9, 4], 30: [-9, 4.1, 4], 50: [0, 0, 0.5]}  # fmt: skip
    answers(lambda shade: values.get(shade, [0, 0, 1]))
    outcome = tcc("eval", built, "--data", splits, "--fit", "--positive", "owl", "--json")
    assert outcome.code == 0, outcome.err
    point = outcome.document["operating_point"]
    assert (point["positive"], point["thresholds"]) == (None, [])
    assert "no threshold for `owl` is stored" in outcome.err


def test_temperature_that_raises_the_log_loss_is_reported(tcc, built, home, answers):
    # More confident on `val`, where all but one answer are right, than is right for `test`.
    draw(home / "set/val", {"cat": [1, 2, 3, 4, 5, 6], "owl": [80, 81, 82, 83, 84, 9]})
    draw(home / "set/test", {"cat": [85, 86, 11], "owl": [12, 13, 88]})
    answers(lambda shade: [1.0, 0.0, 1 + (shade - 50) / 100])
    outcome = tcc("eval", built, "--data", "set", "--fit", "--json")
    assert outcome.code == 0, outcome.err
    plain_loss, fitted_loss = outcome.document["operating_point"]["judged"]["likelihood"]
    loss_before, loss_after = outcome.document["operating_point"]["fitted"]["likelihood"]
    assert loss_after <= loss_before
    assert fitted_loss > plain_loss
    assert "warning[W0682]: the temperature" in outcome.err


def test_int8_bundle_carries_float_values_or_is_fitted(tcc, home, built, splits):
    val_images = splits / "val"
    build = ("build", "tiny.yaml", "--target", "ort", "--precision", "int8", "--data", val_images, "-q",
             "--allow-few")  # fmt: skip
    assert tcc(*build).code == 0
    int8_bundle = "build/tiny-onnxruntime-int8"
    fit = (
        "--fit",
        "--positive",
        "owl",
        "--sensitivity",
        "0.6",
        "--confidence",
        0,
    )  # random weights
    floats = tcc("eval", built, "--data", splits, *fit, "--json").document["operating_point"]
    carried = tcc("eval", int8_bundle, "--data", splits, "--carry", built, "--json")
    assert carried.code == 0, carried.err
    assert carried.document["operating_point"]["fitted"]["program"] == "onnxruntime fp32"
    assert carried.document["operating_point"]["thresholds"] == floats["thresholds"]
    assert (
        "fitted on 7 images with onnxruntime fp32, applied to onnxruntime int8"
        in tcc("eval", int8_bundle, "--data", splits).out
    )
    assert tcc("verify", int8_bundle).code == 0
    fresh = tcc("eval", int8_bundle, "--data", splits, *fit)
    assert "with onnxruntime int8\n" in fresh.out
    assert f"stored in {int8_bundle}" in fresh.out


def test_evaluation_on_the_fit_images_is_reported(tcc, built, splits, answers):
    answers(compute_owl_logits)
    assert tcc("eval", built, "--data", splits, "--fit", "-q").code == 0
    outcome = tcc("eval", built, "--data", splits / "val", "-q")
    assert outcome.code == 0
    assert "temperature and thresholds were fitted to the images in" in outcome.err


def test_perfect_predictions_keep_temperature_1(tcc, built, home, answers):
    draw(home / "set/val", {"cat": [0, 1], "owl": [90, 91]})
    draw(home / "set/test", {"cat": [2], "owl": [92]})
    answers(compute_owl_logits)
    outcome = tcc("eval", built, "--data", "set", "--fit")
    assert outcome.code == 0, outcome.err
    assert "temperature 1 (no other temperature lowers the log loss)" in outcome.out


def test_fit_on_one_class_is_refused(tcc, built, home, answers):
    draw(home / "set/val", {"cat": [10, 20]})
    draw(home / "set/test", {"cat": [12], "owl": [92]})
    answers(compute_owl_logits)
    outcome = tcc("eval", built, "--data", "set", "--fit")
    assert outcome.code == 2
    assert "error[E1263]: all of these images have the class `cat`" in outcome.err


def test_programs_without_operating_points_are_reported(capsys):
    from tcc.compiler.driver.evaluation_run import report_programs
    from tcc.compiler.ir.backend import OperatingPointReader
    from tcc.compiler.support.console import Report
    from tcc.compiler.targets import devices

    for device in devices.list_devices():
        if isinstance(device.backend, OperatingPointReader):
            continue  # tests/backends/arm/test_operating_point.py
        report_programs(Report(), device, Path())
        stderr_text = capsys.readouterr().err
        assert ("programs for the board do not use the fitted values" in stderr_text) == bool(
            device.packager
        )


class TestSingleDecision:
    @pytest.fixture
    def single(self, tcc, home):
        def make(labels):
            text = (home / "tiny.yaml").read_text()
            head, _ = text.split("output:")
            (home / "tiny.yaml").write_text(
                f"{head}output:\n  sick: {{activation: sigmoid{labels}}}\n"
            )
            args = ("build", "tiny.yaml", "--set", "classes=1", "--target", "ort", "-q")
            assert tcc(*args).code == 0
            return home / "build/tiny-onnxruntime-fp32"

        return make

    def test_single_decision_is_evaluated_as_two_classes(self, tcc, home, single, answers):
        bundle = single(", labels: [sick]")
        answers(lambda shade: [shade - 40.0], "sick")
        draw(home / "set", {"well": [10, 20, 40], "other": [50], "SICK": [39, 60, 61, 62]})
        document = tcc("eval", bundle, "--data", "set", "--json").document
        assert document["confusion"] == [[2, 2], [1, 3]]
        assert [class_row["label"] for class_row in document["classes"]] == [
            "other or well",
            "sick",
        ]
        no, yes = document["classes"]
        assert (yes["sensitivity"], yes["specificity"]) == (3 / 4, 2 / 4)
        assert (no["sensitivity"], no["specificity"]) == (2 / 4, 3 / 4)
        # of 16 pairs, 39 is below only 40 and 50
        assert yes["auc"] == no["auc"] == 14 / 16
        assert document["accuracy"] == 5 / 8

    def test_threshold_of_a_single_decision_is_used(self, tcc, home, single, answers):
        bundle = single("")
        answers(lambda shade: [shade / 10], "sick")
        draw(home / "set/val", {"0": [10, 20, 50], "1": [30, 60, 70]})
        draw(home / "set/test", {"0": [11, 24], "1": [26, 71]})
        outcome = tcc("eval", bundle, "--data", "set", "--fit", "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.document["confusion"] == [[2, 0], [0, 2]]
        point = outcome.document["operating_point"]
        assert point["thresholds"] == [pytest.approx(2.5 / point["temperature"])]
        assert tcc("show", bundle).code == 0

    def test_missing_label_of_the_decision_is_refused(self, tcc, home, single):
        bundle = single(", labels: [sick]")
        draw(home / "set", {"well": [10], "sikc": [60]})
        outcome = tcc("eval", bundle, "--data", "set")
        assert outcome.code == 2
        assert (
            "error[E0715]: no image has the label `sick`, which the network decides on"
            in outcome.err
        )
        assert "labels: sikc, well" in outcome.err


def test_each_decision_has_metrics_and_a_threshold(tcc, home, answers):
    text = (home / "tiny.yaml").read_text()
    (home / "tiny.yaml").write_text(text.replace("activation: softmax", "activation: sigmoid"))
    assert tcc("build", "tiny.yaml", "--target", "ort", "-q").code == 0
    bundle = home / "build/tiny-onnxruntime-fp32"
    answers(lambda shade: [15.0 - shade, shade - 90.0, shade - 45.0])
    draw(home / "set/val", {"cat": [10, 20], "dog": [30, 50], "owl": [40, 60, 80]})
    draw(home / "set/test", {"cat": [11], "dog": [31], "owl": [61]})
    plain_document = tcc("eval", bundle, "--data", "set", "--json").document
    assert plain_document["confusion"] is None
    assert plain_document["correct"] == 2  # no decision is positive for the dog
    assert [class_row["predicted"] for class_row in plain_document["classes"]] == [1, 0, 1]
    outcome = tcc("eval", bundle, "--data", "set", "--fit", "--json")
    assert outcome.code == 0, outcome.err
    assert len(outcome.document["operating_point"]["thresholds"]) == 3
    assert outcome.document["classes"][1]["predicted"] == 2
    assert "decision: " in tcc("run", bundle, "set/test/dog/0.png").out


def test_labels_name_all_positive_decisions(tcc, home, answers):
    text = (home / "tiny.yaml").read_text()
    (home / "tiny.yaml").write_text(text.replace("activation: softmax", "activation: sigmoid"))
    assert tcc("build", "tiny.yaml", "--target", "ort", "-q").code == 0
    bundle = home / "build/tiny-onnxruntime-fp32"
    answers(lambda shade: [shade - 15.0, shade - 35.0, shade - 55.0])
    draw(
        home / "set", {"none": [10], "cat": [20, 30], "dog+Cat": [40], "cat + dog + owl": [60, 70]}
    )
    report = tcc("eval", bundle, "--data", "set", "--json").document
    assert report["correct"] == report["data"]["images"] == 6
    assert [class_row["support"] for class_row in report["classes"]] == [5, 3, 2]
    assert [class_row["specificity"] for class_row in report["classes"]] == [1, 1, 1]
    draw(home / "set", {"cat+bird": [20]})
    report = tcc("eval", bundle, "--data", "set")
    assert report.code == 2
    assert "error[E0715]: the network has no class `cat+bird`" in report.err
    assert "write `+` between several classes, and `none` for none" in report.err


class TestSeveral:
    def test_several_networks_are_compared_in_a_table(self, tcc, home, built, images):
        args = ("eval", "tiny.yaml", built, "--data", images)
        document = tcc(*args, "--json").document
        assert [network["accuracy"] for network in document["networks"]] == [
            document["networks"][0]["accuracy"]
        ] * 2
        (pair,) = document["pairs"]
        assert (pair["first"], pair["second"]) == ("tiny", str(built))
        assert (pair["first_only"], pair["second_only"], pair["p"], pair["exact"]) == (
            0,
            0,
            1,
            True,
        )
        text = tcc(*args).out
        assert text.startswith("24 images, 95 % confidence intervals\n")
        assert "McNemar's test" in text

    def test_common_warnings_are_reported_once(self, tcc, built, images):
        outcome = tcc("eval", built, built, "--data", images)
        assert outcome.code == 0, outcome.err
        assert outcome.err.count("warning: the weights are random (seed 0)") == 1

    def test_options_for_one_network_are_refused_for_several(self, tcc, built, images):
        outcome = tcc("eval", built, built, "--data", images, "--carry", built)
        assert outcome.code == 2
        assert "`--carry` has no effect: it is for one network" in outcome.err


class TestWhatIsWrong:
    def test_image_in_both_splits_is_refused(self, tcc, built, splits, answers):
        answers(compute_owl_logits)
        manifest_before = (built / "manifest.json").read_bytes()
        Image.open(splits / "val/owl/1.png").save(splits / "test/owl/copy.bmp")
        outcome = tcc("eval", built, "--data", splits, "--fit")
        assert (outcome.code, outcome.out) == (2, "")
        assert "error[E1261]: one image is used both for fitting" in outcome.err
        assert "val/owl/1.png equals" in outcome.err
        assert (built / "manifest.json").read_bytes() == manifest_before

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (("--fit", "--positive", "ow"), "E1262", "did you mean `owl`?"),
            (
                ("--fit", "--sensitivity", "0.9"),
                "E1262",
                "add --positive with one of cat, dog, owl",
            ),
            (("--positive", "owl"), "E0601", "`--positive` has no effect: it needs `--fit`"),
            (("--sensitivity", ".9"), "E0601", "`--sensitivity` has no effect: it needs `--fit`"),
            (
                ("--fit", "--confidence", ".9"),
                "E0601",
                "`--confidence` has no effect: it needs `--sensitivity`",
            ),
        ],
    )
    def test_wrong_options_are_refused(self, tcc, built, splits, answers, options, code, message):
        answers(compute_owl_logits)
        outcome = tcc("eval", built, "--data", splits, *options)
        assert outcome.code == 2
        assert f"error[{code}]" in outcome.err
        assert message in outcome.err

    def test_fit_on_a_spec_is_refused(self, tcc, splits):
        outcome = tcc("eval", "tiny.yaml", "--data", splits, "--fit")
        assert outcome.code == 2
        assert "`--fit` has no effect: it is for bundles, and the input is a spec" in outcome.err

    def test_fit_without_splits_is_refused(self, tcc, built, images):
        outcome = tcc("eval", built, "--data", images, "--fit")
        assert outcome.code == 2
        assert "error[E1260]" in outcome.err

    def test_network_without_predictive_value_is_refused(self, tcc, built, splits, answers):
        answers(lambda shade: [0, 0, 0])
        outcome = tcc("eval", built, "--data", splits, "--fit", "--positive", "owl")
        assert outcome.code == 2
        assert (
            "no threshold separates images of `owl` from others better than chance" in outcome.err
        )

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"temperature": 0.0}, "expected `float` >= 0.001"),
            ({"temperature": 1e9}, "expected `float` <= 1000.0"),
            ({"output": "other"}, "no output of this name is a row of classes or decisions"),
            ({"positive": 3}, "the positive class 3 does not exist"),
            ({"thresholds": []}, "it has 0 thresholds, not 1"),
            ({"positive": None}, "it has 1 thresholds, not 0"),
            ({"target": 0.5}, "`owl` is evaluated against another target"),
        ],
    )
    def test_forged_operating_point_is_refused(self, tcc, built, splits, answers, change, message):
        from tcc.compiler.support.json_records import seal

        answers(compute_owl_logits)
        assert tcc("eval", built, "--data", splits, "--fit", "--positive", "owl").code == 0
        manifest_json = json.loads((built / "manifest.json").read_text())
        manifest_json["operating_points"][0] |= change
        manifest_json["seal"] = seal(manifest_json)
        (built / "manifest.json").write_text(json.dumps(manifest_json))
        outcome = tcc("verify", built)
        assert outcome.code == 2
        assert "error[E0621]" in outcome.err
        assert message in outcome.err


MANY_SHADES = {"cat": [*range(40)], "dog": [45, 70], "owl": [*range(40, 100)]}


class TestCertifiedSensitivity:
    """60 owls of shades 40 to 99, of which 0.9 with 95 % confidence allows one miss."""

    @pytest.fixture
    def many(self, home):
        draw(home / "set/val", MANY_SHADES)
        draw(home / "set/test", {"cat": [12, 33], "dog": [52], "owl": [34, 36, 70]})
        return home / "set"

    FIT = ("--fit", "--positive", "owl", "--sensitivity", 0.9)

    def test_threshold_is_an_order_statistic_with_its_cost(self, tcc, built, many, answers):
        answers(compute_shy_owl_logits)
        outcome = tcc("eval", built, "--data", many, *self.FIT, "--json")
        assert outcome.code == 0, outcome.err
        point = outcome.document["operating_point"]
        low, high = (compute_shy_log_odds(point, shade) for shade in (40, 41))
        assert low < point["thresholds"][0] < high
        assert point["criterion"] == "sensitivity of 0.9 or more with 0.95 confidence"
        assert point["certificates"] == [
            {
                "label": "owl", "confidence": 0.95, "positives": 60, "cases": None,
                "allowed_misses": 1, "negatives": 42, "rejected": 40,
            }
        ]  # fmt: skip
        assert (
            "`owl`: on images like these, the sensitivity is 0.9 or more with 0.95 confidence "
            "(60 images, 1 of them may be missed); the specificity on these images is 0.9524 "
            "(40 of 42)" in tcc("eval", built, "--data", many).out
        )
        assert tcc("show", built).code == 0

    def test_temperature_does_not_depend_on_images_of_the_class(self, tcc, built, many, answers):
        answers(compute_shy_owl_logits)
        args = ("eval", built, "--data", many, *self.FIT, "--json")
        certified = tcc(*args).document["operating_point"]["temperature"]
        draw(many / "val", {"owl": [*range(40, 100), 200, 201]})
        assert tcc(*args).document["operating_point"]["temperature"] == certified
        uncertified = tcc(*args, "--confidence", 0).document["operating_point"]
        assert uncertified["temperature"] != certified
        assert "certificates" not in uncertified or not uncertified["certificates"]

    def test_few_contradicted_images_are_a_warning(self, tcc, built, many, answers):
        answers(compute_shy_owl_logits)
        # Three test images cannot confirm 0.9; two misses of three contradict it.
        outcome = tcc("eval", built, "--data", many, *self.FIT, "--json")
        (warning,) = outcome.document["warnings"]
        assert warning["code"] == "W0681"
        assert "the certified sensitivity of 0.9 for `owl` is refuted" in warning["message"]
        draw(many / "test", {"owl": [90, 91, 70]})
        outcome = tcc("eval", built, "--data", many, *self.FIT, "--json")
        assert outcome.document["warnings"] == []
        assert tcc("show", built).code == 0

    @pytest.mark.parametrize(
        ("sensitivity", "confidence", "help"),
        [
            (0.99, 0.95, "fit to at least 299 images of the class, about 897 for a useful"),
            (0.9, 0.999, "fit to at least 66 images"),
            (1.0, 0.95, "no number certifies a sensitivity of 1: request less"),
        ],
    )
    def test_too_few_images_are_refused(
        self, tcc, built, many, answers, sensitivity, confidence, help
    ):
        answers(compute_shy_owl_logits)
        args = ("--fit", "--positive", "owl", "--sensitivity", sensitivity)
        outcome = tcc("eval", built, "--data", many, *args, "--confidence", confidence)
        assert outcome.code == 2
        message = f"60 images of `owl` cannot certify a sensitivity of {sensitivity:g}"
        assert f"error[E1265]: {message}" in outcome.err
        assert help in outcome.err

    def test_cases_count_where_the_split_names_them(self, tcc, built, home, answers):
        answers(compute_shy_owl_logits)
        draw(home / "photos", MANY_SHADES | {"cat": [*range(50)], "owl": [*range(40, 110)]})
        # Two photos of each owl.
        write_split(home, lambda label, number: number >= (60 if label == "owl" else 40))
        args = ("eval", built, "--data", "photos", "--split", "run", *self.FIT, "--json")
        point = tcc(*args).document["operating_point"]
        (certificate,) = point["certificates"]
        assert (certificate["positives"], certificate["cases"]) == (60, 30)
        assert certificate["allowed_misses"] == 0
        outcome = tcc(*args, "--confidence", 0.99)
        assert "30 cases of `owl` cannot certify a sensitivity of 0.9" in outcome.err

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"allowed_misses": 5}, "certificate of `owl`: 5 misses are allowed, not 1"),
            ({"confidence": 1.5}, "certificate of `owl`: it has no target or no confidence"),
            ({"cases": 61}, "61 cases have 60 images, which is impossible"),
            ({"rejected": 43}, "43 of 42 images are rejected"),
        ],
    )
    def test_forged_certificate_is_refused(self, tcc, built, many, answers, change, message):
        from tcc.compiler.support.json_records import seal

        answers(compute_shy_owl_logits)
        assert tcc("eval", built, "--data", many, *self.FIT).code == 0
        manifest_json = json.loads((built / "manifest.json").read_text())
        manifest_json["operating_points"][0]["certificates"][0] |= change
        manifest_json["seal"] = seal(manifest_json)
        (built / "manifest.json").write_text(json.dumps(manifest_json))
        outcome = tcc("verify", built)
        assert outcome.code == 2
        assert message in outcome.err
