"""`tcc eval`: labelled images through a network or a bundle, and its metrics."""

import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.compiler.driver import evaluation
from tcc.compiler.reference import classification_metrics

EVAL = ("eval", "tiny.yaml", "--data")
PAIRS = st.integers(2, 6).flatmap(
    lambda classes: st.lists(
        st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), max_size=60
    ).map(lambda pairs: (classes, pairs))
)


def count_confusion(classes, pairs):
    counts = np.zeros((classes, classes), np.int64)
    for truth, predicted in pairs:
        counts[truth, predicted] += 1
    return counts


class TestFigures:
    @given(PAIRS)
    def test_metrics_match_their_definitions(self, case):
        classes, pairs = case
        scores = classification_metrics.compute_scores(count_confusion(classes, pairs))
        means = []
        for number in range(classes):
            tp = sum(1 for t, p in pairs if t == p == number)
            fp = sum(1 for t, p in pairs if p == number != t)
            fn = sum(1 for t, p in pairs if t == number != p)
            precision = tp / (tp + fp) if tp + fp else 0
            recall = tp / (tp + fn) if tp + fn else 0
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
            if tp + fp + fn:
                means.append((precision, recall, f1))
            class_scores = scores.classes[number]
            assert (class_scores.support, class_scores.predicted) == (tp + fn, tp + fp)
            assert (class_scores.rates.precision, class_scores.rates.recall) == (precision, recall)
            assert class_scores.rates.f1 == pytest.approx(f1, abs=1e-12)
        macro = np.mean(means, axis=0) if means else (0, 0, 0)
        got = (scores.macro.precision, scores.macro.recall, scores.macro.f1)
        assert got == pytest.approx(tuple(macro), abs=1e-12)
        assert scores.images == len(pairs)
        assert scores.correct == sum(1 for t, p in pairs if t == p)
        assert scores.accuracy == (scores.correct / len(pairs) if pairs else 0)
        assert scores.confusion == tuple(map(tuple, count_confusion(classes, pairs).tolist()))

    @given(st.integers(1, 400), st.data())
    def test_interval_contains_the_accuracy(self, images, data):
        correct = data.draw(st.integers(0, images))
        interval = classification_metrics.estimate_accuracy_interval(correct, images, 500, 3)
        assert 0 <= interval.low <= correct / images <= interval.high <= 1
        assert interval == classification_metrics.estimate_accuracy_interval(
            correct, images, 500, 3
        )

    def test_interval_matches_literal_resampling(self):
        hits = np.repeat([1, 0], (70, 30))
        rng = np.random.default_rng(0)
        accuracies = [hits[rng.integers(0, 100, 100)].mean() for _ in range(4000)]
        low, high = np.quantile(accuracies, (0.025, 0.975))
        interval = classification_metrics.estimate_accuracy_interval(70, 100, 4000, 1)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.011)

    def test_another_seed_gives_another_interval(self):
        first_interval, second_interval = (
            classification_metrics.estimate_accuracy_interval(611, 997, 50, seed) for seed in (0, 1)
        )
        assert (first_interval.low, first_interval.high) != (
            second_interval.low,
            second_interval.high,
        )


@pytest.fixture
def answers(monkeypatch, images):
    """Make the artifact predict a class from the brightness of the first pixel."""

    def set_predictions(choose) -> None:
        def run(self, target, folder, pictures):
            return [{"logits": np.eye(3, dtype=np.float32)[choose(p)]} for p in pictures]

        monkeypatch.setattr(OnnxRuntime, "run", run, raising=False)

    return set_predictions


