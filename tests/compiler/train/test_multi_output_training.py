"""Networks with several decisions, several outputs or a single decision."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from training_nets import RECIPE
from typer.testing import CliRunner

from tcc.compiler.train import losses
from tcc.compiler.train.recipe_records import Loss
from tcc.compiler.train.targets import TrainingTarget

HEAD = """\
tcc: 1
name: several
input: {image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8], mode: stretch}}}}
graph:
  - conv: {filters: 8, kernel: 3, padding: 1}
  - batch_norm
  - relu
  - global_avg_pool
  - flatten
"""
DECISIONS = (
    HEAD
    + """\
  - linear: {units: 3}
output: {colours: {activation: sigmoid, labels: [red, green, blue]}}
"""
)
SHARED = HEAD.replace("  - flatten", "  - {flatten: , as: shared}")
OUTPUTS = (
    SHARED
    + """\
  - {linear: {units: 2}, as: shade}
  - {linear: {units: 2}, from: shared, as: tint}
  - {linear: {units: 2}, from: shared, as: side}
output:
  depth: {from: shade, activation: softmax, labels: [dark, light]}
  colours: {from: tint, activation: sigmoid, labels: [red, blue]}
  helper: {from: side, train_only: true, activation: sigmoid, labels: [red, blue]}
"""
)
SINGLE_DECISION = (
    HEAD
    + """\
  - linear: {units: 1}
output: {reddish: {activation: sigmoid, labels: [red]}}
"""
)
CHANNELS = {"red": 0, "green": 1, "blue": 2}


def paint(path, label, seed):
    """Write a noisy image with the colours and the depth that its label names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 60, (9, 10, 3))
    label_parts = label.split("+")
    for label_part in label_parts:
        if label_part in CHANNELS:
            pixels[:, :, CHANNELS[label_part]] += 110
    pixels += 80 * ("light" in label_parts)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def draw_dataset(home):
    """Return a function that draws images of each label and returns the dataset folder."""

    def draw(labels, count=12):
        for label in labels:
            for number in range(count):
                paint(home / "set" / label / f"{number}.png", label, len(label) * 1000 + number)
        return home / "set"

    return draw


@pytest.fixture
def trained(train, home, draw_dataset):
    """Return a function that trains a spec and returns the report and the command's outcome."""

    def run(spec, labels, *arguments, recipe=RECIPE, count=12):
        (home / "net.yaml").write_text(spec)
        (home / "own.yaml").write_text(recipe)
        completed = train(
            "-o",
            "run",
            "--epochs",
            12,
            *arguments,
            spec="net.yaml",
            data=draw_dataset(labels, count),
        )
        assert completed.exit_code == 0, completed.output
        return json.loads((home / "run/report.json").read_text()), completed

    return run


def run_eval(*arguments):
    from tcc.compiler.cli import app

    weights = ("--weights", "run/weights.safetensors", "--data", "set", "--json")
    completed = CliRunner().invoke(app, ["eval", "net.yaml", *weights, *arguments])
    assert completed.exit_code == 0, completed.output
    return json.loads(completed.stdout)


def test_outputs_without_labels_are_classes(trained):
    spec = DECISIONS.replace("activation: sigmoid, labels: [red, green, blue]", "")
    report, completed = trained(spec, ("blue", "green", "red"))
    assert len(report["test"]["confusion"]) == 3
    assert "positives correct" not in completed.output
    assert report["test"]["accuracy"] > 0.9


MIXED = ("none", "red", "green", "blue+red", "GREEN+blue", "red+green+blue")


