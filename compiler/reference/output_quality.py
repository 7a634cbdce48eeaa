"""The quality of one output, from its float and its integer values over images."""

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Output
from tcc.compiler.ir.types import OutputActivation, OutputKind
from tcc.compiler.reference import output_activations
from tcc.compiler.reference.accuracy_floor import MIN_CORRELATION, Quality

UnitValues = NDArray[np.float64]
"""One output over images: (images, units, places). A unit is a class, a decision or a quantity; a
vector has one place, a map one for each pixel."""
Unchanged = NDArray[np.bool_]
"""Which decisions stay, likewise; all classes of an image are one."""

FLOAT32_NOISE = 2.0**-16
"""A spread below this share of the magnitude is float32's rounding."""
MAX_SINGLE_QUANTITIES = 16
"""Most quantities that are all measured one by one. More are the features of something: only those
that vary as widely as the widest are measured singly."""
WIDE_SHARE, WIDE_STEPS = 0.5, 4
"""A unit varies widely from this share of the widest spread on, over more than so many steps of the
integers: over 300 random networks of 17 to 64 such outputs and 8 to 24 images, the least
correlation of a healthy wide unit was 0.35, of all but one 0.60."""
MIN_SINGLE_IMAGES = 4
"""Fewest images at which a unit is measured by itself: any two correlate by 1 or -1."""
MIN_FLOAT_SPREAD = 1e-4
"""The spread, as a share of the magnitude, that real numbers made of integers cannot miss."""
NONFINITE_LOSS = 2.0
"""The loss of what is not finite: as much as that of the opposite."""
_VISIBLE: Mapping[OutputKind, float] = {"classes": 0.0, "decisions": 0.01, "regression": 0.0}
"""The standard deviation over images from which on an error is measured: a probability that differs
by less is nothing that somebody looks at."""


def measure_quality(
    output: Output, expected: NDArray[Any], actual: NDArray[Any], held_out_count: int | None
) -> Quality:
    """Return how near an output (images, *shape) comes to its float one.

    Args:
        output: What the numbers mean.
        expected: The floats (images, *shape).
        actual: What an integer program gives for the same images.
        held_out_count: How many images, the first, judge; None is all. All show how far the floats
            spread.
    """
    kind, held_out = output.meaning, slice(held_out_count)
    float_values, int_values = (_to_units(stacked) for stacked in (expected, actual))
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite gives NaN
        # By the floats' own kind of values for both: integers must not choose what they are judged
        # as.
        probabilities = [
            _compute_probabilities(stacked, _choose_activation(output, float_values))
            for stacked in (float_values, int_values)
        ]
        cosines = _compute_cosines(float_values[held_out], int_values[held_out])
        correlation = (
            0.0
            if _has_frozen_unit(float_values, int_values)
            else _compute_correlation(
                *_split_correlated(
                    kind,
                    *(_remove_class_mean(output, units) for units in (float_values, int_values)),
                )
            )
        )
        error = _compute_error(
            _split_units(kind, probabilities[0]),
            _split_units(kind, probabilities[1]),
            _VISIBLE[kind],
        )
        unchanged = _find_unchanged(kind, float_values[held_out], int_values[held_out])
        margin, margin_shift, ties = _summarize_margins(
            _compute_margins(kind, float_values[held_out], int_values[held_out]), unchanged
        )
        difference = float(np.abs(probabilities[0][held_out] - probabilities[1][held_out]).max())
        return Quality(
            kind=kind,
            images=len(float_values[held_out]),
            cosine=None if cosines is None else float(cosines.mean()),
            least_cosine=None if cosines is None else float(cosines.min()),
            agreement=None if unchanged is None else float(unchanged.mean(axis=(0, 2)).min()),
            difference=None if unchanged is None else difference,
            spread_images=len(float_values),
            correlation=correlation,
            error=error,
            margin=margin,
            moved=margin_shift,
            ties=ties,
            loss=_compute_loss(kind, cosines, correlation, error, (float_values, int_values)),
        )


def is_frozen(expected: NDArray[Any], actual: NDArray[Any]) -> bool:
    """Whether integers are the same for all of some inputs that floats tell well apart."""
    float_values, int_values = (
        stacked.astype(np.float64).reshape(len(stacked), -1) for stacked in (expected, actual)
    )
    spread = np.sqrt((_subtract_mean(float_values) ** 2).mean())
    return bool(
        spread >= MIN_FLOAT_SPREAD * np.sqrt((float_values**2).mean()) > 0
    ) and not _has_spread(int_values)


def compute_cosine(a: UnitValues, b: UnitValues) -> float:
    """Return the cosine of the angle between two vectors; two of zeros point the same way."""
    # Two vectors of zeros are alike, one of zeros and another are not: neither is a division by 0.
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if lengths == 0:
        return float(not (np.any(a) or np.any(b)))
    return float(np.dot(a, b)) / lengths


def _to_units(stacked: NDArray[Any]) -> UnitValues:
    return stacked.astype(np.float64).reshape(len(stacked), stacked.shape[1], -1)


