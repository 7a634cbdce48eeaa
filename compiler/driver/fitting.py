"""Fitting how a bundle's outputs are read, to images that nothing is judged by."""

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
"""Images that are named where the same are on two sides."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """How thresholds are chosen: by Youden's J, or the least `sensitivity`; for which class."""

    positive: str | None = None
    sensitivity: float | None = None

    def __str__(self) -> str:
        """Say it."""
        if self.sensitivity is None:
            return "largest sensitivity + specificity (Youden's J)"
        return f"sensitivity of {self.sensitivity:g} or more"


def fit(evaluated: Evaluated, program: str, threshold_criterion: Criterion) -> OperatingPoint:
    """Return what fits outputs best: the temperature, and the threshold of each decision.

    A row of classes has a threshold for the class that is asked for.

    Args:
        evaluated: What a network gave for labelled images.
        program: Names what ran.
        threshold_criterion: How thresholds are chosen.

    Raises:
        UserError: There are too many outputs or no probabilities to fit (E1263), no such class
            (E1262), or a class or all others have no image (E1263).
    """
    images, raw = evaluated.images, evaluated.raw
    location = make_file_span(str(images.path))
    output = images.output
    if raw is None or output.kind == "regression":
        message = f"`{output.name}` is a row of numbers, and no classes"
        if raw is None:
            message = f"{len(images.dataset):,} images are too many to fit to"
        raise fail("E1263", message, location, help="take fewer" if raw is None else "")
    positive = _find_positive_class(evaluated, threshold_criterion)
    truth = images.truth[:, 1:] if images.single else images.truth
    _check_classes(evaluated)
    fitted_temperature = None
    if output.activation != "none":
        fitted_temperature = _fit_temperature(output.activation, raw, truth)
    # Thresholds are of the probabilities that are shown, so that they come after the temperature.
    temperature = fitted_temperature or 1.0
    columns = list_threshold_columns(images, positive)
    candidates = [
        _fit_threshold(evaluated, temperature, column, threshold_criterion) for column in columns
    ]
    thresholds = tuple(threshold for threshold in candidates if threshold is not None)
    if len(thresholds) < len(
        candidates
    ):  # the row's only one: without it the largest output decides
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
    """Return the best temperature, None where no other is better than 1 on these images."""
    best = decision_rule.fit_temperature(activation, raw, truth)
    if best is None:
        return None
    fitted_loss, default_loss = (
        decision_rule.compute_negative_log_likelihood(activation, raw, truth, t)
        for t in (best, 1.0)
    )
    return best if fitted_loss < default_loss else None


def _check_classes(evaluated: Evaluated) -> None:
    """Refuse images of one class alone, by which any network that knows it is too unsure (E1263).

    Raises:
        UserError: They are.
    """
    images = evaluated.images
    class_indices = sorted(frozenset.union(*images.class_sets))
    if images.exclusive and len(class_indices) == 1:
        message = f"these images are all of `{images.labels[class_indices[0]]}`"
        help = "give images of every class"
        raise fail("E1263", message, make_file_span(str(images.path)), help=help)


def _find_positive_class(evaluated: Evaluated, criterion: Criterion) -> int | None:
    """Return the class that a threshold is for, None where there is none or each has one."""
    images, name = evaluated.images, criterion.positive
    location = make_file_span(str(images.path))
    if images.single or not images.exclusive:
        if name is not None:
            message = f"`{images.output.name}` decides by itself, so that `--positive` says nothing"
            raise fail("E1262", message, location, help="leave it out")
        return None
    if name is None:
        if criterion.sensitivity is not None:
            message = "a sensitivity is that of one class, and it is not said of which"
            help = f"say --positive with one of {', '.join(images.labels[:20])}"
            raise fail("E1262", message, location, help=help)
        return None
    # Typed by hand: `--positive tumor` means `Tumor`.
    folded = {label.casefold(): index for index, label in enumerate(images.labels)}
    if name.casefold() in folded:
        return folded[name.casefold()]
    nearest_name = find_nearest_name(name, set(images.labels))
    help = f"its classes are {', '.join(images.labels[:20])}"
    help = f"did you mean `{nearest_name}`? {help}" if nearest_name else help
    raise fail("E1262", f"the network has no class `{name[:80]}`", location, help=help)


