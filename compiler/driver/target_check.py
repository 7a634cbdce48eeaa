"""Whether what was fitted holds on images that it was not fitted to."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.driver.evaluation import Evaluated, taken_classes
from tcc.compiler.driver.fitting import threshold_columns
from tcc.compiler.ir.operating_point import JudgedPoint, OperatingPoint, ThresholdCheck
from tcc.compiler.reference import confidence_intervals, decision_rule
from tcc.compiler.support.diagnostics import Diagnostic, whole_file


def judge(point: OperatingPoint, evaluated: Evaluated) -> JudgedPoint:
    """Return how an operating point does.

    Args:
        point: What was fitted.
        evaluated: What a network gave for labelled images, read by that point.
    """
    given = evaluated.given
    columns = threshold_columns(given, point.positive) if point.thresholds else ()
    default = _decide_by_default(evaluated)
    checks = tuple(_check_threshold(point.target, evaluated, default, column) for column in columns)
    notice = "; ".join(_describe_miss(check) for check in checks if check.reached is False)
    return JudgedPoint(
        given.data.digest, len(given.data), _compute_log_losses(point, evaluated), checks, notice
    )


def _decide_by_default(evaluated: Evaluated) -> NDArray[np.bool_]:
    """Return which classes images are taken for without a threshold (images, classes)."""
    if evaluated.raw is None:
        return evaluated.taken
    rows = [taken_classes(evaluated.given, row, None) for row in evaluated.raw]
    return np.stack(rows)


def _compute_log_losses(point: OperatingPoint, evaluated: Evaluated) -> tuple[float, float] | None:
    given, raw = evaluated.given, evaluated.raw
    if raw is None or given.output.activation == "none":
        return None
    holds = given.holds[:, 1:] if given.single else given.holds
    plain, fitted = (
        decision_rule.likelihood(given.output.activation, raw, holds, temperature)
        for temperature in (1.0, point.temperature)
    )
    return plain, fitted


def _check_threshold(
    target: float | None, evaluated: Evaluated, default: NDArray[np.bool_], column: int
) -> ThresholdCheck:
    holds, taken = evaluated.given.holds[:, column], evaluated.taken[:, column]
    positives, detected = int(holds.sum()), int(taken[holds].sum())
    shown = None
    if target is not None:
        shown = confidence_intervals.is_shown(target, detected, positives)
    return ThresholdCheck(
        evaluated.given.labels[column],
        target,
        positives,
        detected,
        int((~holds).sum()),
        int((~taken[~holds]).sum()),
        int(default[holds, column].sum()),
        int((~default[~holds, column]).sum()),
        confidence_intervals.lower_bound(detected, positives),
        shown,
    )


def _describe_miss(check: ThresholdCheck) -> str:
    assert check.target is not None
    asked = f"a sensitivity of {check.target:g} for `{check.label}` was asked for and is not shown"
    if not check.positives:
        return f"{asked}: no image of the class judges it"
    return (
        f"{asked}: {check.detected:,} of {check.positives:,} images are detected, a sensitivity of"
        f" {check.detected / check.positives:.4f}, and with 95 % confidence of at least"
        f" {check.at_least:.4f}"
    )


def find_misses(point: OperatingPoint, judged: JudgedPoint, place: str) -> tuple[Diagnostic, ...]:
    """Return what does not hold on the images that judge, as warnings.

    Args:
        point: What was fitted.
        judged: How it does.
        place: Where the images lie.
    """
    return tuple(_list_misses(point, judged, place))


def _list_misses(point: OperatingPoint, judged: JudgedPoint, place: str) -> Iterator[Diagnostic]:
    where = whole_file(place)
    for check in judged.thresholds:
        if check.reached is False:
            message, help = _describe_miss(check), _advise(check)
            yield Diagnostic("W0681", message, where, help=help, severity="warning")
        if _is_worse(check):
            yield Diagnostic(
                "W0682",
                f"the threshold for `{check.label}` does worse on these images than none",
                where,
                label=_format_figures(check),
                help="fit to more images that are drawn as these, or build again to remove it",
                severity="warning",
            )
    if judged.likelihood and judged.likelihood[1] > judged.likelihood[0]:
        plain, fitted = judged.likelihood
        yield Diagnostic(
            "W0682",
            f"the temperature {point.temperature:.4g} raises the log loss on these images",
            where,
            label=f"it is {fitted:.4f}, and {plain:.4f} without it",
            help="fit to more images that are drawn as these, or build again to remove it",
            severity="warning",
        )


def _is_worse(check: ThresholdCheck) -> bool:
    """Return whether the quantity that the threshold is for is less than without it."""
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


def _advise(check: ThresholdCheck) -> str:
    assert check.target is not None
    missed = check.positives - check.detected
    least = confidence_intervals.images_needed(check.target, 0)
    if least is None:
        return f"no number of images shows a sensitivity of {check.target:g}: ask for less than 1"
    as_here = confidence_intervals.images_needed(check.target, missed)
    more = f", with {missed:,} missed {as_here:,}" if missed and as_here else ""
    return (
        f"to show it with 95 % confidence takes {least:,} images of `{check.label}` with none"
        f" missed{more}. Fit and judge by more images, or ask for more than you need"
    )


def describe(checks: Sequence[ThresholdCheck]) -> Iterator[str]:
    """Yield a line for each threshold: what it gives on the images that judge."""
    for check in checks:
        target = "" if check.target is None else f", {check.target:g} asked for"
        yield f"`{check.label}`: {_format_figures(check)}{target}"
