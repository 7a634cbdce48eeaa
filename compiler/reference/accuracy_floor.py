"""The accuracy floor of a build: quality measures of each output, and their limits."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from tcc.compiler.ir.types import OutputKind
from tcc.compiler.support.diagnostics import Span, UserError
from tcc.compiler.support.json_records import Record

MIN_COSINE = 0.98
"""Default minimum of the mean cosine of class outputs (raw values), as in the DDSNet paper."""
MIN_CORRELATION = 0.5
"""Default minimum correlation of any output. A program with the same answer for every image has
none; one that follows the fp32 model even coarsely has far more."""
MAX_ERROR = 1.0
"""Default maximum error of decisions and regression, relative to the spread. A program that always
answers the mean of the fp32 model has this error."""


class Quality(Record, frozen=True):
    """Quality of one output: the int8 model compared with the fp32 model over `images` images.

    `cosine` and `least_cosine`: mean and minimum of the raw values' cosine, if there are several
    values. `agreement`: the share of images with the same class, or of the worst unit with the
    same decision at 0.5. `difference`: the largest difference of two probabilities.

    Over `spread_images` images: `correlation` of the raw values after subtracting the mean over
    the images, of the worst unit if units are measured separately; `error`, the root mean square
    difference relative to the standard deviation of the fp32 values. Both are None if the fp32
    values do not differ between images, because then they are undefined.

    `margin`: the median distance of the fp32 decisions from a tie, in raw values. `moved`: the
    root mean square change of it in the int8 model. `ties`: the share of changed decisions with a
    margin of at most twice that. `loss` ranks calibrations; lower is better.
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
        """Yield the main figures: unchanged decisions, cosine, correlation, error."""
        if self.agreement is not None:
            yield f"same decision {self.agreement:.1%}"
        figures = {"mean cosine": self.cosine, "correlation": self.correlation, "error": self.error}
        yield from (
            f"{name} {figure:.4f}" for name, figure in figures.items() if figure is not None
        )


MIN_IMAGES = 16
"""Minimum number of different images for judging a floor."""


class QualityBounds(Record, frozen=True):
    """95 % bounds of one output's quality on unseen images, estimated from `images` images.

    `cosine` and `correlation` are lower bounds, `error` is an upper bound, in the units of
    `Quality`. Each is None if `Quality` has none.
    """

    images: int
    cosine: float | None
    correlation: float | None
    error: float | None


FloorBounds = Mapping[str, QualityBounds]
"""Bounds of each output by name."""


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
"""Quality of each output by name, without train-only outputs."""


def compute_mean_loss(qualities: Qualities) -> float:
    """Return the mean loss of all outputs."""
    # Outputs have equal weight, however many values each has.
    return sum(quality.loss for quality in qualities.values()) / len(qualities)


def find_min_agreement(qualities: Qualities) -> float:
    """Return the smallest share of unchanged decisions, 1 if there are no decisions."""
    return min((o.agreement for o in qualities.values() if o.agreement is not None), default=1.0)


def find_max_difference(qualities: Qualities) -> float:
    """Return the largest difference of probabilities, 0 if there are none."""
    return max((o.difference for o in qualities.values() if o.difference is not None), default=0.0)


