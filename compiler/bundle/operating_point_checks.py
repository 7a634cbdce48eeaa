"""Check that an operating point of a manifest is one that `tcc eval --fit` writes."""

import struct
from collections.abc import Iterator
from math import isfinite, prod

from tcc.compiler.bundle.manifest import OutputContract
from tcc.compiler.ir.operating_point import (
    MAX_TEMPERATURE,
    Abstention,
    AbstentionCheck,
    HeldOutCheck,
    OperatingPoint,
    PredictionSets,
    RateCertificate,
    SetsCheck,
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
    return next(_list_problems(point, output), "")


def _list_problems(point: OperatingPoint, output: OutputContract) -> Iterator[str]:
    yield from _list_certificate_problems(point)
    yield from _list_rates_problems(point)
    if point.sets:
        yield from _list_sets_problems(point.sets, output)
    if point.abstention:
        yield from _list_abstention_problems(point.abstention, output)
    if point.judged:
        yield from _list_judged_problems(point, point.judged)


def _list_certificate_problems(point: OperatingPoint) -> Iterator[str]:
    if point.certificates and len(point.certificates) != len(point.thresholds):
        yield f"it has {len(point.certificates)} certificates, not {len(point.thresholds)}"
    for certificate in point.certificates:
        if problem := _find_certificate_problem(point, certificate):
            yield f"certificate of `{certificate.label[:40]}`: {problem}"


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


def _list_judged_problems(point: OperatingPoint, judged_point: HeldOutCheck) -> Iterator[str]:
    checked = len(judged_point.thresholds)
    if checked != len(point.thresholds):
        yield f"{checked} thresholds are evaluated, not {len(point.thresholds)}"
    for check in judged_point.thresholds:
        if check.target != point.target or not 0 <= (check.target or 0.0) <= 1:
            yield f"`{check.label[:40]}` is evaluated against another target"
        if not 0 <= check.detected <= check.positives:
            yield f"{check.detected} of {check.positives} images are detected, which is impossible"
        if check.reached != _is_target_reached(check):
            yield f"`{check.label[:40]}`: `reached` contradicts its counts"
    yield from _list_judged_sets_problems(point.sets, judged_point.sets)
    yield from _list_judged_abstention_problems(point.abstention, judged_point.abstention)
    if _is_any_target_missed(point, judged_point) and not judged_point.notice:
        # The user must see that the bundle misses its target.
        yield "it misses its target, but `notice` is empty"


def _list_judged_sets_problems(
    sets: PredictionSets | None, check: SetsCheck | None
) -> Iterator[str]:
    if check is None:
        return
    if sets is None or not len(sets.gaps) == len(check.counted) == len(check.covered):
        yield "prediction sets that it does not have are evaluated"
    elif any(not 0 <= n <= m for n, m in zip(check.covered, check.counted, strict=True)):
        yield "more images have their class in the set than there are"


def _list_judged_abstention_problems(
    abstention: Abstention | None, check: AbstentionCheck | None
) -> Iterator[str]:
    if check is None:
        return
    if abstention is None:
        yield "an abstention that it does not have is evaluated"
    if not 0 <= check.wrong <= check.answered <= check.images:
        yield f"{check.wrong} of {check.answered} answers are wrong, which is impossible"
    if not 0 <= check.counted_wrong <= check.counted <= check.images:
        yield f"{check.counted_wrong} of {check.counted} images are answered wrongly"


def _is_any_target_missed(point: OperatingPoint, judged_point: HeldOutCheck) -> bool:
    sets, abstention = judged_point.sets, judged_point.abstention
    return (
        any(decision_rule.is_target_missed(point, check) for check in judged_point.thresholds)
        or bool(point.sets and sets and prediction_sets.list_refuted_coverages(point.sets, sets))
        or bool(
            point.abstention
            and abstention
            and prediction_sets.is_abstention_refuted(point.abstention, abstention)
        )
    )


def _is_target_reached(check: ThresholdCheck) -> bool | None:
    if check.target is None:
        return None
    return confidence_intervals.is_shown(check.target, check.detected, check.positives)


def _list_rates_problems(point: OperatingPoint) -> Iterator[str]:
    certificates = point.rate_certificates
    if certificates and len(certificates) != len(point.thresholds):
        yield f"it has {len(certificates)} certificates, not {len(point.thresholds)}"
    for certificate in certificates:
        for problem in _list_rate_problems(certificate):
            yield f"certificate of `{certificate.label[:40]}`: {problem}"


def _list_rate_problems(certificate: RateCertificate) -> Iterator[str]:
    rates = [rate for rate in (certificate.sensitivity, certificate.specificity) if rate]
    if not rates or not 0 < certificate.confidence < 1 or certificate.candidates < 1:
        yield "it has no rate or no confidence"
        return
    # Bounds hold together with the product of their confidences, for each of the candidates.
    risk = certificate.candidates * (1 - prod(rate.confidence for rate in rates))
    if 1 - risk < certificate.confidence - 1e-9:
        yield f"its bounds hold together with less confidence than {certificate.confidence:g}"
    for rate in rates:
        if not 0 < rate.counted <= rate.images or not 0 <= rate.misses <= rate.counted:
            yield f"{rate.misses} of {rate.counted} are missed"
        elif not 0 < rate.confidence < 1 or not confidence_intervals.is_certified(
            rate.at_least, rate.counted, rate.misses, rate.confidence
        ):
            yield f"{rate.misses} misses of {rate.counted} do not certify {rate.at_least:g}"
    if not 0 <= certificate.detected <= certificate.positives:
        yield f"{certificate.detected} of {certificate.positives} images are detected"
    if not 0 <= certificate.rejected <= certificate.negatives:
        yield f"{certificate.rejected} of {certificate.negatives} images are rejected"
    yield from _list_predictive_problems(certificate)


def _list_predictive_problems(certificate: RateCertificate) -> Iterator[str]:
    values: tuple[float | None, float | None] = (None, None)
    sensitivity, specificity = certificate.sensitivity, certificate.specificity
    prevalence = certificate.prevalence
    if prevalence is not None:
        if not 0 < prevalence < 1 or sensitivity is None or specificity is None:
            yield "its prevalence is out of range"
            return
        values = confidence_intervals.compute_predictive_values(
            sensitivity.at_least, specificity.at_least, prevalence
        )
    if (certificate.ppv, certificate.npv) != values:
        yield "its predictive values contradict its rates"


def _list_sets_problems(sets: PredictionSets, output: OutputContract) -> Iterator[str]:
    classes = output.shape[0]
    if output.kind != "classes" or classes < 2:
        yield "prediction sets need classes"
    if not (0 < sets.coverage < 1 and 0 < sets.confidence < 1 and 0 <= sets.mean_size <= classes):
        yield "the coverage, confidence or size of its sets is out of range"
        return
    count = classes if sets.by_class else 1
    if not len(sets.gaps) == len(sets.counted) == len(sets.allowed_misses) == count:
        yield f"its sets have {len(sets.gaps)} gaps, not {count}"
        return
    for gap, counted, allowed in zip(sets.gaps, sets.counted, sets.allowed_misses, strict=True):
        if gap is not None and not (gap >= 0 and _is_float32(gap)):
            yield f"the gap {gap:g} is not a float32 of 0 or more"
        expected = None
        if counted >= 0:
            expected = confidence_intervals.count_allowed_misses(
                sets.coverage, counted, sets.confidence
            )
        if counted < 0 or allowed != expected or (allowed is None and gap is not None):
            yield f"sets may lack {allowed} of {counted} images, not {expected}"


def _list_abstention_problems(abstention: Abstention, output: OutputContract) -> Iterator[str]:
    if output.kind != "classes" or output.shape[0] < 2:
        yield "abstention needs classes"
    if not (0 < abstention.wrong_share < 1 and 0 < abstention.confidence < 1):
        yield "the share of wrong answers or its confidence is out of range"
        return
    if not (abstention.margin >= -1 and _is_float32(abstention.margin)):
        yield f"the margin {abstention.margin:g} is not a float32 of -1 or more"
    if not 0 <= abstention.wrong <= abstention.answered <= abstention.images:
        yield f"{abstention.wrong} of {abstention.answered} answers are wrong"
    if not 0 < abstention.counted <= abstention.images:
        yield f"{abstention.counted} of {abstention.images} images are counted"
        return
    expected = confidence_intervals.count_allowed_misses(
        1 - abstention.wrong_share, abstention.counted, abstention.confidence
    )
    if abstention.allowed_wrong != expected:
        yield f"{abstention.allowed_wrong} wrong answers are allowed, not {expected}"


def _is_float32(number: float) -> bool:
    """Return whether float32 has a number: targets compare in float32."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        return False
    return isfinite(number) and bool(rounded == number)
