"""How far an artifact is from the reference that its goldens hold."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite

from tcc.compiler.support.diagnostics import UserError

COARSE = 1e-2
"""What is allowed from here on is for roundings that shrink with the numbers: it is a share of
them. Less is for sums in float32, whose errors have the size of terms, and is of 1 at least."""
HALF, TINY = 0.5, 1e-5
"""Most that an artifact may be off, as a share of an output's largest magnitude, and what is always
let pass: sums of float32 that come to nothing have rounding errors of their terms' size."""


def relative(largest: float, magnitude: float, allowed: float) -> float:
    """Return a difference relative to the largest magnitude of its output, as Agreement has it.

    Args:
        largest: The largest difference of two values.
        magnitude: The largest magnitude of what was expected.
        allowed: The tolerance that it will be held against, which says what a difference is
            relative to.
    """
    # Small outputs would make rounding errors of sums large shares: they are measured against 1.
    return largest / max(TINY if allowed >= COARSE else 1.0, magnitude)


@dataclass(frozen=True, slots=True)
class Agreement:
    """One output of one golden.

    `largest` is the largest difference between the artifact's values and the reference's, whose
    largest magnitude is `own`, and `difference` the same relative to that of all goldens, or to 1
    where that is more and the artifact computes in float32; `differing` counts the values, of
    `values`, whose bits are others. An artifact that gives the same for every golden, where the
    reference does not, is `stuck`.
    """

    golden: str
    output: str
    difference: float
    allowed: float
    values: int
    differing: int
    largest: float
    own: float
    stuck: bool = False

    @property
    def holds(self) -> bool:
        """Whether the two agree as the golden says they must; NaN agrees with nothing.

        Where nothing is allowed, they must be equal to the bit. Whatever is allowed, rounding does
        not explain a difference of half of the largest magnitude: zeros never agree with small
        outputs.
        """
        if not (self.allowed and isfinite(self.largest)):
            return not self.differing and self.largest == 0
        rounding = self.largest <= max(HALF * self.own, TINY)
        return self.difference <= self.allowed and rounding and not self.stuck

    def as_json(self) -> dict[str, object]:
        """Return plain data; a difference that is no number is null."""
        finite = {
            name: value if isfinite(value) else None
            for name, value in asdict(self).items()
            if isinstance(value, float)
        }
        return {**asdict(self), **finite, "holds": self.holds}


class Disagreement(Exception):  # noqa: N818 - it is what was found
    """An artifact was built but does not give its goldens; the command line exits with 4."""

    def __init__(self, target: str, found: Sequence[Agreement], why: str = "") -> None:
        super().__init__(f"{target}: what was built does not agree with the reference")
        self.target, self.found, self.why = target, tuple(found), why


class Mislabelled(UserError):  # noqa: N818 - it is what was found
    """A manifest says what its artifact belies; the command line exits with 4."""
