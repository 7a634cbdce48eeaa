"""What integers are expected to lose on images that nobody has seen, and how sure that is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, sqrt

import numpy as np

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import OutputKind
from tcc.compiler.reference.accuracy_floor import Quality
from tcc.compiler.reference.image_errors import Float64, losses
from tcc.compiler.reference.output_comparison import StackedOutputs, judged_outputs, qualities

FEWEST = 4
"""Fewest images that say anything."""
SPREAD = 3.0
"""How far the losses of images scatter at least, as a share of their mean: as in the widest of the
networks that were looked at. Rare images lose the most, so that those that judge show too little
scatter where none is among them."""
CLIPPED = 4.0
"""The same where ranges end at what was seen, or before: rare images lose more still."""
UNLIKE = 0.25
"""What is unsure of the logarithm of a mean loss however many images judge: parts learn from fewer
images than the result, and another draw of images gives another result."""
LOW, HIGH = 2.0, 2.3
"""Standard deviations from the mean to the ends of the interval; means of few images are too small
more often than too large."""
RARE = 2.326
"""Standard deviations from the middle of a normal distribution to its last hundredth."""
NONE = 1e-12
"""A smaller loss is none."""


@dataclass(frozen=True, slots=True)
class ExpectedLoss:
    """The loss of one output on images that nobody has seen, by `images` that judged.

    `loss` is the mean: 1 - cosine of classes, of decisions and quantities the mean square error as
    a share of the spread's square. It lies within `low` and `high` at 95 %. One image in a hundred
    is expected to lose more than `worst`. `quality` is the same images by the measures of a build:
    a loss may be small where outputs hardly vary, though integers do not tell images apart. Older
    files have none.
    """

    kind: OutputKind
    images: int = field(metadata={"minimum": 1})
    loss: float
    low: float
    high: float
    worst: float
    quality: Quality | None = field(default=None, metadata={"default": None})


def expected_losses(
    model: Model, expected: StackedOutputs, found: StackedOutputs, *, clipped: bool = False
) -> Mapping[str, ExpectedLoss]:
    """Return what is expected of each output by name; of too few images, nothing.

    Args:
        model: The float model.
        expected: Its outputs by name, (images, *shape).
        found: Those of integer programs that had not seen these images.
        clipped: Whether ranges end at what was seen, or before: unseen images are clipped.
    """
    count = len(next(iter(expected.values())))
    # A standard deviation of three numbers says next to nothing.
    if count < FEWEST:
        return {}
    each = {o: losses(o, expected[o.name], found[o.name]) for o in judged_outputs(model)}
    measured = qualities(model, expected, found)
    return {
        o.name: _expected(o.meaning, one, measured[o.name], CLIPPED if clipped else SPREAD)
        for o, one in each.items()
        if np.isfinite(one).all()
    }


def _expected(kind: OutputKind, found: Float64, quality: Quality, least: float) -> ExpectedLoss:
    mean, count = float(found.mean()), len(found)
    # Relative, as the interval is one of the logarithm: losses are positive and far from symmetric.
    spread = max(least, float(found.std(ddof=1)) / max(mean, NONE))
    unsure = sqrt(spread**2 / count + UNLIKE**2)
    logs = np.log(np.maximum(found, NONE))
    rare = exp(float(logs.mean() + RARE * logs.std(ddof=1)))
    return ExpectedLoss(
        kind,
        count,
        mean,
        mean * exp(-LOW * unsure),
        mean * exp(HIGH * unsure),
        # What was seen counts where it is worse than the normal distribution of the logarithms
        # says.
        max(rare, float(np.quantile(found, 0.99))) if mean > NONE else 0.0,
        quality,
    )