def test_decisions_train_and_the_report_matches_eval(trained, home):
    report, completed = trained(DECISIONS, MIXED)
    kinds = ["blue+red", "green+blue", "none"]
    assert report["data"]["classes"] == sorted(
        ["green", "green+blue", "none", "red", "red+blue", "red+green+blue"]
    )
    assert kinds[0] not in report["data"]["classes"]
    test, evaluation = report["test"], run_eval()
    assert test["accuracy"] > 0.8
    assert (test["images"], test["correct"]) == (
        evaluation["data"]["images"],
        evaluation["correct"],
    )
    assert test["macro_f1"] == pytest.approx(evaluation["macro"]["f1"])
    assert test["confusion"] == []
    decisions = test["outputs"]["colours"]["decisions"]
    assert list(decisions) == ["red", "green", "blue"]
    for decision, class_scores in zip(decisions.values(), evaluation["classes"], strict=True):
        assert decision["holds"] == class_scores["support"]
        assert decision["told_holds"] == round(class_scores["recall"] * class_scores["support"])
        assert decision["holds"] + decision["holds_not"] == test["images"]
    assert re.search(
        r"    red: \d+ of \d+ positives correct, \d+ of \d+ negatives correct", completed.stdout
    )
    lines = [json.loads(line) for line in (home / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert "outputs" not in lines[-1]["val"]  # there is only one


def test_each_output_trains_with_its_own_loss(trained, home):
    labels = [
        f"{shade}{color_suffix}"
        for shade in ("dark", "light")
        for color_suffix in ("", "+red", "+blue+red")
    ]
    report, completed = trained(OUTPUTS, labels, "--tensorboard")
    assert set(report["data"]["classes"]) == {
        name.replace("blue+red", "red+blue") for name in labels
    }
    test = report["test"]
    assert test["accuracy"] > 0.6
    assert list(test["outputs"]) == ["depth", "colours"]
    assert sum(map(sum, test["outputs"]["depth"]["confusion"])) == test["images"]
    assert test["correct"] <= min(
        output_report["correct"] for output_report in test["outputs"].values()
    )
    assert set(report["val"]["outputs"]) == {"depth", "colours"}
    assert "    depth: " in completed.stdout
    evaluation = run_eval()  # the first output
    assert (evaluation["output"], evaluation["correct"]) == (
        "depth",
        test["outputs"]["depth"]["correct"],
    )
    (events,) = (home / "run/tensorboard").iterdir()
    assert b"accuracy/val/colours" in events.read_bytes()


def test_single_decision_is_negative_for_all_other_labels(trained):
    report, _ = trained(SINGLE_DECISION, ("red", "green", "blue"))
    assert report["data"]["classes"] == ["blue", "green", "red"]
    test, evaluation = report["test"], run_eval()
    assert (test["images"], test["correct"]) == (
        evaluation["data"]["images"],
        evaluation["correct"],
    )
    assert test["outputs"]["reddish"]["decisions"]["red"]["holds"] < test["images"] / 2


def test_labels_of_decisions_can_be_a_parameter(trained):
    spec = DECISIONS.replace(
        "name: several", "name: several\nparams: {labels: {type: names, default: [a]}}"
    )
    spec = spec.replace("units: 3", "units: len(labels)").replace("[red, green, blue]", "labels")
    names = ("--set", "labels=[blue, red]")
    report, _ = trained(spec, ("none", "red", "blue+red"), *names)
    assert report["data"]["classes"] == ["blue+red", "none", "red"]


def test_resumed_run_gives_the_same_bytes_with_every_recipe_option(
    train, home, draw_dataset, monkeypatch
):
    """Mixup, smoothing, weights, balance and the best epoch give the same bytes after a stop."""
    from tcc.compiler.train import loop

    (home / "net.yaml").write_text(DECISIONS)
    (home / "own.yaml").write_text(
        RECIPE + "mixup: {alpha: 0.4}\nsampling: balanced\nkeep: best\n"
        "loss: {kind: focal, alpha: 0.4, positive: [red, blue], "
        "balanced: true, class_weights: {green: 2}}\n"
    )
    images = draw_dataset(MIXED)
    settings = {"spec": "net.yaml", "data": images}
    completed = train("-o", "whole", **settings)
    assert completed.exit_code == 0, completed.output
    interruptions = iter([False] * 7)
    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingRun, "_is_time_over", lambda self: next(interruptions, True))
        assert train("-o", "parts", **settings).exit_code == 0
    assert train("-o", "parts", "--resume", **settings).exit_code == 0
    for path in (home / "whole").iterdir():
        assert path.read_bytes() == (home / "parts" / path.name).read_bytes()


def test_rare_combinations_stay_in_one_split(trained, draw_dataset):
    """Two images of a combination cannot be in three splits. Their labels are in other images too."""
    draw_dataset(("red+green+blue", "blue+red"), 2)
    report, _ = trained(DECISIONS, ("none", "red", "green", "green+blue"), "--epochs", 1)
    class_index = report["data"]["classes"].index("red+green+blue")
    assert sum(counts[class_index] for counts in report["data"]["images"].values()) == 2


@pytest.mark.parametrize(
    ("spec", "labels", "code", "pattern"),
    [
        (DECISIONS, ("none", "red", "gren"), "E1207", "no label `gren`(.|\n)*did you mean `green`"),
        (DECISIONS, ("none", "red", "blue"), "E1207", "no image has the label `green`"),
        (DECISIONS, ("red", "red+green", "red+blue"), "E1207", "no image has the label `not red`"),
        (OUTPUTS, ("dark+light", "dark", "light+red"), "E1207", "`dark.light` names 2 classes of output `depth`"),
        (OUTPUTS, ("red", "dark+blue", "light"), "E1207", "`red` names no class of output `depth`"),
        (OUTPUTS.replace("softmax, labels: [dark, light]", "softmax"), ("red", "blue"), "E1226",
         "output `depth` has no `labels`"),
        (OUTPUTS.replace("[dark, light]", "[dark, red]"), ("red", "blue"), "E1226",
         "outputs `depth` and `colours` both have `red`"),
        (DECISIONS.replace("green", "none"), ("red", "blue"), "E1226", "has a label `none`"),
        (DECISIONS.replace("green", "a+b"), ("red", "blue"), "E1226", r"has a label `a\+b`"),
        (OUTPUTS.replace("  - {linear: {units: 2}, from: shared, as: side}", "  - {linear: {units: 5}, from: shared, as: side}")
         .replace(", activation: sigmoid, labels: [red, blue]}\n", "}\n").replace("from: tint}", "from: tint, activation: sigmoid, labels: [red, blue]}"),
         ("dark+red", "light+blue"), "E1226", "no output has as many values as the train-only output `helper`"),
        (OUTPUTS.replace("train_only: true, activation: sigmoid, labels: [red, blue]", "train_only: true"),
         ("dark+red", "light+blue"), "E1226", "several outputs have as many values as the train-only output `helper`"),
    ],
)  # fmt: skip
def test_invalid_labels_are_refused(train, home, draw_dataset, spec, labels, code, pattern):
    (home / "net.yaml").write_text(spec)
    completed = train("-o", "run", spec="net.yaml", data=draw_dataset(labels))
    assert completed.exit_code == 2, completed.output
    assert f"error[{code}]" in completed.stderr
    assert re.search(pattern, completed.stderr), completed.stderr
    assert not (home / "run").exists()


def test_untrained_output_is_reported(trained):
    spec = SINGLE_DECISION.replace(HEAD, SHARED).replace(
        "output: {", "output: {middle: {from: shared}, "
    )
    _, completed = trained(spec, ("red", "green"))
    assert "warning[E1226]: these outputs are not trained" in completed.stderr
    assert "they have no targets: middle" in completed.stderr


def test_decision_loss_is_binary_cross_entropy():
    logits = torch.tensor([[1.5, -2.0, 0.3], [40.0, -40.0, 0.0]])
    targets = torch.tensor([[1.0, 0.0, 0.25], [1.0, 1.0, 0.0]])
    target = TrainingTarget(("x",), ("a", "b", "c"), exclusive=False)
    totals = dict.fromkeys(target.answers, 5)
    expected = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(
        1
    )
    for record in (Loss(), Loss(balanced=True)):
        target_loss = losses.build_output_loss(record, target, totals)
        assert torch.allclose(target_loss.compute_losses(logits, targets), expected, rtol=1e-6)
        assert torch.equal(
            target_loss.compute_cross_entropy(logits, targets), expected.mean()
        ) or torch.allclose(
            target_loss.compute_cross_entropy(logits, targets), expected.mean(), rtol=1e-6
        )
    # Three of four images are positive: weights 4/6 and 2. Their mean over the images is 1.
    weighed = losses.build_output_loss(
        Loss(balanced=True), TrainingTarget(("x",), ("a",), False), {"not a": 1, "a": 3}
    )
    assert weighed.compute_losses(
        torch.zeros(2, 1), torch.tensor([[1.0], [0.0]])
    ).tolist() == pytest.approx([np.log(2) * 2 / 3, np.log(2) * 2])


def test_combination_with_only_damaged_images_is_refused(train, home, draw_dataset):
    (home / "net.yaml").write_text(DECISIONS)
    draw_dataset(["red", "green", "blue", "none"], 6)
    paint(draw_dataset(["red+blue"], 1) / "red+blue" / "0.png", "red+blue", 0)
    (home / "set/red+blue/0.png").write_bytes(b"")
    arguments = ("-o", "run", "--corrupt", "skip", "--epochs", 1)
    completed = train(*arguments, spec="net.yaml", data=home / "set")
    assert completed.exit_code == 2
    assert (
        "error[E1210]: the only image of `red+blue` in `train` cannot be read" in completed.output
    )
    assert "set/red+blue/0.png" in completed.output
    shutil.rmtree(home / "set/red+blue")
    assert train(*arguments, spec="net.yaml", data=home / "set").exit_code == 0