def _compute_cosines(float_values: UnitValues, int_values: UnitValues) -> UnitValues | None:
    """Return the cosine of each image's raw values, None where there is one: it is a sign."""
    if float_values[0].size < 2:
        return None
    return np.array(
        [
            compute_cosine(a.ravel(), b.ravel())
            for a, b in zip(float_values, int_values, strict=True)
        ]
    )


def _choose_activation(output: Output, float_values: UnitValues) -> OutputActivation:
    """Return what makes probabilities of raw values.

    Of classes without activation that is softmax, unless they are shares: nonnegative, of sum 1.
    """
    if output.meaning != "classes" or output.activation != "none":
        return output.activation
    is_normalized = float_values.min() >= 0 and np.allclose(float_values.sum(axis=1), 1, atol=1e-3)
    return "none" if is_normalized else "softmax"


def _compute_probabilities(logits: UnitValues, activation: OutputActivation) -> UnitValues:
    probabilities: UnitValues = np.moveaxis(
        output_activations.apply_activation(activation, np.moveaxis(logits, 1, 0)), 0, 1
    )
    return probabilities


def _remove_class_mean(output: Output, logits: UnitValues) -> UnitValues:
    """Return the raw values without what softmax does not see: a number added to all classes."""
    is_shift_invariant = (
        output.meaning == "classes" and output.activation != "sigmoid" and logits.shape[1] > 1
    )
    return logits - logits.mean(axis=1, keepdims=True) if is_shift_invariant else logits


def _is_measured_by_unit(kind: OutputKind, unit_values: UnitValues) -> bool:
    """Whether units are measured one by one, not all together."""
    images, units = int(unit_values.shape[0]), int(unit_values.shape[1])
    match kind:
        case "classes":
            return False
        case "decisions":
            return images >= MIN_SINGLE_IMAGES
        case "regression":
            return images >= MIN_SINGLE_IMAGES and units <= MAX_SINGLE_QUANTITIES
        case _:
            assert_never(kind)


def _split_units(kind: OutputKind, unit_values: UnitValues) -> list[UnitValues]:
    """Return what is measured by itself: (images, numbers) of each unit, or of all."""
    if _is_measured_by_unit(kind, unit_values):
        return [unit_values[:, unit] for unit in range(unit_values.shape[1])]
    return [unit_values.reshape(len(unit_values), -1)]


def _split_correlated(
    kind: OutputKind, float_values: UnitValues, int_values: UnitValues
) -> tuple[list[UnitValues], list[UnitValues]]:
    """Return the parts of two outputs of which each must be related to its other.

    Where many quantities are measured together, each that varies widely is measured by itself as
    well: the others could hide that it is mixed up with another one, or noise.
    """
    parts = _split_units(kind, float_values), _split_units(kind, int_values)
    if (
        kind == "regression"
        and not _is_measured_by_unit(kind, float_values)
        and len(float_values) >= MIN_SINGLE_IMAGES
    ):
        wide = np.flatnonzero(_find_wide_units(float_values, int_values, WIDE_SHARE, WIDE_STEPS))
        for part, unit_values in zip(parts, (float_values, int_values), strict=True):
            part.extend(unit_values[:, unit] for unit in wide)
    return parts


def _find_wide_units(
    float_values: UnitValues, int_values: UnitValues, share: float, steps: float
) -> NDArray[np.bool_]:
    """Select units whose floats spread enough beside the widest and the step of `int_values`."""
    spreads = np.sqrt((_subtract_mean(float_values) ** 2).mean(axis=(0, 2)))
    # Integers do not say their step here; it is the least distance of two of their values.
    step = np.diff(np.unique(int_values)).min(initial=np.inf)
    ranges = np.ptp(float_values, axis=0).max(axis=1)
    is_varying = np.array(
        [_has_spread(float_values[:, unit]) for unit in range(float_values.shape[1])]
    )
    wide: NDArray[np.bool_] = (
        is_varying & (spreads >= spreads.max() * share) & (ranges > steps * step)
    )
    return wide


def _has_spread(part: UnitValues) -> bool:
    """Whether values (images, numbers) differ between images by more than rounding."""
    spread = np.sqrt((_subtract_mean(part) ** 2).mean())
    # Asked so that NaN counts as varying: then it is compared, and fails.
    return not spread <= FLOAT32_NOISE * np.sqrt((part**2).mean())


def _has_frozen_unit(float_values: UnitValues, int_values: UnitValues) -> bool:
    """Whether a unit is the same for all images whose floats move as those of others do.

    They move by half of the widest spread, and by more than two steps of the integers: to stand
    still then is no rounding, and is seen where units are measured all together, too.
    """
    is_constant = (int_values == int_values[:1]).all(axis=(0, 2))
    if len(float_values) < 2 or not is_constant.any():
        return False
    return bool((is_constant & _find_wide_units(float_values, int_values, WIDE_SHARE, 2)).any())


