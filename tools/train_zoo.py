#!/usr/bin/env python3
"""Train a network of `zoo/trained`, and write its weights, calibration and card.

    python tools/train_zoo.py NAME --data DIR [--threads N] [--card] [--emulated N]

DIR has the images of `train`, `val` and `test`. The training runs in `build/trained/NAME`, and an
interrupted one continues there. The calibration uses the training images, the card the test images.
No other step uses the test images. `--card` only evaluates the network and writes the card.
Programs for a Cortex-A7 run slowly in QEMU, so they are evaluated on N of the test images.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tcc.compiler.data import dataset
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.train import image_split
from tcc.compiler.zoo import shipped, trained
from tcc.compiler.zoo.trained import TrainedNetwork

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "build" / "trained"
TARGETS = ("onnxruntime", "tflite")
"""The targets of the int8 evaluation on all test images; all targets agree bit for bit."""
EMULATED = "arm-a7"
"""The target of the int8 evaluation on some test images."""
IMAGES = 256
"""The maximum number of calibration images."""

Document = Mapping[str, Any]


def run_tcc(*arguments: str | Path) -> Document:
    """Run a tcc command in its own process; return its JSON document.

    Raises:
        SystemExit: The command fails.
    """
    line = ["tcc", *map(str, arguments), "--json"]
    print("$", *line, file=sys.stderr)
    process = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    if process.returncode:
        sys.exit(f"{' '.join(line)}: exit code {process.returncode}")
    document: Document = json.loads(process.stdout)
    return document


def train(network: TrainedNetwork, data_folder: Path, threads: int, run: Path) -> None:
    """Train the network, and copy its weights to the zoo."""
    network_record = network.training
    settings = [
        w
        for name, setting in network_record.settings.items()
        for w in ("--set", f"{name}={setting}")
    ]
    going_on = ["--resume"] if run.exists() else []
    run_tcc(
        "train",
        shipped.list_specs()[network_record.spec],
        *settings,
        "--data",
        data_folder,
        "--recipe",
        network_record.recipe,
        "--seed",
        str(network_record.seed),
        "--threads",
        str(threads),
        "-o",
        run,
        *going_on,
    )
    shutil.copyfile(run / "weights.safetensors", network.weights)


def calibrate(network: TrainedNetwork, data_folder: Path) -> None:
    """Calibrate the network with training images."""
    images = ("--data", data_folder / "train", "--images", str(IMAGES))
    run_tcc(
        "calibrate", network.name, *images, "--target", "onnxruntime", "-o", network.calibration
    )


def evaluate_network(
    network: TrainedNetwork, data_folder: Path, run: Path, few: int
) -> dict[str, Document]:
    """Return the fp32 and int8 evaluations on the test images; `few` limits those in QEMU."""
    targets = (*TARGETS, EMULATED) if few else TARGETS
    arguments = ("--target", ",".join(targets), "--precision", "int8")
    built = run_tcc("build", network.name, *arguments, "-o", run / "bundles")
    bundles = {bundle["target"]: bundle["path"] for bundle in built["bundles"]}
    test = ("--data", data_folder / "test")
    evaluations = {
        "float": run_tcc("eval", network.name, *test),
        **{f"int8, {name}": run_tcc("eval", bundles[name], *test) for name in TARGETS},
    }
    if few:
        part = (
            "--data",
            copy_images(dataset.read_dataset(data_folder / "test"), few, run / "emulated"),
        )
        evaluations |= {
            f"int8, {name}, some": run_tcc("eval", bundles[name], *part)
            for name in (TARGETS[0], EMULATED)
        }
    return evaluations


def copy_images(test: DataSet, count: int, folder: Path) -> Path:
    """Copy the first `count` images by digest, practically a random subset, to a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for image in test.select_first(count).items:
        label_folder = folder / str(image.label)
        label_folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image.path, label_folder / f"{image.digest[:16]}{image.path.suffix}")
    return folder


