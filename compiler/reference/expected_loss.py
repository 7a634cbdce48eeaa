"""What integers are expected to lose on images that nobody has seen, and how sure that is."""

from collections.abc import Mapping
from dataclasses import replace
from math import exp, sqrt
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ir.types import OutputKind
from tcc.compiler.reference.accuracy_floor import FloorBounds, Quality, QualityBounds
from tcc.compiler.reference.output_comparison import (
    ComparisonImages,
    StackedOutputs,
    compute_qualities,
    get_inference_outputs,
)
from tcc.compiler.reference.output_quality import compute_cosine
from tcc.compiler.support.json_records import OmitDefault, Record

Float64 = NDArray[np.float64]

MIN_RELATIVE_SPREAD = 1e-3
"""A unit that spreads by less than this share of the widest is measured against the widest."""


def compute_image_errors(model: Model, expected: StackedOutputs, actual: StackedOutputs) -> Float64:
    """Return each image's root mean square error as a share of the spread, (images,).

    A decision that changes counts by its margin as well, so that one far from a tie weighs more. Of
    several outputs it is the mean. What is not finite is infinitely far off.

    Args:
        model: The float model.
        expected: Its outputs by name, (images, *shape).
        actual: Those of another program for the same images.
    """
    output_errors = [
        _compute_output_errors(o, expected[o.name], actual[o.name])
        for o in get_inference_outputs(model)
    ]
    # Image by image, so that candidates are compared on the same ones and not by their averages.
    total: Float64 = np.mean(output_errors, axis=0)
    return np.where(np.isfinite(total), total, np.inf)


def compute_image_losses(
    output: Output, expected: NDArray[np.float32], actual: NDArray[np.float32]
) -> Float64:
    """Return each image's loss (images,): 1 - cosine of classes, of others the error squared.

    Args:
        output: What the numbers mean.
        expected: The floats (images, *shape).
        actual: Those of another program.
    """
    expected_values, actual_values = (
        stacked.astype(np.float64).reshape(len(stacked), -1) for stacked in (expected, actual)
    )
    if output.meaning == "classes" and expected_values.shape[1] > 1:
        pairs = zip(expected_values, actual_values, strict=True)
        return np.array([max(1 - compute_cosine(a, b), 0.0) for a, b in pairs])
    return _compute_relative_errors(output, expected, actual) ** 2


def _compute_output_errors(
    output: Output, expected: NDArray[np.float32], actual: NDArray[np.float32]
) -> Float64:
    return _compute_relative_errors(output, expected, actual) + _compute_flipped_margins(
        output, expected, actual
    )


def _compute_relative_errors(
    output: Output, expected: NDArray[np.float32], actual: NDArray[np.float32]
) -> Float64:
    expected_values, actual_values = (
        _remove_class_mean(output, stacked) for stacked in (expected, actual)
    )
    error = (actual_values - expected_values) / _compute_spread(output, expected_values)
    total: Float64 = np.sqrt((error**2).mean(axis=(1, 2)))
    return total


def _remove_class_mean(output: Output, stacked: NDArray[np.float32]) -> Float64:
    """Return values (images, units, places) without what softmax does not see."""
    logits = stacked.astype(np.float64).reshape(len(stacked), stacked.shape[1], -1)
    is_shift_invariant = (
        output.meaning == "classes" and output.activation != "sigmoid" and logits.shape[1] > 1
    )
    centred: Float64 = logits - logits.mean(axis=1, keepdims=True) if is_shift_invariant else logits
    return centred


def _compute_spread(output: Output, expected_values: Float64) -> Float64:
    """Return how far each unit spreads over the images, (units, 1); classes spread together."""
    squares = ((expected_values - expected_values.mean(axis=0)) ** 2).mean(axis=(0, 2))[:, None]
    # Classes are told apart by their differences, for which one unit of measure is needed.
    shared = np.full_like(squares, squares.mean())
    units = np.sqrt(shared if output.meaning == "classes" else squares)
    widest = units.max()
    if widest == 0:  # all images are alike: against the magnitude
        return np.full_like(units, np.sqrt((expected_values**2).mean()) or 1.0)
    # A unit that hardly moves would make any error of it huge.
    spread: Float64 = np.where(units > MIN_RELATIVE_SPREAD * widest, units, widest)
    return spread


