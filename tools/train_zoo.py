#!/usr/bin/env python3
"""Train a network of `zoo/trained` anew: its weights, its calibration and its card.

    python tools/train_zoo.py NAME --data DIR [--threads N] [--card] [--emulated N]

DIR has the images of `train`, `val` and `test`. The training runs in `build/trained/NAME` and goes
on there where it was interrupted. The calibration is of the training images; what the card says is
of the test images, which nothing else looks at. `--card` measures and writes the card alone.
Programs of a Cortex-A7 run in QEMU, slowly, so that they judge N of the test images.
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
"""Those whose integers all test images judge; every target's are the same, to the bit."""
EMULATED = "arm-a7"
"""That whose integers some of them judge."""
IMAGES = 256
"""Most training images that calibrate."""

Document = Mapping[str, Any]


def tcc(*words: str | Path) -> Document:
    """Return the document of a command, which runs as a user's does.

    Raises:
        SystemExit: It fails.
    """
    line = ["tcc", *map(str, words), "--json"]
    print("$", *line, file=sys.stderr)
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(line)}: exit code {done.returncode}")
    found: Document = json.loads(done.stdout)
    return found


def train(network: TrainedNetwork, data: Path, threads: int, run: Path) -> None:
    """Train the network, and take the weights over."""
    about = network.training
    settings = [w for name, value in about.settings.items() for w in ("--set", f"{name}={value}")]
    going_on = ["--resume"] if run.exists() else []
    tcc(
        "train",
        shipped.list_specs()[about.spec],
        *settings,
        "--data",
        data,
        "--recipe",
        about.recipe,
        "--seed",
        str(about.seed),
        "--threads",
        str(threads),
        "-o",
        run,
        *going_on,
    )
    shutil.copyfile(run / "weights.safetensors", network.weights)


def calibrate(network: TrainedNetwork, data: Path) -> None:
    """Calibrate the network with training images."""
    images = ("--data", data / "train", "--images", str(IMAGES))
    tcc("calibrate", network.name, *images, "--target", "onnxruntime", "-o", network.calibration)


def judged(network: TrainedNetwork, data: Path, run: Path, few: int) -> dict[str, Document]:
    """Return how floats and integers do on the test images; one target's, on `few` of them."""
    targets = (*TARGETS, EMULATED) if few else TARGETS
    words = ("--target", ",".join(targets), "--precision", "int8")
    built = tcc("build", network.name, *words, "-o", run / "bundles")
    bundles = {each["target"]: each["path"] for each in built["bundles"]}
    test = ("--data", data / "test")
    found = {
        "float": tcc("eval", network.name, *test),
        **{f"int8, {name}": tcc("eval", bundles[name], *test) for name in TARGETS},
    }
    if few:
        part = ("--data", some(dataset.read_dataset(data / "test"), few, run / "emulated"))
        found |= {
            f"int8, {name}, some": tcc("eval", bundles[name], *part)
            for name in (TARGETS[0], EMULATED)
        }
    return found


def some(test: DataSet, count: int, folder: Path) -> Path:
    """Copy so many images, the first by digest, which is as good as at random, into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for item in test.select_first(count).items:
        place = folder / str(item.label)
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.path, place / f"{item.digest[:16]}{item.path.suffix}")
    return folder


def apart(data: Path, report: Document) -> str:
    """Return what is known of groups on the sides, after a look at every image.

    Raises:
        SystemExit: The training was of other images.
    """
    split = image_split.read_split(data)  # refuses a group on two sides
    for side, images in split.datasets.items():
        if images.digest != report["data"]["digests"][side]:
            sys.exit(f"{data}: the images of `{side}` are not those of the training")
    if not split.groups:
        return "No groups, such as patients, are named: whether one is on two sides is unknown."
    count = len(set(split.groups.values()))
    return f"The images are of {count:,} groups, none of which is on two sides."


def card(
    network: TrainedNetwork, report: Document, groups: str, found: Mapping[str, Document]
) -> str:
    """Return the card, Markdown; `groups` says what is known of them."""
    about, data = network.training, report["data"]
    settings = " ".join(f"--set '{name}={value}'" for name, value in about.settings.items())
    sides = [(side, *map(str, counts), str(sum(counts))) for side, counts in data["images"].items()]
    made = "; ".join(f"{name} {value}" for name, value in report["made_with"].items())
    classes = [
        (c["label"], _within(c, "sensitivity"), _within(c, "specificity"), c["support"])
        for c in found["float"]["classes"]
    ]
    parts = [
        f"# {network.name}: {about.task}",
        "**Not a medical device.** For research: no diagnosis may rest on it.",
        f"The spec `{about.spec}` with `{settings}`; weights under the {about.license} licence."
        f" The digest of the weights is `{report['weights']}`.",
        "## Data",
        about.data.strip(),
        _table(("side", *data["classes"], "images"), sides),
        f"{groups} The digest of the test images is `{data['digests']['test'][:16]}`.",
        "## Training",
        f"`tcc train` with the recipe `{about.recipe}`, {report['epochs']} epochs, seed"
        f" {report['seed']}, threads: {report['threads']}. The same bytes come out where this is"
        f" the same: {made}. Elsewhere expect figures within the intervals.",
        "## Accuracy on the test images",
        "Intervals are exact ones of 95 % (Clopper, Pearson).",
        _table(
            ("form", "right", "accuracy", "interval", "weighted F1", "macro ROC-AUC"),
            [_scores(name, each) for name, each in found.items()],
        ),
        _table(("class, in float", "sensitivity", "specificity", "images"), classes),
        f"Integers are those of the shipped calibration, of {IMAGES} training images at most."
        f"{_emulated(found)}",
        "## Limits",
        about.limits.strip(),
    ]
    return "\n\n".join(parts) + "\n"


def _emulated(found: Mapping[str, Document]) -> str:
    if f"int8, {EMULATED}, some" not in found:
        return ""
    return (
        " `some` are test images for programs that QEMU runs: the first by digest, whatever"
        " their class."
    )


def _scores(name: str, each: Document) -> Sequence[object]:
    low, high = (each["intervals"]["accuracy"][end] for end in ("low", "high"))
    return (
        name,
        f"{each['correct']} of {each['data']['images']}",
        f"{each['accuracy']:.2%}",
        f"{low:.2%} to {high:.2%}",
        f"{each['weighted']['f1']:.4f}",
        f"{each['auc']['macro']:.4f}",
    )


def _within(each: Document, what: str) -> str:
    low, high = (each["intervals"][what][end] for end in ("low", "high"))
    return f"{each[what]:.2%} ({low:.2%} to {high:.2%})"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> int:
    """Make what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=sorted(trained.read_networks()))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--card", action="store_true")
    parser.add_argument("--emulated", type=int, default=64, metavar="N")
    asked = parser.parse_args()
    network, run = trained.read_networks()[asked.name], RUNS / asked.name
    if not asked.card:
        train(network, asked.data, asked.threads, run)
        calibrate(network, asked.data)
    report = json.loads((run / "report.json").read_text())
    groups = apart(asked.data, report)
    found = judged(network, asked.data, run, asked.emulated)
    network.card.write_text(card(network, report, groups, found))
    print(network.card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
