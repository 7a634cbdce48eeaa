"""What is measured in training, epoch by epoch."""

from collections.abc import Mapping

from msgspec import field

from tcc.compiler.support.json_records import OmitDefault, Record


class OutputJudgement(Record, frozen=True):
    """How one of several outputs does."""

    accuracy: float
    macro_f1: float


class Judgement(Record, frozen=True):
    """How the network does on images that it does not learn from; `loss` is without smoothing.

    Where it tells more than one class, an image counts as correct where all that it tells is. Of
    several outputs, `loss` is the sum, `macro_f1` the mean, and `outputs` has each.
    """

    images: int
    loss: float
    accuracy: float
    macro_f1: float
    outputs: OmitDefault[Mapping[str, OutputJudgement]] = field(default_factory=dict)


class EpochMetrics(Record, frozen=True):
    """One epoch, counted from 1: its last learning rate, and means over its steps.

    `accuracy` is of the augmented images, each at the moment when it was learned from.
    """

    epoch: int
    learning_rate: float
    loss: float
    accuracy: float
    val: Judgement | None
