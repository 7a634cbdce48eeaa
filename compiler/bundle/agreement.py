"""How far an artifact is from the reference that its goldens hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from math import isfinite
from typing import assert_never

from tcc.compiler.ir.number_types import FloatInfluence, NumberTypes
from tcc.compiler.ir.precision import Arithmetic, Precision, Storage
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.json_records import Record

MIN_SHARE_TOLERANCE = 1e-2
"""What is allowed from here on is for roundings that shrink with the numbers: it is a share of
them. Less is for sums in float32, whose errors have the size of terms, and is of 1 at least."""
MAX_DIFFERENCE_SHARE, MIN_MAGNITUDE = 0.5, 1e-5
"""Most that an artifact may be off, as a share of an output's largest magnitude, and what is always
let pass: sums of float32 that come to nothing have rounding errors of their terms' size."""


class Tolerance(Record, frozen=True):
    """How far a replay may be from a golden: `relative` to the output's largest magnitude."""

    relative: float
    reason: str


def compute_relative_difference(largest: float, magnitude: float, tolerance: float) -> float:
    """Return a difference relative to the largest magnitude of its output, as Agreement has it.

    Args:
        largest: The largest difference of two values.
        magnitude: The largest magnitude of what was expected.
        tolerance: The tolerance that it will be held against, which says what a difference is
            relative to.
    """
    # Small outputs would make rounding errors of sums large shares: they are measured against 1.
    return largest / max(MIN_MAGNITUDE if tolerance >= MIN_SHARE_TOLERANCE else 1.0, magnitude)


class Agreement(Record, frozen=True):
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
        rounding = self.largest <= max(MAX_DIFFERENCE_SHARE * self.own, MIN_MAGNITUDE)
        return self.difference <= self.allowed and rounding and not self.stuck

    def to_json(self) -> dict[str, object]:
        """Return plain data; a difference that is no number is null."""
        finite = {
            name: number if isfinite(number) else None
            for name, number in asdict(self).items()
            if isinstance(number, float)
        }
        return {**asdict(self), **finite, "holds": self.holds}


def describe_layers(layers_agree: Iterable[bool] | None) -> str:
    """Return in a line how many layers were compared and are wrong; None of no look into them."""
    if layers_agree is None:
        return "no layer was compared: nothing looks into the artifact"
    verdicts = list(layers_agree)
    return f"{len(verdicts):,} layers compared, {verdicts.count(False):,} wrong"


class Disagreement(Exception):  # noqa: N818 - it is what was found
    """An artifact was built but does not give its goldens; the command line exits with 4."""

    def __init__(self, target: str, agreements: Sequence[Agreement], reason: str = "") -> None:
        super().__init__(f"{target}: what was built does not agree with the reference")
        self.target, self.agreements, self.reason = target, tuple(agreements), reason


class Mislabelled(UserError):  # noqa: N818 - it is what was found
    """A manifest says what its artifact belies; the command line exits with 4."""


