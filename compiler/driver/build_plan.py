"""Choose what each target of a build starts from, and create the goldens of each precision."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from tcc.compiler.bundle import goldens, manifest
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.device import Plan
from tcc.compiler.ir.graph import Input, Model, Pass
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.target import PackageSources
from tcc.compiler.support.diagnostics import fail, make_file_span

Lower = Callable[[Model, tuple[Pass, ...]], Model]
"""Runs the passes of a target on a model."""


CALIBRATION = "calibration.json"
"""Path of the calibration in a bundle."""


@dataclass(frozen=True, eq=False)
class Int8Program:
    """The integer program of a model, its manifest record, and its files in the bundle."""

    make: Callable[[], Model]
    """Returns the program. It is not called if all that is built from it is in the cache."""
    calibrated: manifest.Calibrated
    files: Mapping[str, bytes]
    images: DataSet | None = None
    """The calibration images, if available."""
    make_guard: Callable[[], Mapping[str, bytes]] | None = None
    """Returns the files of its guard by path; None without a guard."""

    @cached_property
    def program(self) -> Model:
        """The integer program, computed once."""
        return self.make()

    @cached_property
    def guard_files(self) -> Mapping[str, bytes]:
        """The files of its guard, computed once; empty without a guard."""
        return self.make_guard() if self.make_guard else {}


Int8Programs = Mapping[bool, Int8Program]
"""Integer programs by `Precision.float_io`: with float outputs, or with quantized outputs. Only
the needed ones are present."""


def select_program(plan: Plan, int8_programs: Int8Programs | None) -> Int8Program | None:
    """Return the integer program that a target is built from or predicted by, if it has one."""
    if not plan.precision.calibrated:
        return None
    assert int8_programs is not None, plan.precision
    return int8_programs[plan.precision.float_io]


GoldenFiles = tuple[manifest.Goldens, Mapping[str, bytes]]


def create_golden_outputs(
    model: Model, plans: Iterable[Plan], int8_programs: Int8Programs | None
) -> Mapping[Precision, GoldenFiles]:
    """Return the goldens of each precision, shared by its targets.

    Args:
        model: The float model as written.
        plans: The targets, each with its precision.
        int8_programs: The integer programs, if any precision is calibrated.

    Returns:
        For each precision, the manifest's goldens and their files by path.
    """
    goldens_by_precision: dict[Precision, GoldenFiles] = {}
    for plan in plans:
        # Once per precision, so that bundles of one precision can be compared on the same goldens.
        if plan.precision not in goldens_by_precision:
            int8_program = select_program(plan, int8_programs)
            goldens_by_precision[plan.precision] = (
                # An integer program is bit-exact everywhere, so its outputs are its goldens. Other
                # precisions are compared with the float model, within their tolerance.
                goldens.build_exact_goldens(int8_program.program, plan.precision)
                if int8_program and plan.precision.integer
                else goldens.build_goldens(model, plan.precision)
            )
    return goldens_by_precision


def prepare_models(
    model: Model, plans: Iterable[Plan], int8_programs: Int8Programs | None, lower: Lower
) -> Mapping[str, Model]:
    """Return the model that each target is emitted from; targets with equal passes share it.

    Args:
        model: The float model as written.
        plans: The targets, each with its precision.
        int8_programs: The integer programs, if any precision is calibrated.
        lower: Runs a target's passes on a model.

    Returns:
        The float model or integer program of each target, by its name.
    """
    models: dict[str, Model] = {}
    lowered: dict[tuple[Pass, ...], Model] = {}
    for plan in plans:
        if (
            int8_program := select_program(plan, int8_programs)
        ) and not plan.starts_from_float_model:
            models[plan.device.name] = int8_program.program
            continue
        passes = plan.device.passes(plan.precision)
        if passes not in lowered:
            lowered[passes] = _lower_model(model, passes, lower)
        models[plan.device.name] = lowered[passes]
    return models


def collect_package_sources(
    plan: Plan, float_model: Model, int8_program: Int8Program, name: str
) -> PackageSources:
    """Return the sources of a package for a vendor toolchain.

    Args:
        plan: The target and its precision.
        float_model: The model after the target's passes.
        int8_program: The integer program, with its calibration images.
        name: Name of the bundle.

    Raises:
        UserError: There are no images (E0670).
    """
    images = int8_program.images
    if images is None:
        target = plan.device.name
        message = f"a package for {target} needs calibration images, but there are none"
        help = "give images like those that the network will see, with --data"
        raise fail("E0670", message, make_file_span(target), help=help)
    network_input = to_pixel_input(float_model.graph.inputs[0])
    return PackageSources(
        float_model,
        int8_program.program,
        # Read on demand, so that not all images are in memory at once.
        lambda: (images.read_tensor(index, network_input) for index in range(len(images))),
        goldens.list_input_tensors(network_input),
        name,
        plan.compiles,
    )


def to_pixel_input(network_input: Input) -> Input:
    """Return an input that takes raw pixel values, if its contract allows it."""
    levels = (
        preprocess.strip_normalization(network_input.preprocess)
        if network_input.preprocess
        else None
    )
    return replace(network_input, preprocess=levels) if levels else network_input


def _lower_model(model: Model, passes: tuple[Pass, ...], lower: Lower) -> Model:
    """Return the model after passes that must not change its inputs.

    Raises:
        UserError: They change the inputs (E0615); goldens and input contract are from the spec.
    """
    lowered = lower(model, passes)
    if lowered.graph.inputs != model.graph.inputs:
        message = "these passes change the network's input contract"
        help = "use `raw_input` only for int8 models; their default passes include it"
        raise fail("E0615", message, make_file_span(model.graph.name), help=help)
    return lowered