def _compute_flipped_margins(
    output: Output, expected: NDArray[np.float32], actual: NDArray[np.float32]
) -> Float64:
    """Return the margins of decisions that change, as shares of the spread, summed (images,)."""
    expected_values, actual_values = (
        _remove_class_mean(output, stacked) for stacked in (expected, actual)
    )
    spread = _compute_spread(output, expected_values)
    if output.meaning == "decisions":
        changed = (expected_values >= 0) != (actual_values >= 0)
        margins: Float64 = (np.abs(expected_values) / spread * changed).mean(axis=2).sum(axis=1)
        return margins
    if output.meaning != "classes" or expected_values.shape[1] < 2:
        return np.zeros(len(expected_values))
    predicted_class = actual_values.argmax(axis=1, keepdims=True)
    # What the floats would say of the class that was chosen, less than of their own: 0 where it is
    # the same.
    logit_gap = expected_values.max(axis=1, keepdims=True) - np.take_along_axis(
        expected_values, predicted_class, axis=1
    )
    shares: Float64 = (logit_gap / spread[0]).mean(axis=(1, 2))
    return shares


MIN_IMAGES = 4
"""Fewest images that say anything."""
PRIOR_SCATTER, PRIOR_SCATTER_CLIPPED = 1.8, 2.1
"""How far the logarithms of images' losses scatter, as a standard deviation, before an image has
judged: as on the wider of the networks that were looked at, and more where ranges end at what was
seen, or before, since rare images lose more still."""
PRIOR_IMAGES = 16
"""As how many images that counts: rare images lose the most, so that few show too little scatter
where none of these is among them, and too much where one is."""
MIN_RELATIVE_LOSS, MAX_SCATTER = 1e-3, 3.0
"""The share of the median below which losses are alike, and the most that logarithms are taken to
scatter: images that lose nothing at all would make them scatter as widely as one likes."""
MODEL_UNCERTAINTY = 0.25
"""What is unsure of the logarithm of a mean loss however many images judge: parts learn from fewer
images than the result, and another draw of images gives another result."""
LOWER_DEVIATIONS, UPPER_DEVIATIONS = 2.2, 2.5
"""Standard deviations from the mean to the ends of the interval, so that 95 % of drawn sets lie
within where logarithms scatter by two; means of few images are too small more often than too large.
"""
NORMAL_99, CONFIDENCE = 2.326, 1.96
"""Standard deviations from the middle of a normal distribution to its last hundredth, and to the
ends of its inner 95 %."""
ZERO_LOSS, MAX_ROUNDING_FACTOR = 1e-12, 4.0
"""A smaller loss is none but the rounding of floats, whose mean is this factor larger at most."""


class ExpectedLoss(Record, frozen=True):
    """The loss of one output on images that nobody has seen, by `images` that judged.

    `loss` is the mean: 1 - cosine of classes, of decisions and quantities the mean square error as
    a share of the spread's square. It lies within `low` and `high` at 95 %. At most one image in a
    hundred loses more than `worst`, at 95 % as well, where it `limits`: in older files it is an
    estimate, which up to 5 images in a hundred exceeded.
    `quality` is the same images by the measures of a build: a loss may be small where outputs
    hardly vary, though integers do not tell images apart. Older files have none.
    """

    kind: OutputKind
    images: Annotated[int, Meta(ge=1)]
    loss: float
    low: float
    high: float
    worst: float
    quality: OmitDefault[Quality | None] = None
    limits: OmitDefault[bool] = False


