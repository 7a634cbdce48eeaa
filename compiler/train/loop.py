"""The training loop: epochs of steps, with a validation after each epoch, and checkpoints."""

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

from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.train import checkpoint, counter_random, evaluation
from tcc.compiler.train.augmentation import apply_mixup, augment
from tcc.compiler.train.checkpoint import TrainingState
from tcc.compiler.train.fake_quantization import FakeQuantizedNetwork
from tcc.compiler.train.pixel_store import PixelStore
from tcc.compiler.train.recipe_records import LearningRate
from tcc.compiler.train.run_folder import EpochMetrics, EvaluationMetrics, TrainingObserver
from tcc.compiler.train.trainer import StepResult, Trainer


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """How `images` are split into batches; fewer than a batch are repeated to fill one.

    With `classes`, int64 (images,), each class gets an equal share of each epoch: images of small
    classes are repeated, and some images of large classes are skipped.
    """

    images: int
    batch: int
    last_batch: Literal["drop", "wrap"]
    seed: int
    classes: Tensor | None = None

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        match self.last_batch:
            case "drop":
                return max(1, self.images // self.batch)
            case "wrap":
                return -(-self.images // self.batch)
            case _:
                assert_never(self.last_batch)

    def build_batches(self, epoch: int) -> Tensor:
        """Return the image indices of an epoch, int64 (steps, batch)."""
        generator = counter_random.create_generator(self.seed, "order", epoch)
        sample_count = self.steps * self.batch
        if self.classes is None:
            return _sample_repeated(torch.arange(self.images), sample_count, generator).view(
                -1, self.batch
            )
        class_ids = self.classes.bincount().nonzero()[:, 0]
        # Shuffle the classes, so that the remainder does not always go to the first ones.
        class_ids = class_ids[torch.randperm(len(class_ids), generator=generator)]
        class_counts = [
            sample_count // len(class_ids) + (n < sample_count % len(class_ids))
            for n in range(len(class_ids))
        ]
        class_samples = [
            _sample_repeated((self.classes == class_id).nonzero()[:, 0], class_count, generator)
            for class_id, class_count in zip(class_ids, class_counts, strict=True)
        ]
        # Shuffle again, because otherwise batches would have one class.
        return _sample_repeated(torch.cat(class_samples), sample_count, generator).view(
            -1, self.batch
        )


def _sample_repeated(images: Tensor, sample_count: int, generator: torch.Generator) -> Tensor:
    """Return `sample_count` shuffled images; the counts of any two images differ by at most one."""
    shuffled = images[torch.randperm(len(images), generator=generator)]
    return shuffled.repeat(-(-sample_count // len(images)))[:sample_count]


CHECKPOINT_SECONDS = 15.0
"""Interval between checkpoints; a checkpoint is also written at the end."""
LOSS_CHECK_STEPS = 50
"""Steps between two checks of the losses on an accelerator, because each check waits for it."""


class TrainingRun:
    """A new or resumed training."""

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
            trainer: The trainer.
            stores: The images of `train` and `val`; `val` may be empty.
            start: The initial state.
            path: The path of the checkpoint.
            deadline: The time to stop, in terms of `time.monotonic`.
        """
        recipe, device = trainer.plan.recipe, trainer.plan.device
        self.trainer, self.train, self.val = trainer, stores["train"], stores["val"]
        self.path, self.deadline = path, deadline
        count = len(self.train.classes)
        classes = self.train.classes.cpu() if recipe.sampling == "balanced" else None
        self.batch_plan = BatchPlan(
            count, recipe.batch, recipe.last_batch, trainer.plan.seed, classes
        )
        self.position, self.best = start.position, start.best
        self._target_rows = trainer.plan.outputs.target_rows.to(device)
        # On the device, because reading each loss would synchronize with the CPU at every step.
        self._losses = torch.zeros(self.batch_plan.steps, device=device)
        self._losses[: len(start.losses)] = torch.from_numpy(start.losses)
        self._hits = torch.tensor(start.position.hits, device=device)
        self._checkpoint_time = time.monotonic()

    def run(self, observer: TrainingObserver) -> None:
        """Train to the end or until the deadline, and write the checkpoint.

        Raises:
            UserError: The loss is not finite (E1228), or the checkpoint cannot be written.
        """
        if self.position.epoch == self.position.step == 0 and not self.position.start_val:
            self.position = replace(self.position, start_val=self._evaluate_start())
        while not self.is_finished and not self._is_time_over():
            self._run_epoch(observer)
            if self.position.step == 0:
                observer.report_epoch(
                    self.position.completed_epochs[-1], self.trainer.plan.recipe.epochs
                )
        self._write_checkpoint()

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done."""
        return self.position.epoch == self.trainer.plan.recipe.epochs

    def _run_epoch(self, observer: TrainingObserver) -> None:
        """Train the rest of the epoch, or until the deadline."""
        steps, epoch = self.batch_plan.steps, self.position.epoch
        total, order = steps * self.trainer.plan.recipe.epochs, self.batch_plan.build_batches(epoch)
        for step in range(self.position.step, steps):
            step_result = self._run_step(epoch, step, order[step])
            self._losses[step], self._hits = step_result.loss, self._hits + step_result.hits
            self.position = replace(self.position, step=step + 1)
            self._check_periodically(step)
            observer.report_step(epoch * steps + step + 1, total)
            if self._is_time_over():
                break
            # By time, not by steps: the work that a kill loses is then independent of the network.
            if time.monotonic() - self._checkpoint_time > CHECKPOINT_SECONDS:
                self._write_checkpoint()
        if self.position.step == steps:
            self._finish_epoch(epoch)

    def _run_step(self, epoch: int, step: int, samples: Tensor) -> StepResult:
        plan = self.trainer.plan
        recipe, number = plan.recipe, epoch * self.batch_plan.steps + step
        # Each of several processes takes its part of the batch; all use the same order.
        local_samples = plan.world.slice_batch(samples)
        pixels, classes = self.train.gather_batch(local_samples.to(self.train.classes.device))
        pixels, classes = pixels.to(plan.device), classes.to(plan.device)
        contract = plan.outputs.source.preprocess
        if recipe.augment and contract:
            pixels = augment(
                recipe.augment, pixels, local_samples, plan.seed, epoch, contract.color
            )
        images = self.train.to_inputs(pixels)
        # Shares of classes, not indices, because mixed images have two classes.
        targets = self._target_rows[classes]
        if recipe.mixup:
            images, targets = apply_mixup(recipe.mixup, images, targets, plan.seed, epoch, step)
        learning_rate = compute_learning_rate(
            recipe.learning_rate, number, self.batch_plan.steps, recipe.epochs
        )
        return self.trainer.step(images, targets, learning_rate, number)

    def _finish_epoch(self, epoch: int) -> None:
        """Evaluate the network after an epoch, and start the next epoch."""
        self._check_losses()
        plan, steps = self.trainer.plan, self.batch_plan.steps
        final_rate = compute_learning_rate(
            plan.recipe.learning_rate, (epoch + 1) * steps - 1, steps, plan.recipe.epochs
        )
        # In float64, because a float32 sum would depend on the order of its terms.
        loss = float(self._losses.double().mean())
        accuracy = int(self._hits) / (steps * self.batch_plan.batch)
        metrics = EpochMetrics(
            epoch + 1, final_rate, loss, accuracy, self._evaluate_validation(epoch)
        )
        completed_epochs = (*self.position.completed_epochs, metrics)
        best = self._select_best(metrics)
        self.position = replace(
            self.position,
            epoch=epoch + 1,
            step=0,
            hits=0,
            completed_epochs=completed_epochs,
            best=best,
        )
        self._losses.zero_()
        self._hits.zero_()

    def _select_best(self, metrics: EpochMetrics) -> int | None:
        """Return the best epoch so far, and keep its weights if the recipe keeps the best."""
        if self.trainer.plan.recipe.keep == "last" or metrics.val is None:
            return self.position.best
        number = self.position.best
        best_validation = self.position.completed_epochs[number - 1].val if number else None
        if best_validation and self._rank(best_validation) >= self._rank(metrics.val):
            return number
        self.best = self.trainer.export_weights()
        return metrics.epoch

    def _rank(self, validation: EvaluationMetrics) -> tuple[float, float]:
        """Return the order of epochs: in ties the smaller loss is better, then the earlier one."""
        keeps_balanced = self.trainer.plan.recipe.keep == "balanced"
        share = validation.balanced_accuracy if keeps_balanced else validation.accuracy
        return share or 0.0, -validation.loss

    def _evaluate_start(self) -> EvaluationMetrics | None:
        """Return the metrics of the int8 model before quantization-aware training, if it is one."""
        network = self.trainer.module
        if not isinstance(network, FakeQuantizedNetwork) or not len(self.val.classes):
            return None
        with network.use_calibrated_rounding():
            return evaluation.evaluate_network(self.trainer, self.val)

    def _evaluate_validation(self, epoch: int) -> EvaluationMetrics | None:
        if not len(self.val.classes):
            return None
        validation = evaluation.evaluate_network(self.trainer, self.val)
        if not isfinite(validation.loss):
            raise self._build_nonfinite_error(
                f"the loss of the validation images after epoch {epoch + 1}"
            )
        return validation

    def _is_time_over(self) -> bool:
        if self.deadline is None:
            return False
        # The processes' clocks differ. All must stop at the same step, because a process that goes
        # on would wait forever.
        return self.trainer.plan.world.broadcast_flag(time.monotonic() >= self.deadline)

    def _check_periodically(self, step: int) -> None:
        """Check whether losses are finite: at each step on a CPU, otherwise at intervals."""
        if self._losses.device.type == "cpu" or step % LOSS_CHECK_STEPS == 0:
            self._check_losses()

    def _check_losses(self) -> None:
        if not self._losses.isfinite().all():
            step = int((~self._losses.isfinite()).nonzero()[0, 0])
            raise self._build_nonfinite_error(
                f"the loss of step {step + 1} of epoch {self.position.epoch + 1}"
            )

    def _build_nonfinite_error(self, quantity: str) -> UserError:
        path = self.path
        label = "there is no checkpoint from before it"
        if path.exists():
            good_position = checkpoint.read_checkpoint(path)[0].position
            label = (
                f"the last good checkpoint was written after step {good_position.step} of epoch "
                f"{good_position.epoch + 1}"
            )
        help = "lower the learning rate's `peak`, raise `warmup_epochs`, or add `clip_norm: 1`"
        return fail(
            "E1228", f"{quantity} is not finite", make_file_span(str(path)), label=label, help=help
        )

    def _write_checkpoint(self) -> None:
        self._check_losses()
        # A checkpoint that is not finite must not replace the last good one.
        if not all(tensor.isfinite().all() for tensor in self.trainer.tensors.values()):
            raise self._build_nonfinite_error(f"a weight after step {self.position.step}")
        if not self.trainer.plan.world.is_main:
            return
        position = replace(self.position, hits=int(self._hits))
        losses: NDArray[np.float32] = self._losses.cpu().numpy()
        state = TrainingState(position, losses, self.best)
        checkpoint.write_checkpoint(self.path, self.trainer, state)
        self._checkpoint_time = time.monotonic()


def compute_learning_rate(record: LearningRate, step: int, epoch_steps: int, epochs: int) -> float:
    """Return the learning rate of a step.

    Args:
        record: The schedule.
        step: The step, counted from 0 over the whole run.
        epoch_steps: Steps of an epoch.
        epochs: Epochs of the whole run.
    """
    total = epoch_steps * epochs
    # At most half of the run, so that a short trial of a long recipe also trains at its peak.
    warmup_steps = min(record.warmup_epochs * epoch_steps, total / 2)
    if step < warmup_steps:
        # From above 0, which would waste the first step, to below the peak of the next step.
        return record.peak * (step + 1) / (warmup_steps + 1)
    return record.peak * _compute_rate_factor(
        record, step // epoch_steps, (step - warmup_steps) / (total - warmup_steps)
    )


def _compute_rate_factor(record: LearningRate, epoch: int, progress: float) -> float:
    """Return the rate as a share of the peak; `progress` runs from 0 to 1 after the warm-up."""
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
