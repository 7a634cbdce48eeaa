"""A network in training: its module, optimiser and average, and what a step does to them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

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
from tcc.compiler.train.fake_quantization import FakeQuantizedNetwork
from tcc.compiler.train.losses import OutputLoss
from tcc.compiler.train.recipe_records import Optimizer, Recipe
from tcc.compiler.train.targets import Targets, TrainingTarget


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """What is trained and how; `initial_weights` are the weights that it begins with.

    `losses` are those of the outputs' targets.

    With a calibration the network is trained as its integer program.
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
    """The mean loss of a step's images, and how many of them were told right, as tensors."""

    loss: Tensor
    hits: Tensor


class Trainer:
    """The state of a training, and its step."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        recipe = plan.recipe
        self._layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        # With a calibration the network is trained as its integer program.
        self.module: TorchNetwork = (
            create_module(plan.graph, plan.initial_weights)
            if plan.calibration is None
            else FakeQuantizedNetwork(plan.graph, plan.initial_weights, plan.calibration)
        )
        self.module.to(plan.device)
        self.module.to(memory_format=self._layout)  # type: ignore[call-overload]
        self.module.train()
        # Before the optimiser is made, whose tensors must be those that gradients come to.
        uses_all_weights = (
            plan.calibration is None
        )  # an integer program has no heads for training alone
        self._wrapped_module = distributed.wrap_module(
            self.module, plan.world, uses_all_weights=uses_all_weights
        )
        self.trainable_tensors: Mapping[str, Tensor] = {
            name: tensor for name, tensor in self.tensors.items() if tensor.requires_grad
        }
        self.optimizer = make_optimizer(recipe.optimizer, self.trainable_tensors)
        self.average = WeightAverage(recipe.average, self.tensors) if recipe.average else None
        self.losses = [loss.to_device(plan.device) for loss in plan.losses]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The weights and statistics by the graph's names."""
        return self.module.named_weights()

    @property
    def evaluated_tensors(self) -> Mapping[str, Tensor]:
        """The weights that are judged and kept: the average, or else those of the last step."""
        return self.average.tensors if self.average else self.tensors

    def step(self, images: Tensor, targets: Tensor, rate: float, number: int) -> StepResult:
        """Learn from a batch: step `number` of the whole run, at a learning rate.

        Args:
            images: The network's input, float32 (batch, C, H, W).
            targets: Shares of classes and decisions, float32 (batch, columns).
            rate: The learning rate.
            number: Counts from 0; it seeds dropout.
        """
        # Seeded anew each step, so that a training that goes on drops what an unbroken one would
        # have; with the rank, since each process has images of its own.
        torch.manual_seed(
            counter_random.derive_seed(self.plan.seed, "dropout", number, self.plan.world.rank)
        )
        self.optimizer.zero_grad(set_to_none=True)
        step_result = self._run_forward(images, targets)
        step_result.loss.backward()  # type: ignore[no-untyped-call]
        if self.plan.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.trainable_tensors.values(), self.plan.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
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
            if name in outputs  # an integer program has none for training alone
        ]
        loss = torch.stack(losses).sum()
        logits = [outputs[name].detach() for name in plan.outputs.scored_outputs]
        return StepResult(loss, count_hits(plan.outputs.targets, logits, target_columns))

    def _enable_autocast(self) -> torch.autocast:
        low = self.plan.recipe.precision == "bf16"
        return torch.autocast(self.plan.device.type, dtype=torch.bfloat16, enabled=low)

    def predict_batches(self, batches: Iterator[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """Yield what is given for batches of images, by the weights that are judged.

        They are the raw values of each target's judged output, float32 (batch, values).
        """
        self.module.eval()
        try:
            for images in batches:
                with torch.no_grad(), self._enable_autocast():
                    inputs = (images.contiguous(memory_format=self._layout),)
                    # The average takes the place of the weights for this call alone: nothing is
                    # copied back and forth.
                    outputs = torch.func.functional_call(
                        self.module, dict(self.evaluated_tensors), inputs
                    )
                # bfloat16 has 8 bits: of many classes several would be equal, and the first be
                # taken.
                yield tuple(outputs[name].float() for name in self.plan.outputs.scored_outputs)
        finally:
            self.module.train()

    def export_weights(self) -> Mapping[str, NDArray[np.float32]]:
        """Return what is kept, as float32 arrays by the graph's names."""
        return {name: to_array(tensor) for name, tensor in self.evaluated_tensors.items()}


def to_array(tensor: Tensor) -> NDArray[np.float32]:
    """Return a tensor's values, row by row, in memory of their own."""
    copied: NDArray[np.float32] = tensor.detach().cpu().contiguous().clone().numpy()
    return copied


def predict_classes(target: TrainingTarget, logits: Tensor) -> Tensor:
    """Return what images are taken for: their class, or which decisions hold.

    The class is that of the largest value, of equal ones the first; a decision holds from 0 on, and
    of a single unit it is the second class.

    Args:
        target: What the values are to tell.
        logits: Raw ones, float (images, values).

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
    """Return how many images are told right by all judged outputs.

    Args:
        targets: What each is to tell.
        logits: What each gave, raw, float (images, values).
        target_columns: The columns of each, float (images, columns).
    """
    is_correct = [
        (predict_classes(target, output_logits) == decode_labels(target, part)).all(dim=1)
        for target, output_logits, part in zip(targets, logits, target_columns, strict=True)
    ]
    return torch.stack(is_correct).all(dim=0).sum()


def decode_labels(target: TrainingTarget, columns: Tensor) -> Tensor:
    """Return what images are, as `predict_classes` has it, of the shares of a target's columns."""
    return columns.argmax(dim=1, keepdim=True) if target.exclusive else columns >= 0.5


class WeightAverage:
    """Averages of tensors by name; the statistics of batch norms are among them.

    The decay grows to its value as (1 + n) / (10 + n) over n steps, so that the random weights of
    the start are soon forgotten.
    """

    def __init__(self, decay: float, tensors: Mapping[str, Tensor]) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take in the tensors after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current_tensors = [tensors[name].detach() for name in self.tensors]
        torch._foreach_lerp_(list(self.tensors.values()), current_tensors, 1 - decay)


def make_optimizer(record: Optimizer, weights: Mapping[str, Tensor]) -> optim.Optimizer:
    """Return the optimiser of weights by name, in two groups: those that decay, and the others.

    The learning rate is set before each step, and is 0 until then.
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
