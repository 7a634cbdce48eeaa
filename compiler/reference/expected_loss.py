"""Expected quantization error on unseen images, and its uncertainty."""

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
"""A unit with a smaller share of the widest spread is measured relative to the widest."""


def compute_image_errors(model: Model, expected: StackedOutputs, actual: StackedOutputs) -> Float64:
    """Return each image's root mean square error, relative to the spread: (images,).

    A changed decision adds its margin, so that one far from a tie has more weight. Several outputs
    are averaged. Non-finite values give an infinite error.

    Args:
        model: The float model.
        expected: Its outputs by name, (images, *shape).
        actual: Outputs of another program for the same images.
    """
    output_errors = [
        _compute_output_errors(o, expected[o.name], actual[o.name])
        for o in get_inference_outputs(model)
    ]
    # Per image, so that candidates are compared on the same images and not by their averages.
    total: Float64 = np.mean(output_errors, axis=0)
    return np.where(np.isfinite(total), total, np.inf)


def compute_image_losses(
    output: Output, expected: NDArray[np.float32], actual: NDArray[np.float32]
) -> Float64:
    """Return each image's loss (images,): 1 - cosine for classes, else the squared error.

    Args:
        output: The output and its meaning.
        expected: The fp32 values (images, *shape).
        actual: Values of another program.
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
    """Return values (images, units, places) without the shift that softmax ignores."""
    logits = stacked.astype(np.float64).reshape(len(stacked), stacked.shape[1], -1)
    is_shift_invariant = (
        output.meaning == "classes" and output.activation != "sigmoid" and logits.shape[1] > 1
    )
    centred: Float64 = logits - logits.mean(axis=1, keepdims=True) if is_shift_invariant else logits
    return centred


def _compute_spread(output: Output, expected_values: Float64) -> Float64:
    """Return the spread of each unit over the images, (units, 1); classes share one spread."""
    squares = ((expected_values - expected_values.mean(axis=0)) ** 2).mean(axis=(0, 2))[:, None]
    # Classes are compared by their differences, which need a common unit.
    shared = np.full_like(squares, squares.mean())
    units = np.sqrt(shared if output.meaning == "classes" else squares)
    widest = units.max()
    if widest == 0:  # all images are equal: relative to the magnitude
        return np.full_like(units, np.sqrt((expected_values**2).mean()) or 1.0)
    # A unit that hardly varies would make any error of it huge.
    spread: Float64 = np.where(units > MIN_RELATIVE_SPREAD * widest, units, widest)
    return spread


def _compute_flipped_margins(
    output: Output, expected: NDArray[np.float32], actual: NDArray[np.float32]
) -> Float64:
    """Return the sum of changed decisions' margins, relative to the spread: (images,)."""
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
    # The fp32 logit of the chosen class, less than the largest fp32 logit: 0 if the class is the
    # same.
    logit_gap = expected_values.max(axis=1, keepdims=True) - np.take_along_axis(
        expected_values, predicted_class, axis=1
    )
    shares: Float64 = (logit_gap / spread[0]).mean(axis=(1, 2))
    return shares


MIN_IMAGES = 4
"""Minimum number of images for an estimate."""
PRIOR_SCATTER, PRIOR_SCATTER_CLIPPED = 1.8, 2.1
"""Prior standard deviation of the logarithms of image losses. The first is from the wider of the
networks examined. The second is larger, for ranges that end at or before the observed values,
because rare images then lose more."""
PRIOR_IMAGES = 16
"""Weight of the prior, in images. Rare images lose the most, so a few images show too little
scatter without a rare one, and too much with one."""
MIN_RELATIVE_LOSS, MAX_SCATTER = 1e-3, 3.0
"""Losses below this share of the median count as equal, and the maximum scatter of logarithms.
Images without any loss would otherwise give an arbitrarily large scatter."""
MODEL_UNCERTAINTY = 0.25
"""Uncertainty of the logarithm of a mean loss that remains with any number of images: parts are
fitted to fewer images than the result, and another sample of images gives another result."""
LOWER_DEVIATIONS, UPPER_DEVIATIONS = 2.2, 2.5
"""Standard deviations from the mean to the ends of the interval. They contain 95 % of drawn sets if
logarithms scatter by two; means of few images are more often too small than too large."""
NORMAL_99, CONFIDENCE = 2.326, 1.96
"""Standard deviations of a normal distribution to its 99th percentile, and to the ends of its
central 95 %."""
ZERO_LOSS, MAX_ROUNDING_FACTOR = 1e-12, 4.0
"""A smaller loss is only float rounding; its mean is at most this factor larger."""


