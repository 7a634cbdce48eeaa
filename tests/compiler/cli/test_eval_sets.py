"""`tcc eval --fit` with prediction sets, abstention, specificity and predictive values."""

import json
from math import sqrt

import numpy as np
import pytest
from paired_split import write_split
from PIL import Image

from tcc.compiler.ir.device import Device
from tcc.compiler.support.json_records import seal

LABELS = ("cat", "dog", "owl")


def draw(folder, shades):
    """Write an image for each shade of each class. Images differ by number, class and split."""
    blue = 10 * (folder.name == "test")
    for label, values in shades.items():
        for number, shade in enumerate(values):
            path = folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (shade, number, blue + LABELS.index(label))).save(path)


@pytest.fixture
def answers(monkeypatch):
    """Make the artifact compute its outputs from the shade of the first pixel."""

    def run(self, folder, source, pictures):
        shades = [float(p[0, 0, 0]) for p in pictures]
        return [{"logits": np.float32([4, 0, shade / 10])} for shade in shades]

    monkeypatch.setattr(Device, "run", run)


VAL = {"cat": [*range(60)], "dog": [*range(5)], "owl": [*range(20, 80)]}
TEST = {"cat": [*range(1, 60, 2)], "dog": [5, 6], "owl": [*range(25, 80, 2)]}


@pytest.fixture
def splits(home, answers):
    draw(home / "set/val", VAL)
    draw(home / "set/test", TEST)
    return home / "set"


@pytest.fixture
def fit(tcc, built, splits):
    return lambda *options: tcc("eval", built, "--data", splits, "--fit", *options, "--json")


class TestPredictionSets:
    def test_gap_is_an_order_statistic_of_the_classes(self, fit, tcc, built, splits):
        outcome = fit("--sets", 0.9)
        assert outcome.code == 0, outcome.err
        sets = outcome.document["operating_point"]["sets"]
        # Of 125 images, 0.9 with 95 % confidence allows 6 misses. All owls are within 2 of `cat`,
        # cats up to 1.9 below an owl of shade 59; dogs are 4 and more below.
        assert sets["counted"] == [125]
        assert sets["allowed_misses"] == [6]
        gaps = sorted(
            float(max(logits) - logits[column])
            for column, label in enumerate(LABELS)
            for shade in VAL[label]
            for logits in [np.float32([4, 0, shade / 10])]
        )
        assert sets["gaps"] == [gaps[125 - 1 - 6]]
        stdout = tcc("eval", built, "--data", splits).out
        assert (
            "prediction sets: on images like these, a share of 0.9 or more have their class in "
            "the set with 0.95 confidence (125 images, 6 of them may lack it); on these images, a "
            f"set has {sets['mean_size']:.2f} of 3 classes on average" in stdout
        )
        assert "prediction sets on the held-out images: coverage " in stdout
        assert tcc("show", built).code == 0

    def test_too_few_images_are_refused_with_the_number(self, fit):
        outcome = fit("--sets", 0.99)
        assert outcome.code == 2
        assert (
            "error[E1269]: 125 images cannot certify prediction sets with a coverage of 0.99"
            in outcome.err
        )
        assert "fit to at least 299 images, about 897 for a useful result" in outcome.err

    def test_class_with_few_images_is_in_every_set(self, fit, tcc, built, splits, picture):
        outcome = fit("--sets", 0.9, "--by-class")
        assert outcome.code == 0, outcome.err
        sets = outcome.document["operating_point"]["sets"]
        assert sets["counted"] == [60, 5, 60]
        assert sets["gaps"][1] is None
        assert sets["allowed_misses"] == [1, None, 1]
        stdout = tcc("eval", built, "--data", splits).out
        assert "`dog` is in every set: it has 5 images, and a smaller set needs 29" in stdout
        assert "`owl`: 60 images, 1 of them may lack it" in stdout
        assert "  set: " in tcc("run", built, picture).out
        (image,) = tcc("run", built, picture, "--json").document["images"]
        assert "dog" in [member["label"] for member in image["outputs"]["logits"]["set"]]
        outcome = fit("--sets", 0.95, "--by-class", "--confidence", 0.99)
        assert "error[E1269]: 60 images of any class cannot certify" in outcome.err
        assert "fit to at least 90 images" in outcome.err

    def test_held_out_images_that_refute_the_coverage_are_a_warning(
        self, fit, tcc, built, splits, picture
    ):
        draw(splits / "test", {"dog": [*range(30)]})
        outcome = fit("--sets", 0.9)
        (warning,) = outcome.document["warnings"]
        assert warning["code"] == "W0681"
        assert "the promised coverage of 0.9 is refuted: " in warning["message"]
        assert "the promised coverage of 0.9 is refuted" in tcc("run", built, picture).err
        assert fit("--sets", 0.9, "--strict").code == 2

    def test_run_gives_the_set(self, fit, tcc, built, picture):
        outputs_before = tcc("run", built, picture, "--json").document["images"][0]["outputs"][
            "logits"
        ]
        assert "set" not in outputs_before
        assert fit("--sets", 0.9).code == 0
        gap = json.loads((built / "manifest.json").read_text())["operating_points"][0]["sets"][
            "gaps"
        ][0]
        (image,) = tcc("run", built, picture, "--json").document["images"]
        raw = np.float32(image["outputs"]["logits"]["raw"])
        expected = [{"index": i, "label": LABELS[i]} for i in range(3) if raw.max() - raw[i] <= gap]
        assert image["outputs"]["logits"]["set"] == expected

    def test_a_fit_without_sets_removes_them(self, fit, built):
        assert fit("--sets", 0.9).code == 0
        assert fit().code == 0
        (point,) = json.loads((built / "manifest.json").read_text())["operating_points"]
        assert "sets" not in point
        assert "abstention" not in point


