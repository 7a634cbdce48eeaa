"""Fit the operating point of a bundle's outputs, to images that are not used for evaluation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import bundle_folder
from tcc.compiler.bundle.bundle_comparison import find_difference
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.driver.counted_images import select_counted
from tcc.compiler.driver.evaluation import Evaluated
from tcc.compiler.driver.fit_criterion import ADVISED_FACTOR, Criterion
from tcc.compiler.driver.labelled_images import LabelledImages
from tcc.compiler.driver.rate_fitting import SideScores, fit_rates
from tcc.compiler.driver.set_fitting import fit_abstention, fit_sets
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.operating_point import (
    FittingData,
    OperatingPoint,
    ThresholdCertificate,
)
from tcc.compiler.ir.types import OutputActivation
from tcc.compiler.reference import confidence_intervals, decision_odds, decision_rule
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    UserError,
    fail,
    find_nearest_name,
    make_file_span,
)

MAX_LISTED = 10
"""Most images that are listed if they are in both splits."""


def fit(evaluated: Evaluated, program: str, threshold_criterion: Criterion) -> OperatingPoint:
    """Fit the operating point of an output: its temperature and its thresholds.

    Each decision gets a threshold; a row of classes gets one for the requested class.

    Args:
        evaluated: Outputs of a network for labelled images.
        program: Name of the target and precision that ran.
        threshold_criterion: How thresholds are chosen.

    Raises:
        UserError: There are too many outputs, no probabilities to fit, or a class or all others
            have no image (E1263), or there is no such class (E1262).
    """
    images, raw = evaluated.images, evaluated.raw
    location = make_file_span(str(images.path))
    output = images.output
    if raw is None or output.kind == "regression":
        message = f"`{output.name}` is a regression output, so there is nothing to fit"
        if raw is None:
            message = f"{len(images.dataset):,} images are too many for fitting"
        raise fail("E1263", message, location, help="use fewer images" if raw is None else "")
    positive = _find_positive_class(evaluated, threshold_criterion)
    truth = images.truth[:, 1:] if images.single else images.truth
    _check_classes(evaluated)
    fitted_temperature = None
    used = _select_for_temperature(images, positive, threshold_criterion)
    has_probabilities = output.activation != "none" and bool(used.any())
    if has_probabilities:
        fitted_temperature = _fit_temperature(output.activation, raw[used], truth[used])
    # Thresholds apply to the probabilities after the temperature.
    temperature = fitted_temperature or 1.0
    columns = list_threshold_columns(images, positive)
    rated = [
        fit_rates(_score_class(evaluated, temperature, column), threshold_criterion)
        for column in columns
        if threshold_criterion.certifies and not threshold_criterion.certifies_sensitivity_alone
    ]
    candidates: list[float | None] = [threshold for threshold, _ in rated]
    candidates = candidates or [
        _fit_threshold(evaluated, temperature, column, threshold_criterion) for column in columns
    ]
    certificates = tuple(
        _create_certificate(evaluated, temperature, column, threshold, threshold_criterion)
        for column, threshold in zip(columns, candidates, strict=True)
        if threshold is not None and threshold_criterion.certifies_sensitivity_alone
    )
    thresholds = tuple(threshold for threshold in candidates if threshold is not None)
    if len(thresholds) < len(candidates):  # no threshold does better: the largest output decides
        positive = None
    before_after = None
    if has_probabilities:
        log_losses = [
            decision_rule.compute_negative_log_likelihood(output.activation, raw, truth, t)
            for t in (1, temperature)
        ]
        before_after = (log_losses[0], log_losses[1])
    criterion = str(threshold_criterion) if thresholds else "none"
    fitting_data = FittingData(images.dataset.digest, len(images.dataset), program, before_after)
    target = threshold_criterion.sensitivity if thresholds else None
    return OperatingPoint(
        output.name, temperature, positive, thresholds, criterion, fitting_data, target,
        certificates=certificates,
        rate_certificates=tuple(certificate for _, certificate in rated),
        sets=fit_sets(images, raw, threshold_criterion),
        abstention=fit_abstention(images, raw, threshold_criterion),
    )  # fmt: skip


def _select_for_temperature(
    images: LabelledImages, positive: int | None, criterion: Criterion
) -> NDArray[np.bool_]:
    """Return which images the temperature is fitted to (images,).

    The temperature of three or more classes changes the order of the images. A certificate counts
    images in that order, so the order must not depend on them: a certified sensitivity counts those
    of its class, other certificates count all.
    """
    truth = images.truth
    if positive is None or not criterion.certifies or truth.shape[1] < 3:
        return np.ones(len(truth), np.bool_)
    return ~truth[:, positive] & criterion.certifies_sensitivity_alone


def _fit_temperature(
    activation: OutputActivation, raw: decision_rule.Raw, truth: decision_rule.Truth
) -> float | None:
    """Return the best temperature; None if it does no better than 1 on these images."""
    best = decision_rule.fit_temperature(activation, raw, truth)
    if best is None:
        return None
    fitted_loss, default_loss = (
        decision_rule.compute_negative_log_likelihood(activation, raw, truth, t)
        for t in (best, 1.0)
    )
    return best if fitted_loss < default_loss else None


def _check_classes(evaluated: Evaluated) -> None:
    """Refuse images of a single class: they would always demand more confidence (E1263).

    Raises:
        UserError: There is only one class.
    """
    images = evaluated.images
    class_indices = sorted(frozenset.union(*images.class_sets))
    if images.exclusive and len(class_indices) == 1:
        message = f"all of these images have the class `{images.labels[class_indices[0]]}`"
        help = "give images of every class"
        raise fail("E1263", message, make_file_span(str(images.path)), help=help)


def _find_positive_class(evaluated: Evaluated, criterion: Criterion) -> int | None:
    """Return the class that gets a threshold; None for decisions, or if none is requested."""
    images, name = evaluated.images, criterion.positive
    location = make_file_span(str(images.path))
    if images.single or not images.exclusive:
        if name is not None:
            message = f"`{images.output.name}` is a decision, so `--positive` has no effect"
            raise fail("E1262", message, location, help="remove `--positive`")
        return None
    if name is None:
        if criterion.has_rate:
            rate = next(
                name
                for name, share in (
                    ("sensitivity", criterion.sensitivity),
                    ("specificity", criterion.specificity),
                    ("positive predictive value", criterion.ppv),
                )
                if share is not None
            )
            message = f"a minimum {rate} needs the class that it is for"
            help = f"add --positive with one of {', '.join(images.labels[:20])}"
            raise fail("E1262", message, location, help=help)
        return None
    # Case-insensitive: `--positive tumor` matches `Tumor`.
    folded = {label.casefold(): index for index, label in enumerate(images.labels)}
    if name.casefold() in folded:
        return folded[name.casefold()]
    nearest_name = find_nearest_name(name, set(images.labels))
    help = f"its classes are {', '.join(images.labels[:20])}"
    help = f"did you mean `{nearest_name}`? {help}" if nearest_name else help
    raise fail("E1262", f"the network has no class `{name[:80]}`", location, help=help)


def list_threshold_columns(images: LabelledImages, positive: int | None) -> Sequence[int]:
    """Return the class indices that thresholds are for; `positive` is the requested class."""
    if images.single:
        return (1,)
    if not images.exclusive:
        return range(len(images.labels))
    return () if positive is None else (positive,)


def _fit_threshold(
    evaluated: Evaluated, temperature: float, column: int, criterion: Criterion
) -> float | None:
    """Return the best threshold for a class by a criterion on these images.

    None if the default rule without a threshold does better.
    """
    images = evaluated.images
    location, name = make_file_span(str(images.path)), images.labels[column]
    scores = _score_class(evaluated, temperature, column)
    truth, odds, is_predicted = scores.truth, scores.odds, scores.predicted
    if criterion.specificity is not None and criterion.sensitivity is None:
        default_specificity = float((~is_predicted[~truth]).mean())
        min_specificity = max(criterion.specificity, default_specificity)
        return decision_rule.fit_specificity_threshold(odds, truth, min_specificity)
    if criterion.sensitivity is not None:
        # A threshold must not lose images that the default rule detects.
        default_sensitivity = float(is_predicted[truth].mean())
        if not criterion.certifies:
            min_sensitivity = max(criterion.sensitivity, default_sensitivity)
            return decision_rule.fit_sensitivity_threshold(odds, truth, min_sensitivity)
        counted = _select_counted(images, column)
        positives = int(truth[counted].sum())
        allowed = _count_allowed_misses(images, name, positives, criterion)
        # A lower threshold than a certified one has at least its sensitivity.
        return min(
            decision_rule.fit_sensitivity_threshold(
                odds[counted], truth[counted], (positives - allowed) / positives
            ),
            decision_rule.fit_sensitivity_threshold(odds, truth, default_sensitivity),
        )
    threshold = decision_rule.fit_youden_threshold(odds, truth)
    default = decision_rule.compute_youden(is_predicted, truth)
    if threshold is None and default <= decision_rule.CHANCE:
        message = f"no threshold separates images of `{name}` from others better than chance"
        raise fail("E1263", message, location, help="train the network first")
    if threshold is None:
        return None
    gain = decision_rule.compute_youden(odds >= threshold, truth)
    return threshold if gain >= default - decision_rule.CHANCE else None


def _compute_odds(evaluated: Evaluated, temperature: float, column: int) -> decision_rule.Float64:
    """Return the log-odds of a class, the numbers that decide later (images,)."""
    assert evaluated.raw is not None
    # A single decision has one row, for "yes".
    row = 0 if evaluated.images.single else column
    return decision_odds.compute_class_odds(
        evaluated.images.output.activation, evaluated.raw, temperature, row
    )


def _score_class(evaluated: Evaluated, temperature: float, column: int) -> SideScores:
    """Return the scores of a class.

    Raises:
        UserError: The class or all others have no image (E1263).
    """
    images = evaluated.images
    truth = images.truth[:, column]
    if truth.all() or not truth.any():
        message = (
            f"a threshold for `{images.labels[column]}` needs images of this class and of others"
        )
        label = f"{int(truth.sum())} of {len(truth)} images are of this class"
        location = make_file_span(str(images.path))
        raise fail("E1263", message, location, label=label, help="give images of every class")
    odds = _compute_odds(evaluated, temperature, column)
    # The predictions are by the rule without a threshold.
    return SideScores(images, column, odds, evaluated.predicted[:, column])


def _select_counted(images: LabelledImages, column: int) -> NDArray[np.bool_]:
    """Return which images count for the sensitivity of a class (images,).

    Other images only place the threshold.
    """
    truth = images.truth[:, column]
    is_counted = ~truth
    is_counted[select_counted(images, truth)] = True
    return is_counted


def _count_allowed_misses(
    images: LabelledImages, name: str, positives: int, criterion: Criterion
) -> int:
    """Return how many of the counted images the threshold may miss.

    Raises:
        UserError: There are too few images to certify the sensitivity (E1265).
    """
    assert criterion.sensitivity is not None
    target, confidence = criterion.sensitivity, criterion.confidence
    allowed = confidence_intervals.count_allowed_misses(target, positives, confidence)
    if allowed is not None:
        return allowed
    needed = confidence_intervals.count_images_needed(target, 0, confidence)
    unit = "cases" if images.cases else "images"
    message = f"{positives:,} {unit} of `{name}` cannot certify a sensitivity of {target:g}"
    help = "no number certifies a sensitivity of 1: request less"
    if needed is not None:
        help = (
            f"fit to at least {needed:,} {unit} of the class, about {ADVISED_FACTOR * needed:,} for"
            " a useful specificity; or request less, or use `--confidence 0` for a threshold"
            " without a certificate"
        )
    label = f"with a confidence of {confidence:g}"
    raise fail("E1265", message, make_file_span(str(images.path)), label=label, help=help)


def _create_certificate(
    evaluated: Evaluated,
    temperature: float,
    column: int,
    threshold: float,
    criterion: Criterion,
) -> ThresholdCertificate:
    """Return what a threshold promises, and its specificity on the images of the fit."""
    images = evaluated.images
    truth, counted = images.truth[:, column], _select_counted(images, column)
    positives = int(truth[counted].sum())
    below = _compute_odds(evaluated, temperature, column) < threshold
    return ThresholdCertificate(
        images.labels[column],
        criterion.confidence,
        int(truth.sum()),
        positives if images.cases else None,
        _count_allowed_misses(images, images.labels[column], positives, criterion),
        int((~truth).sum()),
        int(below[~truth].sum()),
    )


def check_apart(fitted: Evaluated, held_out: Evaluated) -> None:
    """Refuse images that are used both for fitting and for evaluation, by their pixels (E1261).

    Raises:
        UserError: There are some; they are listed.
    """
    names_by_digest = {
        digest: item.name
        for digest, item in zip(fitted.inputs, fitted.images.dataset.items, strict=True)
    }
    duplicates = [
        (names_by_digest[digest], item.name)
        for digest, item in zip(held_out.inputs, held_out.images.dataset.items, strict=True)
        if digest in names_by_digest
    ]
    if duplicates:
        count = f"{len(duplicates):,} images are" if len(duplicates) > 1 else "one image is"
        notes = tuple(
            f"{fitted_name} equals {held_out_name}"
            for fitted_name, held_out_name in duplicates[:MAX_LISTED]
        )
        message = f"{count} used both for fitting and for evaluation"
        help = "`val` and `test` must not share images; keep all images of a patient in one of them"
        location = make_file_span(str(held_out.images.path))
        raise UserError((Diagnostic("E1261", message, location, notes=notes, help=help),))


def has_promises(points: Sequence[OperatingPoint]) -> bool:
    """Return whether operating points promise anything about new images."""
    return any(
        point.certificates or point.rate_certificates or point.sets or point.abstention
        for point in points
    )


def get_carried_points(bundle: Bundle, source_bundle: Bundle) -> tuple[OperatingPoint, ...]:
    """Return the operating points of another bundle of the same network.

    Raises:
        UserError: It is of another network, or has no operating point (E1264).
    """
    location = make_file_span(str(source_bundle.folder))
    if reason := find_difference(bundle, source_bundle):
        message = "the operating point of another network does not apply to this one"
        help = "name a bundle of the same spec and weights, or fit this one with `tcc eval --fit`"
        raise fail("E1264", message, location, label=reason, help=help)
    if not source_bundle.manifest.operating_points:
        message, help = "this bundle has no fitted operating point", "fit one with `tcc eval --fit`"
        raise fail("E1264", message, location, help=help)
    return source_bundle.manifest.operating_points


def store(bundle: Bundle, device: Device, points: Sequence[OperatingPoint]) -> Bundle:
    """Write a bundle again with other operating points; its model stays the same.

    Args:
        bundle: The bundle as it was read.
        device: Its target.
        points: The new operating points.

    Returns:
        The new bundle.

    Raises:
        UserError: The folder cannot be written.
    """
    files = device.encode_operating_points(bundle.model, points)
    signature = device.read_runner_signature(bundle.model)
    old_files = device.encode_operating_points(bundle.model, bundle.manifest.operating_points)
    # The signature was for the old program, and other files for numbers that are not fitted now.
    dropped = (*([signature.file] if signature else ()), *(old_files.keys() - files.keys()))
    return bundle_folder.rewrite_bundle(bundle, points, files, dropped)