class ExpectedLoss(Record, frozen=True):
    """Expected loss of one output on unseen images, estimated from `images` images.

    `loss` is the mean: 1 - cosine for classes; for decisions and quantities, the mean square error
    divided by the squared spread. Its 95 % interval is `low` to `high`. With `limits`, at most one
    image in a hundred loses more than `worst`, also at 95 %. Without, in older files, it is an
    estimate that up to 5 images in a hundred exceeded.

    `quality` has a build's quality measures for the same images: a loss may be small for outputs
    that hardly vary, although the int8 model does not distinguish images. Older files have none.
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
    """Return the expected loss of each output by name; empty for too few images.

    Args:
        model: The float model.
        expected: Its outputs by name, (images, *shape).
        actual: Outputs of int8 models that were calibrated without these images.
        clipped: Whether ranges end at or before the observed values: unseen images are clipped.
    """
    count = len(next(iter(expected.values())))
    # A standard deviation of three numbers has almost no information.
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
    if mean <= ZERO_LOSS:  # float rounding, without a usable distribution
        return ExpectedLoss(
            kind, count, mean, 0.0, MAX_ROUNDING_FACTOR * mean, 0.0, quality, limits=True
        )
    logs = np.log(
        np.maximum(image_losses, max(float(np.median(image_losses)) * MIN_RELATIVE_LOSS, ZERO_LOSS))
    )
    middle, scatter = float(logs.mean()), float(logs.std(ddof=1))
    low, high = _estimate_interval(mean, middle, min(scatter, MAX_SCATTER), count, prior_scatter)
    # Use the observed quantile if it is worse than the fitted normal distribution.
    worst = max(
        _compute_tail_limit(middle, min(scatter, MAX_SCATTER), count),
        float(np.quantile(image_losses, 0.99)),
    )
    return ExpectedLoss(kind, count, mean, low, high, worst, quality, limits=True)


def _compute_tail_limit(middle: float, scatter: float, count: int) -> float:
    """Return the loss that at most one image in a hundred exceeds, at 95 %.

    The upper tolerance limit of a normal distribution, here of the logarithms (Natrella,
    Experimental Statistics, 1963, section 2-2), plus the uncertainty of calibrating with other
    images.
    """
    a = 1 - CONFIDENCE**2 / (2 * (count - 1))
    b = NORMAL_99**2 - CONFIDENCE**2 / count
    steps = (NORMAL_99 + sqrt(NORMAL_99**2 - a * b)) / a
    return exp(middle + steps * scatter + CONFIDENCE * MODEL_UNCERTAINTY)


def _estimate_interval(
    mean: float, middle: float, scatter: float, count: int, prior_scatter: float
) -> tuple[float, float]:
    """Return the interval that contains two estimates: from losses and from their logarithms.

    One odd image may dominate the mean of the losses, but hardly affects the mean of a log-normal
    distribution. The interval covers both.
    """
    effective_count = count - 1 + PRIOR_IMAGES
    variance = ((count - 1) * scatter**2 + PRIOR_IMAGES * prior_scatter**2) / effective_count
    # The mean of a log-normal distribution and the standard error of its logarithm (Zhou and Gao,
    # Stat. Med. 16, 1997, Cox's method).
    log_normal_mean = exp(middle + variance / 2)
    standard_error = sqrt(
        variance / count + variance**2 / (2 * effective_count) + MODEL_UNCERTAINTY**2
    )
    return min(mean, log_normal_mean) * exp(-LOWER_DEVIATIONS * standard_error), max(
        mean, log_normal_mean
    ) * exp(UPPER_DEVIATIONS * standard_error)


COSINE_ROUNDING = 5e-14
"""Loss of cosine by float rounding on some images, if there was none on others."""


def compute_bounds(expected: Mapping[str, ExpectedLoss]) -> FloorBounds:
    """Return bounds on the quality of unseen images, by output with a measured quality.

    The loss is 1 - cosine, or the mean square error divided by the squared spread. The square of
    any error, and 1 - correlation, are assumed to grow like the loss.
    """
    return {n: _bound_quality(loss, loss.quality) for n, loss in expected.items() if loss.quality}


def estimate_bounds(
    model: Model, expected: StackedOutputs, outputs: StackedOutputs, images: ComparisonImages
) -> FloorBounds:
    """Return bounds on a program's quality on unseen images, from compared images.

    Args:
        model: The float model.
        expected: Its outputs by name, (images, *shape).
        outputs: Outputs of the program.
        images: The images; the first ones are held out.
    """
    estimators = slice(images.estimators)
    floats, program = (
        {n: v[estimators] for n, v in stacked.items()} for stacked in (expected, outputs)
    )
    # The scales may be fitted to some of the images: use the wider prior of clipped ranges.
    return compute_bounds(estimate_losses(model, floats, program, clipped=True))


def add_rounding(
    model: Model,
    real: FloorBounds,
    outputs: tuple[StackedOutputs, StackedOutputs, StackedOutputs],
) -> FloorBounds:
    """Return bounds on unseen images for outputs that are also rounded to 8 bits.

    Rounding has the same distribution for every image, so images estimate its mean square like any
    variance.

    Args:
        model: The float model.
        real: Bounds for float outputs.
        outputs: Outputs of the fp32 model, of the program with float outputs, and of the same
            program with integer outputs, over the same images.
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
