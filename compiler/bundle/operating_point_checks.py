"""Check that an operating point of a manifest is one that `tcc eval --fit` writes."""

import struct
from math import isfinite, prod

from tcc.compiler.bundle.manifest import OutputContract
from tcc.compiler.ir.operating_point import (
    MAX_TEMPERATURE,
    HeldOutCheck,
    OperatingPoint,
    RateCertificate,
    ThresholdCertificate,
    ThresholdCheck,
)
from tcc.compiler.reference import confidence_intervals, decision_rule, prediction_sets


def find_problem(point: OperatingPoint, output: OutputContract | None) -> str:
    """Return what no fit of tcc writes; empty if there is nothing.

    Args:
        point: The operating point.
        output: The output with its name, if there is one.
    """
    if output is None or len(output.shape) != 1 or output.kind == "regression":
        return "no output of this name is a row of classes or decisions"
    if not all(map(isfinite, (point.temperature, *point.thresholds))):
        return "a number is not finite"
    if not 1 / MAX_TEMPERATURE <= point.temperature <= MAX_TEMPERATURE:
        return f"the temperature {point.temperature:g} is out of range"
    threshold_count = (
        output.shape[0] if output.kind == "decisions" else int(point.positive is not None)
    )
    if len(point.thresholds) != threshold_count:
        return f"it has {len(point.thresholds)} thresholds, not {threshold_count}"
    limit = 0 if output.kind == "decisions" else output.shape[0]
    if point.positive is not None and not 0 <= point.positive < limit:
        return f"the positive class {point.positive} does not exist"
    judged_problem = _find_judged_problem(point, point.judged) if point.judged else ""
    return (
        judged_problem
        or _find_certificates_problem(point)
        or _find_rates_problem(point)
        or _find_sets_problem(point, output)
        or _find_abstention_problem(point, output)
    )


def _find_certificates_problem(point: OperatingPoint) -> str:
    if point.certificates and len(point.certificates) != len(point.thresholds):
        return f"it has {len(point.certificates)} certificates, not {len(point.thresholds)}"
    problems = (
        (certificate, _find_certificate_problem(point, certificate))
        for certificate in point.certificates
    )
    return next(
        (
            f"certificate of `{certificate.label[:40]}`: {problem}"
            for certificate, problem in problems
            if problem
        ),
        "",
    )


def _find_certificate_problem(point: OperatingPoint, certificate: ThresholdCertificate) -> str:
    if point.target is None or not 0 < certificate.confidence < 1:
        return "it has no target or no confidence"
    counted = certificate.positives if certificate.cases is None else certificate.cases
    if not 0 < counted <= certificate.positives:
        return f"{counted} cases have {certificate.positives} images, which is impossible"
    if not 0 <= certificate.rejected <= certificate.negatives:
        return f"{certificate.rejected} of {certificate.negatives} images are rejected"
    allowed = confidence_intervals.count_allowed_misses(
        point.target, counted, certificate.confidence
    )
    if certificate.allowed_misses != allowed:
        return f"{certificate.allowed_misses} misses are allowed, not {allowed}"
    return ""


def _find_judged_problem(point: OperatingPoint, judged_point: HeldOutCheck) -> str:
    if len(judged_point.thresholds) != len(point.thresholds):
        return (
            f"{len(judged_point.thresholds)} thresholds are evaluated, not {len(point.thresholds)}"
        )
    for check in judged_point.thresholds:
        if check.target != point.target or not 0 <= (check.target or 0.0) <= 1:
            return f"`{check.label[:40]}` is evaluated against another target"
        if not 0 <= check.detected <= check.positives:
            return f"{check.detected} of {check.positives} images are detected, which is impossible"
        if check.reached != _is_target_reached(check):
            return f"`{check.label[:40]}`: `reached` contradicts its counts"
    is_missed = any(
        decision_rule.is_target_missed(point, check) for check in judged_point.thresholds
    )
    sets, abstention = judged_point.sets, judged_point.abstention
    if (sets and not point.sets) or (abstention and not point.abstention):
        return "sets or answers that it does not have are evaluated"
    if sets and point.sets:
        if len(sets.counted) != len(point.sets.gaps) or len(sets.covered) != len(sets.counted):
            return f"{len(sets.counted)} coverages are evaluated, not {len(point.sets.gaps)}"
        if not all(
            0 <= part <= all_ for part, all_ in zip(sets.covered, sets.counted, strict=True)
        ):
            return "more images have their class in the set than there are"
        is_missed |= bool(prediction_sets.list_refuted_coverages(point.sets, sets))
    if abstention and point.abstention:
        if not 0 <= abstention.wrong <= abstention.answered <= abstention.images:
            return f"{abstention.wrong} of {abstention.answered} answers are wrong"
        if not 0 <= abstention.counted_wrong <= abstention.counted <= abstention.images:
            return f"{abstention.counted_wrong} of {abstention.counted} images are answered wrongly"
        is_missed |= prediction_sets.is_abstention_refuted(point.abstention, abstention)
    if is_missed and not judged_point.notice:
        # The user must see that the bundle misses its target.
        return "it misses its target, but `notice` is empty"
    return ""


