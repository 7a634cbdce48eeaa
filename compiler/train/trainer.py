"""The state of a network in training (module, optimiser, average), and the training step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from tcc.compiler.data.weights import Weights
from tcc.compiler.ir.graph import Graph
from tcc.compiler.lower.torch import TorchNetwork, create_module
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.train import counter_random, distributed
from tcc.compiler.train.class_outputs import ClassOutputs
from tcc.compiler.train.distributed import SINGLE_PROCESS, World
from tcc.compiler.train.fake_quantization import RANGE_EXPONENTS, FakeQuantizedNetwork
from tcc.compiler.train.losses import OutputLoss
from tcc.compiler.train.recipe_records import Optimizer, Recipe
from tcc.compiler.train.targets import Targets, TrainingTarget

RANGE_RATE = 0.1
"""Default peak learning rate of the activations' ranges (`range_rate`)."""


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """The network to train, and all settings of its training.

    `losses` has the loss of each target. With a calibration, the training is quantization-aware.
    """

    graph: Graph
    initial_weights: Weights
    recipe: Recipe
    classes: tuple[str, ...]
    outputs: ClassOutputs
    losses: tuple[OutputLoss, ...]
    seed: int
    device: torch.device
    world: World = SINGLE_PROCESS
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """The mean loss of a step's images, and the number of correct ones, as tensors."""

    loss: Tensor
    hits: Tensor