class TestAbstention:
    def test_margin_is_that_of_a_confident_wrong_answer(self, fit, tcc, built, splits):
        outcome = fit("--abstain", 0.1)
        assert outcome.code == 0, outcome.err
        abstention = outcome.document["operating_point"]["abstention"]
        margins = []
        for label in LABELS:
            for shade in VAL[label]:
                logits = np.float32([4, 0, shade / 10])
                first, second = sorted(logits, reverse=True)[:2]
                if LABELS[int(logits.argmax())] != label:
                    margins.append(float(first - second))
        assert abstention["allowed_wrong"] == 6
        assert abstention["margin"] == sorted(margins, reverse=True)[6]
        assert abstention["wrong"] <= 6
        stdout = tcc("eval", built, "--data", splits).out
        share = abstention["answered"] / 125
        assert (
            "abstention: of all images like these, a share of 0.1 or less is answered wrongly "
            "with 0.95 confidence (125 images, 6 of them may be answered wrongly); of these "
            f"images, {share:.2%} are answered, and "
            f"{abstention['wrong'] / abstention['answered']:.2%} of the answers are wrong" in stdout
        )
        assert "abstention on the held-out images: " in stdout

    def test_run_marks_images_without_an_answer(self, fit, tcc, built, picture):
        assert fit("--abstain", 0.1).code == 0
        (point,) = json.loads((built / "manifest.json").read_text())["operating_points"]
        (image,) = tcc("run", built, picture, "--json").document["images"]
        raw = np.sort(np.float32(image["outputs"]["logits"]["raw"]))
        is_answered = bool(raw[-1] - raw[-2] > point["abstention"]["margin"])
        assert image["outputs"]["logits"]["answered"] == is_answered
        assert ("no answer" in tcc("run", built, picture).out) == (not is_answered)

    def test_too_few_images_are_refused_with_the_number(self, fit):
        outcome = fit("--abstain", 0.01)
        assert outcome.code == 2
        assert "125 images cannot certify that at most 0.01 of all are answered wrongly" in (
            outcome.err
        )
        assert "fit to at least 299 images" in outcome.err


