"""What unseen images keep of an output's quality at 95 %: what an accuracy floor is judged by."""

from collections.abc import Mapping
from dataclasses import replace
from math import exp, sqrt

from tcc.compiler.ir.graph import Model
from tcc.compiler.reference.accuracy_floor import FloorBounds, Quality, QualityBounds
from tcc.compiler.reference.expected_loss import ExpectedLoss, expected_losses
from tcc.compiler.reference.output_comparison import ComparisonImages, StackedOutputs, qualities

ROUNDING = 5e-14
"""What the rounding of floats takes of a cosine on some images, if it took nothing on others."""
CONFIDENCE = 1.96
"""Standard deviations to the ends of the inner 95 % of a normal distribution."""


def compute_bounds(expected: Mapping[str, ExpectedLoss]) -> FloorBounds:
    """Return what unseen images keep, by output, where there are measures to bound.

    The loss is 1 - cosine, or the mean square error as a share of the spread's square. The square
    of any error, and what a correlation lacks to 1, are taken to grow as the loss does.
    """
    return {n: _bound_quality(loss, loss.quality) for n, loss in expected.items() if loss.quality}


def estimate_bounds(
    model: Model, expected: StackedOutputs, outputs: StackedOutputs, images: ComparisonImages
) -> FloorBounds:
    """Return what unseen images keep of a program, by images that it was compared over.

    Args:
        model: The float model.
        expected: Its outputs by name, (images, *shape).
        outputs: Those of the program.
        images: The images, of which the first are held out.
    """
    estimators = slice(images.estimators)
    floats, program = (
        {n: v[estimators] for n, v in stacked.items()} for stacked in (expected, outputs)
    )
    # Some images may have taught the scales: they are trusted as little as ranges that clip.
    return compute_bounds(expected_losses(model, floats, program, clipped=True))


def add_rounding(
    model: Model,
    real: FloorBounds,
    outputs: tuple[StackedOutputs, StackedOutputs, StackedOutputs],
) -> FloorBounds:
    """Return what unseen images keep where outputs are rounded to 8 bits besides.

    Rounding adds the same to every image, whatever the image shows: a mean square that images
    estimate as they estimate any variance.

    Args:
        model: The float model.
        real: What they keep where the outputs are real numbers.
        outputs: The outputs of floats, of the program that ends in real numbers, and of the same
            program that ends in integers, over the same images.
    """
    floats, unrounded, rounded = outputs
    real_quality, rounded_quality = (
        qualities(model, floats, program) for program in (unrounded, rounded)
    )
    return {
        name: _add_rounding_error(bound, real_quality[name], rounded_quality[name])
        for name, bound in real.items()
    }


def _bound_quality(expected: ExpectedLoss, quality: Quality) -> QualityBounds:
    growth = expected.high / expected.loss if expected.loss > 0 else 1.0
    cosine, correlation, error = quality.cosine, quality.correlation, quality.error
    return QualityBounds(
        expected.images,
        None if cosine is None else max(1 - (1 - cosine) * growth - ROUNDING, -1.0),
        None if correlation is None else max(1 - (1 - correlation) * growth, -1.0),
        None if error is None else error * sqrt(growth),
    )


def _add_rounding_error(bound: QualityBounds, real: Quality, rounded: Quality) -> QualityBounds:
    # The logarithm of a variance has a variance of 2 / n.
    growth = exp(CONFIDENCE * sqrt(2 / rounded.spread_images))

    def lower(limit: float | None, unrounded: float | None, measure: float | None) -> float | None:
        if limit is None or unrounded is None or measure is None:
            return limit
        return max(limit - max(unrounded - measure, 0.0) * growth, -1.0)

    error = bound.error
    if error is not None and real.error is not None and rounded.error is not None:
        error = sqrt(error**2 + max(rounded.error**2 - real.error**2, 0.0) * growth)
    return replace(
        bound,
        cosine=lower(bound.cosine, real.cosine, rounded.cosine),
        correlation=lower(bound.correlation, real.correlation, rounded.correlation),
        error=error,
    )
