"""Fit a threshold with a certified specificity, or with several rates certified together.

A threshold for a sensitivity depends on the images of the class alone, and one for a specificity on
the others alone. So the exact bound of the other rate holds as if the threshold had been known
before, and both bounds hold together with the product of their confidences. From two such bounds
follow predictive values at any prevalence.
"""

from dataclasses import dataclass
from math import sqrt
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.driver.counted_images import get_unit, has_shared_cases, select_counted
from tcc.compiler.driver.fit_criterion import ADVISED_FACTOR, Criterion
from tcc.compiler.driver.labelled_images import LabelledImages
from tcc.compiler.ir.operating_point import CertifiedRate, RateCertificate
from tcc.compiler.reference import confidence_intervals, decision_rule
from tcc.compiler.support.diagnostics import fail, make_file_span

Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
CANDIDATES = (0.95, 0.9, 0.8, 0.65, 0.5, 0.3)
"""The sensitivities that are tried for a positive predictive value. They are certified together, so
that choosing the first one with this value is no bias."""


@dataclass(frozen=True)
class SideScores:
    """The log-odds of one class, float64 (images,), and the class index in `images`.

    `predicted` are the predictions of the rule without a threshold (images,).
    """

    images: LabelledImages
    column: int
    odds: Float64
    predicted: Mask

    @property
    def label(self) -> str:
        """The name of the class."""
        return self.images.labels[self.column]

    @property
    def truth(self) -> Mask:
        """Whether each image is of the class (images,)."""
        return self.images.truth[:, self.column]

    def select(self, of_class: bool) -> NDArray[np.intp]:
        """Return the indices of the images that count, of the class or of others."""
        return select_counted(self.images, self.truth == of_class)


def fit_rates(scores: SideScores, criterion: Criterion) -> tuple[float, RateCertificate]:
    """Return a threshold with its certified rates.

    Args:
        scores: The scores of the class.
        criterion: The requested rates.

    Raises:
        UserError: There are too few images to certify a rate (E1265), or the images do not certify
            all of the rates at one threshold (E1268).
    """
    if criterion.specificity is not None and criterion.sensitivity is None:
        return _fit_specificity(scores, criterion)
    if criterion.sensitivity is not None:
        return _fit_sensitivity(scores, criterion, criterion.sensitivity, 1)
    reached = [
        candidate
        for sensitivity in CANDIDATES
        if (candidate := _try_sensitivity(scores, criterion, sensitivity)) is not None
    ]
    if not reached:
        allowed = _compute_side_confidence(scores, criterion, len(CANDIDATES))
        _refuse_few(scores, criterion, "sensitivity", CANDIDATES[-1], allowed)
    best = max((certificate for _, certificate in reached), key=lambda c: c.ppv or 0.0)
    assert criterion.ppv is not None
    if (best.ppv or 0.0) < criterion.ppv:
        _refuse_rates(scores, criterion, best)
    return next(pair for pair in reached if (pair[1].ppv or 0.0) >= criterion.ppv)


def _compute_side_confidence(scores: SideScores, criterion: Criterion, candidates: int) -> float:
    """Return the confidence of each rate with which all of them hold together."""
    confidence = 1 - (1 - criterion.confidence) / candidates
    if not criterion.is_two_sided:
        return confidence
    # A case with images on both sides makes the two bounds dependent: their risks add up.
    if has_shared_cases(scores.images, scores.truth):
        return (1 + confidence) / 2
    return sqrt(confidence)


def _try_sensitivity(
    scores: SideScores, criterion: Criterion, sensitivity: float
) -> tuple[float, RateCertificate] | None:
    """Return the threshold of a candidate; None if there are too few images for it."""
    confidence = _compute_side_confidence(scores, criterion, len(CANDIDATES))
    count = len(scores.select(True))
    if confidence_intervals.count_allowed_misses(sensitivity, count, confidence) is None:
        return None
    return _fit_sensitivity(scores, criterion, sensitivity, len(CANDIDATES))


def _fit_sensitivity(
    scores: SideScores, criterion: Criterion, sensitivity: float, candidates: int
) -> tuple[float, RateCertificate]:
    """Return the threshold of an order statistic of the class, and the bound of the others."""
    confidence = _compute_side_confidence(scores, criterion, candidates)
    positives = scores.odds[scores.select(True)]
    allowed = confidence_intervals.count_allowed_misses(sensitivity, len(positives), confidence)
    if allowed is None:
        _refuse_few(scores, criterion, "sensitivity", sensitivity, confidence)
    threshold = float(np.sort(positives)[allowed])
    detected = int(scores.predicted[scores.truth].sum())
    if detected and candidates == 1:
        # A threshold must not lose images that the default rule detects.
        threshold = min(threshold, float(np.sort(scores.odds[scores.truth])[-detected]))
    negatives = scores.odds[scores.select(False)]
    accepted = int((negatives >= threshold).sum())
    bound = confidence_intervals.compute_lower_bound(
        len(negatives) - accepted, len(negatives), confidence
    )
    return threshold, _check_rates(
        scores,
        criterion,
        _create_certificate(
            scores,
            criterion,
            threshold,
            _create_rate(scores, True, sensitivity, confidence, allowed),
            _create_rate(scores, False, bound, confidence, accepted),
            candidates,
        ),
    )