class TestRates:
    def test_specificity_is_an_order_statistic_of_the_others(self, fit, tcc, built, splits):
        outcome = fit("--positive", "owl", "--specificity", 0.9)
        assert outcome.code == 0, outcome.err
        point = outcome.document["operating_point"]
        (certificate,) = point["rate_certificates"]
        assert point["criterion"] == "specificity of 0.9 or more with 0.95 confidence"
        assert certificate["specificity"] == {
            "at_least": 0.9, "confidence": 0.95, "images": 65, "cases": None, "misses": 2,
        }  # fmt: skip
        assert certificate["sensitivity"] is None
        # At most 2 of the 65 others reach the threshold: cats of shades 58 and 59.
        assert certificate["rejected"] == 63
        assert certificate["detected"] == sum(shade >= 58 for shade in VAL["owl"])
        stdout = tcc("eval", built, "--data", splits).out
        assert (
            "`owl`: on images like these, the specificity is 0.9 or more with 0.95 confidence "
            "(specificity: 65 images, 2 of them on the wrong side)" in stdout
        )
        assert "on these images, the sensitivity is 0.3667 (22 of 60)" in stdout
        assert "temperature 1 (not fitted: the certificate counts every image)" in stdout

    def test_too_few_others_are_refused(self, fit):
        outcome = fit("--positive", "owl", "--specificity", 0.99)
        assert (
            "error[E1265]: 65 images of classes other than `owl` cannot certify a specificity of "
            "0.99" in outcome.err
        )
        assert (
            "fit to at least 299 images of other classes, about 897 for a useful sensitivity"
            in (outcome.err)
        )

    def test_prevalence_certifies_predictive_values_with_both_rates(self, fit, tcc, built, splits):
        args = ("--positive", "owl", "--sensitivity", 0.8, "--prevalence", 0.2)
        outcome = fit(*args)
        assert outcome.code == 0, outcome.err
        (certificate,) = outcome.document["operating_point"]["rate_certificates"]
        sensitivity, specificity = certificate["sensitivity"], certificate["specificity"]
        assert sensitivity["confidence"] == specificity["confidence"] == sqrt(0.95)
        assert sensitivity["at_least"] == 0.8
        hits = 0.8 * 0.2
        false_alarms = (1 - specificity["at_least"]) * 0.8
        assert certificate["ppv"] == pytest.approx(hits / (hits + false_alarms))
        assert 65 - certificate["rejected"] == specificity["misses"]
        stdout = tcc("eval", built, "--data", splits).out
        assert "at a prevalence of 0.2 the positive predictive value is" in stdout
        assert "all with 0.95 confidence" in stdout
        outcome = fit(*args, "--ppv", 0.9)
        assert outcome.code == 2
        assert "error[E1268]: these images do not certify a sensitivity of 0.8 or more and" in (
            outcome.err
        )
        assert "certified: sensitivity 0.8000, specificity" in outcome.err

    def test_ppv_alone_chooses_the_sensitivity(self, fit):
        outcome = fit("--positive", "owl", "--ppv", 0.4, "--prevalence", 0.5)
        assert outcome.code == 0, outcome.err
        (certificate,) = outcome.document["operating_point"]["rate_certificates"]
        assert certificate["candidates"] == 6
        assert certificate["ppv"] >= 0.4
        outcome = fit("--positive", "owl", "--ppv", 0.99, "--prevalence", 0.01)
        assert outcome.code == 2
        assert "error[E1268]" in outcome.err
        assert "images of classes other than `owl`, all below the threshold" in outcome.err

    def test_both_rates_hold_together_or_are_refused(self, fit):
        outcome = fit("--positive", "owl", "--sensitivity", 0.8, "--specificity", 0.2)
        (certificate,) = outcome.document["operating_point"]["rate_certificates"]
        assert certificate["specificity"]["at_least"] >= 0.2
        assert certificate["ppv"] is None
        outcome = fit("--positive", "owl", "--sensitivity", 0.9, "--specificity", 0.9)
        assert "error[E1268]" in outcome.err

    def test_uncertified_specificity_holds_on_the_images_of_the_fit(self, fit):
        outcome = fit("--positive", "owl", "--specificity", 0.9, "--confidence", 0)
        point = outcome.document["operating_point"]
        assert "rate_certificates" not in point or not point["rate_certificates"]
        assert point["criterion"] == "specificity of 0.9 or more"

    def test_cases_count_on_both_sides(self, tcc, built, home, answers):
        draw(home / "photos", {"cat": [*range(100)], "owl": [*range(20, 120)]})
        write_split(home, lambda _, number: number >= 80)
        args = ("eval", built, "--data", "photos", "--split", "run", "--fit", "--json")
        owl = ("--positive", "owl", "--prevalence", 0.3, "--sensitivity", 0.8)
        outcome = tcc(*args, *owl, "--sets", 0.9)
        assert outcome.code == 0, outcome.err
        point = outcome.document["operating_point"]
        (certificate,) = point["rate_certificates"]
        for rate in ("sensitivity", "specificity"):
            assert (certificate[rate]["images"], certificate[rate]["cases"]) == (80, 40)
        assert (point["sets"]["counted"], point["sets"]["cases"]) == ([80], True)
        outcome = tcc(*args, "--sets", 0.97)
        assert "80 cases cannot certify prediction sets with a coverage of 0.97" in outcome.err
        # Each case has a cat and an owl: the risks of both bounds add up.
        write_split(home, lambda _, number: number >= 80, joins_classes=True)
        (certificate,) = tcc(*args, *owl).document["operating_point"]["rate_certificates"]
        assert certificate["sensitivity"]["confidence"] == pytest.approx(0.975)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--by-class",), "`--by-class` has no effect: it needs `--sets`"),
        (("--sets", 0.9, "--confidence", 0), "`--confidence 0` promises nothing"),
        (("--abstain", 0.1, "--positive", "owl"), "the class with the largest output"),
        (("--ppv", 0.5), "`--ppv` has no effect: it needs `--prevalence`"),
        (("--prevalence", 0.5), "it needs `--sensitivity` or `--specificity` or `--ppv`"),
        (("--specificity", 0.5), "a minimum specificity needs the class that it is for"),
        (
            ("--sensitivity", 0.5, "--specificity", 0.5, "--positive", "owl", "--confidence", 0),
            "`--confidence 0` promises nothing",
        ),
    ],
)
def test_options_without_effect_are_refused(fit, options, message):
    outcome = fit(*options)
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sets": {"allowed_misses": [9]}}, "sets may lack 9 of 125 images, not 6"),
        ({"sets": {"gaps": [0.1]}}, "the gap 0.1 is not a float32 of 0 or more"),
        ({"sets": {"gaps": [1.0, 2.0]}}, "its sets have 2 gaps, not 1"),
        ({"sets": {"coverage": 1.5}}, "the coverage, confidence or size of its sets"),
        ({"abstention": {"allowed_wrong": 9}}, "9 wrong answers are allowed, not 6"),
        ({"abstention": {"margin": -2.0}}, "the margin -2 is not a float32 of -1 or more"),
        ({"abstention": {"answered": 126}}, "of 126 answers are wrong"),
        ({"judged": {"sets": {"counted": [60], "covered": [61], "mean_size": 1.0}}},
         "more images have their class in the set than there are"),
        ({"judged": {"sets": {"counted": [60], "covered": [10], "mean_size": 1.0}}},
         "it misses its target, but `notice` is empty"),
    ],
)  # fmt: skip
def test_forged_promise_is_refused(fit, tcc, built, splits, change, message):
    assert fit("--sets", 0.9, "--abstain", 0.1).code == 0
    manifest_json = json.loads((built / "manifest.json").read_text())
    point = manifest_json["operating_points"][0]
    for name, fields in change.items():
        point[name] |= fields
    if "judged" in change:
        point["judged"]["notice"] = ""
    manifest_json["seal"] = seal(manifest_json)
    (built / "manifest.json").write_text(json.dumps(manifest_json))
    outcome = tcc("verify", built)
    assert outcome.code == 2
    assert message in outcome.err


