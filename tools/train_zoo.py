#!/usr/bin/env python3
"""Train a network of `zoo/trained` anew: its weights, its calibration and its card.

    python tools/train_zoo.py NAME --data DIR [--threads N] [--card]

DIR has the images of `train`, `val` and `test`. The training runs in `build/trained/NAME` and goes
on there where it was interrupted. The calibration is of the training images; what the card says is
of the test images, which nothing else looks at. `--card` measures and writes the card alone.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tcc.compiler.zoo import shipped, trained
from tcc.compiler.zoo.trained import TrainedNetwork

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "build" / "trained"
TARGETS = ("onnxruntime", "tflite")
"""Those whose integers are measured; every target's are the same, to the bit."""
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
    about = network.about
    settings = [w for name, value in about.settings.items() for w in ("--set", f"{name}={value}")]
    going_on = ["--resume"] if run.exists() else []
    tcc(
        "train", shipped.specs()[about.spec], *settings, "--data", data, "--recipe", about.recipe,
        "--seed", str(about.seed), "--threads", str(threads), "-o", run, *going_on,
    )  # fmt: skip
    shutil.copyfile(run / "weights.safetensors", network.weights)


def calibrate(network: TrainedNetwork, data: Path) -> None:
    """Calibrate the network with training images."""
    images = ("--data", data / "train", "--images", str(IMAGES))
    tcc("calibrate", network.name, *images, "--target", "onnxruntime", "-o", network.calibration)


def judged(network: TrainedNetwork, data: Path, run: Path) -> dict[str, Document]:
    """Return how floats and integers do on the test images."""
    words = ("--target", ",".join(TARGETS), "--precision", "int8")
    built = tcc("build", network.name, *words, "-o", run / "bundles")
    bundles = {f"int8, {each['target']}": each["path"] for each in built["bundles"]}
    test = ("--data", data / "test")
    return {
        "float": tcc("eval", network.name, *test),
        **{name: tcc("eval", path, *test) for name, path in bundles.items()},
    }


def card(network: TrainedNetwork, report: Document, found: Mapping[str, Document]) -> str:
    """Return the card, Markdown."""
    about, data = network.about, report["data"]
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
        f"The spec `{about.spec}` with `{settings}`; weights under the {about.license} licence.",
        "## Data",
        about.data.strip(),
        _table(("side", *data["classes"], "images"), sides),
        "No group is on two sides. The digest of the test images is"
        f" `{data['digests']['test'][:16]}`.",
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
        f"Integers are those of the shipped calibration, of {IMAGES} training images at most.",
        "## Limits",
        about.limits.strip(),
    ]
    return "\n\n".join(parts) + "\n"


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
    parser.add_argument("name", choices=sorted(trained.networks()))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--card", action="store_true")
    asked = parser.parse_args()
    network, run = trained.networks()[asked.name], RUNS / asked.name
    if not asked.card:
        train(network, asked.data, asked.threads, run)
        calibrate(network, asked.data)
    report = json.loads((run / "report.json").read_text())
    network.card.write_text(card(network, report, judged(network, asked.data, run)))
    print(network.card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