def describe_groups(data_folder: Path, report: Document) -> str:
    """Return a sentence about the groups of images in the splits, after reading every image.

    Raises:
        SystemExit: The network was trained on other images.
    """
    split = image_split.read_split(data_folder)  # fails if a group is in two splits
    for split_name, images in split.datasets.items():
        if images.digest != report["data"]["digests"][split_name]:
            sys.exit(
                f"{data_folder}: the images of `{split_name}` differ from those of the training"
            )
    if not split.groups:
        return "No groups, such as patients, are named: one may be in two splits."
    count = len(set(split.groups.values()))
    return f"The images are of {count:,} groups; no group is in two splits."


def format_card(
    network: TrainedNetwork, report: Document, groups: str, evaluations: Mapping[str, Document]
) -> str:
    """Return the card in Markdown; `groups` describes the groups of images."""
    network_record, data_summary = network.training, report["data"]
    settings = " ".join(
        f"--set '{name}={setting}'" for name, setting in network_record.settings.items()
    )
    split_rows = [
        (split_name, *map(str, counts), str(sum(counts)))
        for split_name, counts in data_summary["images"].items()
    ]
    versions = "; ".join(f"{name} {setting}" for name, setting in report["made_with"].items())
    classes = [
        (
            c["label"],
            _format_interval(c, "sensitivity"),
            _format_interval(c, "specificity"),
            c["support"],
        )
        for c in evaluations["float"]["classes"]
    ]
    parts = [
        f"# {network.name}: {network_record.task}",
        "**Not a medical device.** For research only: do not base a diagnosis on the results.",
        f"The spec `{network_record.spec}` with `{settings}`; weights under the "
        f"{network_record.license} licence."
        f" The digest of the weights is `{report['weights']}`.",
        "## Data",
        network_record.data.strip(),
        _format_table(("side", *data_summary["classes"], "images"), split_rows),
        f"{groups} The digest of the test images is `{data_summary['digests']['test'][:16]}`.",
        "## Training",
        f"`tcc train` with the recipe `{network_record.recipe}`, {report['epochs']} epochs, seed"
        f" {report['seed']}, threads: {report['threads']}. The same bytes come out where this is"
        f" the same: {versions}. Elsewhere expect figures within the intervals.",
        "## Accuracy on the test images",
        "Intervals are exact 95 % confidence intervals (Clopper, Pearson).",
        _format_table(
            ("model", "correct", "accuracy", "interval", "weighted F1", "macro ROC-AUC"),
            [_format_scores(name, evaluation) for name, evaluation in evaluations.items()],
        ),
        _format_table(("class, in float", "sensitivity", "specificity", "images"), classes),
        f"The int8 models use the shipped calibration, from at most {IMAGES} training images."
        f"{_describe_emulated(evaluations)}",
        "## Limits",
        network_record.limits.strip(),
    ]
    return "\n\n".join(parts) + "\n"


def _describe_emulated(evaluations: Mapping[str, Document]) -> str:
    if f"int8, {EMULATED}, some" not in evaluations:
        return ""
    return (
        " `some` is a subset of the test images, for programs that QEMU runs: the first by"
        " digest, independent of their class."
    )


def _format_scores(name: str, evaluation: Document) -> Sequence[object]:
    low, high = (evaluation["intervals"]["accuracy"][end] for end in ("low", "high"))
    return (
        name,
        f"{evaluation['correct']} of {evaluation['data']['images']}",
        f"{evaluation['accuracy']:.2%}",
        f"{low:.2%} to {high:.2%}",
        f"{evaluation['weighted']['f1']:.4f}",
        f"{evaluation['auc']['macro']:.4f}",
    )


def _format_interval(class_scores: Document, metric: str) -> str:
    low, high = (class_scores["intervals"][metric][end] for end in ("low", "high"))
    return f"{class_scores[metric]:.2%} ({low:.2%} to {high:.2%})"


def _format_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> int:
    """Run the selected steps; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=sorted(trained.read_networks()))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--card", action="store_true")
    parser.add_argument("--emulated", type=int, default=64, metavar="N")
    options = parser.parse_args()
    network, run = trained.read_networks()[options.name], RUNS / options.name
    if not options.card:
        train(network, options.data, options.threads, run)
        calibrate(network, options.data)
    report = json.loads((run / "report.json").read_text())
    groups = describe_groups(options.data, report)
    evaluations = evaluate_network(network, options.data, run, options.emulated)
    network.card.write_text(format_card(network, report, groups, evaluations))
    print(network.card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
