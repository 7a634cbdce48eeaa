"""How far a replay may be from its goldens: by what a bundle is, whatever its manifest says."""

from collections.abc import Sequence
from dataclasses import replace

from tcc.compiler.bundle.manifest import Tolerance
from tcc.compiler.ir.number_types import Numbers
from tcc.compiler.ir.precision import INTEGER

FLOAT = Tolerance(
    relative=1e-4,
    reason="float32 sums depend on the order of their terms and on fused multiply-adds, which "
    "each target chooses for itself; nothing else may differ",
)
ROUNDED = {
    "fp16": Tolerance(relative=1e-2, reason="weights are rounded to float16"),
    "dynamic": Tolerance(
        relative=0.1,
        reason="weights are rounded to int8, and what some layers read while the network runs",
    ),
}
"""What is allowed at precisions whose weights are not those of the reference."""
EXACT = Tolerance(relative=0.0, reason="integers have one result, the same to the bit everywhere")
PARTLY_EXACT = Tolerance(
    relative=0.1,
    reason="parts of the network stay in float, whose last bits may round to another integer: {}",
)
SIMULATED = Tolerance(
    relative=0.1,
    reason="floats between the integers round otherwise, where no runtime makes integers of them",
)


def allowed(precision: str, inexact: Sequence[str] = ()) -> Tolerance:
    """Return what is allowed at a precision; `inexact` are an integer program's layers in float."""
    match precision:
        case "fp32":
            return FLOAT
        case "fp16" | "dynamic":
            return ROUNDED[precision]
        case "int8-qdq":
            return SIMULATED
        case _ if precision in INTEGER:
            named = ", ".join(inexact[:3]) + (", ..." if len(inexact) > 3 else "")
            partly = replace(PARTLY_EXACT, reason=PARTLY_EXACT.reason.format(named))
            return partly if inexact else EXACT
    raise ValueError(f"there is no precision {precision}")


def problem(precision: str, inexact: Sequence[str], found: Numbers) -> str | None:
    """Say which of a manifest's words an artifact belies, where they would let it be off."""
    if precision not in INTEGER:
        if found.integers:
            return f"precision: `{precision}` is of floats, and the artifact computes on integers"
    elif precision == "int8-qdq":
        if found.products and not found.floats:
            return f"precision: `{precision}` has products of floats, and the artifact none"
    elif inexact and not found.floats:
        return f"calibration/inexact: `{inexact[0][:40]}` is there, and no layer is in float"
    return None


def earned(precision: str, inexact: Sequence[str], found: Numbers) -> Tolerance:
    """Return what is allowed to an artifact of these numbers: at most that of its precision."""
    if precision in INTEGER:
        if not found.floats:
            return EXACT
        return allowed(precision, inexact) if found.integers else FLOAT
    if precision == "dynamic" and "int8" not in found.stored and "uint8" not in found.stored:
        precision = "fp16"
    if precision == "fp16" and "float16" not in found.stored:
        precision = "fp32"
    return allowed(precision)