def _subtract_mean(part: UnitValues) -> UnitValues:
    centred: UnitValues = part - part.mean(axis=0)
    return centred


def _compute_correlation(
    float_parts: list[UnitValues], int_parts: list[UnitValues]
) -> float | None:
    """Return the least correlation of a part: 0 where integers never vary, None if no float does.

    What does not vary in floats does not count.
    """
    pairs = zip(float_parts, int_parts, strict=True)
    correlations = [
        _compute_pair_correlation(_subtract_mean(a), _subtract_mean(b), _has_spread(b))
        for a, b in pairs
        if _has_spread(a)
    ]
    # np.min, where min would pass over NaN.
    return float(np.min(correlations)) if correlations else None


def _compute_pair_correlation(a: UnitValues, b: UnitValues, has_spread: bool) -> float:
    if not has_spread:
        return 0.0
    # Rounding may give a little more than 1; np.minimum keeps NaN, as min would not.
    return float(np.minimum(1.0, (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())))


def _compute_error(
    float_parts: list[UnitValues], int_parts: list[UnitValues], visible: float
) -> float | None:
    """Return the largest error of a part, relative to its spread; None where no float varies.

    That of a part whose floats never vary, or not `visible`, is relative to the widest spread.
    """
    spreads = [float(_subtract_mean(a).std()) if _has_spread(a) else 0.0 for a in float_parts]
    widest = max(spreads)
    if widest == 0 or widest < visible:
        return None
    errors = [
        float(np.sqrt(((a - b) ** 2).mean())) for a, b in zip(float_parts, int_parts, strict=True)
    ]
    error_pairs = zip(errors, spreads, strict=True)
    return float(np.max([e / (s if s > visible else widest) for e, s in error_pairs]))


def _find_unchanged(
    kind: OutputKind, float_values: UnitValues, int_values: UnitValues
) -> Unchanged | None:
    """Return which decisions stay: (images, units, places)."""
    match kind:
        case "classes":
            is_unchanged: Unchanged = float_values.argmax(
                axis=1, keepdims=True
            ) == int_values.argmax(axis=1, keepdims=True)
            return is_unchanged
        case "decisions":
            return np.equal(float_values >= 0, int_values >= 0)
        case "regression":
            return None
        case _:
            assert_never(kind)


def _compute_margins(
    kind: OutputKind, float_values: UnitValues, int_values: UnitValues
) -> tuple[UnitValues, UnitValues] | None:
    """Return how far each float decision is from a tie, and how integers change that."""
    match kind:
        case "classes" if float_values.shape[1] > 1:
            # The two best classes of the floats, for both: what integers do to that gap is what may
            # turn it.
            top = np.argsort(float_values, axis=1)[:, -2:]
            gaps = [
                np.diff(np.take_along_axis(unit_values, top, axis=1), axis=1)
                for unit_values in (float_values, int_values)
            ]
            return gaps[0], gaps[1] - gaps[0]
        case "decisions":
            return np.abs(float_values), int_values - float_values
        case "classes" | "regression":
            return None
        case _:
            assert_never(kind)


def _summarize_margins(
    margins: tuple[UnitValues, UnitValues] | None, unchanged: Unchanged | None
) -> tuple[float | None, float | None, float | None]:
    """Return the median margin, how far integers move margins, and the share of near ties."""
    if margins is None or unchanged is None:
        return None, None, None
    margin, change = margins
    margin_shift = float(np.sqrt((change**2).mean()))
    is_near_tie = margin[~unchanged] <= 2 * margin_shift
    ties = float(is_near_tie.mean()) if is_near_tie.size else None
    return float(np.median(margin)), margin_shift, ties


def _compute_loss(
    kind: OutputKind,
    cosines: UnitValues | None,
    correlation: float | None,
    error: float | None,
    outputs: tuple[UnitValues, UnitValues],
) -> float:
    """Return what is smaller for a better program: 1 - cosine, of classes.

    Of others the cosine of a vector that is off by its error; 1 more for what has collapsed.
    """
    float_values, int_values = outputs
    collapsed = correlation is not None and not correlation >= MIN_CORRELATION
    if kind == "classes" and cosines is not None:
        # A collapsed program is worse than any other, however large its cosine.
        return _replace_nonfinite(float(1 - cosines.mean())) + collapsed
    if error is None:
        error = _compute_error(
            [float_values.reshape(len(float_values), -1)],
            [int_values.reshape(len(int_values), -1)],
            0.0,
        )
    if error is None:
        length = float(np.sqrt((float_values**2).mean()))
        error = float(np.sqrt(((int_values - float_values) ** 2).mean())) / (length or 1.0)
    # An error across a vector of length 1 turns it by an angle whose tangent is the error: this is
    # that angle's cosine, so that losses of all kinds of outputs are of one scale.
    return _replace_nonfinite(1 - 1 / sqrt(1 + error**2)) + collapsed


def _replace_nonfinite(loss: float) -> float:
    return loss if isfinite(loss) else NONFINITE_LOSS