class Trainer:
    """The state of a training; `step` trains on one batch."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        recipe = plan.recipe
        self._layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.module: TorchNetwork = (
            create_module(plan.graph, plan.initial_weights)
            if plan.calibration is None
            else FakeQuantizedNetwork(
                plan.graph,
                plan.initial_weights,
                plan.calibration,
                learns_ranges=recipe.range_rate != 0,
            )
        )
        self.module.to(plan.device)
        self.module.to(memory_format=self._layout)  # type: ignore[call-overload]
        self.module.train()
        # Wrap before creating the optimiser, which needs the tensors that receive the gradients. An
        # integer program has no train-only heads.
        uses_all_weights = plan.calibration is None
        self._wrapped_module = distributed.wrap_module(
            self.module, plan.world, uses_all_weights=uses_all_weights
        )
        self.trainable_tensors: Mapping[str, Tensor] = {
            name: tensor for name, tensor in self.tensors.items() if tensor.requires_grad
        }
        weights = {n: t for n, t in self.trainable_tensors.items() if n != RANGE_EXPONENTS}
        self.optimizer = make_optimizer(recipe.optimizer, weights)
        # By Adam, whose steps do not depend on the sizes of the maps and of the loss.
        self.range_optimizer = (
            optim.Adam([self.tensors[RANGE_EXPONENTS]], lr=0.0)
            if RANGE_EXPONENTS in self.tensors
            else None
        )
        self.average = WeightAverage(recipe.average, self.tensors) if recipe.average else None
        self.losses = [loss.to_device(plan.device) for loss in plan.losses]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The weights and statistics by the graph's names, and the exponents of learned ranges."""
        exponents = getattr(self.module, RANGE_EXPONENTS, None)
        weights = self.module.named_weights()
        return weights if exponents is None else {**weights, RANGE_EXPONENTS: exponents}

    @property
    def evaluated_tensors(self) -> Mapping[str, Tensor]:
        """The weights to evaluate and save: the average, or else those of the last step."""
        return self.average.tensors if self.average else self.tensors

    def step(self, images: Tensor, targets: Tensor, rate: float, number: int) -> StepResult:
        """Train on one batch.

        Args:
            images: The network's input, float32 (batch, C, H, W).
            targets: Shares of classes and decisions, float32 (batch, columns).
            rate: The learning rate.
            number: The step in the run, from 0; it seeds dropout.
        """
        # Seed each step, so that dropout in a resumed training is the same. Include the rank,
        # because each process has other images.
        torch.manual_seed(
            counter_random.derive_seed(self.plan.seed, "dropout", number, self.plan.world.rank)
        )
        self.module.zero_grad(set_to_none=True)
        step_result = self._run_forward(images, targets)
        step_result.loss.backward()  # type: ignore[no-untyped-call]
        if self.plan.recipe.clip_norm is not None:
            weights = [t for n, t in self.trainable_tensors.items() if n != RANGE_EXPONENTS]
            nn.utils.clip_grad_norm_(weights, self.plan.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self.range_optimizer:
            range_rate = self.plan.recipe.range_rate
            peak = RANGE_RATE if range_rate is None else range_rate
            # With the schedule of the weights: the ranges settle when the weights do.
            for group in self.range_optimizer.param_groups:
                group["lr"] = peak * rate / self.plan.recipe.learning_rate.peak
            self.range_optimizer.step()
        if self.average:
            self.average.update(self.tensors, number)
        world = self.plan.world
        return StepResult(
            world.reduce_sum(step_result.loss.detach() / world.size),
            world.reduce_sum(step_result.hits),
        )

    def _run_forward(self, images: Tensor, targets: Tensor) -> StepResult:
        plan = self.plan
        with self._enable_autocast():
            outputs = self._wrapped_module(images.contiguous(memory_format=self._layout))
        target_indices, target_columns = (
            plan.outputs.target_indices,
            plan.outputs.split_targets(targets),
        )
        losses = [
            loss_weight
            * self.losses[target_indices[name]]
            .compute_losses(outputs[name], target_columns[target_indices[name]])
            .mean()
            for name, loss_weight in plan.outputs.loss_weights.items()
            if name in outputs  # an integer program has no train-only outputs
        ]
        loss = torch.stack(losses).sum()
        logits = [outputs[name].detach() for name in plan.outputs.scored_outputs]
        return StepResult(loss, count_hits(plan.outputs.targets, logits, target_columns))

    def _enable_autocast(self) -> torch.autocast:
        low = self.plan.recipe.precision == "bf16"
        return torch.autocast(self.plan.device.type, dtype=torch.bfloat16, enabled=low)

    def get_optimizer_state(self, name: str) -> dict[str, Any]:
        """Return the optimiser's state of a trainable tensor; changes of it are changes there."""
        is_range = name == RANGE_EXPONENTS and self.range_optimizer
        optimizer = self.range_optimizer if is_range else self.optimizer
        assert optimizer
        state: dict[str, Any] = optimizer.state[self.trainable_tensors[name]]
        return state

    def predict_batches(self, batches: Iterator[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """Yield the logits of each scored output, float32 (batch, values), for batches of images.

        Uses `evaluated_tensors`.
        """
        self.module.eval()
        try:
            for images in batches:
                with torch.no_grad(), self._enable_autocast():
                    inputs = (images.contiguous(memory_format=self._layout),)
                    # Use the averaged weights for this call only, without copying them.
                    outputs = torch.func.functional_call(
                        self.module, dict(self.evaluated_tensors), inputs
                    )
                # In float32: with the 8 bits of bfloat16, several classes could tie.
                yield tuple(outputs[name].float() for name in self.plan.outputs.scored_outputs)
        finally:
            self.module.train()

    def export_weights(self) -> Mapping[str, NDArray[np.float32]]:
        """Return the tensors to save, as float32 arrays by their names in `tensors`."""
        return {name: to_array(tensor) for name, tensor in self.evaluated_tensors.items()}


def to_array(tensor: Tensor) -> NDArray[np.float32]:
    """Return a copy of a tensor's values as a contiguous array."""
    copied: NDArray[np.float32] = tensor.detach().cpu().contiguous().clone().numpy()
    return copied


def predict_classes(target: TrainingTarget, logits: Tensor) -> Tensor:
    """Return the predictions for images: their classes, or their decisions.

    The class is that of the largest value; ties go to the first. A decision is yes for values of at
    least 0, and so is the second class of a single unit.

    Args:
        target: The target of the output.
        logits: The output's logits, float (images, values).

    Returns:
        int64 (images, 1), or bool (images, decisions).
    """
    if not target.exclusive:
        return logits >= 0
    is_single_unit = logits.shape[1] == 1
    return (logits >= 0).long() if is_single_unit else logits.argmax(dim=1, keepdim=True)


def count_hits(
    targets: Targets, logits: Sequence[Tensor], target_columns: Sequence[Tensor]
) -> Tensor:
    """Return the number of images for which all scored outputs are correct.

    Args:
        targets: The targets.
        logits: The logits of each scored output, float (images, values).
        target_columns: The columns of each target, float (images, columns).
    """
    is_correct = [
        (predict_classes(target, output_logits) == decode_labels(target, part)).all(dim=1)
        for target, output_logits, part in zip(targets, logits, target_columns, strict=True)
    ]
    return torch.stack(is_correct).all(dim=0).sum()


def decode_labels(target: TrainingTarget, columns: Tensor) -> Tensor:
    """Return the labels of images in the form of `predict_classes`, from a target's columns."""
    return columns.argmax(dim=1, keepdim=True) if target.exclusive else columns >= 0.5


class WeightAverage:
    """Moving averages of tensors by name, including batch norm statistics.

    The decay rises to its value as (1 + n) / (10 + n) over n steps, so that the random initial
    weights quickly lose their influence.
    """

    def __init__(self, decay: float, tensors: Mapping[str, Tensor]) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Update the averages with the tensors after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current_tensors = [tensors[name].detach() for name in self.tensors]
        torch._foreach_lerp_(list(self.tensors.values()), current_tensors, 1 - decay)


def make_optimizer(record: Optimizer, weights: Mapping[str, Tensor]) -> optim.Optimizer:
    """Return the optimiser, with two groups of weights: with and without weight decay.

    The learning rate is 0 until it is set before each step.
    """
    matrices = [tensor for tensor in weights.values() if tensor.dim() >= 2]
    vectors = [tensor for tensor in weights.values() if tensor.dim() < 2]
    groups = [
        {"params": tensors, "weight_decay": decay}
        for tensors, decay in ((matrices, record.weight_decay), (vectors, 0.0))
        if tensors
    ]
    betas = (record.beta1, record.beta2)
    match record.kind:
        case "sgd":
            nesterov = record.nesterov and record.momentum > 0
            return optim.SGD(groups, lr=0.0, momentum=record.momentum, nesterov=nesterov)
        case "adam":
            return optim.Adam(groups, lr=0.0, betas=betas)
        case "adamw":
            return optim.AdamW(groups, lr=0.0, betas=betas)
        case _:
            assert_never(record.kind)
