"""Fit prediction sets and abstention to labelled images."""

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.driver.counted_images import get_unit, select_counted
from tcc.compiler.driver.fit_criterion import ADVISED_FACTOR, Criterion
from tcc.compiler.driver.labelled_images import LabelledImages
from tcc.compiler.ir.operating_point import Abstention, PredictionSets
from tcc.compiler.reference import confidence_intervals, prediction_sets
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

Raw = NDArray[np.float32]
Mask = NDArray[np.bool_]


def fit_sets(images: LabelledImages, raw: Raw, criterion: Criterion) -> PredictionSets | None:
    """Return the prediction sets that a criterion requests; None if it requests none.

    Args:
        images: The images of the fit.
        raw: Their raw outputs, float32 (images, classes).
        criterion: The requested coverage.

    Raises:
        UserError: The output has no classes (E1262), or too few images certify the coverage
            (E1269).
    """
    if criterion.coverage is None:
        return None
    truth = _get_class_truth(images, "--sets")
    true_gaps = prediction_sets.compute_gaps(raw)
    groups = [truth[:, column] for column in range(truth.shape[1])]
    if not criterion.by_class:
        groups = [np.ones(len(truth), np.bool_)]
    counted = [select_counted(images, members) for members in groups]
    fits = [
        prediction_sets.fit_gap(
            true_gaps[indices][truth[indices]], criterion.coverage, criterion.confidence
        )
        for indices in counted
    ]
    if not any(fits):
        largest = max(map(len, counted))
        group = " of any class" if criterion.by_class else ""
        text = f"{group} cannot certify prediction sets with a coverage of {criterion.coverage:g}"
        raise _create_few_error(images, largest, text, criterion.coverage, criterion.confidence)
    gaps = tuple(None if fitted is None else fitted[0] for fitted in fits)
    return PredictionSets(
        criterion.coverage,
        criterion.confidence,
        criterion.by_class,
        gaps,
        tuple(map(len, counted)),
        bool(images.cases),
        tuple(None if fitted is None else fitted[1] for fitted in fits),
        float(prediction_sets.find_sets(raw, gaps).sum(axis=1).mean()),
    )


def fit_abstention(images: LabelledImages, raw: Raw, criterion: Criterion) -> Abstention | None:
    """Return the abstention that a criterion requests; None if it requests none.

    Args:
        images: The images of the fit.
        raw: Their raw outputs, float32 (images, classes).
        criterion: The requested share of wrong answers.

    Raises:
        UserError: The output has no classes (E1262), or there are too few images (E1269).
    """
    if criterion.wrong_share is None:
        return None
    wrong = find_wrong(images, raw)
    counted = select_counted(images, np.ones(len(wrong), np.bool_))
    margins = prediction_sets.compute_margins(raw)
    fitted = prediction_sets.fit_margin(
        margins[counted], wrong[counted], criterion.wrong_share, criterion.confidence
    )
    if fitted is None:
        text = f" cannot certify that at most {criterion.wrong_share:g} of all are answered wrongly"
        coverage = 1 - criterion.wrong_share
        raise _create_few_error(images, len(counted), text, coverage, criterion.confidence)
    margin, allowed = fitted
    is_answered = prediction_sets.find_answered(raw, margin)
    return Abstention(
        criterion.wrong_share,
        criterion.confidence,
        margin,
        len(counted),
        bool(images.cases),
        allowed,
        len(is_answered),
        int(is_answered.sum()),
        int((is_answered & wrong).sum()),
    )


def find_wrong(images: LabelledImages, raw: Raw) -> Mask:
    """Return for which images the largest output is not their class (images,).

    Raises:
        UserError: The output has no classes (E1262).
    """
    truth = _get_class_truth(images, "--abstain")
    wrong: Mask = ~truth[np.arange(len(truth)), raw.argmax(axis=1)]
    return wrong


def _get_class_truth(images: LabelledImages, option: str) -> Mask:
    """Return which class each image has (images, classes).

    Raises:
        UserError: The output is no row of classes (E1262).
    """
    if images.output.kind != "classes" or images.single:
        message = f"`{images.output.name}` is not a row of classes, so `{option}` has no effect"
        location = make_file_span(str(images.path))
        raise fail("E1262", message, location, help=f"remove `{option}`")
    return images.truth


def _create_few_error(
    images: LabelledImages, count: int, text: str, coverage: float, confidence: float
) -> UserError:
    unit = get_unit(images)
    needed = confidence_intervals.count_images_needed(coverage, 0, confidence)
    help = "no number of images certifies that: request less"
    if needed is not None:
        help = (
            f"fit to at least {needed:,} {unit}, about {ADVISED_FACTOR * needed:,} for a useful"
            " result; or request less"
        )
    location = make_file_span(str(images.path))
    label = f"with a confidence of {confidence:g}"
    return fail("E1269", f"{count:,} {unit}{text}", location, label=label, help=help)
