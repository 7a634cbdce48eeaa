"""How the learning rate moves from step to step."""

from dataclasses import dataclass, field
from math import cos, pi
from typing import Literal, assert_never

Schedule = Literal["constant", "cosine", "exponential", "steps"]
"""What the learning rate does after its warm-up."""


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The recipe's `learning_rate:`."""

    peak: float = field(
        default=0.1,
        metadata={"exclusiveMinimum": 0, "description": "The highest rate, after the warm-up."},
    )
    schedule: Schedule = field(
        default="cosine",
        metadata={
            "description": "`cosine` falls to `final` in half a wave, `exponential` by `decay` "
            "each epoch, `steps` by `decay` at each of `at_epochs`, `constant` stays."
        },
    )
    warmup_epochs: float = field(
        default=0.0,
        metadata={
            "minimum": 0,
            "description": "Epochs in which the rate rises from 0 in a line; of a run that is "
            "shorter than twice as many, half.",
        },
    )
    final: float = field(
        default=0.0,
        metadata={"minimum": 0, "maximum": 1, "description": "The last share of `peak` (cosine)."},
    )
    decay: float = field(
        default=0.1,
        metadata={
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "What the rate is multiplied by (exponential, steps).",
        },
    )
    at_epochs: tuple[int, ...] = field(
        default=(),
        metadata={"description": "The epochs, from 0, before which the rate falls (steps)."},
    )


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
