"""What each target of a build starts from: a float model or an integer program, and its goldens."""

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
"""Takes a model through the passes that a target wants."""


CALIBRATION = "calibration.json"
"""The calibration's place in a bundle."""


@dataclass(frozen=True, eq=False)
class Int8Program:
    """The integer program of a model, what a manifest says of it, and files that go with it."""

    make: Callable[[], Model]
    """Gives the program: who finds all that is built from it in the cache does not need it."""
    calibrated: manifest.Calibrated
    files: Mapping[str, bytes]
    images: DataSet | None = None
    """What it was calibrated with, where that is at hand."""

    @cached_property
    def program(self) -> Model:
        """The integer program, made once."""
        return self.make()


Int8Programs = Mapping[bool, Int8Program]
"""The integer program whose last layers give real numbers, and that which gives integers: by
`Precision.real_ends`, those that are needed."""


def select_program(plan: Plan, int8_programs: Int8Programs | None) -> Int8Program | None:
    """Return the integer program that a target is built from or foretold by, if there is one."""
    if not plan.precision.calibrated:
        return None
    assert int8_programs is not None, plan.precision
    return int8_programs[plan.precision.float_io]


GoldenFiles = tuple[manifest.Goldens, Mapping[str, bytes]]


def create_golden_outputs(
    model: Model, plans: Iterable[Plan], int8_programs: Int8Programs | None
) -> Mapping[Precision, GoldenFiles]:
    """Return the goldens of each precision, whatever the number of targets that have it.

    Args:
        model: The network in floats, as written.
        plans: The targets, each with its precision.
        int8_programs: The integer programs, where any precision is of integers.

    Returns:
        For each precision what the manifest says of its goldens, and their files by path.
    """
    goldens_by_precision: dict[Precision, GoldenFiles] = {}
    for plan in plans:
        # Once for each precision: targets of one precision share their goldens, by which their
        # bundles are compared.
        if plan.precision not in goldens_by_precision:
            int8_program = select_program(plan, int8_programs)
            goldens_by_precision[plan.precision] = (
                # An integer program gives the same everywhere, to the bit: its goldens are its own
                # outputs. Any other precision is held against the floats, within its tolerance.
                goldens.build_exact_goldens(int8_program.program, plan.precision)
                if int8_program and plan.precision.integer
                else goldens.build_goldens(model, plan.precision)
            )
    return goldens_by_precision


def prepare_models(
    model: Model, plans: Iterable[Plan], int8_programs: Int8Programs | None, lower: Lower
) -> Mapping[str, Model]:
    """Return what each target is emitted from; targets that want equal passes share it.

    Args:
        model: The network in floats, as written.
        plans: The targets, each with its precision.
        int8_programs: The integer programs, where any precision is of integers.
        lower: Takes a model through a target's passes.

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
    """Return what a package is made of.

    Args:
        plan: The target and its precision.
        float_model: The model after the target's passes.
        int8_program: The integer program, and the images that it was calibrated with.
        name: What the bundle is called.

    Raises:
        UserError: There are no images (E0670).
    """
    images = int8_program.images
    if images is None:
        target = plan.device.name
        message = f"a package for {target} holds images to calibrate with, and there are none"
        help = "give images of the kind that the network is meant for, with --data"
        raise fail("E0670", message, make_file_span(target), help=help)
    source = to_pixel_input(float_model.graph.inputs[0])
    return PackageSources(
        float_model,
        int8_program.program,
        # Made as they are asked for: the images of a package need not lie in memory at once.
        lambda: (images.read_tensor(index, source) for index in range(len(images))),
        goldens.list_input_tensors(source),
        name,
        plan.compiles,
    )


def to_pixel_input(source: Input) -> Input:
    """Return an input whose tensors are grey levels, where its contract has them."""
    levels = preprocess.strip_normalization(source.preprocess) if source.preprocess else None
    return replace(source, preprocess=levels) if levels else source


def _lower_model(model: Model, passes: tuple[Pass, ...], lower: Lower) -> Model:
    """Return the model after passes that leave its inputs as they are.

    Raises:
        UserError: They do not (E0615); goldens and input contract are those of the spec.
    """
    lowered = lower(model, passes)
    if lowered.graph.inputs != model.graph.inputs:
        message = "these passes give the network another input contract"
        help = "`raw_input` is for integer programs, whose pipeline has it"
        raise fail("E0615", message, make_file_span(model.graph.name), help=help)
    return lowered
