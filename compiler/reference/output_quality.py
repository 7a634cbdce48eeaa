"""Quality of one output: its int8 values compared with its fp32 values over images."""

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
"""One output over images: (images, units, places). A unit is a class, a decision or a quantity. A
vector has one place, a map has one per pixel."""
Unchanged = NDArray[np.bool_]
"""Which decisions are unchanged, in the same layout; all classes of an image are one decision."""

FLOAT32_NOISE = 2.0**-16
"""A smaller spread, relative to the magnitude, is float32 rounding."""
MAX_SINGLE_QUANTITIES = 16
"""Maximum number of quantities that are all measured separately. More quantities are features: only
those with a spread near the widest are measured separately."""
WIDE_SHARE, WIDE_STEPS = 0.5, 4
"""A unit varies widely if its spread is at least this share of the widest, and its range exceeds
this many quantization steps. Over 300 random networks with 17 to 64 such outputs and 8 to 24
images, the minimum correlation of a correct wide unit was 0.35, of all but one 0.60."""
MIN_SINGLE_IMAGES = 4
"""Minimum number of images for measuring a unit separately: two always correlate by 1 or -1."""
MIN_FLOAT_SPREAD = 1e-4
"""Minimum spread, relative to the magnitude, that dequantized values must reproduce."""
NONFINITE_LOSS = 2.0
"""Loss of non-finite values: the same as that of opposite values."""
_VISIBLE: Mapping[OutputKind, float] = {"classes": 0.0, "decisions": 0.01, "regression": 0.0}
"""Minimum standard deviation over images for measuring an error: smaller differences of a
probability have no practical meaning."""


def measure_quality(
    output: Output, expected: NDArray[Any], actual: NDArray[Any], held_out_count: int | None
) -> Quality:
    """Return the quality of an output (images, *shape) compared with its fp32 values.

    Args:
        output: The output and its meaning.
        expected: The fp32 values (images, *shape).
        actual: Values of an integer program for the same images.
        held_out_count: Number of first images to judge by; None for all. All images measure the
            spread of the fp32 values.
    """
    kind, held_out = output.meaning, slice(held_out_count)
    float_values, int_values = (_to_units(stacked) for stacked in (expected, actual))
    with np.errstate(invalid="ignore", over="ignore"):  # non-finite values give NaN
        # The fp32 values select the activation for both: int8 values must not select their own.
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
    """Whether int8 values are equal for all of some inputs although fp32 values clearly differ."""
    float_values, int_values = (
        stacked.astype(np.float64).reshape(len(stacked), -1) for stacked in (expected, actual)
    )
    spread = np.sqrt((_subtract_mean(float_values) ** 2).mean())
    return bool(
        spread >= MIN_FLOAT_SPREAD * np.sqrt((float_values**2).mean()) > 0
    ) and not _has_spread(int_values)


def compute_cosine(a: UnitValues, b: UnitValues) -> float:
    """Return the cosine between two vectors; 1 for two zero vectors."""
    # Two zero vectors count as equal, one zero vector does not: this avoids a division by 0.
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if lengths == 0:
        return float(not (np.any(a) or np.any(b)))
    return float(np.dot(a, b)) / lengths


def _to_units(stacked: NDArray[Any]) -> UnitValues:
    return stacked.astype(np.float64).reshape(len(stacked), stacked.shape[1], -1)


def _compute_cosines(float_values: UnitValues, int_values: UnitValues) -> UnitValues | None:
    """Return the cosine of each image's raw values; None for one value, which has only a sign."""
    if float_values[0].size < 2:
        return None
    return np.array(
        [
            compute_cosine(a.ravel(), b.ravel())
            for a, b in zip(float_values, int_values, strict=True)
        ]
    )


