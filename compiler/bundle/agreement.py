"""How far an artifact is from the reference that its goldens hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from math import isfinite
from typing import assert_never

from tcc.compiler.ir.number_types import FloatReach, Numbers
from tcc.compiler.ir.precision import Arithmetic, Precision, Storage
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.json_records import Record

COARSE = 1e-2
"""What is allowed from here on is for roundings that shrink with the numbers: it is a share of
them. Less is for sums in float32, whose errors have the size of terms, and is of 1 at least."""
HALF, TINY = 0.5, 1e-5
"""Most that an artifact may be off, as a share of an output's largest magnitude, and what is always
let pass: sums of float32 that come to nothing have rounding errors of their terms' size."""


class Tolerance(Record, frozen=True):
    """How far a replay may be from a golden: `relative` to the output's largest magnitude."""

    relative: float
    reason: str


def relative(largest: float, magnitude: float, allowed: float) -> float:
    """Return a difference relative to the largest magnitude of its output, as Agreement has it.

    Args:
        largest: The largest difference of two values.
        magnitude: The largest magnitude of what was expected.
        allowed: The tolerance that it will be held against, which says what a difference is
            relative to.
    """
    # Small outputs would make rounding errors of sums large shares: they are measured against 1.
    return largest / max(TINY if allowed >= COARSE else 1.0, magnitude)


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
        rounding = self.largest <= max(HALF * self.own, TINY)
        return self.difference <= self.allowed and rounding and not self.stuck

    def as_json(self) -> dict[str, object]:
        """Return plain data; a difference that is no number is null."""
        finite = {
            name: value if isfinite(value) else None
            for name, value in asdict(self).items()
            if isinstance(value, float)
        }
        return {**asdict(self), **finite, "holds": self.holds}


def describe_layers(holding: Iterable[bool] | None) -> str:
    """Return in a line how many layers were compared and are wrong; None of no look into them."""
    if holding is None:
        return "no layer was compared: nothing looks into the artifact"
    verdicts = list(holding)
    return f"{len(verdicts):,} layers compared, {verdicts.count(False):,} wrong"


class Disagreement(Exception):  # noqa: N818 - it is what was found
    """An artifact was built but does not give its goldens; the command line exits with 4."""

    def __init__(self, target: str, found: Sequence[Agreement], why: str = "") -> None:
        super().__init__(f"{target}: what was built does not agree with the reference")
        self.target, self.found, self.why = target, tuple(found), why


class Mislabelled(UserError):  # noqa: N818 - it is what was found
    """A manifest says what its artifact belies; the command line exits with 4."""


# Each step of a float32 sum rounds by at most 6e-8 of it: a hundred thousand roundings in random
# directions come to some 2e-5. What a wrong weight or border does is far more than five times that.
FLOAT = Tolerance(
    relative=1e-4,
    reason="float32 sums depend on the order of their terms and on fused multiply-adds, which "
    "each target chooses for itself; nothing else may differ",
)
ROUNDED: Mapping[Storage, Tolerance] = {
    Storage.FLOAT32: FLOAT,
    Storage.FLOAT16: Tolerance(relative=1e-2, reason="weights are rounded to float16"),
    Storage.INT8: Tolerance(
        relative=0.1,
        reason="weights are rounded to int8, and what some layers read while the network runs",
    ),
}
"""What is allowed to float arithmetic, by what its weights are stored as."""
STORED: Mapping[Storage, frozenset[str]] = {
    Storage.FLOAT32: frozenset({"float32"}),
    Storage.FLOAT16: frozenset({"float16"}),
    Storage.INT8: frozenset({"int8", "uint8"}),
}
"""The types of constants, in numpy's words, that a file of such weights has."""
EXACT = Tolerance(relative=0.0, reason="integers have one result, the same to the bit everywhere")
# Where last bits of floats differ by 1e-7 or 1e-6 of them, as runtimes' do, no level of 40 random
# networks with one to three layer norms between others changed, on 4 inputs and 10 draws each; by
# 1e-5, a hundred last bits, outputs moved by 2.6 % at most. One level too many moves them as much.
PARTLY_EXACT = Tolerance(
    relative=0.05,
    reason="parts of the network stay in float, whose last bits may round to another integer: {}",
)
SAID_BEFORE = 0.1
"""What manifests of such networks stated when the bound was this wide: they are read, and held to
the narrower one."""
SIMULATED = Tolerance(
    relative=0.1,
    reason="floats between the integers round otherwise, where no runtime makes integers of them",
)
FOREIGN = Tolerance(
    relative=0.2,
    reason="the maker's tool rounds by rules of its own; a cosine of 0.98, which it takes for good,"
    " is a difference of a fifth",
)


