"""The target and the integer program that a function's arguments ask for."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcc.compiler.driver.build_plan import Int8Programs
    from tcc.compiler.driver.int8_program import CalibrationSource
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.frontend.accuracy_bounds import Accuracy
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.ir.device import Plan


@dataclass(frozen=True, slots=True)
class WantedIntegers:
    """What the arguments say of integers; `by` is the function that they are of."""

    by: str
    calibration: str | PathLike[str] | None
    data: str | PathLike[str] | None
    method: str
    bounds: "Accuracy"
    mixed: bool = False


def plan(target: str, precision: str | None, by: str) -> "Plan":
    """Return a target and what it is built at.

    Raises:
        UserError: It is not known, or not built at this precision.
    """
    from tcc.compiler.cli import devices
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.support.diagnostics import whole_file

    here = whole_file(by)
    level = (precision or FP32.name, here)
    (found,) = devices.find_all([(target, here)], level, asked=precision is not None)
    return found


def integers(
    spec: "Spec", given: "WeightSource", target: "Plan", wanted: WantedIntegers
) -> "Int8Programs | None":
    """Return the integer program of a target; None where it is built of floats alone.

    Raises:
        UserError: There is nothing to calibrate with, or it does not fit.
        BelowFloor: It loses more than its bounds allow.
    """
    from tcc.compiler.driver import int8_program, pipeline, required_accuracy

    if not target.precision.calibrated:
        return None
    ready = pipeline.ready(spec, given)
    source = _source(spec, given, wanted)
    least = required_accuracy.floor(spec, wanted.bounds)
    ends = {target.precision.real_ends}
    return int8_program.integers(ready, source, least, ends, mixed=wanted.mixed)


def _source(spec: "Spec", given: "WeightSource", wanted: WantedIntegers) -> "CalibrationSource":
    from tcc.compiler.data.dataset import read
    from tcc.compiler.driver import int8_program, pipeline
    from tcc.compiler.quant.calibrate import known
    from tcc.compiler.quant.methods.method import RunOptions
    from tcc.compiler.support.diagnostics import fail, whole_file
    from tcc.compiler.zoo import trained

    here = whole_file(wanted.by)
    images = None if wanted.data is None else read(Path(wanted.data))
    if wanted.calibration is not None:
        return int8_program.from_file(Path(wanted.calibration), spec, given, images)
    network = trained.of(spec)
    if images is None and network and given.origin.origin == "zoo":
        return int8_program.from_trained(network, spec, given)
    if images is None:
        help = "give `data`, or a file that `tcc.calibrate` wrote as `calibration`"
        raise fail("E0616", "calibrate with which images?", here, help=help)
    method = known(wanted.method, here)
    request = pipeline.CalibrationRequest(int8_program.ANY, method, RunOptions())
    return int8_program.from_images(spec, given, images, request)