def _choose_activation(output: Output, float_values: UnitValues) -> OutputActivation:
    """Return the function from raw values to probabilities.

    For classes without activation it is softmax, unless the values are shares: nonnegative with
    sum 1.
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
    """Return raw values without the part that softmax ignores: a shift of all classes."""
    is_shift_invariant = (
        output.meaning == "classes" and output.activation != "sigmoid" and logits.shape[1] > 1
    )
    return logits - logits.mean(axis=1, keepdims=True) if is_shift_invariant else logits


def _is_measured_by_unit(kind: OutputKind, unit_values: UnitValues) -> bool:
    """Whether units are measured separately."""
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
    """Return the parts that are measured separately: (images, numbers) of each unit, or of all."""
    if _is_measured_by_unit(kind, unit_values):
        return [unit_values[:, unit] for unit in range(unit_values.shape[1])]
    return [unit_values.reshape(len(unit_values), -1)]


def _split_correlated(
    kind: OutputKind, float_values: UnitValues, int_values: UnitValues
) -> tuple[list[UnitValues], list[UnitValues]]:
    """Return the parts of two outputs that must each correlate.

    If many quantities are measured together, each widely varying one is also measured separately.
    Otherwise the others could hide that it is swapped with another one, or noise.
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
    """Select units with a wide spread in fp32, compared with the widest and the int8 step."""
    spreads = np.sqrt((_subtract_mean(float_values) ** 2).mean(axis=(0, 2)))
    # The quantization step is not known here; use the smallest distance of two int8 values.
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
    # Written so that NaN counts as varying; it is then compared and fails.
    return not spread <= FLOAT32_NOISE * np.sqrt((part**2).mean())


def _has_frozen_unit(float_values: UnitValues, int_values: UnitValues) -> bool:
    """Whether a unit is constant in int8 although its fp32 values vary as much as others'.

    They vary by at least half of the widest spread and by more than two quantization steps. A
    constant value is then not a rounding effect. This is also detected if all units are measured
    together.
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
    """Return the lowest correlation of a part: 0 if int8 never varies, None if no fp32 part does.

    Parts that do not vary in fp32 are ignored.
    """
    pairs = zip(float_parts, int_parts, strict=True)
    correlations = [
        _compute_pair_correlation(_subtract_mean(a), _subtract_mean(b), _has_spread(b))
        for a, b in pairs
        if _has_spread(a)
    ]
    # np.min, because min ignores NaN.
    return float(np.min(correlations)) if correlations else None


def _compute_pair_correlation(a: UnitValues, b: UnitValues, has_spread: bool) -> float:
    if not has_spread:
        return 0.0
    # Rounding may give slightly more than 1; np.minimum keeps NaN, min does not.
    return float(np.minimum(1.0, (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())))


def _compute_error(
    float_parts: list[UnitValues], int_parts: list[UnitValues], visible: float
) -> float | None:
    """Return the largest error of a part, relative to its spread; None if no fp32 part varies.

    For a part with a spread of at most `visible` in fp32, it is relative to the widest spread.
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
    """Return which decisions are unchanged: (images, units, places)."""
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
    """Return the distance of each fp32 decision from a tie, and how int8 changes it."""
    match kind:
        case "classes" if float_values.shape[1] > 1:
            # The two best classes of the fp32 values, for both: int8 changes a decision by changing
            # this gap.
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
    """Return the median margin, the rms change of margins, and the share of near ties."""
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
    """Return the loss that ranks programs: 1 - cosine for classes.

    For others, 1 - the cosine of a vector with this relative error. Collapsed outputs add 1.
    """
    float_values, int_values = outputs
    collapsed = correlation is not None and not correlation >= MIN_CORRELATION
    if kind == "classes" and cosines is not None:
        # A collapsed program is worse than any other, whatever its cosine.
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
    # An error orthogonal to a vector of length 1 turns it by an angle with this tangent. The cosine
    # of the angle puts losses of all kinds of outputs on one scale.
    return _replace_nonfinite(1 - 1 / sqrt(1 + error**2)) + collapsed


def _replace_nonfinite(loss: float) -> float:
    return loss if isfinite(loss) else NONFINITE_LOSS
