"""The quality of one output, from its float and its integer values over images."""

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Output
from tcc.compiler.ir.types import OutputActivation, OutputKind
from tcc.compiler.reference import output_activations
from tcc.compiler.reference.accuracy_floor import CORRELATION, Quality

Values = NDArray[np.float64]
"""One output over images: (images, units, places). A unit is a class, a decision or a quantity; a
vector has one place, a map one for each pixel."""
Unchanged = NDArray[np.bool_]
"""Which decisions stay, likewise; all classes of an image are one."""

NOISE = 2.0**-16
"""A spread below this share of the magnitude is float32's rounding."""
FEW = 16
"""Most quantities that are all measured one by one. More are the features of something: only those
that vary as widely as the widest are measured singly."""
WIDE, REACH = 0.5, 4
"""A unit varies widely from this share of the widest spread on, over more than so many steps of the
integers: over 300 random networks of 17 to 64 such outputs and 8 to 24 images, the least
correlation of a healthy wide unit was 0.35, of all but one 0.60."""
SINGLY = 4
"""Fewest images at which a unit is measured by itself: any two correlate by 1 or -1."""
APART = 1e-4
"""The spread, as a share of the magnitude, that real numbers made of integers cannot miss."""
WORST = 2.0
"""The loss of what is not finite: as much as that of the opposite."""
_VISIBLE: Mapping[OutputKind, float] = {"classes": 0.0, "decisions": 0.01, "regression": 0.0}
"""The standard deviation over images from which on an error is measured: a probability that differs
by less is nothing that somebody looks at."""


def quality(
    output: Output, expected: NDArray[Any], found: NDArray[Any], judges: int | None
) -> Quality:
    """Return how near an output (images, *shape) comes to its float one.

    Args:
        output: What the numbers mean.
        expected: The floats (images, *shape).
        found: What an integer program gives for the same images.
        judges: How many images, the first, judge; None is all. All show how far the floats spread.
    """
    kind, first = output.meaning, slice(judges)
    raw, own = (_values(one) for one in (expected, found))
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite gives NaN
        # By the floats' own kind of values for both: integers must not choose what they are judged
        # as.
        shares = [_activated(one, _applied(output, raw)) for one in (raw, own)]
        cosines = _cosines(raw[first], own[first])
        correlation = (
            0.0
            if _still(raw, own)
            else _correlation(*_related(kind, *(_deciding(output, v) for v in (raw, own))))
        )
        error = _error(_parts(kind, shares[0]), _parts(kind, shares[1]), _VISIBLE[kind])
        kept = _kept(kind, raw[first], own[first])
        margin, moved, ties = _near(_margins(kind, raw[first], own[first]), kept)
        difference = float(np.abs(shares[0][first] - shares[1][first]).max())
        return Quality(
            kind=kind,
            images=len(raw[first]),
            cosine=None if cosines is None else float(cosines.mean()),
            least_cosine=None if cosines is None else float(cosines.min()),
            agreement=None if kept is None else float(kept.mean(axis=(0, 2)).min()),
            difference=None if kept is None else difference,
            spread_images=len(raw),
            correlation=correlation,
            error=error,
            margin=margin,
            moved=moved,
            ties=ties,
            loss=_loss(kind, cosines, correlation, error, (raw, own)),
        )


def frozen(expected: NDArray[Any], found: NDArray[Any]) -> bool:
    """Whether integers are the same for all of some inputs that floats tell well apart."""
    part, own = (one.astype(np.float64).reshape(len(one), -1) for one in (expected, found))
    spread = np.sqrt((_centred(part) ** 2).mean())
    return bool(spread >= APART * np.sqrt((part**2).mean()) > 0) and not _varies(own)


def cosine(a: Values, b: Values) -> float:
    """Return the cosine of the angle between two vectors; two of zeros point the same way."""
    # Two vectors of zeros are alike, one of zeros and another are not: neither is a division by 0.
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if lengths == 0:
        return float(not (np.any(a) or np.any(b)))
    return float(np.dot(a, b)) / lengths


def _values(given: NDArray[Any]) -> Values:
    return given.astype(np.float64).reshape(len(given), given.shape[1], -1)


