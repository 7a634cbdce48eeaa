"""The accuracy below which nothing is built: what is measured of each output, and its bounds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from tcc.compiler.ir.types import OutputKind
from tcc.compiler.support.diagnostics import Span

COSINE = 0.98
"""The least mean cosine of the raw values of classes unless told otherwise, as in the DDSNet
paper."""
CORRELATION = 0.5
"""The least correlation of any output unless told otherwise: a program that gives the same answer
for every image has none, and one that follows the floats, if coarsely, far more."""
ERROR = 1.0
"""The largest error of decisions and regression unless told otherwise, relative to the spread: to
answer the mean of the floats for every image is as far off."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The integers of one output against its floats, over `images` images.

    `cosine` of the raw values, its mean and its least, where there are several; `agreement`, the
    share of images with the same class or, of the worst unit, with the same decision at 0.5;
    `difference`, the largest one between two probabilities.

    Over `spread_images` images: `correlation` of the raw values after the mean over the images,
    of the worst unit where each counts by itself; `error`, the root mean square of what differs,
    relative to the standard deviation of the floats. Both are None where the floats do not differ
    between images: nothing can be said then.

    `margin` is the median distance of the float decisions from a tie, in raw values, and `moved`
    the root mean square by which integers change it; `ties`, the share of the changed decisions
    whose margin is within twice that. `loss` is what calibrations are ranked by: less is better.
    """

    kind: OutputKind
    images: int
    cosine: float | None
    least_cosine: float | None
    agreement: float | None
    difference: float | None
    spread_images: int
    correlation: float | None
    error: float | None
    margin: float | None
    moved: float | None
    ties: float | None
    loss: float


_DECIDED: Mapping[OutputKind, str] = {"classes": "class", "decisions": "decision"}

Qualities = Mapping[str, Quality]
"""The quality of each output by name; what only training has is not among them."""


def loss(found: Qualities) -> float:
    """Return the mean loss of all outputs."""
    # Outputs count alike, however many numbers each has.
    return sum(one.loss for one in found.values()) / len(found)


def agreement(found: Qualities) -> float:
    """Return the least share of decisions that stay, 1 where none are made."""
    return min((o.agreement for o in found.values() if o.agreement is not None), default=1.0)


def difference(found: Qualities) -> float:
    """Return the largest difference of probabilities, 0 where there are none."""
    return max((o.difference for o in found.values() if o.difference is not None), default=0.0)


@dataclass(frozen=True, slots=True)
class AccuracyFloor:
    """Bounds that each output must keep by itself.

    `cosine`: the least mean one; None stands for `COSINE` where an output is of classes, and any
    elsewhere. `drop`: the largest share of images whose class or decision changes; None is any.
    `correlation`: the least one; 0 is any. `error`: the largest one; None stands for `ERROR`
    unless an output is of classes, and any there.
    """

    cosine: float | None = None
    drop: float | None = None
    correlation: float = CORRELATION
    error: float | None = None

    def holds(self, found: Qualities) -> bool:
        """Whether every output is at or above the floor; NaN never is."""
        return not self.broken(found)

    def broken(self, found: Qualities) -> tuple[str, ...]:
        """Return which bounds which outputs do not keep, in words."""
        return tuple(said for name, one in found.items() for said in self._broken(name, one))

    def of(self, kind: OutputKind) -> "AccuracyFloor":
        """Return what an output of a kind is held to, None being any."""
        match kind:
            case "classes":
                return replace(self, cosine=COSINE if self.cosine is None else self.cosine)
            case "decisions" | "regression":
                return replace(self, error=ERROR if self.error is None else self.error)
            case _:
                assert_never(kind)

    def _broken(self, name: str, found: Quality) -> Iterator[str]:
        own = self.of(found.kind)
        least, most = own.cosine, own.error
        # Bounds are asked with `not ... >=`, so that NaN, which compares as false, breaks each.
        if least is not None and found.cosine is not None and not found.cosine >= least:
            yield f"the mean cosine of `{name}` is {found.cosine:.6f}, not {least:.9g}"
        # Regression decides nothing, and has no agreement to lose.
        if found.agreement is not None and self.drop is not None:
            drop = 1 - found.agreement
            if not drop <= self.drop:
                what = f"{_DECIDED[found.kind]} of `{name}`"
                yield f"{drop:.1%} of the images change their {what}, not {self.drop:.1%}"
        if found.correlation is not None and _below(found.correlation, self.correlation):
            told = "hardly tells" if found.correlation else "does not tell"
            yield (
                f"`{name}` {told} the images apart: its correlation with the floats is"
                f" {found.correlation:.3f}, not {self.correlation:.9g}"
            )
        if most is not None and found.error is not None and not found.error <= most:
            yield f"the error of `{name}` is {found.error:.3g} of its spread, not {most:.9g}"


def _below(correlation: float, least: float) -> bool:
    """Whether a correlation is below a bound; one of 0 asks for nothing but a number."""
    return not correlation >= (least if least > 0 else -1.0)


@dataclass(frozen=True, slots=True)
class LossyLayer:
    """A layer that loses much: what is left of it, in words, and its place in the spec."""

    name: str
    loss: str
    at: Span


class BelowFloor(Exception):  # noqa: N818 - it is what was found
    """An integer program loses too much; the command line exits with 4."""

    def __init__(
        self, broken: Sequence[str], found: Qualities, culprits: Sequence[LossyLayer]
    ) -> None:
        super().__init__("; ".join(broken))
        self.broken, self.found, self.culprits = tuple(broken), found, tuple(culprits)
