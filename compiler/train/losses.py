"""Losses for class logits and decisions.

A loss is the sum over classes of target * weight * f(p) * -log p, where target is the share of the
class, weight is its weight, and p is the softmax of the logits. f is

- cross-entropy: 1;
- focal (Lin et al., arXiv 1708.02002): (1 - p) ** gamma;
- attention (Xiao et al., IEEE IoT J. 2023, eq. 7): 1 - p ** gamma.

For two classes these are the paper's equations 5 to 7, because p of one class is 1 - p of the
other. A decision has the classes no and yes, and p is the sigmoid: cross-entropy becomes binary
cross-entropy. The loss of several decisions is the mean of their losses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional

from tcc.compiler.train.recipe_records import Loss
from tcc.compiler.train.targets import TrainingTarget

MIN_COMPLEMENT = 1e-12
"""Lower bound of 1 - p before the power, because the slope at 0 would be infinite."""


@dataclass(frozen=True, slots=True)
class ClassLoss:
    """A loss for classes; `weights` has the shape (classes,), or (rows, classes)."""

    record: Loss
    weights: Tensor

    def to_device(self, device: torch.device) -> "ClassLoss":
        """Return the same loss for logits on a device."""
        return ClassLoss(self.record, self.weights.to(device))

    def compute_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image, float32 (batch,).

        Args:
            logits: float (batch, classes), or (batch, 1) for the second of two classes.
            targets: Shares of the classes, float32 (batch, classes).
        """
        return self.compute_row_losses(expand_two_classes(logits.float()), targets)

    def compute_cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of the images, without weights or smoothing."""
        return functional.cross_entropy(expand_two_classes(logits), targets.argmax(dim=1))

    def compute_row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the losses of rows of classes; classes are the last axis of both arguments."""
        log_p = torch.log_softmax(logits, dim=-1)
        smooth = self.record.label_smoothing
        if smooth:
            targets = targets * (1 - smooth) + smooth / targets.shape[-1]
        return -(targets * self.weights * self._compute_factor(log_p) * log_p).sum(dim=-1)

    def _compute_factor(self, log_p: Tensor) -> Tensor:
        gamma = self.record.gamma
        match self.record.kind:
            case "cross_entropy":
                return torch.ones_like(log_p)
            case "focal":
                # Compute 1 - p from log p, because the difference loses precision for p near 1.
                return (-torch.expm1(log_p)).clamp_min(MIN_COMPLEMENT) ** gamma
            case "attention":
                return -torch.expm1(gamma * log_p)
            case _:
                assert_never(self.record.kind)


@dataclass(frozen=True, slots=True)
class DecisionLoss:
    """A loss for decisions; `row_loss` treats each decision as the two classes no and yes."""

    row_loss: ClassLoss

    def to_device(self, device: torch.device) -> "DecisionLoss":
        """Return the same loss for values on a device."""
        return DecisionLoss(self.row_loss.to_device(device))

    def compute_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image, float32 (batch,).

        Args:
            logits: float (batch, decisions).
            targets: The share of yes for each decision, float32 (batch, decisions).
        """
        float_logits = logits.float()
        # The softmax of (0, z) is the sigmoid of z.
        row_logits = torch.stack([torch.zeros_like(float_logits), float_logits], dim=-1)
        row_targets = torch.stack([1 - targets, targets], dim=-1)
        return self.row_loss.compute_row_losses(row_logits, row_targets).mean(dim=-1)

    def compute_cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean binary cross-entropy of the images, without weights or smoothing."""
        return functional.binary_cross_entropy_with_logits(logits, targets)


OutputLoss = ClassLoss | DecisionLoss
"""The loss of an output's values, given the columns of its target."""


def expand_two_classes(logits: Tensor) -> Tensor:
    """Return two-class logits for a single unit; return all other logits unchanged."""
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)  # softmax (0, z) is sigmoid z


def build_class_loss(record: Loss, counts: Mapping[str, int]) -> ClassLoss:
    """Return the loss for classes.

    Args:
        record: The recipe's loss; the classes that it names are keys of `counts`.
        counts: The number of training images of each class, in the network's order.
    """
    weights = _compute_class_weights(record, counts)
    positive = record.positive or tuple(counts)[1:2]
    if record.alpha is not None:
        negative_alpha = 1 - record.alpha if record.kind == "focal" else 1.0
        alphas = [record.alpha if name in positive else negative_alpha for name in counts]
        weights = [weight * alpha for weight, alpha in zip(weights, alphas, strict=True)]
    return ClassLoss(record, torch.tensor(weights, dtype=torch.float32))


def build_output_loss(
    record: Loss, target: TrainingTarget, totals: Mapping[str, int]
) -> OutputLoss:
    """Return the loss of an output.

    Args:
        record: The recipe's loss; the names in it are names of the targets.
        target: The output's target.
        totals: The number of training images of each answer of the target.
    """
    if target.exclusive:
        return build_class_loss(_filter_positive(record, target.labels), totals)
    decision_losses = [
        build_class_loss(
            _filter_positive(record, (name,)),
            {negative_name: totals[negative_name], name: totals[name]},
        )
        for name, negative_name in zip(target.answers[::2], target.answers[1::2], strict=True)
    ]
    return DecisionLoss(
        ClassLoss(record, torch.stack([decision_loss.weights for decision_loss in decision_losses]))
    )


def _filter_positive(record: Loss, names: tuple[str, ...]) -> Loss:
    """Return a loss with only these names in `positive`; if none is left, without `alpha`."""
    positive = tuple(name for name in record.positive if name in names)
    alpha = None if record.positive and not positive else record.alpha
    return replace(record, positive=positive, alpha=alpha)


def _compute_class_weights(record: Loss, counts: Mapping[str, int]) -> list[float]:
    """Return the class weights, scaled so that their mean over the images is 1."""
    weights = [record.class_weights.get(name, 1.0) for name in counts]
    if record.balanced:
        weights = [w / max(count, 1) for w, count in zip(weights, counts.values(), strict=True)]
    images = sum(counts.values())
    mean = sum(w * count for w, count in zip(weights, counts.values(), strict=True)) / images
    return [weight / mean for weight in weights]
