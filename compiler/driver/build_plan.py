"""What each target of a build starts from: a float model or an integer program, and its goldens."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tcc.compiler.bundle import goldens, manifest
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Model, Pass
from tcc.compiler.ir.precision import Precision
from tcc.compiler.support.diagnostics import fail, whole_file

Lower = Callable[[Model, tuple[Pass, ...]], Model]
"""Takes a model through the passes that a target wants."""


@dataclass(frozen=True, slots=True)
class Int8Program:
    """The integer program of a model, what a manifest says of it, and files that go with it."""

    program: Model
    calibrated: manifest.Calibrated
    files: Mapping[str, bytes]


Int8Programs = Mapping[bool, Int8Program]
"""The integer program whose last layers give real numbers, and that which gives integers: by
`Precision.real_ends`, those that are needed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A target, and the precision that it is built at."""

    device: Device
    precision: Precision

    def program(self, integers: Int8Programs | None) -> Int8Program | None:
        """Return the integer program that it is built from; None where that is a float model."""
        if not self.precision.integer:
            return None
        assert integers is not None, self.precision
        return integers[self.precision.real_ends]


Expected = tuple[manifest.Goldens, Mapping[str, bytes]]


def golden_outputs(
    model: Model, plans: Iterable[Plan], integers: Int8Programs | None
) -> Mapping[Precision, Expected]:
    """Return the goldens of each precision, whatever the number of targets that have it."""
    found: dict[Precision, Expected] = {}
    for plan in plans:
        if plan.precision not in found:
            own = plan.program(integers)
            found[plan.precision] = (
                goldens.exact(own.program, plan.precision)
                if own
                else goldens.make(model, plan.precision)
            )
    return found


def starts(
    model: Model, plans: Iterable[Plan], integers: Int8Programs | None, lower: Lower
) -> Mapping[str, Model]:
    """Return what each target is emitted from; targets that want equal passes share it."""
    found: dict[str, Model] = {}
    lowered: dict[tuple[Pass, ...], Model] = {}
    for plan in plans:
        if own := plan.program(integers):
            found[plan.device.name] = own.program
            continue
        wanted = plan.device.passes(plan.precision)
        if wanted not in lowered:
            lowered[wanted] = _lowered(model, wanted, lower)
        found[plan.device.name] = lowered[wanted]
    return found


def _lowered(model: Model, wanted: tuple[Pass, ...], lower: Lower) -> Model:
    """Return the model after passes that leave its inputs as they are.

    Raises:
        UserError: They do not (E0615); goldens and input contract are those of the spec.
    """
    lean = lower(model, wanted)
    if lean.graph.inputs != model.graph.inputs:
        message = "these passes give the network another input contract"
        help = "`raw_input` is for integer programs, whose pipeline has it"
        raise fail("E0615", message, whole_file(model.graph.name), help=help)
    return lean
