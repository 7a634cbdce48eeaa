"""Throughput of `tcc train` on this machine: the loop beside its step alone, and a step by hand.

    python tools/bench/training.py [--size 128] [--batch 64] [--steps 8] [--rounds 3] [--threads 1]

Prints JSON: images a second of processor time, over all threads, for DDSNet

- `loop`: all of it: order, augmentation as in the recipe `ddsnet-lung`, the contract's arithmetic,
  the step, its metrics and its state on the disk;
- `step`: forward, backward, SGD and average on one batch that is ready;
- `by_hand`: the network and the step as one writes them in PyTorch, without an average.

Rounds take turns; each figure is the median. The machine's other work hardly moves the ratios.
"""

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.support.diagnostics import NOWHERE
from tcc.compiler.train import arithmetic, checkpoint, class_outputs, losses, recipe
from tcc.compiler.train.checkpoint import TrainingIdentity, TrainingPosition, TrainingState
from tcc.compiler.train.loop import RunLimits, TrainingData, TrainingRun
from tcc.compiler.train.metrics import EpochMetrics
from tcc.compiler.train.pixel_store import PixelStore
from tcc.compiler.train.recipe import Recipe
from tcc.compiler.train.trainer import Trainer, TrainingPlan
from tcc.compiler.zoo import shipped

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("ADI", "MUC", "MUS", "STR", "STU", "TUM")


class Silent:
    """Hears, and says nothing."""

    def step(self, done: int, total: int) -> None:
        """Hear of a step."""

    def epoch(self, found: EpochMetrics, epochs: int) -> None:
        """Hear of an epoch."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, value in (("size", 128), ("batch", 64), ("steps", 8), ("rounds", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    with (
        arithmetic.repeatable(given.threads, torch.device("cpu")),
        tempfile.TemporaryDirectory() as folder,
    ):
        speeds = _measured(given, Path(folder))
    ratios = {"loop_to_step": speeds["loop"] / speeds["step"]}
    ratios["step_to_by_hand"] = speeds["step"] / speeds["by_hand"]
    print(json.dumps(vars(given) | {"images_a_cpu_second": speeds} | ratios, indent=1))


def _measured(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    how = replace(recipe.read(shipped.recipes()["ddsnet-lung"]), epochs=1, batch=given.batch)
    works = {
        "loop": _loop(given, how, folder / "state"),
        "step": _step(given, how),
        "by_hand": _by_hand(given),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(given.rounds + 1):
        for name, work in works.items():
            begin = time.process_time()
            work()
            if number:  # the first makes kernels
                times[name].append(time.process_time() - begin)
    images = given.batch * given.steps
    return {name: images / statistics.median(each) for name, each in times.items()}


def _trainer(given: argparse.Namespace, how: Recipe) -> Trainer:
    spec = load(shipped.specs()["ddsnet"], {"size": str(given.size)})
    outputs = class_outputs.planned(spec.graph, how.loss, CLASSES, NOWHERE)
    loss = losses.prepared(how.loss, dict.fromkeys(CLASSES, 1))
    start, device = weights.random(spec.graph), torch.device("cpu")
    return Trainer(TrainingPlan(spec.graph, start, how, CLASSES, outputs, (loss,), 0, device))


def _loop(given: argparse.Namespace, how: Recipe, path: Path) -> Callable[[], None]:
    trainer, count = _trainer(given, how), given.batch * given.steps
    levels = torch.randint(0, 256, (count, 3, given.size, given.size), dtype=torch.uint8)
    contract = trainer.plan.outputs.source.preprocess
    store = PixelStore(
        levels, torch.arange(count) % 6, ("",) * count, contract, np.zeros(count, np.uint32)
    )
    none = PixelStore(levels[:0], store.classes[:0], (), contract, store.checksums[:0])
    identity = TrainingIdentity("", "", "", "", "", CLASSES, 0)
    position = TrainingPosition(
        checkpoint.VERSION, identity, torch.__version__, given.threads, 1, 0, 0, 0, (), None
    )
    start = TrainingState(position, np.zeros(0, np.float32), {})

    def work() -> None:
        TrainingRun(trainer, TrainingData(store, none), start, RunLimits(path)).run(Silent())

    return work


def _batch(given: argparse.Namespace) -> tuple[Tensor, Tensor]:
    shape = (given.batch, 3, given.size, given.size)
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    return images, torch.arange(given.batch) % 6


def _step(given: argparse.Namespace, how: Recipe) -> Callable[[], None]:
    trainer, (images, classes) = _trainer(given, how), _batch(given)
    targets = nn.functional.one_hot(classes, 6).float()

    def work() -> None:
        for number in range(given.steps):
            trainer.step(images, targets, 0.01, number)

    return work


def _by_hand(given: argparse.Namespace) -> Callable[[], None]:
    sys.path.insert(0, str(ROOT / "tests"))
    ddsnet = importlib.import_module("reference_nets.ddsnet")

    network: Any = ddsnet.DDSNet(6).to(memory_format=torch.channels_last)
    how = torch.optim.SGD(network.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True)
    images, classes = _batch(given)

    def work() -> None:
        for _ in range(given.steps):
            how.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(images)
            loss: Any = nn.functional.cross_entropy(logits.float(), classes, label_smoothing=0.1)
            loss.backward()
            how.step()

    return work


if __name__ == "__main__":
    main()
