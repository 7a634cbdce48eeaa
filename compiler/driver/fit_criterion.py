"""What `tcc eval --fit` is asked for: a rule for thresholds, prediction sets, and abstention."""

from dataclasses import dataclass

DEFAULT_CONFIDENCE = 0.95
"""Confidence of a promise."""
ADVISED_FACTOR = 3
"""So many times the needed images give a useful rule: with just enough images the threshold is the
smallest score of all of them."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """How thresholds are chosen, and which sets and answers are fitted.

    Thresholds: by Youden's J, or for a minimum `sensitivity`, `specificity` or positive predictive
    value (`ppv`) at a `prevalence`, and for which class. With a `confidence`, these are certified
    for images like those of the fit. With 0, only the images of the fit have them.

    `coverage` is the share of images whose class is in their prediction set, for all classes or
    `by_class` for each. `wrong_share` is the largest share of images that is answered wrongly.
    """

    positive: str | None = None
    sensitivity: float | None = None
    confidence: float = DEFAULT_CONFIDENCE
    specificity: float | None = None
    ppv: float | None = None
    prevalence: float | None = None
    coverage: float | None = None
    by_class: bool = False
    wrong_share: float | None = None

    @property
    def has_rate(self) -> bool:
        """Whether thresholds have a minimum rate."""
        return (self.sensitivity, self.specificity, self.ppv) != (None, None, None)

    @property
    def certifies(self) -> bool:
        """Whether a rate is certified."""
        return self.has_rate and self.confidence > 0

    @property
    def is_two_sided(self) -> bool:
        """Whether sensitivity and specificity are certified at the same time."""
        both = self.sensitivity is not None and self.specificity is not None
        return self.certifies and (both or self.prevalence is not None)

    @property
    def certifies_sensitivity_alone(self) -> bool:
        """Whether nothing but the sensitivity is certified."""
        return self.certifies and self.specificity is None and not self.is_two_sided

    def __str__(self) -> str:
        """Return the criterion as text."""
        rates = (
            ("sensitivity", self.sensitivity),
            ("specificity", self.specificity),
            ("positive predictive value", self.ppv),
        )
        targets = [f"{name} of {rate:g} or more" for name, rate in rates if rate is not None]
        if not targets:
            return "largest sensitivity + specificity (Youden's J)"
        text = " and ".join(targets)
        if self.prevalence is not None:
            text += f" at a prevalence of {self.prevalence:g}"
        return f"{text} with {self.confidence:.4g} confidence" if self.confidence else text
