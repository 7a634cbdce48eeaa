"""Throughput of `tcc train` on this machine: the loop beside its step alone, and a step by hand.

    python tools/bench/training.py [--size 128] [--batch 64] [--steps 24] [--threads 1]

Prints JSON: images a second of processor time, over all threads, for DDSNet

- `loop`: all of a step: order, augmentation as in the recipe `ddsnet-lung`, the contract's
  arithmetic, the step, its average and metrics;
- `step`: forward, backward, SGD and average on one batch that is ready;
- `plain`: the same without an average;
- `by_hand`: the network and the step as one writes them in PyTorch, without an average.

After each step of the loop comes one of the others each, so that all meet the same load of the
machine; figures are medians over the steps. `state_ms` is what it takes to write the state, every
15 seconds and at the end: it is in none of them.
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
from tcc.compiler.train.loop import TrainingRun
from tcc.compiler.train.pixel_store import PixelStore
from tcc.compiler.train.recipe_records import Recipe
from tcc.compiler.train.run_folder import EpochMetrics
from tcc.compiler.train.trainer import Trainer, TrainingPlan
from tcc.compiler.zoo import shipped

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("ADI", "MUC", "MUS", "STR", "STU", "TUM")


class Turns:
    """After each step of the loop, takes the time that it took, and gives the others their turn."""

    def __init__(self, others: dict[str, Callable[[], None]]) -> None:
        self.others, self.loop = others, "loop"
        self.seconds: dict[str, list[float]] = {name: [] for name in (self.loop, *others)}
        self._begin = time.process_time()

    def report_step(self, completed_steps: int, total: int) -> None:
        """Hear of a step."""
        del completed_steps, total
        self.seconds[self.loop].append(time.process_time() - self._begin)
        for name, work in self.others.items():
            self.seconds[name].append(_spent(work))
        self._begin = time.process_time()

    def report_epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Hear of an epoch."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, value in (("size", 128), ("batch", 64), ("steps", 24), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    with (
        arithmetic.use_repeatable_arithmetic(given.threads, torch.device("cpu")),
        tempfile.TemporaryDirectory() as folder,
    ):
        found = _measured(given, Path(folder))
    print(
        json.dumps(
            vars(given) | {"cpu": arithmetic.describe_environment(torch.device("cpu"))} | found,
            indent=1,
        )
    )


def _measured(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    how = replace(
        recipe.read_recipe(shipped.list_recipes()["ddsnet-lung"]), epochs=1, batch=given.batch
    )
    plain = replace(how, average=None)
    turns = Turns(
        {"step": _step(given, how), "plain": _step(given, plain), "by_hand": _by_hand(given)}
    )
    run = _loop(given, how, folder / "state")
    run.run(turns)
    # The first steps make kernels.
    times = {name: statistics.median(each[2:]) for name, each in turns.seconds.items()}
    return {
        "images_a_cpu_second": {name: round(given.batch / each, 1) for name, each in times.items()},
        "loop_to_step": round(times["step"] / times["loop"], 3),
        "plain_to_by_hand": round(times["by_hand"] / times["plain"], 3),
        "state_ms": round(1000 * _spent(run._write_checkpoint), 1),
    }


def _spent(work: Callable[[], None]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _trainer(given: argparse.Namespace, how: Recipe) -> Trainer:
    spec = load(shipped.list_specs()["ddsnet"], {"size": str(given.size)})
    outputs = class_outputs.plan_outputs(spec.graph, how.loss, CLASSES, NOWHERE)
    loss = losses.build_class_loss(how.loss, dict.fromkeys(CLASSES, 1))
    start, device = weights.initialize_random(spec.graph), torch.device("cpu")
    return Trainer(TrainingPlan(spec.graph, start, how, CLASSES, outputs, (loss,), 0, device))


def _loop(given: argparse.Namespace, how: Recipe, path: Path) -> TrainingRun:
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
    return TrainingRun(trainer, {"train": store, "val": none}, start, path)


def _batch(given: argparse.Namespace) -> tuple[Tensor, Tensor]:
    shape = (given.batch, 3, given.size, given.size)
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    return images, torch.arange(given.batch) % 6


def _step(given: argparse.Namespace, how: Recipe) -> Callable[[], None]:
    trainer, (images, classes) = _trainer(given, how), _batch(given)
    targets = nn.functional.one_hot(classes, 6).float()

    def work() -> None:
        trainer.step(images, targets, 0.01, 0)

    return work


def _by_hand(given: argparse.Namespace) -> Callable[[], None]:
    sys.path.insert(0, str(ROOT / "tests"))
    ddsnet = importlib.import_module("reference_nets.ddsnet")

    network: Any = ddsnet.DDSNet(6).to(memory_format=torch.channels_last)
    how = torch.optim.SGD(network.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True)
    images, classes = _batch(given)

    def work() -> None:
        how.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(images)
        loss: Any = nn.functional.cross_entropy(logits.float(), classes, label_smoothing=0.1)
        loss.backward()
        how.step()

    return work


if __name__ == "__main__":
    main()
