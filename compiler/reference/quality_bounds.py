"""What unseen images keep of an output's quality at 95 %: what an accuracy floor is judged by."""

from collections.abc import Mapping
from dataclasses import replace
from math import exp, sqrt

from tcc.compiler.ir.graph import Model
from tcc.compiler.reference.accuracy_floor import Bounds, Quality, QualityBounds
from tcc.compiler.reference.expected_loss import ExpectedLoss, expected_losses
from tcc.compiler.reference.output_comparison import ComparisonImages, StackedOutputs, qualities

SURE = 1.96
"""Standard deviations to the ends of the inner 95 % of a normal distribution."""


def stated_bounds(expected: Mapping[str, ExpectedLoss]) -> Bounds:
    """Return what unseen images keep, by output, where there are measures to bound.

    The loss is 1 - cosine, or the mean square error as a share of the spread's square. The square
    of any error, and what a correlation lacks to 1, are taken to grow as the loss does.
    """
    return {name: _bounded(one, one.quality) for name, one in expected.items() if one.quality}


def estimated_bounds(
    model: Model, expected: StackedOutputs, found: StackedOutputs, images: ComparisonImages
) -> Bounds:
    """Return what unseen images keep of a program, by images that it was compared over.

    Args:
        model: The float model.
        expected: Its outputs by name, (images, *shape).
        found: Those of the program.
        images: The images, of which the first are held out.
    """
    first = slice(images.estimators)
    floats, program = ({n: v[first] for n, v in one.items()} for one in (expected, found))
    # Some images may have taught the scales: they are trusted as little as ranges that clip.
    return stated_bounds(expected_losses(model, floats, program, clipped=True))


def rounded_bounds(
    model: Model,
    real: Bounds,
    outputs: tuple[StackedOutputs, StackedOutputs, StackedOutputs],
) -> Bounds:
    """Return what unseen images keep where outputs are rounded to 8 bits besides.

    Rounding adds the same to every image, whatever the image shows: a mean square that images
    estimate as they estimate any variance.

    Args:
        model: The float model.
        real: What they keep where the outputs are real numbers.
        outputs: The outputs of floats, of the program that ends in real numbers, and of the same
            program that ends in integers, over the same images.
    """
    floats, ends, rounded = outputs
    before, after = (qualities(model, floats, one) for one in (ends, rounded))
    return {name: _rounded(bound, before[name], after[name]) for name, bound in real.items()}


def _bounded(expected: ExpectedLoss, quality: Quality) -> QualityBounds:
    growth = expected.high / expected.loss if expected.loss > 0 else 1.0
    cosine, correlation, error = quality.cosine, quality.correlation, quality.error
    return QualityBounds(
        expected.images,
        None if cosine is None else max(1 - (1 - cosine) * growth, -1.0),
        None if correlation is None else max(1 - (1 - correlation) * growth, -1.0),
        None if error is None else error * sqrt(growth),
    )


def _rounded(bound: QualityBounds, before: Quality, after: Quality) -> QualityBounds:
    # The logarithm of a variance has a variance of 2 / n.
    growth = exp(SURE * sqrt(2 / after.spread_images))

    def lower(limit: float | None, one: float | None, other: float | None) -> float | None:
        if limit is None or one is None or other is None:
            return limit
        return max(limit - max(one - other, 0.0) * growth, -1.0)

    error = bound.error
    if error is not None and before.error is not None and after.error is not None:
        error = sqrt(error**2 + max(after.error**2 - before.error**2, 0.0) * growth)
    return replace(
        bound,
        cosine=lower(bound.cosine, before.cosine, after.cosine),
        correlation=lower(bound.correlation, before.correlation, after.correlation),
        error=error,
    )
