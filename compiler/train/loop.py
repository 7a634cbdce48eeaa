"""The training loop: epochs of steps, a judgement after each, and a state that can be resumed."""

import time
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.train import checkpoint, judgement
from tcc.compiler.train.augmentation import augment
from tcc.compiler.train.batches import BatchPlan
from tcc.compiler.train.checkpoint import TrainingState
from tcc.compiler.train.judgement import LabelledPixels
from tcc.compiler.train.learning_rate import rate
from tcc.compiler.train.metrics import EpochMetrics, Judgement
from tcc.compiler.train.mixup import mixed
from tcc.compiler.train.trainer import StepResult, Trainer

SECONDS = 15.0
"""How often the state is written; it is also written at the end."""
LOOK = 50
"""Steps of an accelerator between two looks at the losses, each of which waits for it."""


class TrainingObserver(Protocol):
    """Told how far a training is."""

    def step(self, done: int, total: int) -> None:
        """Hear that so many steps of the whole run are done."""
        ...

    def epoch(self, found: EpochMetrics, epochs: int) -> None:
        """Hear how an epoch went."""
        ...


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What is learned from, and what is judged by; `val` may be empty."""

    train: LabelledPixels
    val: LabelledPixels


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Where the state is written, and the time, as `time.monotonic` has it, at which to end."""

    checkpoint: Path
    deadline: float | None = None