def estimate_losses(
    model: Model, expected: StackedOutputs, actual: StackedOutputs, *, clipped: bool = False
) -> Mapping[str, ExpectedLoss]:
    """Return what is expected of each output by name; of too few images, nothing.

    Args:
        model: The float model.
        expected: Its outputs by name, (images, *shape).
        actual: Those of integer programs that had not seen these images.
        clipped: Whether ranges end at what was seen, or before: unseen images are clipped.
    """
    count = len(next(iter(expected.values())))
    # A standard deviation of three numbers says next to nothing.
    if count < MIN_IMAGES:
        return {}
    losses_by_output = {
        o: compute_image_losses(o, expected[o.name], actual[o.name])
        for o in get_inference_outputs(model)
    }
    quality_by_output = compute_qualities(model, expected, actual)
    return {
        o.name: _estimate_loss(
            o.meaning,
            output_losses,
            quality_by_output[o.name],
            PRIOR_SCATTER_CLIPPED if clipped else PRIOR_SCATTER,
        )
        for o, output_losses in losses_by_output.items()
        if np.isfinite(output_losses).all()
    }


def _estimate_loss(
    kind: OutputKind, image_losses: Float64, quality: Quality, prior_scatter: float
) -> ExpectedLoss:
    mean, count = float(image_losses.mean()), len(image_losses)
    if mean <= ZERO_LOSS:  # the rounding of floats, which has no distribution to speak of
        return ExpectedLoss(
            kind, count, mean, 0.0, MAX_ROUNDING_FACTOR * mean, 0.0, quality, limits=True
        )
    logs = np.log(
        np.maximum(image_losses, max(float(np.median(image_losses)) * MIN_RELATIVE_LOSS, ZERO_LOSS))
    )
    middle, scatter = float(logs.mean()), float(logs.std(ddof=1))
    low, high = _estimate_interval(mean, middle, min(scatter, MAX_SCATTER), count, prior_scatter)
    # What was seen counts where it is worse than the normal distribution of the logarithms says.
    worst = max(
        _compute_tail_limit(middle, min(scatter, MAX_SCATTER), count),
        float(np.quantile(image_losses, 0.99)),
    )
    return ExpectedLoss(kind, count, mean, low, high, worst, quality, limits=True)


def _compute_tail_limit(middle: float, scatter: float, count: int) -> float:
    """Return the loss that at most one image in a hundred exceeds, at 95 %.

    The upper tolerance limit of a normal distribution, here of the logarithms (Natrella,
    Experimental Statistics, 1963, section 2-2), and what a calibration of other images would lose.
    """
    a = 1 - CONFIDENCE**2 / (2 * (count - 1))
    b = NORMAL_99**2 - CONFIDENCE**2 / count
    steps = (NORMAL_99 + sqrt(NORMAL_99**2 - a * b)) / a
    return exp(middle + steps * scatter + CONFIDENCE * MODEL_UNCERTAINTY)


def _estimate_interval(
    mean: float, middle: float, scatter: float, count: int, prior_scatter: float
) -> tuple[float, float]:
    """Return the ends of the interval, around what `count` losses say and what their logarithms do.

    One odd image may own the mean of the losses themselves, and the mean of a log-normal
    distribution hardly hears of it: the interval takes in what either says.
    """
    effective_count = count - 1 + PRIOR_IMAGES
    variance = ((count - 1) * scatter**2 + PRIOR_IMAGES * prior_scatter**2) / effective_count
    # The mean of a log-normal distribution, and how unsure its logarithm is (Zhou and Gao,
    # Stat. Med. 16, 1997, Cox's method).
    log_normal_mean = exp(middle + variance / 2)
    standard_error = sqrt(
        variance / count + variance**2 / (2 * effective_count) + MODEL_UNCERTAINTY**2
    )
    return min(mean, log_normal_mean) * exp(-LOWER_DEVIATIONS * standard_error), max(
        mean, log_normal_mean
    ) * exp(UPPER_DEVIATIONS * standard_error)


COSINE_ROUNDING = 5e-14
"""What the rounding of floats takes of a cosine on some images, if it took nothing on others."""


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
    return compute_bounds(estimate_losses(model, floats, program, clipped=True))


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
        compute_qualities(model, floats, program) for program in (unrounded, rounded)
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
        None if cosine is None else max(1 - (1 - cosine) * growth - COSINE_ROUNDING, -1.0),
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
