"""The accuracy below which nothing is built: what is measured of each output, and its bounds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from tcc.compiler.ir.types import OutputKind
from tcc.compiler.support.diagnostics import Span, UserError
from tcc.compiler.support.json_records import Record

MIN_COSINE = 0.98
"""The least mean cosine of the raw values of classes unless told otherwise, as in the DDSNet
paper."""
MIN_CORRELATION = 0.5
"""The least correlation of any output unless told otherwise: a program that gives the same answer
for every image has none, and one that follows the floats, if coarsely, far more."""
MAX_ERROR = 1.0
"""The largest error of decisions and regression unless told otherwise, relative to the spread: to
answer the mean of the floats for every image is as far off."""


class Quality(Record, frozen=True):
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

    def describe(self) -> Iterator[str]:
        """Yield the figures that say most: cosine, unchanged decisions, correlation, error."""
        if self.agreement is not None:
            yield f"same decision {self.agreement:.1%}"
        figures = {"mean cosine": self.cosine, "correlation": self.correlation, "error": self.error}
        yield from (
            f"{name} {figure:.4f}" for name, figure in figures.items() if figure is not None
        )


MIN_IMAGES = 16
"""Fewest different images that a floor is judged by."""


class QualityBounds(Record, frozen=True):
    """What one output keeps on unseen images at 95 %, estimated from `images` images.

    `cosine` and `correlation` are lower bounds, `error` is an upper one, in the units of `Quality`.
    Each is None where `Quality` has none.
    """

    images: int
    cosine: float | None
    correlation: float | None
    error: float | None


FloorBounds = Mapping[str, QualityBounds]
"""The bounds of each output by name."""


def merge_bounds(*estimates: FloorBounds) -> FloorBounds:
    """Return the worst bound of each output among several estimates."""
    names = dict.fromkeys(name for bounds in estimates for name in bounds)
    return {
        name: _merge([bounds[name] for bounds in estimates if name in bounds]) for name in names
    }


def _merge(bounds: Sequence[QualityBounds]) -> QualityBounds:
    minima = [[b.cosine for b in bounds], [b.correlation for b in bounds]]
    cosine, correlation = (
        min((limit for limit in limits if limit is not None), default=None) for limits in minima
    )
    error = max((b.error for b in bounds if b.error is not None), default=None)
    return QualityBounds(min(b.images for b in bounds), cosine, correlation, error)


_DECISION_NOUNS: Mapping[OutputKind, str] = {"classes": "class", "decisions": "decision"}

Qualities = Mapping[str, Quality]
"""The quality of each output by name; what only training has is not among them."""


def compute_mean_loss(qualities: Qualities) -> float:
    """Return the mean loss of all outputs."""
    # Outputs count alike, however many numbers each has.
    return sum(quality.loss for quality in qualities.values()) / len(qualities)


def find_min_agreement(qualities: Qualities) -> float:
    """Return the least share of decisions that stay, 1 where none are made."""
    return min((o.agreement for o in qualities.values() if o.agreement is not None), default=1.0)


def find_max_difference(qualities: Qualities) -> float:
    """Return the largest difference of probabilities, 0 where there are none."""
    return max((o.difference for o in qualities.values() if o.difference is not None), default=0.0)


@dataclass(frozen=True, slots=True)
class AccuracyFloor:
    """Bounds that each output must keep by itself.

    `cosine`: the least mean one; None stands for `MIN_COSINE` where an output is of classes, and
    any elsewhere. `drop`: the largest share of images whose class or decision changes; None is any.
    `correlation`: the least one; 0 is any. `error`: the largest one; None stands for `MAX_ERROR`
    unless an output is of classes, and any there.

    Cosine, correlation and error are judged by what images gave and by the bounds for unseen images
    beside it; `drop` is judged by what images gave. `images` is the fewest different images that
    judge all this.
    """

    cosine: float | None = None
    drop: float | None = None
    correlation: float = MIN_CORRELATION
    error: float | None = None
    images: int = MIN_IMAGES

    def needs_images(self, kinds: Iterable[OutputKind]) -> bool:
        """Whether outputs of these kinds are held to anything that images have to show."""
        floors = [self.resolve_defaults(kind) for kind in kinds]
        return self.correlation > 0 or any(
            (floor.cosine or 0) > 0
            or (floor.drop is not None and floor.drop < 1)
            or floor.error is not None
            for floor in floors
        )

    def is_met(self, qualities: Qualities, bounds: FloorBounds | None = None) -> bool:
        """Whether every output is at or above the floor; NaN never is."""
        return not self.find_violations(qualities, bounds)

    def find_violations(
        self, qualities: Qualities, bounds: FloorBounds | None = None
    ) -> tuple[str, ...]:
        """Return which parts of the floor which outputs do not keep, in words.

        Args:
            qualities: What images gave, by output.
            bounds: What unseen images keep, by output; what images gave counts alone without.
        """
        limits = bounds or {}
        return tuple(
            text
            for name, quality in qualities.items()
            for text in self._find_output_violations(name, quality, limits)
        )

    def resolve_defaults(self, kind: OutputKind) -> "AccuracyFloor":
        """Return what an output of a kind is held to, None being any."""
        match kind:
            case "classes":
                return replace(self, cosine=MIN_COSINE if self.cosine is None else self.cosine)
            case "decisions" | "regression":
                return replace(self, error=MAX_ERROR if self.error is None else self.error)
            case _:
                assert_never(kind)

    def _find_output_violations(
        self, name: str, quality: Quality, bounds: FloorBounds
    ) -> Iterator[str]:
        measured = tuple(self._check_measures(name, quality))
        yield from measured
        # What images broke already needs no estimate.
        if not measured and name in bounds:
            yield from self._check_bounds(name, quality.kind, bounds[name])

    def _check_bounds(self, name: str, kind: OutputKind, bound: QualityBounds) -> Iterator[str]:
        """Yield what unseen images may not keep, though those that judged do."""
        floor = self.resolve_defaults(kind)
        by = f"on unseen images, estimated from {bound.images} at 95 %, which is"
        cosine, correlation, error = bound.cosine, bound.correlation, bound.error
        if floor.cosine is not None and cosine is not None and not cosine >= floor.cosine:
            limit = f"{_format(cosine, floor.cosine, '.6f')} {by} below {floor.cosine:.9g}"
            yield f"the mean cosine of `{name}` may be as low as {limit}"
        if correlation is not None and _is_below(correlation, self.correlation):
            figure = _format(correlation, self.correlation, ".3f")
            limit = f"{figure} {by} below {self.correlation:.9g}"
            yield f"the correlation of `{name}` with the floats may be as low as {limit}"
        if floor.error is not None and error is not None and not error <= floor.error:
            limit = f"{_format(error, floor.error, '.3g')} of its spread {by} above"
            yield f"the error of `{name}` may be as large as {limit} {floor.error:.9g}"

    def _check_measures(self, name: str, quality: Quality) -> Iterator[str]:
        floor = self.resolve_defaults(quality.kind)
        minimum, maximum = floor.cosine, floor.error
        # Bounds are asked with `not ... >=`, so that NaN, which compares as false, breaks each.
        if minimum is not None and quality.cosine is not None and not quality.cosine >= minimum:
            cosine = _format(quality.cosine, minimum, ".6f")
            yield f"the mean cosine of `{name}` is {cosine}, not {minimum:.9g}"
        # Regression decides nothing, and has no agreement to lose.
        if quality.agreement is not None and self.drop is not None:
            drop = 1 - quality.agreement
            if not drop <= self.drop:
                decision = f"{_DECISION_NOUNS[quality.kind]} of `{name}`"
                share = _format(drop, self.drop, ".1%")
                yield (
                    f"{share} of the images change their {decision}, not "
                    f"{_format_percent(self.drop)}"
                )
        if quality.correlation is not None and _is_below(quality.correlation, self.correlation):
            # 0 is of a program that gives one answer for all images; others follow the floats less
            # closely than is asked.
            prefix = "" if quality.correlation else f"`{name}` does not tell the images apart: "
            subject = "its correlation" if prefix else f"the correlation of `{name}`"
            correlation = _format(quality.correlation, self.correlation, ".3f")
            yield f"{prefix}{subject} with the floats is {correlation}, not {self.correlation:.9g}"
        if maximum is not None and quality.error is not None and not quality.error <= maximum:
            error = _format(quality.error, maximum, ".3g")
            yield f"the error of `{name}` is {error} of its spread, not {maximum:.9g}"


def _format_percent(share: float) -> str:
    """Return a share in percent, with as many digits as it has."""
    return f"{share:.1%}" if round(share, 3) == share else f"{share * 100:.9g}%"


def _format(number: float, limit: float, form: str) -> str:
    """Return a number with as many digits as it takes not to look like a limit that it misses."""
    # 0.9999499 of a floor of 0.99995 would be "0.999950, not 0.99995".
    digits, kind = int(form[1:-1]), form[-1]
    texts = [f"{number:.{count}{kind}}" for count in range(digits, 18)]
    threshold = limit * 100 if kind == "%" else limit
    return next((text for text in texts if float(text.rstrip("%")) != threshold), texts[-1])


def _is_below(correlation: float, min_correlation: float) -> bool:
    """Whether a correlation is below a bound; one of 0 asks for nothing but a number."""
    return not correlation >= (min_correlation if min_correlation > 0 else -1.0)


@dataclass(frozen=True, slots=True)
class LossyLayer:
    """A layer that loses much: what is left of it, in words, and its place in the spec."""

    name: str
    loss: str
    at: Span


class TooFewImages(UserError):  # noqa: N818 - what is wrong
    """A floor has fewer different images to be judged by than it needs; the exit code is 4."""


class BelowFloor(Exception):  # noqa: N818 - it is what was found
    """An integer program loses too much; the command line exits with 4.

    `mixed` says that no layer is left to keep in float instead.
    """

    def __init__(
        self,
        violations: Sequence[str],
        qualities: Qualities,
        lossy_layers: Sequence[LossyLayer],
        *,
        mixed: bool = False,
    ) -> None:
        super().__init__("; ".join(violations))
        self.violations, self.qualities, self.lossy_layers = (
            tuple(violations),
            qualities,
            tuple(lossy_layers),
        )
        self.mixed = mixed