class TrainingRun:
    """A training from its beginning, or from where it was resumed."""

    def __init__(
        self, trainer: Trainer, data: TrainingData, start: TrainingState, limits: RunLimits
    ) -> None:
        recipe, device = trainer.plan.recipe, trainer.plan.device
        self.trainer, self.data, self.limits = trainer, data, limits
        count = len(data.train.classes)
        classes = data.train.classes.cpu() if recipe.sampling == "balanced" else None
        self.plan = BatchPlan(count, recipe.batch, recipe.last_batch, trainer.plan.seed, classes)
        self.position, self.best = start.position, start.best
        self._truths = trainer.plan.outputs.truths.to(device)
        # On the device: reading each loss would make it wait for the CPU at every step.
        self._losses = torch.zeros(self.plan.steps, device=device)
        self._losses[: len(start.losses)] = torch.from_numpy(start.losses)
        self._hits = torch.tensor(start.position.hits, device=device)
        self._written = time.monotonic()

    def run(self, observer: TrainingObserver) -> None:
        """Train to the end, or until the time is over; the state is written then.

        Raises:
            UserError: The loss is not finite (E1228), or the state cannot be written.
        """
        while not self.finished and not self._over():
            self._epoch(observer)
            if self.position.step == 0:
                observer.epoch(self.position.done[-1], self.trainer.plan.recipe.epochs)
        self._write()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.position.epoch == self.trainer.plan.recipe.epochs

    def _epoch(self, observer: TrainingObserver) -> None:
        """Train the rest of the epoch, or as much of it as there is time for."""
        steps, epoch = self.plan.steps, self.position.epoch
        total, order = steps * self.trainer.plan.recipe.epochs, self.plan.order(epoch)
        for step in range(self.position.step, steps):
            result = self._step(epoch, step, order[step])
            self._losses[step], self._hits = result.loss, self._hits + result.hits
            self.position = replace(self.position, step=step + 1)
            self._look(step)
            observer.step(epoch * steps + step + 1, total)
            if self._over():
                break
            # By time and not by steps: how much a kill loses is the same for small and large
            # networks.
            if time.monotonic() - self._written > SECONDS:
                self._write()
        if self.position.step == steps:
            self._finish(epoch)

    def _step(self, epoch: int, step: int, samples: Tensor) -> StepResult:
        plan = self.trainer.plan
        recipe, number = plan.recipe, epoch * self.plan.steps + step
        # Of several processes each takes its part of one batch, in one order for all.
        own = plan.world.share(samples)
        levels, classes = self.data.train.batch(own.to(self.data.train.classes.device))
        levels, classes = levels.to(plan.device), classes.to(plan.device)
        contract = plan.outputs.source.preprocess
        if recipe.augment and contract:
            levels = augment(recipe.augment, levels, own, plan.seed, epoch, contract.color)
        images = self.data.train.inputs(levels)
        # Shares of classes and not indices: mixed images have two.
        targets = self._truths[classes]
        if recipe.mixup:
            images, targets = mixed(recipe.mixup, images, targets, plan.seed, epoch, step)
        speed = rate(recipe.learning_rate, number, self.plan.steps, recipe.epochs)
        return self.trainer.step(images, targets, speed, number)

    def _finish(self, epoch: int) -> None:
        """Judge what an epoch has come to, and begin the next."""
        self._check()
        plan, steps = self.trainer.plan, self.plan.steps
        last = rate(plan.recipe.learning_rate, (epoch + 1) * steps - 1, steps, plan.recipe.epochs)
        # In float64: a sum of float32 would depend on the order of its terms.
        loss = float(self._losses.double().mean())
        accuracy = int(self._hits) / (steps * self.plan.batch)
        found = EpochMetrics(epoch + 1, last, loss, accuracy, self._judged(epoch))
        done = (*self.position.done, found)
        best = self._best(found)
        self.position = replace(
            self.position, epoch=epoch + 1, step=0, hits=0, done=done, best=best
        )
        self._losses.zero_()
        self._hits.zero_()

    def _best(self, found: EpochMetrics) -> int | None:
        """Return the epoch that did best so far, and keep its weights, where the best are kept."""
        if self.trainer.plan.recipe.keep == "last" or found.val is None:
            return self.position.best
        number = self.position.best
        before = self.position.done[number - 1].val if number else None
        # Of equal accuracy the smaller loss; of equal both the earlier epoch.
        if before and (before.accuracy, -before.loss) >= (found.val.accuracy, -found.val.loss):
            return number
        self.best = self.trainer.weights()
        return found.epoch

    def _judged(self, epoch: int) -> Judgement | None:
        if not len(self.data.val.classes):
            return None
        found = judgement.judged(self.trainer, self.data.val)
        if not isfinite(found.loss):
            raise self._not_finite(f"the loss of the validation images after epoch {epoch + 1}")
        return found

    def _over(self) -> bool:
        deadline = self.limits.deadline
        if deadline is None:
            return False
        # Clocks of processes differ: all end at the same step, or those that go on would wait for
        # ever.
        return self.trainer.plan.world.agreed(time.monotonic() >= deadline)

    def _look(self, step: int) -> None:
        """Look whether losses are finite: each where that is cheap, and else now and then."""
        if self._losses.device.type == "cpu" or step % LOOK == 0:
            self._check()

    def _check(self) -> None:
        if not self._losses.isfinite().all():
            step = int((~self._losses.isfinite()).nonzero()[0, 0])
            raise self._not_finite(
                f"the loss of step {step + 1} of epoch {self.position.epoch + 1}"
            )

    def _not_finite(self, what: str) -> UserError:
        path = self.limits.checkpoint
        label = "no state was written before it"
        if path.exists():
            good = checkpoint.read(path)[0].position
            label = f"the last good state, after step {good.step} of epoch {good.epoch + 1}"
        help = "lower the learning rate's `peak`, lengthen `warmup_epochs`, or say `clip_norm: 1`"
        return fail("E1228", f"{what} is not finite", whole_file(str(path)), label=label, help=help)

    def _write(self) -> None:
        self._check()
        # A state that is not finite would replace the last good one.
        if not all(tensor.isfinite().all() for tensor in self.trainer.tensors.values()):
            raise self._not_finite(f"a weight after step {self.position.step}")
        if not self.trainer.plan.world.first:
            return
        position = replace(self.position, hits=int(self._hits))
        losses: NDArray[np.float32] = self._losses.cpu().numpy()
        state = TrainingState(position, losses, self.best)
        checkpoint.write(self.limits.checkpoint, self.trainer, state)
        self._written = time.monotonic()