def test_confusion_matrix_counts_predictions(tcc, home, built, answers):
    # the labels are cat, dog, owl; the shade of an image selects the prediction
    shades_by_label = {"cat": [0, 0, 1], "dog": [1, 1, 1, 0], "owl": [1]}
    for label, shades in shades_by_label.items():
        for number, shade in enumerate(shades):
            path = home / "data" / label.upper() / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8 + number, 9), (shade, 0, 0)).save(path)
    answers(lambda picture: picture[0, 0, 0])
    outcome = tcc("eval", built, "--data", "data", "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.document
    assert document["confusion"] == [[2, 1, 0], [1, 3, 0], [0, 1, 0]]
    assert (document["correct"], document["data"]["images"]) == (5, 8)
    assert document["accuracy"] == 5 / 8
    assert document["output"] == "logits"
    assert document["interval"] is None
    dog = document["classes"][1]
    assert (dog["label"], dog["precision"], dog["recall"]) == ("dog", 3 / 5, 3 / 4)
    assert (dog["support"], dog["predicted"]) == (4, 5)
    assert (document["bundle"], document["target"]) == (str(built), "onnxruntime")
    text = tcc("eval", built, "--data", "data").out
    accuracy_line = "accuracy 62.50%, 5 of 8 images (95 % confidence interval 24.49% to 91.48%)\n"
    assert text.startswith(accuracy_line)
    assert "\nmacro average" in text
    assert "\ndog    1    3    0" in text
    assert tcc("eval", built, "--data", "data", "-q").out == accuracy_line


def test_bundle_and_spec_give_the_same_confusion_matrix(tcc, built, images):
    spec = tcc(*EVAL, images, "--json")
    assert spec.code == 0, spec.err
    assert "the weights are random (seed 0)" in spec.err
    artifact = tcc("eval", built, "--data", images, "--json").document
    assert spec.document["confusion"] == artifact["confusion"]
    assert spec.document["target"] == "reference (onnxruntime)"
    assert sum(map(sum, artifact["confusion"])) == 24


def test_int8_bundle_is_evaluated(tcc, home, images):
    build = ("build", "tiny.yaml", "--target", "ort", "--precision", "int8", "--data", images, "-q")
    assert tcc(*build).code == 0
    document = tcc("eval", "build/tiny-onnxruntime-int8", "--data", images, "--json").document
    real = tcc(*EVAL, images, "--json").document
    assert (document["precision"], document["correct"]) == ("int8", real["correct"])


@pytest.mark.parametrize("kind", ["images", "tensors"])
@pytest.mark.parametrize("labels", [[0, 1, 2, 1], ["cat", "dog", "owl", "dog"]], ids=str)
def test_arrays_are_evaluated(tcc, home, built, kind, labels):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    tensors = rng.normal(size=(4, 3, 8, 8)).astype(np.float32)
    np.savez("set.npz", labels=labels, **{kind: pixels if kind == "images" else tensors})
    artifact, spec = (
        tcc("eval", model, "--data", "set.npz", "--json").document for model in (built, "tiny.yaml")
    )
    assert artifact["confusion"] == spec["confusion"]
    assert [class_row["support"] for class_row in spec["classes"]] == [1, 2, 1]


def test_bootstrap_interval_is_reproducible(tcc, images):
    first_document, second_document = (
        tcc(*EVAL, images, "--bootstrap", 999, "--json").document for _ in range(2)
    )
    assert first_document["interval"] == second_document["interval"]
    interval = first_document["interval"]
    assert interval["low"] <= first_document["accuracy"] <= interval["high"]
    assert (interval["level"], interval["resamples"], interval["seed"]) == (0.95, 999, 0)
    args = (*EVAL, images, "--bootstrap", 999, "--bootstrap-seed", 7)
    assert "(95 % bootstrap interval " in tcc(*args).out
    assert tcc(*args, "--json").document["interval"]["seed"] == 7


def test_classes_without_names_use_indices(tcc, home, images):
    (images / "cat").rename(images / "4")
    (images / "dog").rename(images / "0")
    document = tcc(*EVAL, images, "--set", "classes=13", "--json").document
    assert [class_row["support"] for class_row in document["classes"]][:5] == [12, 0, 0, 0, 12]
    assert document["classes"][4]["label"] == "4"
    text = tcc(*EVAL, images, "--set", "classes=13").out
    assert "predicted class" in text  # pairs, because the matrix would be too wide
    assert "columns:" not in text


def test_memory_does_not_grow_with_the_images(tcc, home, built, answers):
    answers(lambda picture: 0)
    image = home / "one.png"
    Image.new("RGB", (600, 600)).save(image)
    peaks = []
    for count in (70, 70, 130):  # more than two batches; the first run imports what it needs
        (home / "data/cat").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shutil.copy(image, home / f"data/cat/{number}.png")
        tracemalloc.start()
        assert tcc("eval", built, "--data", "data").code == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 10 << 20  # 60 images more are 65 MB
    assert evaluation.BATCH_SIZE < 70


class TestWhatIsWrong:
    def test_images_without_labels_are_refused(self, tcc, home, images, picture):
        shutil.copy(picture, images / "loose.png")
        outcome = tcc(*EVAL, images)
        assert outcome.code == 2
        assert "error[E0714]: these images have no labels" in outcome.err
        assert f"--> {images}" in outcome.err
        assert "25 of 25; the first is" in outcome.err
        assert "a folder for each class" in outcome.err

    def test_array_without_labels_is_refused(self, tcc, home):
        np.savez("set.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
        outcome = tcc(*EVAL, "set.npz")
        assert outcome.code == 2
        assert "error[E0714]" in outcome.err
        assert "--> set.npz" in outcome.err

    def test_unknown_labels_are_refused(self, tcc, images, built):
        (images / "cat").rename(images / "cow")
        (images / "dog").rename(images / "3")
        for model in ("tiny.yaml", built):
            outcome = tcc("eval", model, "--data", images)
            assert outcome.code == 2
            assert (
                f"error[E0715]: the network has no class `cow`\n  --> {images}/cow" in outcome.err
            )
            assert f"error[E0715]: the network has no class `3`\n  --> {images}/3" in outcome.err
            assert "12 images have this label" in outcome.err
            assert "help: its classes are cat, dog, owl" in outcome.err

    def test_names_are_refused_if_classes_have_only_indices(self, tcc, images):
        outcome = tcc(*EVAL, images, "--set", "classes=4")
        assert outcome.code == 2
        assert "use indices from 0 to 3 as labels" in outcome.err

    def test_missing_data_is_refused(self, tcc, home):
        outcome = tcc("eval", "tiny.yaml")
        assert outcome.code == 2
        assert "error[E0616]: no images to evaluate on" in outcome.err

    def test_every_damaged_image_is_named(self, tcc, images, built):
        for path in (images / "cat/1.png", images / "dog/2.png"):
            path.write_bytes(b"no image")
        for model in ("tiny.yaml", built):
            outcome = tcc("eval", model, "--data", images)
            assert (outcome.code, outcome.out) == (2, "")
            assert "cat/1.png" in outcome.err
            assert "dog/2.png" in outcome.err

    def test_network_without_classes_is_refused(self, tcc, home, images):
        text = (home / "tiny.yaml").read_text().replace("  logits:", "  logits: {from: map,")
        text = text.replace("map, {activation", "map, activation").replace(
            "  - relu\n", "  - {relu: {}, as: map}\n"
        )
        (home / "tiny.yaml").write_text(
            text.replace(", labels: \"['cat', 'dog', 'owl'] if classes == 3 else []\"", "")
        )
        outcome = tcc(*EVAL, images)
        assert outcome.code == 2
        assert "error[E0716]: this network has no output with classes or decisions" in outcome.err

    def test_infinite_outputs_are_refused(self, tcc, built, images, monkeypatch):
        def run(self, target, folder, pictures):
            return [{"logits": np.array([0, np.nan, 1], np.float32)} for _ in pictures]

        monkeypatch.setattr(OnnxRuntime, "run", run, raising=False)
        outcome = tcc("eval", built, "--data", images)
        assert outcome.code == 2
        assert "error[E0720]: with these weights, output `logits` is not finite" in outcome.err
        assert ".png" in outcome.err

    def test_tensors_of_another_shape_are_refused(self, tcc, home):
        np.savez("set.npz", tensors=np.zeros((2, 3, 9, 9), np.float32), labels=[0, 1])
        outcome = tcc(*EVAL, "set.npz")
        assert outcome.code == 2
        assert "E0713" in outcome.err

    @pytest.mark.parametrize("options", [("--seed", "1"), ("--set", "width=5")], ids=str)
    def test_spec_options_are_refused_for_a_bundle(self, tcc, built, images, options):
        outcome = tcc("eval", built, "--data", images, *options)
        assert outcome.code == 2
        assert (
            f"`{options[0]}` has no effect: it is for specs, and the input is a bundle"
            in outcome.err
        )

    def test_damaged_bundle_is_refused(self, tcc, built, images):
        (built / "model/model.onnx").write_bytes(b"")
        outcome = tcc("eval", built, "--data", images)
        assert outcome.code == 2
        assert "error[E0622]" in outcome.err