def _cosines(raw: Values, own: Values) -> Values | None:
    """Return the cosine of each image's raw values, None where there is one: it is a sign."""
    if raw[0].size < 2:
        return None
    return np.array([cosine(a.ravel(), b.ravel()) for a, b in zip(raw, own, strict=True)])


def _applied(output: Output, raw: Values) -> OutputActivation:
    """Return what makes probabilities of raw values.

    Of classes without activation that is softmax, unless they are shares: nonnegative, of sum 1.
    """
    if output.meaning != "classes" or output.activation != "none":
        return output.activation
    shares = raw.min() >= 0 and np.allclose(raw.sum(axis=1), 1, atol=1e-3)
    return "none" if shares else "softmax"


def _activated(raw: Values, activation: OutputActivation) -> Values:
    shares: Values = np.moveaxis(
        output_activations.applied(activation, np.moveaxis(raw, 1, 0)), 0, 1
    )
    return shares


def _deciding(output: Output, raw: Values) -> Values:
    """Return the raw values without what softmax does not see: a number added to all classes."""
    shifts = output.meaning == "classes" and output.activation != "sigmoid" and raw.shape[1] > 1
    return raw - raw.mean(axis=1, keepdims=True) if shifts else raw


def _singly(kind: OutputKind, values: Values) -> bool:
    """Whether units are measured one by one, not all together."""
    images, units = int(values.shape[0]), int(values.shape[1])
    match kind:
        case "classes":
            return False
        case "decisions":
            return images >= SINGLY
        case "regression":
            return images >= SINGLY and units <= FEW
        case _:
            assert_never(kind)


def _parts(kind: OutputKind, values: Values) -> list[Values]:
    """Return what is measured by itself: (images, numbers) of each unit, or of all."""
    if _singly(kind, values):
        return [values[:, unit] for unit in range(values.shape[1])]
    return [values.reshape(len(values), -1)]


def _related(kind: OutputKind, raw: Values, own: Values) -> tuple[list[Values], list[Values]]:
    """Return the parts of two outputs of which each must be related to its other.

    Where many quantities are measured together, each that varies widely is measured by itself as
    well: the others could hide that it is mixed up with another one, or noise.
    """
    parts = _parts(kind, raw), _parts(kind, own)
    if kind == "regression" and not _singly(kind, raw) and len(raw) >= SINGLY:
        wide = np.flatnonzero(_widely(raw, own, WIDE, REACH))
        for part, values in zip(parts, (raw, own), strict=True):
            part.extend(values[:, unit] for unit in wide)
    return parts


def _widely(raw: Values, own: Values, share: float, steps: float) -> NDArray[np.bool_]:
    """Say of each unit whether its floats spread by a share of the widest, over steps of `own`."""
    spreads = np.sqrt((_centred(raw) ** 2).mean(axis=(0, 2)))
    # Integers do not say their step here; it is the least distance of two of their values.
    step = np.diff(np.unique(own)).min(initial=np.inf)
    reach = np.ptp(raw, axis=0).max(axis=1)
    seen = np.array([_varies(raw[:, unit]) for unit in range(raw.shape[1])])
    wide: NDArray[np.bool_] = seen & (spreads >= spreads.max() * share) & (reach > steps * step)
    return wide


def _varies(part: Values) -> bool:
    """Whether values (images, numbers) differ between images by more than rounding."""
    spread = np.sqrt((_centred(part) ** 2).mean())
    # Asked so that NaN counts as varying: then it is compared, and fails.
    return not spread <= NOISE * np.sqrt((part**2).mean())


def _still(raw: Values, own: Values) -> bool:
    """Whether a unit is the same for all images whose floats move as those of others do.

    They move by half of the widest spread, and by more than two steps of the integers: to stand
    still then is no rounding, and is seen where units are measured all together, too.
    """
    still = (own == own[:1]).all(axis=(0, 2))
    if len(raw) < 2 or not still.any():
        return False
    return bool((still & _widely(raw, own, WIDE, 2)).any())


def _centred(part: Values) -> Values:
    centred: Values = part - part.mean(axis=0)
    return centred


