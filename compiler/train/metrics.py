"""What is measured in training, epoch by epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OutputJudgement:
    """How one of several outputs does."""

    accuracy: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the network does on images that it does not learn from; `loss` is without smoothing.

    Where it tells more than one class, an image counts as correct where all that it tells is. Of
    several outputs, `loss` is the sum, `macro_f1` the mean, and `outputs` has each.
    """

    images: int
    loss: float
    accuracy: float
    macro_f1: float
    outputs: Mapping[str, OutputJudgement] = field(default_factory=dict, metadata={"default": {}})


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
