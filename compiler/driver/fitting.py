"""Fit the operating point of a bundle's outputs, to images that are not used for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

from tcc.compiler.bundle import bundle_folder
from tcc.compiler.bundle.bundle_comparison import find_difference
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.driver.evaluation import Evaluated
from tcc.compiler.driver.labelled_images import LabelledImages
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.operating_point import FittingData, OperatingPoint
from tcc.compiler.ir.types import OutputActivation
from tcc.compiler.reference import decision_odds, decision_rule
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    UserError,
    fail,
    find_nearest_name,
    make_file_span,
)

MAX_LISTED = 10
"""Most images that are listed if they are in both splits."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """How thresholds are chosen: by Youden's J or a minimum `sensitivity`, and for which class."""

    positive: str | None = None
    sensitivity: float | None = None

    def __str__(self) -> str:
        """Return the criterion as text."""
        if self.sensitivity is None:
            return "largest sensitivity + specificity (Youden's J)"
        return f"sensitivity of {self.sensitivity:g} or more"


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
    if output.activation != "none":
        fitted_temperature = _fit_temperature(output.activation, raw, truth)
    # Thresholds apply to the probabilities after the temperature.
    temperature = fitted_temperature or 1.0
    columns = list_threshold_columns(images, positive)
    candidates = [
        _fit_threshold(evaluated, temperature, column, threshold_criterion) for column in columns
    ]
    thresholds = tuple(threshold for threshold in candidates if threshold is not None)
    if len(thresholds) < len(candidates):  # no threshold does better: the largest output decides
        positive = None
    before_after = None
    if output.activation != "none":
        log_losses = [
            decision_rule.compute_negative_log_likelihood(output.activation, raw, truth, t)
            for t in (1, temperature)
        ]
        before_after = (log_losses[0], log_losses[1])
    criterion = str(threshold_criterion) if thresholds else "none"
    fitting_data = FittingData(images.dataset.digest, len(images.dataset), program, before_after)
    target = threshold_criterion.sensitivity if thresholds else None
    return OperatingPoint(
        output.name, temperature, positive, thresholds, criterion, fitting_data, target
    )


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
        if criterion.sensitivity is not None:
            message = "a minimum sensitivity needs the class that it is for"
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
    truth = images.truth[:, column]
    if truth.all() or not truth.any():
        message = f"a threshold for `{name}` needs images of this class and of others"
        label = f"{int(truth.sum())} of {len(truth)} images are of this class"
        raise fail("E1263", message, location, label=label, help="give images of every class")
    assert evaluated.raw is not None
    # The numbers that decide later; a single decision has one row, for "yes".
    row = 0 if images.single else column
    odds = decision_odds.compute_class_odds(
        images.output.activation, evaluated.raw, temperature, row
    )
    is_predicted = evaluated.predicted[:, column]  # by the rule without a threshold
    if criterion.sensitivity is not None:
        # A threshold must not lose images that the default rule detects.
        min_sensitivity = max(criterion.sensitivity, float(is_predicted[truth].mean()))
        return decision_rule.fit_sensitivity_threshold(odds, truth, min_sensitivity)
    threshold = decision_rule.fit_youden_threshold(odds, truth)
    default = decision_rule.compute_youden(is_predicted, truth)
    if threshold is None and default <= decision_rule.CHANCE:
        message = f"no threshold separates images of `{name}` from others better than chance"
        raise fail("E1263", message, location, help="train the network first")
    if threshold is None:
        return None
    gain = decision_rule.compute_youden(odds >= threshold, truth)
    return threshold if gain >= default - decision_rule.CHANCE else None


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
    # The signature was for the old program.
    dropped = (signature.file,) if signature else ()
    return bundle_folder.rewrite_bundle(bundle, points, files, dropped)