@dataclass(frozen=True, slots=True)
class AccuracyFloor:
    """Limits that each output must meet by itself.

    `cosine`: minimum mean cosine; None means `MIN_COSINE` for classes and no limit otherwise.
    `drop`: maximum share of images with a changed class or decision; None means no limit.
    `correlation`: minimum; 0 means no limit. `error`: maximum; None means `MAX_ERROR`, or no limit
    for classes.

    Cosine, correlation and error are checked for the measured images and for the bounds on unseen
    images; `drop` only for the measured images. `images` is the minimum number of different images
    for all checks.
    """

    cosine: float | None = None
    drop: float | None = None
    correlation: float = MIN_CORRELATION
    error: float | None = None
    images: int = MIN_IMAGES

    def needs_images(self, kinds: Iterable[OutputKind]) -> bool:
        """Whether a limit for outputs of these kinds has to be measured on images."""
        floors = [self.resolve_defaults(kind) for kind in kinds]
        return self.correlation > 0 or any(
            (floor.cosine or 0) > 0
            or (floor.drop is not None and floor.drop < 1)
            or floor.error is not None
            for floor in floors
        )

    def is_met(self, qualities: Qualities, bounds: FloorBounds | None = None) -> bool:
        """Whether every output meets the floor; NaN never does."""
        return not self.find_violations(qualities, bounds)

    def find_violations(
        self, qualities: Qualities, bounds: FloorBounds | None = None
    ) -> tuple[str, ...]:
        """Return a message for each limit that an output violates.

        Args:
            qualities: Measured quality by output.
            bounds: Bounds on unseen images by output; without them only measurements count.
        """
        limits = bounds or {}
        return tuple(
            text
            for name, quality in qualities.items()
            for text in self._find_output_violations(name, quality, limits)
        )

    def resolve_defaults(self, kind: OutputKind) -> "AccuracyFloor":
        """Return the floor for an output of a kind; None means no limit."""
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
        # If the measured images violate a limit, no estimate is needed.
        if not measured and name in bounds:
            yield from self._check_bounds(name, quality.kind, bounds[name])

    def _check_bounds(self, name: str, kind: OutputKind, bound: QualityBounds) -> Iterator[str]:
        """Yield a message for each limit that unseen images may violate.

        The measured images meet all of them.
        """
        floor = self.resolve_defaults(kind)
        source = f"(95 % bound, estimated from {bound.images} images)"
        cosine, correlation, error = bound.cosine, bound.correlation, bound.error
        if floor.cosine is not None and cosine is not None and not cosine >= floor.cosine:
            figure = f"{_format(cosine, floor.cosine, '.6f')} {source}"
            yield (
                f"the mean cosine of `{name}` on unseen images may be as low as {figure};"
                f" the floor is {floor.cosine:.9g}"
            )
        if correlation is not None and _is_below(correlation, self.correlation):
            figure = f"{_format(correlation, self.correlation, '.3f')} {source}"
            yield (
                f"the correlation of `{name}` with the fp32 model on unseen images may be as"
                f" low as {figure}; the floor is {self.correlation:.9g}"
            )
        if floor.error is not None and error is not None and not error <= floor.error:
            figure = f"{_format(error, floor.error, '.3g')} {source}"
            yield (
                f"the error of `{name}` on unseen images, relative to its standard deviation,"
                f" may be as large as {figure}; the limit is {floor.error:.9g}"
            )

    def _check_measures(self, name: str, quality: Quality) -> Iterator[str]:
        floor = self.resolve_defaults(quality.kind)
        minimum, maximum = floor.cosine, floor.error
        # Limits are checked with `not ... >=`, so that NaN violates each of them.
        if minimum is not None and quality.cosine is not None and not quality.cosine >= minimum:
            cosine = _format(quality.cosine, minimum, ".6f")
            yield f"the mean cosine of `{name}` is {cosine}; the floor is {minimum:.9g}"
        # Regression has no decisions, so no agreement.
        if quality.agreement is not None and self.drop is not None:
            drop = 1 - quality.agreement
            if not drop <= self.drop:
                decision = f"{_DECISION_NOUNS[quality.kind]} of `{name}`"
                share = _format(drop, self.drop, ".1%")
                yield (
                    f"{share} of the images change their {decision}; the limit is "
                    f"{_format_percent(self.drop)}"
                )
        if quality.correlation is not None and _is_below(quality.correlation, self.correlation):
            # A correlation of 0 means equal answers for all images; other values mean that the
            # program follows the fp32 model less closely than required.
            prefix = "" if quality.correlation else f"`{name}` does not distinguish the images: "
            subject = "its correlation" if prefix else f"the correlation of `{name}`"
            correlation = _format(quality.correlation, self.correlation, ".3f")
            yield (
                f"{prefix}{subject} with the fp32 model is {correlation};"
                f" the floor is {self.correlation:.9g}"
            )
        if maximum is not None and quality.error is not None and not quality.error <= maximum:
            error = _format(quality.error, maximum, ".3g")
            yield (
                f"the error of `{name}`, relative to its standard deviation, is {error};"
                f" the limit is {maximum:.9g}"
            )


def _format_percent(share: float) -> str:
    """Return a share in percent, with all its digits."""
    return f"{share:.1%}" if round(share, 3) == share else f"{share * 100:.9g}%"


def _format(number: float, limit: float, form: str) -> str:
    """Return a number with enough digits to differ from a limit that it misses."""
    # 0.9999499 with a floor of 0.99995 would be printed as "0.999950; the floor is 0.99995".
    digits, kind = int(form[1:-1]), form[-1]
    texts = [f"{number:.{count}{kind}}" for count in range(digits, 18)]
    threshold = limit * 100 if kind == "%" else limit
    return next((text for text in texts if float(text.rstrip("%")) != threshold), texts[-1])


def _is_below(correlation: float, min_correlation: float) -> bool:
    """Whether a correlation is below a limit; a limit of 0 accepts any number except NaN."""
    return not correlation >= (min_correlation if min_correlation > 0 else -1.0)


@dataclass(frozen=True, slots=True)
class LossyLayer:
    """A layer with a large quantization error: its name, a description, and its spec location."""

    name: str
    loss: str
    at: Span


class TooFewImages(UserError):  # noqa: N818 - named for the problem
    """There are fewer different images than the floor needs; the exit code is 4."""


class BelowFloor(Exception):  # noqa: N818 - named for the problem
    """The accuracy of an int8 model is below the floor; the exit code is 4.

    `mixed`: no other layer can be kept in float to improve it.
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
