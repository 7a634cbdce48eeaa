"""The accuracy below which nothing is built."""

from collections.abc import Sequence
from dataclasses import dataclass

from tcc.compiler.source import Span

COSINE = 0.98
"""The least mean cosine of raw outputs unless told otherwise, as in the DDSNet paper."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Integer outputs against float ones, over `images` images.

    `cosine` of the raw outputs, its mean and its least; `agreement`, the share of images with the
    same largest output; `difference`, the largest one between two probabilities.
    """

    images: int
    cosine: float
    least_cosine: float
    agreement: float
    difference: float


@dataclass(frozen=True, slots=True)
class Floor:
    """The least mean cosine of raw outputs, and the largest share of images with another class."""

    cosine: float = COSINE
    drop: float | None = None

    def holds(self, found: Quality) -> bool:
        """Whether a quality is at or above the floor; NaN never is."""
        return not self.broken(found)

    def broken(self, found: Quality) -> tuple[str, ...]:
        """Return which bounds a quality does not keep, in words."""
        said = []
        if not found.cosine >= self.cosine:
            wanted = f"{self.cosine:.9g}"
            said.append(f"the mean cosine of the outputs is {found.cosine:.6f}, not {wanted}")
        drop = 1 - found.agreement
        if self.drop is not None and not drop <= self.drop:
            said.append(f"{drop:.1%} of the images change their class, not {self.drop:.1%}")
        return tuple(said)


@dataclass(frozen=True, slots=True)
class Culprit:
    """A layer that loses much: what is left of it, in words, and its place in the spec."""

    name: str
    loss: str
    at: Span


class BelowFloor(Exception):  # noqa: N818 - it is what was found
    """An integer program loses too much; the command line exits with 4."""

    def __init__(self, broken: Sequence[str], found: Quality, culprits: Sequence[Culprit]) -> None:
        super().__init__("; ".join(broken))
        self.broken, self.found, self.culprits = tuple(broken), found, tuple(culprits)
