"""Check a fitted operating point on images that it was not fitted to."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.driver import set_check
from tcc.compiler.driver.evaluation import Evaluated, predict_classes
from tcc.compiler.driver.fitting import list_threshold_columns
from tcc.compiler.ir.operating_point import HeldOutCheck, OperatingPoint, ThresholdCheck
from tcc.compiler.reference import confidence_intervals, decision_rule
from tcc.compiler.support.diagnostics import Diagnostic, make_file_span


def evaluate_point(point: OperatingPoint, evaluated: Evaluated) -> HeldOutCheck:
    """Return how an operating point does on images.

    Args:
        point: The operating point.
        evaluated: Results of a network for labelled images, with this operating point.
    """
    images = evaluated.images
    columns = list_threshold_columns(images, point.positive) if point.thresholds else ()
    default = _predict_by_default(evaluated)
    checks = tuple(_check_threshold(point.target, evaluated, default, column) for column in columns)
    raw = evaluated.raw
    held_out_check = HeldOutCheck(
        images.dataset.digest,
        len(images.dataset),
        _compute_log_losses(point, evaluated),
        checks,
        "",
        None if raw is None else set_check.check_sets(point, images, raw),
        None if raw is None else set_check.check_abstention(point, images, raw),
    )
    notices = [
        *(
            _describe_miss(point, check)
            for check in checks
            if decision_rule.is_target_missed(point, check)
        ),
        *set_check.list_refuted_promises(replace(point, judged=held_out_check), images.labels),
    ]
    return replace(held_out_check, notice="; ".join(notices))


def _predict_by_default(evaluated: Evaluated) -> NDArray[np.bool_]:
    """Return the predicted classes without thresholds (images, classes)."""
    if evaluated.raw is None:
        return evaluated.predicted
    rows = [predict_classes(evaluated.images, row, None) for row in evaluated.raw]
    return np.stack(rows)


def _compute_log_losses(point: OperatingPoint, evaluated: Evaluated) -> tuple[float, float] | None:
    images, raw = evaluated.images, evaluated.raw
    if raw is None or images.output.activation == "none":
        return None
    truth = images.truth[:, 1:] if images.single else images.truth
    default_loss, fitted_loss = (
        decision_rule.compute_negative_log_likelihood(
            images.output.activation, raw, truth, temperature
        )
        for temperature in (1.0, point.temperature)
    )
    return default_loss, fitted_loss


def _check_threshold(
    target: float | None, evaluated: Evaluated, default: NDArray[np.bool_], column: int
) -> ThresholdCheck:
    truth, is_predicted = evaluated.images.truth[:, column], evaluated.predicted[:, column]
    positives, detected = int(truth.sum()), int(is_predicted[truth].sum())
    is_shown = None
    if target is not None:
        is_shown = confidence_intervals.is_shown(target, detected, positives)
    return ThresholdCheck(
        evaluated.images.labels[column],
        target,
        positives,
        detected,
        int((~truth).sum()),
        int((~is_predicted[~truth]).sum()),
        int(default[truth, column].sum()),
        int((~default[~truth, column]).sum()),
        confidence_intervals.compute_lower_bound(detected, positives),
        is_shown,
    )


def _describe_miss(point: OperatingPoint, check: ThresholdCheck) -> str:
    if point.rate_certificates:
        return "; ".join(
            f"the certified {name} of {rate:.4g} for `{check.label}` is refuted: {correct:,} of"
            f" {total:,} images are right, a {name} of {correct / total:.4f}"
            for name, rate, correct, total in decision_rule.list_contradicted_rates(point, check)
        )
    assert check.target is not None
    sentence = f"the requested sensitivity of {check.target:g} for `{check.label}` is not confirmed"
    if point.certificates:
        sentence = f"the certified sensitivity of {check.target:g} for `{check.label}` is refuted"
    if not check.positives:
        return f"{sentence}: there is no image of this class"
    return (
        f"{sentence}: {check.detected:,} of {check.positives:,} images are detected, a "
        "sensitivity of"
        f" {check.detected / check.positives:.4f}; its lower 95 % confidence bound is"
        f" {check.at_least:.4f}"
    )


def find_misses(
    point: OperatingPoint, judged_point: HeldOutCheck, labels: tuple[str, ...], path: str
) -> tuple[Diagnostic, ...]:
    """Return warnings about what the operating point misses on the evaluation images.

    Args:
        point: The operating point.
        judged_point: Its evaluation.
        labels: The names of the classes.
        path: Path of the images.
    """
    promises = set_check.list_refuted_promises(replace(point, judged=judged_point), labels)
    refuted = tuple(
        Diagnostic("W0681", message, make_file_span(path), help=_REFUTED_REMEDY, severity="warning")
        for message in promises
    )
    return (*_list_misses(point, judged_point, path), *refuted)


_REFUTED_REMEDY = "fit to images of the same kind as these: the certificate holds only for such"


def _list_misses(
    point: OperatingPoint, judged_point: HeldOutCheck, path: str
) -> Iterator[Diagnostic]:
    location = make_file_span(path)
    for check in judged_point.thresholds:
        if decision_rule.is_target_missed(point, check):
            message = _describe_miss(point, check)
            certified = point.certificates or point.rate_certificates
            help = _REFUTED_REMEDY if certified else _describe_remedy(check)
            yield Diagnostic("W0681", message, location, help=help, severity="warning")
        if _is_worse(point, check):
            yield Diagnostic(
                "W0682",
                f"on these images, the threshold for `{check.label}` is worse than no threshold",
                location,
                label=_format_figures(check),
                help="fit to more images of the same kind as these, or rebuild to remove it",
                severity="warning",
            )
    if judged_point.likelihood and judged_point.likelihood[1] > judged_point.likelihood[0]:
        default_loss, fitted_loss = judged_point.likelihood
        yield Diagnostic(
            "W0682",
            f"the temperature {point.temperature:.4g} increases the log loss on these images",
            location,
            label=f"log loss {fitted_loss:.4f}, without the temperature {default_loss:.4f}",
            help="fit to more images of the same kind as these, or rebuild to remove it",
            severity="warning",
        )


def _is_worse(point: OperatingPoint, check: ThresholdCheck) -> bool:
    """Whether the criterion of the threshold is worse than without the threshold."""
    if point.rate_certificates and check.target is None:
        # A threshold for a specificity costs sensitivity on purpose.
        return check.rejected < check.default_rejected
    if check.target is not None or not check.positives or not check.negatives:
        return check.detected < check.default_detected
    fitted = check.detected * check.negatives + check.rejected * check.positives
    default = check.default_detected * check.negatives + check.default_rejected * check.positives
    return fitted < default


def _format_figures(check: ThresholdCheck) -> str:
    fitted = _format_shares(check, check.detected, check.rejected)
    default = _format_shares(check, check.default_detected, check.default_rejected)
    return f"{fitted}; without it {default}"


def _format_shares(check: ThresholdCheck, detected: int, rejected: int) -> str:
    sensitivity = f"{detected / check.positives:.4f}" if check.positives else "unknown"
    specificity = f"{rejected / check.negatives:.4f}" if check.negatives else "unknown"
    return f"sensitivity {sensitivity}, specificity {specificity}"


def _describe_remedy(check: ThresholdCheck) -> str:
    assert check.target is not None
    missed = check.positives - check.detected
    min_images = confidence_intervals.count_images_needed(check.target, 0)
    if min_images is None:
        return f"no number of images confirms sensitivity {check.target:g}: request less than 1"
    as_here = confidence_intervals.count_images_needed(check.target, missed)
    suffix = f", or {as_here:,} if {missed:,} are missed" if missed and as_here else ""
    return (
        f"to confirm it with 95 % confidence you need {min_images:,} images of `{check.label}`, "
        f"all detected{suffix}. Fit and evaluate on more images, or request more than you need"
    )


def describe_certificates(point: OperatingPoint) -> Iterator[str]:
    """Yield one line for each certificate: the promise, what it rests on, and what it costs."""
    for certificate in point.certificates:
        unit = "images" if certificate.cases is None else "cases"
        counted = certificate.positives if certificate.cases is None else certificate.cases
        specificity = certificate.rejected / certificate.negatives
        yield (
            f"`{certificate.label}`: on images like these, the sensitivity is {point.target:g} or"
            f" more with {certificate.confidence:.4g} confidence ({counted:,} {unit},"
            f" {certificate.allowed_misses:,} of them may be missed); the specificity on these"
            f" images is {specificity:.4f} ({certificate.rejected:,} of {certificate.negatives:,})"
        )


def describe_rate_certificates(point: OperatingPoint) -> Iterator[str]:
    """Yield lines for each certificate of several rates: its bounds, and what they cost."""
    for certificate in point.rate_certificates:
        rates = [
            (name, rate)
            for name, rate in (
                ("sensitivity", certificate.sensitivity),
                ("specificity", certificate.specificity),
            )
            if rate is not None
        ]
        bounds = [f"the {name} is {rate.at_least:.4g} or more" for name, rate in rates]
        if certificate.ppv is not None and certificate.npv is not None:
            bounds.append(
                f"at a prevalence of {certificate.prevalence:g} the positive predictive value is"
                f" {certificate.ppv:.4g} or more and the negative {certificate.npv:.4g} or more"
            )
        counts = "; ".join(
            f"{name}: {rate.counted:,} {'images' if rate.cases is None else 'cases'},"
            f" {rate.misses:,} of them on the wrong side"
            for name, rate in rates
        )
        together = ", all" if len(bounds) > 1 else ""
        yield (
            f"`{certificate.label}`: on images like these, {', '.join(bounds)}{together} with"
            f" {certificate.confidence:.4g} confidence ({counts})"
        )
        yield (
            f"`{certificate.label}`: on these images, the sensitivity is"
            f" {certificate.detected / certificate.positives:.4f} ({certificate.detected:,} of"
            f" {certificate.positives:,}), the specificity"
            f" {certificate.rejected / certificate.negatives:.4f} ({certificate.rejected:,} of"
            f" {certificate.negatives:,})"
        )


def describe(checks: Sequence[ThresholdCheck]) -> Iterator[str]:
    """Yield one line for each threshold: its figures on the evaluation images."""
    for check in checks:
        target = "" if check.target is None else f", requested {check.target:g}"
        yield f"`{check.label}`: {_format_figures(check)}{target}"
