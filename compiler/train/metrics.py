"""What is measured in training, epoch by epoch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the network does on images that it does not learn from; `loss` is without smoothing."""

    images: int
    loss: float
    accuracy: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One epoch, counted from 1: its last learning rate, and means over its steps.

    `accuracy` is of the augmented images, each at the moment when it was learned from.
    """

    epoch: int
    learning_rate: float
    loss: float
    accuracy: float
    val: Judgement | None
