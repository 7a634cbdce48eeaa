"""Agreement of an artifact's outputs with the reference outputs of its goldens."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from math import isfinite
from typing import assert_never

from tcc.compiler.ir.number_types import FloatInfluence, NumberTypes
from tcc.compiler.ir.precision import Arithmetic, Precision, Storage
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.json_records import Record

MIN_SHARE_TOLERANCE = 1e-2
"""From this tolerance on, a difference is relative to the values: such rounding errors scale with
them. Smaller tolerances are for float32 sums. Their errors scale with the terms, so a difference is
relative to at least 1."""
MAX_DIFFERENCE_SHARE, MIN_MAGNITUDE = 0.5, 1e-5
"""Largest difference as a share of an output's largest magnitude, and the absolute difference that
always passes. A float32 sum near zero has rounding errors of the size of its terms."""


class Tolerance(Record, frozen=True):
    """Allowed difference from a golden, `relative` to the output's largest magnitude."""

    relative: float
    reason: str


def compute_relative_difference(largest: float, magnitude: float, tolerance: float) -> float:
    """Return a difference relative to the largest magnitude of its output; see Agreement.

    Args:
        largest: Largest absolute difference of two values.
        magnitude: Largest magnitude of the expected values.
        tolerance: Tolerance for the difference. It decides what the difference is relative to; see
            MIN_SHARE_TOLERANCE.
    """
    # For a small output, a rounding error of a sum would be a large share: relative to at least 1.
    return largest / max(MIN_MAGNITUDE if tolerance >= MIN_SHARE_TOLERANCE else 1.0, magnitude)