def _correlation(raw: list[Values], own: list[Values]) -> float | None:
    """Return the least correlation of a part: 0 where integers never vary, None if no float does.

    What does not vary in floats does not count.
    """
    pairs = zip(raw, own, strict=True)
    found = [_alike(_centred(a), _centred(b), _varies(b)) for a, b in pairs if _varies(a)]
    # np.min, where min would pass over NaN.
    return float(np.min(found)) if found else None


def _alike(a: Values, b: Values, varies: bool) -> float:
    if not varies:
        return 0.0
    # Rounding may give a little more than 1; np.minimum keeps NaN, as min would not.
    return float(np.minimum(1.0, (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())))


def _error(answers: list[Values], own: list[Values], visible: float) -> float | None:
    """Return the largest error of a part, relative to its spread; None where no float varies.

    That of a part whose floats never vary, or not `visible`, is relative to the widest spread.
    """
    spreads = [float(_centred(a).std()) if _varies(a) else 0.0 for a in answers]
    widest = max(spreads)
    if widest == 0 or widest < visible:
        return None
    errors = [float(np.sqrt(((a - b) ** 2).mean())) for a, b in zip(answers, own, strict=True)]
    measured = zip(errors, spreads, strict=True)
    return float(np.max([e / (s if s > visible else widest) for e, s in measured]))


def _kept(kind: OutputKind, raw: Values, own: Values) -> Unchanged | None:
    """Return which decisions stay: (images, units, places)."""
    match kind:
        case "classes":
            same: Unchanged = raw.argmax(axis=1, keepdims=True) == own.argmax(axis=1, keepdims=True)
            return same
        case "decisions":
            return np.equal(raw >= 0, own >= 0)
        case "regression":
            return None
        case _:
            assert_never(kind)


def _margins(kind: OutputKind, raw: Values, own: Values) -> tuple[Values, Values] | None:
    """Return how far each float decision is from a tie, and how integers change that."""
    match kind:
        case "classes" if raw.shape[1] > 1:
            # The two best classes of the floats, for both: what integers do to that gap is what may
            # turn it.
            top = np.argsort(raw, axis=1)[:, -2:]
            gaps = [np.diff(np.take_along_axis(one, top, axis=1), axis=1) for one in (raw, own)]
            return gaps[0], gaps[1] - gaps[0]
        case "decisions":
            return np.abs(raw), own - raw
        case "classes" | "regression":
            return None
        case _:
            assert_never(kind)


def _near(
    margins: tuple[Values, Values] | None, kept: Unchanged | None
) -> tuple[float | None, float | None, float | None]:
    """Return the median margin, how far integers move margins, and the share of near ties."""
    if margins is None or kept is None:
        return None, None, None
    margin, change = margins
    moved = float(np.sqrt((change**2).mean()))
    near = margin[~kept] <= 2 * moved
    ties = float(near.mean()) if near.size else None
    return float(np.median(margin)), moved, ties


def _loss(
    kind: OutputKind,
    cosines: Values | None,
    correlation: float | None,
    error: float | None,
    values: tuple[Values, Values],
) -> float:
    """Return what is smaller for a better program: 1 - cosine, of classes.

    Of others the cosine of a vector that is off by its error; 1 more for what has collapsed.
    """
    raw, own = values
    collapsed = correlation is not None and not correlation >= CORRELATION
    if kind == "classes" and cosines is not None:
        # A collapsed program is worse than any other, however large its cosine.
        return _finite(float(1 - cosines.mean())) + collapsed
    if error is None:
        error = _error([raw.reshape(len(raw), -1)], [own.reshape(len(own), -1)], 0.0)
    if error is None:
        length = float(np.sqrt((raw**2).mean()))
        error = float(np.sqrt(((own - raw) ** 2).mean())) / (length or 1.0)
    # An error across a vector of length 1 turns it by an angle whose tangent is the error: this is
    # that angle's cosine, so that losses of all kinds of outputs are of one scale.
    return _finite(1 - 1 / sqrt(1 + error**2)) + collapsed


def _finite(found: float) -> float:
    return found if isfinite(found) else WORST
