"""Measure the throughput of `tcc train`: the loop, its step, and a hand-written PyTorch step.

    python tools/bench/training.py [--size 128] [--batch 64] [--steps 24] [--threads 1]

Prints JSON: images per second of CPU time, over all threads, for DDSNet:

- `loop`: a complete step: order, augmentation as in the recipe `ddsnet-lung`, preprocessing,
  the step, its average and metrics;
- `step`: forward, backward, SGD and average on one prepared batch;
- `plain`: the same without an average;
- `by_hand`: the network and the step in ordinary PyTorch code, without an average.

After each step of the loop, each of the others runs once, so that other load on the machine affects
all. Figures are medians over the steps. `state_ms` is the time to write the training state, which
happens every 15 seconds and at the end. The other figures do not include it.
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
    """After each step of the loop, records its time and runs one step of each of the others."""

    def __init__(self, other_steps: dict[str, Callable[[], None]]) -> None:
        self.other_steps, self.loop = other_steps, "loop"
        self.seconds: dict[str, list[float]] = {name: [] for name in (self.loop, *other_steps)}
        self._begin = time.process_time()

    def report_step(self, completed_steps: int, total: int) -> None:
        """Record the time of a step."""
        del completed_steps, total
        self.seconds[self.loop].append(time.process_time() - self._begin)
        for name, work in self.other_steps.items():
            self.seconds[name].append(_measure_seconds(work))
        self._begin = time.process_time()

    def report_epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Ignore the end of an epoch."""


def main() -> None:
    """Run the benchmark and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("size", 128), ("batch", 64), ("steps", 24), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with (
        arithmetic.use_repeatable_arithmetic(options.threads, torch.device("cpu")),
        tempfile.TemporaryDirectory() as folder,
    ):
        figures = _measure_loop(options, Path(folder))
    print(
        json.dumps(
            vars(options) | {"cpu": arithmetic.describe_environment(torch.device("cpu"))} | figures,
            indent=1,
        )
    )


def _measure_loop(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    loop_recipe = replace(
        recipe.read_recipe(shipped.list_recipes()["ddsnet-lung"]), epochs=1, batch=options.batch
    )
    plain_recipe = replace(loop_recipe, average=None)
    turns = Turns(
        {
            "step": _make_step(options, loop_recipe),
            "plain": _make_step(options, plain_recipe),
            "by_hand": _make_torch_step(options),
        }
    )
    run = _make_run(options, loop_recipe, folder / "state")
    run.run(turns)
    # The first steps compile kernels.
    times = {
        name: statistics.median(step_seconds[2:]) for name, step_seconds in turns.seconds.items()
    }
    return {
        "images_a_cpu_second": {
            name: round(options.batch / step_seconds, 1) for name, step_seconds in times.items()
        },
        "loop_to_step": round(times["step"] / times["loop"], 3),
        "plain_to_by_hand": round(times["by_hand"] / times["plain"], 3),
        "state_ms": round(1000 * _measure_seconds(run._write_checkpoint), 1),
    }


def _measure_seconds(work: Callable[[], None]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _make_trainer(options: argparse.Namespace, loop_recipe: Recipe) -> Trainer:
    spec = load(shipped.list_specs()["ddsnet"], {"size": str(options.size)})
    outputs = class_outputs.plan_outputs(spec.graph, loop_recipe.loss, CLASSES, NOWHERE)
    loss = losses.build_class_loss(loop_recipe.loss, dict.fromkeys(CLASSES, 1))
    start, device = weights.initialize_random(spec.graph), torch.device("cpu")
    return Trainer(
        TrainingPlan(spec.graph, start, loop_recipe, CLASSES, outputs, (loss,), 0, device)
    )


def _make_run(options: argparse.Namespace, loop_recipe: Recipe, path: Path) -> TrainingRun:
    trainer, count = _make_trainer(options, loop_recipe), options.batch * options.steps
    levels = torch.randint(0, 256, (count, 3, options.size, options.size), dtype=torch.uint8)
    contract = trainer.plan.outputs.source.preprocess
    store = PixelStore(
        levels, torch.arange(count) % 6, ("",) * count, contract, np.zeros(count, np.uint32)
    )
    empty_store = PixelStore(levels[:0], store.classes[:0], (), contract, store.checksums[:0])
    identity = TrainingIdentity("", "", "", "", "", CLASSES, 0)
    position = TrainingPosition(
        checkpoint.VERSION, identity, torch.__version__, options.threads, 1, 0, 0, 0, (), None
    )
    start = TrainingState(position, np.zeros(0, np.float32), {})
    return TrainingRun(trainer, {"train": store, "val": empty_store}, start, path)


def _make_batch(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    shape = (options.batch, 3, options.size, options.size)
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    return images, torch.arange(options.batch) % 6


def _make_step(options: argparse.Namespace, loop_recipe: Recipe) -> Callable[[], None]:
    trainer, (images, classes) = _make_trainer(options, loop_recipe), _make_batch(options)
    targets = nn.functional.one_hot(classes, 6).float()

    def run_step() -> None:
        trainer.step(images, targets, 0.01, 0)

    return run_step


def _make_torch_step(options: argparse.Namespace) -> Callable[[], None]:
    sys.path.insert(0, str(ROOT / "tests"))
    ddsnet = importlib.import_module("reference_nets.ddsnet")

    network: Any = ddsnet.DDSNet(6).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True)
    images, classes = _make_batch(options)

    def run_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(images)
        loss: Any = nn.functional.cross_entropy(logits.float(), classes, label_smoothing=0.1)
        loss.backward()
        optimizer.step()

    return run_step


if __name__ == "__main__":
    main()