def _fit_specificity(scores: SideScores, criterion: Criterion) -> tuple[float, RateCertificate]:
    """Return the threshold of an order statistic of the others, and the bound of the class."""
    assert criterion.specificity is not None
    confidence = _compute_side_confidence(scores, criterion, 1)
    negatives = scores.odds[scores.select(False)]
    allowed = confidence_intervals.count_allowed_misses(
        criterion.specificity, len(negatives), confidence
    )
    if allowed is None:
        _refuse_few(scores, criterion, "specificity", criterion.specificity, confidence)
    limit = float(np.sort(negatives)[len(negatives) - 1 - allowed])
    is_other = ~scores.truth
    rejected = int((~scores.predicted[is_other]).sum())
    if rejected:  # as for a sensitivity: no worse than the default rule
        limit = max(limit, float(np.sort(scores.odds[is_other])[rejected - 1]))
    threshold = float(np.nextafter(limit, np.inf))
    specificity = _create_rate(scores, False, criterion.specificity, confidence, allowed)
    sensitivity = None
    if criterion.is_two_sided:
        positives = scores.odds[scores.select(True)]
        missed = int((positives < threshold).sum())
        bound = confidence_intervals.compute_lower_bound(
            len(positives) - missed, len(positives), confidence
        )
        sensitivity = _create_rate(scores, True, bound, confidence, missed)
    else:
        # Nothing depends on the images of the class, so the threshold may be in the gap above.
        threshold = decision_rule.widen_threshold(threshold, scores.odds)
    return threshold, _check_rates(
        scores,
        criterion,
        _create_certificate(scores, criterion, threshold, sensitivity, specificity, 1),
    )


def _create_rate(
    scores: SideScores, of_class: bool, at_least: float, confidence: float, misses: int
) -> CertifiedRate:
    members = scores.truth == of_class
    cases = len(scores.select(of_class)) if scores.images.cases else None
    return CertifiedRate(at_least, confidence, int(members.sum()), cases, misses)


def _create_certificate(
    scores: SideScores,
    criterion: Criterion,
    threshold: float,
    sensitivity: CertifiedRate | None,
    specificity: CertifiedRate | None,
    candidates: int,
) -> RateCertificate:
    truth, is_positive = scores.truth, scores.odds >= threshold
    ppv = npv = None
    if criterion.prevalence is not None and sensitivity and specificity:
        ppv, npv = confidence_intervals.compute_predictive_values(
            sensitivity.at_least, specificity.at_least, criterion.prevalence
        )
    return RateCertificate(
        scores.label,
        criterion.confidence,
        sensitivity,
        specificity,
        int(truth.sum()),
        int(is_positive[truth].sum()),
        int((~truth).sum()),
        int((~is_positive[~truth]).sum()),
        criterion.prevalence,
        ppv,
        npv,
        candidates,
    )


def _check_rates(
    scores: SideScores, criterion: Criterion, certificate: RateCertificate
) -> RateCertificate:
    """Return the certificate if it has each requested rate.

    Raises:
        UserError: It has not (E1268).
    """
    specificity, ppv = certificate.specificity, certificate.ppv
    has_specificity = criterion.specificity is None or (
        specificity is not None and specificity.at_least >= criterion.specificity
    )
    # Of several candidates, one is chosen later.
    has_ppv = certificate.candidates > 1 or (ppv or 0.0) >= (criterion.ppv or 0.0)
    if not (has_specificity and has_ppv):
        _refuse_rates(scores, criterion, certificate)
    return certificate


def _refuse_few(
    scores: SideScores, criterion: Criterion, name: str, rate: float, confidence: float
) -> NoReturn:
    of_class = name == "sensitivity"
    unit, count = get_unit(scores.images), len(scores.select(of_class))
    of_what = f"of `{scores.label}`" if of_class else f"of classes other than `{scores.label}`"
    needed = confidence_intervals.count_images_needed(rate, 0, confidence)
    help = f"no number certifies a {name} of 1: request less"
    if needed is not None:
        other_name = "specificity" if of_class else "sensitivity"
        target = "of the class" if of_class else "of other classes"
        help = (
            f"fit to at least {needed:,} {unit} {target}, about"
            f" {ADVISED_FACTOR * needed:,} for a useful {other_name}; or request less"
        )
        if not criterion.is_two_sided:
            help += ", or use `--confidence 0` for a threshold without a certificate"
    raise fail(
        "E1265",
        f"{count:,} {unit} {of_what} cannot certify a {name} of {rate:g}",
        make_file_span(str(scores.images.path)),
        label=f"with a confidence of {confidence:.4g}",
        help=help,
    )


def _refuse_rates(
    scores: SideScores, criterion: Criterion, certificate: RateCertificate
) -> NoReturn:
    """Refuse rates that these images do not certify at one threshold (E1268)."""
    sensitivity, specificity = certificate.sensitivity, certificate.specificity
    assert sensitivity is not None
    assert specificity is not None
    text = f"sensitivity {sensitivity.at_least:.4f}, specificity {specificity.at_least:.4f}"
    needed_specificity = criterion.specificity or 0.0
    if criterion.ppv is not None and criterion.prevalence is not None:
        text += f", positive predictive value {certificate.ppv:.4f}"
        needed_specificity = max(
            needed_specificity,
            confidence_intervals.compute_needed_specificity(
                sensitivity.at_least, criterion.ppv, criterion.prevalence
            ),
        )
    unit = get_unit(scores.images)
    needed = confidence_intervals.count_images_needed(needed_specificity, 0, specificity.confidence)
    help = "request less"
    if needed is not None and needed > specificity.counted:
        help = (
            f"a specificity of {needed_specificity:.6g} needs at least {needed:,} {unit} of classes"
            f" other than `{scores.label}`, all below the threshold; or request less"
        )
    raise fail(
        "E1268",
        f"these images do not certify a {criterion} for `{scores.label}`",
        make_file_span(str(scores.images.path)),
        label=f"certified: {text}; {specificity.misses:,} of {specificity.counted:,} other {unit}"
        " reach the threshold",
        help=help,
    )