class Agreement(Record, frozen=True):
    """Comparison of one output of one golden.

    `own` is the reference's largest magnitude for this golden, `largest` the largest absolute
    difference from the reference. `difference` is the same relative to the largest magnitude over
    all goldens; for artifacts that compute in float32, relative to at least 1. `differing` counts
    the values, of `values`, that are not bit-exact. `stuck`: the artifact gives the same output for
    every golden and the reference does not.
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
        """Whether the output agrees within the tolerance; NaN never agrees.

        At tolerance 0 the output must be bit-exact. At any tolerance, a difference above half of
        the largest magnitude fails: rounding does not explain it, and outputs of all zeros must not
        pass for small ones.
        """
        if not (self.allowed and isfinite(self.largest)):
            return not self.differing and self.largest == 0
        rounding = self.largest <= max(MAX_DIFFERENCE_SHARE * self.own, MIN_MAGNITUDE)
        return self.difference <= self.allowed and rounding and not self.stuck

    def to_json(self) -> dict[str, object]:
        """Return plain data; NaN and infinity become null."""
        finite = {
            name: number if isfinite(number) else None
            for name, number in asdict(self).items()
            if isinstance(number, float)
        }
        return {**asdict(self), **finite, "holds": self.holds}


def describe_layers(layers_agree: Iterable[bool] | None) -> str:
    """Return one line: how many layers were compared and differ; None if layers are unreadable."""
    if layers_agree is None:
        return "no layers compared: the layer outputs of this artifact cannot be read here"
    verdicts = list(layers_agree)
    return f"{len(verdicts):,} layers compared, {verdicts.count(False):,} differ"


class Disagreement(Exception):  # noqa: N818 - it names the finding
    """A built artifact does not reproduce its goldens; the command line exits with 4."""

    def __init__(self, target: str, agreements: Sequence[Agreement], reason: str = "") -> None:
        super().__init__(f"{target}: the built artifact does not match the reference outputs")
        self.target, self.agreements, self.reason = target, tuple(agreements), reason


class Mislabelled(UserError):  # noqa: N818 - it names the finding
    """A manifest makes a false statement about its artifact; the command line exits with 4."""


# Each step of a float32 sum rounds by at most 6e-8 of it. A hundred thousand roundings in random
# directions add up to about 2e-5. A wrong weight or border changes far more than five times that.
FLOAT_TOLERANCE = Tolerance(
    relative=1e-4,
    reason="float32 sums depend on the order of their terms and on fused multiply-adds, and each "
    "target chooses these for itself; nothing else may differ",
)
FLOAT_TOLERANCES: Mapping[Storage, Tolerance] = {
    Storage.FLOAT32: FLOAT_TOLERANCE,
    Storage.FLOAT16: Tolerance(relative=1e-2, reason="weights are rounded to float16"),
    Storage.INT8: Tolerance(
        relative=0.1,
        reason="weights are rounded to int8, and so are the inputs of some layers at run time",
    ),
}
"""Tolerance of float arithmetic by the storage type of the weights."""
STORAGE_DTYPES: Mapping[Storage, frozenset[str]] = {
    Storage.FLOAT32: frozenset({"float32"}),
    Storage.FLOAT16: frozenset({"float16"}),
    Storage.INT8: frozenset({"int8", "uint8"}),
}
"""NumPy dtypes of the constants in a file with such weights."""
EXACT_TOLERANCE = Tolerance(
    relative=0.0, reason="integer arithmetic has one result, bit-exact on every target"
)
# Measured on 40 random networks with one to three layer norms between other layers, with 4 inputs
# and 10 trials each. If the last bits of floats differ by 1e-7 or 1e-6 of the value, as between
# runtimes, no quantized value changed. At 1e-5, a hundred last bits, outputs moved by at most
# 2.6 %. An error of one quantization step moves them as much.
MIXED_TOLERANCE = Tolerance(
    relative=0.05,
    reason="some layers stay in float, and their last bits may round to another integer: {}",
)
FORMER_MIXED_TOLERANCE = 0.1
"""Tolerance stated by manifests of such networks from before the bound was narrowed. They are still
read, and checked against the narrower bound."""
SIMULATED_TOLERANCE = Tolerance(
    relative=0.1,
    reason="floats between the integer layers round differently in runtimes that keep them floats",
)
VENDOR_TOLERANCE = Tolerance(
    relative=0.2,
    reason="the vendor toolchain has its own rounding rules; it accepts a cosine of 0.98, which"
    " allows a difference of a fifth",
)


def get_tolerance(
    precision: Precision,
    inexact: Sequence[str] = (),
    reach: FloatInfluence = FloatInfluence.ROUNDED,
) -> Tolerance:
    """Return the tolerance at a precision.

    Args:
        precision: Precision of the artifact.
        inexact: Layers of an integer program that compute in float.
        reach: How these layers influence the compared output; the strongest influence if unknown.
    """
    match precision.arithmetic:
        case Arithmetic.FLOAT:
            return FLOAT_TOLERANCES[precision.weights]
        case Arithmetic.SIMULATED:
            return SIMULATED_TOLERANCE
        case Arithmetic.VENDOR:
            return VENDOR_TOLERANCE
        case Arithmetic.INTEGER:
            return _choose_mixed_tolerance(inexact, reach) if inexact else EXACT_TOLERANCE
        case _:
            assert_never(precision.arithmetic)


def compute_max_stated(precision: Precision, inexact: Sequence[str]) -> float:
    """Return the largest tolerance that a manifest may state; the effective one may be smaller."""
    tolerance = get_tolerance(precision, inexact).relative
    # Bundles built under the wider bound are still read. The narrower bound applies to them.
    return max(tolerance, FORMER_MIXED_TOLERANCE) if precision.exact and inexact else tolerance


def _choose_mixed_tolerance(inexact: Sequence[str], reach: FloatInfluence) -> Tolerance:
    match reach:
        case FloatInfluence.NONE:
            return EXACT_TOLERANCE
        case FloatInfluence.UNROUNDED:
            return FLOAT_TOLERANCE
        case FloatInfluence.ROUNDED:
            layer_names = ", ".join(inexact[:3]) + (", ..." if len(inexact) > 3 else "")
            return replace(MIXED_TOLERANCE, reason=MIXED_TOLERANCE.reason.format(layer_names))
        case _:
            assert_never(reach)


def find_tolerance_problem(
    precision: Precision, inexact: Sequence[str], artifact_numbers: NumberTypes
) -> str | None:
    """Return which statement of a manifest its artifact contradicts, if that widens a tolerance.

    Args:
        precision: Precision of the artifact according to the manifest.
        inexact: Layers in float according to the manifest.
        artifact_numbers: Number types of the artifact itself.

    Returns:
        One sentence; None if there is no contradiction.
    """
    stated_precision = f"precision: `{precision.name}`"
    match precision.arithmetic:
        case Arithmetic.VENDOR:
            return None
        case Arithmetic.FLOAT:
            is_wrong = artifact_numbers.integers
            problem = f"{stated_precision} computes in float, but the artifact computes on integers"
        case Arithmetic.SIMULATED:
            is_wrong = artifact_numbers.products and not artifact_numbers.floats
            problem = f"{stated_precision} multiplies floats, but the artifact does not"
        case Arithmetic.INTEGER:
            is_wrong = bool(inexact) and not artifact_numbers.floats
            layer_name = "".join(inexact[:1])[:40]
            problem = f"calibration/inexact: `{layer_name}` is listed, but no layer is in float"
        case _:
            assert_never(precision.arithmetic)
    return problem if is_wrong else None


def compute_output_tolerance(
    precision: Precision, inexact: Sequence[str], artifact_numbers: NumberTypes, output: str
) -> Tolerance:
    """Return the tolerance of one output of an artifact: at most that of its precision.

    An output that no float layer influences must be bit-exact. An output that is computed in float
    from quantized values gets the tolerance of float32 sums. In a float artifact, the constants of
    the file may earn a smaller tolerance than the precision.

    Args:
        precision: Precision of the artifact.
        inexact: Layers in float according to the manifest.
        artifact_numbers: Number types in the artifact's file.
        output: Name of the output.
    """
    if precision.integer:
        reach = artifact_numbers.get_influence(output)
        match reach:
            case FloatInfluence.NONE:
                return EXACT_TOLERANCE
            case FloatInfluence.UNROUNDED:
                return FLOAT_TOLERANCE
            case FloatInfluence.ROUNDED:
                return get_tolerance(precision, inexact)
            case _:
                assert_never(reach)
    order = list(Storage)
    # The coarsest storage in the file, but no coarser than the precision: an fp16 bundle with
    # float32 constants gets the float32 tolerance.
    coarsest_first = reversed(order[: order.index(precision.weights) + 1])
    matching_storages = (
        storage
        for storage in coarsest_first
        if STORAGE_DTYPES[storage] & artifact_numbers.constant_types
    )
    return FLOAT_TOLERANCES[next(matching_storages, Storage.FLOAT32)]