# Each step of a float32 sum rounds by at most 6e-8 of it: a hundred thousand roundings in random
# directions come to some 2e-5. What a wrong weight or border does is far more than five times that.
FLOAT_TOLERANCE = Tolerance(
    relative=1e-4,
    reason="float32 sums depend on the order of their terms and on fused multiply-adds, which "
    "each target chooses for itself; nothing else may differ",
)
FLOAT_TOLERANCES: Mapping[Storage, Tolerance] = {
    Storage.FLOAT32: FLOAT_TOLERANCE,
    Storage.FLOAT16: Tolerance(relative=1e-2, reason="weights are rounded to float16"),
    Storage.INT8: Tolerance(
        relative=0.1,
        reason="weights are rounded to int8, and what some layers read while the network runs",
    ),
}
"""What is allowed to float arithmetic, by what its weights are stored as."""
STORAGE_DTYPES: Mapping[Storage, frozenset[str]] = {
    Storage.FLOAT32: frozenset({"float32"}),
    Storage.FLOAT16: frozenset({"float16"}),
    Storage.INT8: frozenset({"int8", "uint8"}),
}
"""The types of constants, in numpy's words, that a file of such weights has."""
EXACT_TOLERANCE = Tolerance(
    relative=0.0, reason="integers have one result, the same to the bit everywhere"
)
# Where last bits of floats differ by 1e-7 or 1e-6 of them, as runtimes' do, no level of 40 random
# networks with one to three layer norms between others changed, on 4 inputs and 10 draws each; by
# 1e-5, a hundred last bits, outputs moved by 2.6 % at most. One level too many moves them as much.
MIXED_TOLERANCE = Tolerance(
    relative=0.05,
    reason="parts of the network stay in float, whose last bits may round to another integer: {}",
)
FORMER_MIXED_TOLERANCE = 0.1
"""What manifests of such networks stated when the bound was this wide: they are read, and held to
the narrower one."""
SIMULATED_TOLERANCE = Tolerance(
    relative=0.1,
    reason="floats between the integers round otherwise, where no runtime makes integers of them",
)
VENDOR_TOLERANCE = Tolerance(
    relative=0.2,
    reason="the maker's tool rounds by rules of its own; a cosine of 0.98, which it takes for good,"
    " is a difference of a fifth",
)


def get_tolerance(
    precision: Precision,
    inexact: Sequence[str] = (),
    reach: FloatInfluence = FloatInfluence.ROUNDED,
) -> Tolerance:
    """Return what is allowed at a precision.

    Args:
        precision: What the artifact computes with.
        inexact: An integer program's layers in float.
        reach: How these bear on what is compared; the most that they can, where it is not known.
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
    """Return the largest tolerance that a manifest may state; what is allowed may be less."""
    tolerance = get_tolerance(precision, inexact).relative
    # Bundles that were built when more was allowed are still read; what counts is the narrower
    # bound.
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
    """Say which of a manifest's words an artifact belies, where they would let it be off.

    Args:
        precision: What the manifest says that the artifact computes with.
        inexact: The layers that it says are in float.
        artifact_numbers: What numbers the artifact has.

    Returns:
        A sentence; None where the words hold.
    """
    stated_precision = f"precision: `{precision.name}`"
    match precision.arithmetic:
        case Arithmetic.VENDOR:
            return None
        case Arithmetic.FLOAT:
            is_wrong = artifact_numbers.integers
            problem = f"{stated_precision} is of floats, and the artifact computes on integers"
        case Arithmetic.SIMULATED:
            is_wrong = artifact_numbers.products and not artifact_numbers.floats
            problem = f"{stated_precision} has products of floats, and the artifact none"
        case Arithmetic.INTEGER:
            is_wrong = bool(inexact) and not artifact_numbers.floats
            layer_name = "".join(inexact[:1])[:40]
            problem = f"calibration/inexact: `{layer_name}` is there, and no layer is in float"
        case _:
            assert_never(precision.arithmetic)
    return problem if is_wrong else None


def compute_output_tolerance(
    precision: Precision, inexact: Sequence[str], artifact_numbers: NumberTypes, output: str
) -> Tolerance:
    """Return what is allowed to an output of an artifact of these numbers: at most its precision's.

    An output that no layer in float bears on is held to the bit, and one that is computed in float
    from levels to what float32 sums may differ by. A file whose constants are finer than its
    precision has it is held to what they are.

    Args:
        precision: The artifact's.
        inexact: The layers in float that the manifest lists.
        artifact_numbers: What the artifact's own file computes with.
        output: The name of an output.
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
    # The coarsest storage that the file really has, and no coarser than its precision: an fp16
    # bundle whose constants are float32 is held to float32.
    coarsest_first = reversed(order[: order.index(precision.weights) + 1])
    matching_storages = (
        storage
        for storage in coarsest_first
        if STORAGE_DTYPES[storage] & artifact_numbers.constant_types
    )
    return FLOAT_TOLERANCES[next(matching_storages, Storage.FLOAT32)]
