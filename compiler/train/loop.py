"""The training loop: epochs of steps, a judgement after each, and a state that can be resumed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import cos, isfinite, pi
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.train import checkpoint, counter_random, judgement
from tcc.compiler.train.augmentation import augment, mix
from tcc.compiler.train.checkpoint import TrainingState
from tcc.compiler.train.pixel_store import PixelStore
from tcc.compiler.train.recipe_records import LearningRate
from tcc.compiler.train.run_folder import EpochMetrics, Judgement, TrainingObserver
from tcc.compiler.train.trainer import StepResult, Trainer


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """How `images` are cut into batches; with fewer than a batch, they are repeated to fill one.

    With `classes`, int64 (images,), each class that is there has an equal share of each epoch:
    images of small ones come several times, of large ones some not at all.
    """

    images: int
    batch: int
    last: Literal["drop", "wrap"]
    seed: int
    classes: Tensor | None = None

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        match self.last:
            case "drop":
                return max(1, self.images // self.batch)
            case "wrap":
                return -(-self.images // self.batch)
            case _:
                assert_never(self.last)

    def order(self, epoch: int) -> Tensor:
        """Return the images of an epoch, int64 (steps, batch)."""
        generator = counter_random.generator(self.seed, "order", epoch)
        wanted = self.steps * self.batch
        if self.classes is None:
            return _repeated(torch.arange(self.images), wanted, generator).view(-1, self.batch)
        kinds = self.classes.bincount().nonzero()[:, 0]
        # Shuffled, so that it is not always the first classes that get what the division leaves.
        kinds = kinds[torch.randperm(len(kinds), generator=generator)]
        shares = [wanted // len(kinds) + (n < wanted % len(kinds)) for n in range(len(kinds))]
        drawn = [
            _repeated((self.classes == kind).nonzero()[:, 0], share, generator)
            for kind, share in zip(kinds, shares, strict=True)
        ]
        # Once more, or a batch would be of one class.
        return _repeated(torch.cat(drawn), wanted, generator).view(-1, self.batch)


def _repeated(images: Tensor, wanted: int, generator: torch.Generator) -> Tensor:
    """Return so many of some images, shuffled, each as often as another or once more."""
    shuffled = images[torch.randperm(len(images), generator=generator)]
    return shuffled.repeat(-(-wanted // len(images)))[:wanted]


SECONDS = 15.0
"""How often the state is written; it is also written at the end."""
LOOK = 50
"""Steps of an accelerator between two looks at the losses, each of which waits for it."""


class TrainingRun:
    """A training from its beginning, or from where it was resumed."""

    def __init__(
        self,
        trainer: Trainer,
        stores: Mapping[str, PixelStore],
        start: TrainingState,
        path: Path,
        deadline: float | None = None,
    ) -> None:
        """Prepare a training.

        Args:
            trainer: What is trained.
            stores: What is learned from, `train`, and what is judged by, `val`, which may be empty.
            start: The state to begin with.
            path: Where the state is written.
            deadline: The time, as `time.monotonic` has it, at which to end.
        """
        recipe, device = trainer.plan.recipe, trainer.plan.device
        self.trainer, self.train, self.val = trainer, stores["train"], stores["val"]
        self.path, self.deadline = path, deadline
        count = len(self.train.classes)
        classes = self.train.classes.cpu() if recipe.sampling == "balanced" else None
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
        levels, classes = self.train.batch(own.to(self.train.classes.device))
        levels, classes = levels.to(plan.device), classes.to(plan.device)
        contract = plan.outputs.source.preprocess
        if recipe.augment and contract:
            levels = augment(recipe.augment, levels, own, plan.seed, epoch, contract.color)
        images = self.train.inputs(levels)
        # Shares of classes and not indices: mixed images have two.
        targets = self._truths[classes]
        if recipe.mixup:
            images, targets = mix(recipe.mixup, images, targets, plan.seed, epoch, step)
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
        if not len(self.val.classes):
            return None
        found = judgement.judged(self.trainer, self.val)
        if not isfinite(found.loss):
            raise self._not_finite(f"the loss of the validation images after epoch {epoch + 1}")
        return found

    def _over(self) -> bool:
        if self.deadline is None:
            return False
        # Clocks of processes differ: all end at the same step, or those that go on would wait for
        # ever.
        return self.trainer.plan.world.agreed(time.monotonic() >= self.deadline)

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
        path = self.path
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
        checkpoint.write(self.path, self.trainer, state)
        self._written = time.monotonic()


def rate(record: LearningRate, step: int, epoch_steps: int, epochs: int) -> float:
    """Return the learning rate of a step.

    Args:
        record: The schedule.
        step: The step, counted from 0 over the whole run.
        epoch_steps: Steps of an epoch.
        epochs: Epochs of the whole run.
    """
    total = epoch_steps * epochs
    # At most half: a recipe of many epochs is tried with few, which must learn at its peak too.
    rising = min(record.warmup_epochs * epoch_steps, total / 2)
    if step < rising:
        # Neither 0, which would waste the first step, nor yet the peak, which is the next one's.
        return record.peak * (step + 1) / (rising + 1)
    return record.peak * _share(record, step // epoch_steps, (step - rising) / (total - rising))


def _share(record: LearningRate, epoch: int, progress: float) -> float:
    """Return the rate's share of the peak; `progress` runs from 0 to 1 after the warm-up."""
    match record.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return record.final + (1 - record.final) * (1 + cos(pi * progress)) / 2
        case "exponential":
            return float(record.decay**epoch)
        case "steps":
            return float(record.decay ** sum(epoch >= at for at in record.at_epochs))
        case _:
            assert_never(record.schedule)
