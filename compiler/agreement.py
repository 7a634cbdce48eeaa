"""How far an artifact is from the reference that its goldens hold."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite


@dataclass(frozen=True, slots=True)
class Agreement:
    """One output of one golden.

    `difference` is the largest one between the artifact's values and the reference's, relative to
    the output's largest magnitude (at least 1), and `largest` the same as it is; `differing` counts
    the values, of `values`, whose bits are others.
    """

    golden: str
    output: str
    difference: float
    allowed: float
    values: int
    differing: int
    largest: float

    @property
    def holds(self) -> bool:
        """Whether the two agree as the golden says they must; NaN agrees with nothing.

        Where nothing is allowed, they must be equal to the bit.
        """
        return self.difference <= self.allowed and bool(self.allowed or not self.differing)

    def as_json(self) -> dict[str, object]:
        """Return plain data; a difference that is no number is null."""
        finite = {
            name: value if isfinite(value) else None
            for name, value in (("difference", self.difference), ("largest", self.largest))
        }
        return {**asdict(self), **finite, "holds": self.holds}


class Disagreement(Exception):  # noqa: N818 - it is what was found
    """An artifact was built but does not give its goldens; the command line exits with 4."""

    def __init__(self, target: str, found: Sequence[Agreement]) -> None:
        super().__init__(f"{target}: what was built does not agree with the reference")
        self.target, self.found = target, tuple(found)