def list_threshold_columns(images: LabelledImages, positive: int | None) -> Sequence[int]:
    """Return the classes that thresholds are for; `positive` is a row's class with one."""
    if images.single:
        return (1,)
    if not images.exclusive:
        return range(len(images.labels))
    return () if positive is None else (positive,)


def _fit_threshold(
    evaluated: Evaluated, temperature: float, column: int, criterion: Criterion
) -> float | None:
    """Return the threshold that does what is wanted on these images, and no less than no threshold.

    None where the rule without a threshold does better than each of them.
    """
    images = evaluated.images
    location, name = make_file_span(str(images.path)), images.labels[column]
    truth = images.truth[:, column]
    if truth.all() or not truth.any():
        message = f"a threshold for `{name}` needs images that are of it and others"
        label = f"{int(truth.sum())} of {len(truth)} are"
        raise fail("E1263", message, location, label=label)
    assert evaluated.raw is not None
    # By the very numbers that decide later; of a single decision, which is yes, the only one.
    row = 0 if images.single else column
    odds = decision_odds.compute_class_odds(
        images.output.activation, evaluated.raw, temperature, row
    )
    is_taken = evaluated.taken[:, column]  # by the rule without a threshold
    if criterion.sensitivity is not None:
        # What the default rule detects already, a threshold must not lose.
        min_sensitivity = max(criterion.sensitivity, float(is_taken[truth].mean()))
        return decision_rule.fit_sensitivity_threshold(odds, truth, min_sensitivity)
    threshold = decision_rule.fit_youden_threshold(odds, truth)
    default = decision_rule.compute_youden(is_taken, truth)
    if threshold is None and default <= decision_rule.CHANCE:
        message = f"no threshold tells images of `{name}` from others better than chance"
        raise fail("E1263", message, location, help="train the network first")
    if threshold is None:
        return None
    gain = decision_rule.compute_youden(odds >= threshold, truth)
    return threshold if gain >= default - decision_rule.CHANCE else None


def check_apart(fitted: Evaluated, held_out: Evaluated) -> None:
    """Refuse images that are on both sides (E1261), by their pixels.

    Raises:
        UserError: They are listed.
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
        count = f"{len(duplicates):,} images are" if len(duplicates) > 1 else "an image is"
        notes = tuple(
            f"{fitted_name} is {held_out_name}"
            for fitted_name, held_out_name in duplicates[:MAX_LISTED]
        )
        message = f"{count} among those that values are fitted to and among those that judge them"
        help = "keep the images of `val` and `test` apart, and those of a patient on one side"
        location = make_file_span(str(held_out.images.path))
        raise UserError((Diagnostic("E1261", message, location, notes=notes, help=help),))


def get_carried_points(bundle: Bundle, source_bundle: Bundle) -> tuple[OperatingPoint, ...]:
    """Return what was fitted of another bundle of the same network.

    Raises:
        UserError: It is of another network, or nothing was fitted of it (E1264).
    """
    location = make_file_span(str(source_bundle.folder))
    if reason := find_difference(bundle, source_bundle):
        message = "what was fitted of another network says nothing of this one"
        raise fail("E1264", message, location, label=reason)
    if not source_bundle.manifest.operating_points:
        message, help = "nothing was fitted of this bundle", "`tcc eval --fit` does"
        raise fail("E1264", message, location, help=help)
    return source_bundle.manifest.operating_points


def store(bundle: Bundle, device: Device, points: Sequence[OperatingPoint]) -> Bundle:
    """Write a bundle anew that says how its outputs are read; its artifact stays as it is.

    Args:
        bundle: The bundle as it was read.
        device: Its target.
        points: How its outputs are to be read.

    Returns:
        The bundle as it is now.

    Raises:
        UserError: The folder cannot be written.
    """
    files = device.encode_operating_points(bundle.model, points)
    signature = device.read_runner_signature(bundle.model)
    # It was of the program before.
    dropped = (signature.file,) if signature else ()
    return bundle_folder.rewrite_bundle(bundle, points, files, dropped)