def allowed(
    precision: Precision,
    inexact: Sequence[str] = (),
    reach: FloatReach = FloatReach.ROUNDED,
) -> Tolerance:
    """Return what is allowed at a precision.

    Args:
        precision: What the artifact computes with.
        inexact: An integer program's layers in float.
        reach: How these bear on what is compared; the most that they can, where it is not known.
    """
    match precision.arithmetic:
        case Arithmetic.FLOAT:
            return ROUNDED[precision.weights]
        case Arithmetic.SIMULATED:
            return SIMULATED
        case Arithmetic.FOREIGN:
            return FOREIGN
        case Arithmetic.INTEGER:
            return _mixed(inexact, reach) if inexact else EXACT
        case _:
            assert_never(precision.arithmetic)


def most_said(precision: Precision, inexact: Sequence[str]) -> float:
    """Return the largest tolerance that a manifest may state; what is allowed may be less."""
    most = allowed(precision, inexact).relative
    # Bundles that were built when more was allowed are still read; what counts is the narrower
    # bound.
    return max(most, SAID_BEFORE) if precision.exact and inexact else most


def _mixed(inexact: Sequence[str], reach: FloatReach) -> Tolerance:
    match reach:
        case FloatReach.NONE:
            return EXACT
        case FloatReach.UNROUNDED:
            return FLOAT
        case FloatReach.ROUNDED:
            named = ", ".join(inexact[:3]) + (", ..." if len(inexact) > 3 else "")
            return replace(PARTLY_EXACT, reason=PARTLY_EXACT.reason.format(named))
        case _:
            assert_never(reach)


def find_tolerance_problem(
    precision: Precision, inexact: Sequence[str], found: Numbers
) -> str | None:
    """Say which of a manifest's words an artifact belies, where they would let it be off.

    Args:
        precision: What the manifest says that the artifact computes with.
        inexact: The layers that it says are in float.
        found: What numbers the artifact has.

    Returns:
        A sentence; None where the words hold.
    """
    said = f"precision: `{precision.name}`"
    match precision.arithmetic:
        case Arithmetic.FOREIGN:
            return None
        case Arithmetic.FLOAT:
            wrong = found.integers
            why = f"{said} is of floats, and the artifact computes on integers"
        case Arithmetic.SIMULATED:
            wrong = found.products and not found.floats
            why = f"{said} has products of floats, and the artifact none"
        case Arithmetic.INTEGER:
            wrong = bool(inexact) and not found.floats
            first = "".join(inexact[:1])[:40]
            why = f"calibration/inexact: `{first}` is there, and no layer is in float"
        case _:
            assert_never(precision.arithmetic)
    return why if wrong else None


def earned(precision: Precision, inexact: Sequence[str], found: Numbers, output: str) -> Tolerance:
    """Return what is allowed to an output of an artifact of these numbers: at most its precision's.

    An output that no layer in float bears on is held to the bit, and one that is computed in float
    from levels to what float32 sums may differ by. A file whose constants are finer than its
    precision has it is held to what they are.

    Args:
        precision: The artifact's.
        inexact: The layers in float that the manifest lists.
        found: What the artifact's own file computes with.
        output: The name of an output.
    """
    if precision.integer:
        reach = found.reach(output)
        match reach:
            case FloatReach.NONE:
                return EXACT
            case FloatReach.UNROUNDED:
                return FLOAT
            case FloatReach.ROUNDED:
                return allowed(precision, inexact)
            case _:
                assert_never(reach)
    order = list(Storage)
    # The coarsest storage that the file really has, and no coarser than its precision: an fp16
    # bundle whose constants are float32 is held to float32.
    coarsest_first = reversed(order[: order.index(precision.weights) + 1])
    held = (each for each in coarsest_first if STORED[each] & found.stored)
    return ROUNDED[next(held, Storage.FLOAT32)]