def _is_target_reached(check: ThresholdCheck) -> bool | None:
    if check.target is None:
        return None
    return confidence_intervals.is_shown(check.target, check.detected, check.positives)


def _find_rates_problem(point: OperatingPoint) -> str:
    certificates = point.rate_certificates
    if certificates and len(certificates) != len(point.thresholds):
        return f"it has {len(certificates)} certificates, not {len(point.thresholds)}"
    for certificate in certificates:
        if problem := _find_rate_problem(certificate):
            return f"certificate of `{certificate.label[:40]}`: {problem}"
    return ""


def _find_rate_problem(certificate: RateCertificate) -> str:
    rates = [rate for rate in (certificate.sensitivity, certificate.specificity) if rate]
    if not rates or not 0 < certificate.confidence < 1 or certificate.candidates < 1:
        return "it has no rate or no confidence"
    # Bounds hold together with the product of their confidences, for each of the candidates.
    risk = certificate.candidates * (1 - prod(rate.confidence for rate in rates))
    if 1 - risk < certificate.confidence - 1e-9:
        return f"its bounds hold together with less confidence than {certificate.confidence:g}"
    for rate in rates:
        if not 0 < rate.counted <= rate.images or not 0 <= rate.misses <= rate.counted:
            return f"{rate.misses} of {rate.counted} are missed"
        if not 0 < rate.confidence < 1 or not confidence_intervals.is_certified(
            rate.at_least, rate.counted, rate.misses, rate.confidence
        ):
            return f"{rate.misses} misses of {rate.counted} do not certify {rate.at_least:g}"
    if not 0 <= certificate.detected <= certificate.positives:
        return f"{certificate.detected} of {certificate.positives} images are detected"
    if not 0 <= certificate.rejected <= certificate.negatives:
        return f"{certificate.rejected} of {certificate.negatives} images are rejected"
    values: tuple[float | None, float | None] = (None, None)
    if certificate.prevalence is not None:
        if not 0 < certificate.prevalence < 1 or len(rates) < 2:
            return "its prevalence is out of range"
        values = confidence_intervals.compute_predictive_values(
            rates[0].at_least, rates[1].at_least, certificate.prevalence
        )
    if (certificate.ppv, certificate.npv) != values:
        return "its predictive values contradict its rates"
    return ""


def _find_sets_problem(point: OperatingPoint, output: OutputContract) -> str:
    sets = point.sets
    if sets is None:
        return ""
    classes = output.shape[0]
    if output.kind != "classes" or classes < 2:
        return "prediction sets need classes"
    if not (0 < sets.coverage < 1 and 0 < sets.confidence < 1 and 0 <= sets.mean_size <= classes):
        return "the coverage, confidence or size of its sets is out of range"
    count = classes if sets.by_class else 1
    if not len(sets.gaps) == len(sets.counted) == len(sets.allowed_misses) == count:
        return f"its sets have {len(sets.gaps)} gaps, not {count}"
    for gap, counted, allowed in zip(sets.gaps, sets.counted, sets.allowed_misses, strict=True):
        if gap is not None and not (gap >= 0 and _is_float32(gap)):
            return f"the gap {gap:g} is not a float32 of 0 or more"
        expected = confidence_intervals.count_allowed_misses(
            sets.coverage, counted, sets.confidence
        )
        if counted < 0 or allowed != expected or (allowed is None and gap is not None):
            return f"sets may lack {allowed} of {counted} images, not {expected}"
    return ""


def _find_abstention_problem(point: OperatingPoint, output: OutputContract) -> str:
    abstention = point.abstention
    if abstention is None:
        return ""
    if output.kind != "classes" or output.shape[0] < 2:
        return "abstention needs classes"
    if not (0 < abstention.wrong_share < 1 and 0 < abstention.confidence < 1):
        return "the share of wrong answers or its confidence is out of range"
    if not (abstention.margin >= -1 and _is_float32(abstention.margin)):
        return f"the margin {abstention.margin:g} is not a float32 of -1 or more"
    if not 0 <= abstention.wrong <= abstention.answered <= abstention.images:
        return f"{abstention.wrong} of {abstention.answered} answers are wrong"
    expected = confidence_intervals.count_allowed_misses(
        1 - abstention.wrong_share, abstention.counted, abstention.confidence
    )
    if not 0 < abstention.counted <= abstention.images or abstention.allowed_wrong != expected:
        return f"{abstention.allowed_wrong} wrong answers are allowed, not {expected}"
    return ""


def _is_float32(number: float) -> bool:
    """Return whether float32 has a number: targets compare in float32."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        return False
    return isfinite(number) and rounded == number