class TestCarry:
    """Two bundles of one int8 model."""

    @pytest.fixture
    def bundles(self, tcc, home, splits, monkeypatch):
        monkeypatch.undo()  # the artifacts themselves run
        monkeypatch.chdir(home)
        build = ("build", "tiny.yaml", "--precision", "int8", "--data", splits / "val", "-q")
        floor = ("--floor", "min_cosine=0", "--floor", "max_drop=1")
        for folder in ("build", "other"):
            outcome = tcc(*build, *floor, "--target", "onnxruntime", "--output", folder)
            assert outcome.code == 0, outcome.err
        fit = ("--fit", "--sets", 0.9, "--by-class", "--abstain", 0.8)
        assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
        for name in ("tiny-onnxruntime-int8", "tiny-onnxruntime-fp32"):
            outcome = tcc("eval", f"build/{name}", "--data", splits, *fit)
            assert outcome.code == 0, outcome.err
        return home / "build/tiny-onnxruntime-int8", home / "other/tiny-onnxruntime-int8"

    def test_equal_outputs_need_no_images(self, tcc, home, splits, bundles):
        source, bundle = bundles
        outcome = tcc("eval", bundle, "--carry", source)
        assert outcome.code == 0, outcome.err
        assert "both have the same int8 outputs" in outcome.out
        points = [
            json.loads((folder / "manifest.json").read_text())["operating_points"]
            for folder in bundles
        ]
        assert points[0] == points[1]
        paths = sorted((splits / "test").rglob("*.png"))
        documents = [tcc("run", folder, *paths, "--json").document["images"] for folder in bundles]
        results = [[image["outputs"]["logits"] for image in document] for document in documents]
        assert results[0] == results[1]
        assert all("set" in output and "answered" in output for output in results[0])

    def test_other_outputs_need_images(self, tcc, home, splits, bundles):
        _, bundle = bundles
        floats = home / "build/tiny-onnxruntime-fp32"
        outcome = tcc("eval", bundle, "--carry", floats)
        assert outcome.code == 2
        assert "error[E0616]: no images to evaluate on" in outcome.err
        outcome = tcc("eval", bundle, "--carry", floats, "--data", splits)
        assert outcome.code == 0, outcome.err
        assert "promises about new images is for its outputs, and those of this bundle may" in (
            outcome.err
        )
