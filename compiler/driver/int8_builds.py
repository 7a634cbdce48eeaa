"""Integer programs of `tcc build`, new or from the cache, and the remarks about them."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.driver import quality_table, run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec
from tcc.compiler.driver.pass_options import PassOptions
from tcc.compiler.driver.weights_and_images import load_images
from tcc.compiler.reference.accuracy_floor import compute_mean_loss
from tcc.compiler.support import option_requirements, regular_files
from tcc.compiler.support.console import Report, Stages, format_table
from tcc.compiler.support.option_requirements import (
    CALIBRATION_IMAGES,
    EXACT_TARGET,
    FRESH_CALIBRATION,
    INT8_TARGET,
    JUDGED_BUILD,
    PACKAGE_TARGET,
    READ_IMAGES,
    RUNNABLE_TARGET,
)

if TYPE_CHECKING:
    from tcc.compiler.bundle.manifest import Calibrated, Measured
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.data.split_file import RunSplit
    from tcc.compiler.driver.build_cache import StageRemark, StoredStages
    from tcc.compiler.driver.build_plan import Int8Program
    from tcc.compiler.driver.int8_program import CalibrationSource
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.frontend.accuracy_bounds import Accuracy
    from tcc.compiler.ir.device import Plan
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.quant.program.floor_program import MeasuredProgram
    from tcc.compiler.zoo.trained import TrainedNetwork


@dataclass(frozen=True, slots=True)
class Int8Options:
    """Command-line options about int8 models."""

    floors: "Accuracy"
    calibration: Path | None = None
    data: Path | None = None
    method: str | None = None
    guard: bool = True
    mixed: bool = False
    split: str | None = None
    min_images: int = 1
    agree: int = 0
    probes: bool = False
    images: bool = False
    allow_few: bool = False
    guard_data: Path | None = None


@dataclass(frozen=True)
class Int8Build:
    """Inputs of a build: the request, the report, and the passes.

    `weights` is the weights' file, if they have one. `stage_store` has the cached results of
    stages.
    """

    report: Report
    stages: Stages
    chosen_spec: ChosenSpec
    weight_source: "WeightSource"
    options: Int8Options
    pass_options: PassOptions
    weights: Path | None
    stage_store: "StoredStages"

    def load_agreement_images(self) -> "DataSet | None":
        """Return the images for the comparison of targets; None if not requested.

        Raises:
            UserError: As for `images`.
        """
        from tcc.compiler.data.dataset import check_dataset

        if not self.options.agree:
            return None
        (network_input,) = self.chosen_spec.spec.graph.inputs
        return check_dataset(self.images.select_first(self.options.agree), network_input)

    @cached_property
    def images(self) -> "DataSet":
        """Return the images to calibrate with.

        Raises:
            UserError: As for `load_images`.
        """
        return load_images(self.report, self.chosen_spec, self.options.data, self.split)

    @cached_property
    def split(self) -> "RunSplit | None":
        """The split of the run that made the weights, if known."""
        return run_splits.find_weights_split(self.options.split, self.weights)

    @cached_property
    def guard_images(self) -> "DataSet | None":
        """The images for the guard, none of which was used before; None without a guard.

        Raises:
            UserError: They are no dataset, or some were trained or calibrated on (E0745).
        """
        from tcc.compiler.data.dataset import read_dataset
        from tcc.compiler.driver import guard_build

        if self.options.guard_data is None:
            return None
        images = read_dataset(self.options.guard_data)
        self.report.warn_grouped(images.warnings)
        used: dict[str, Sequence[str]] = {"calibration": self.images.digests}
        if self.split:
            used["training"] = [line.digest for line in self.split.lines if line.split == "train"]
        guard_build.check_images(images, used)
        return images


@dataclass(frozen=True, slots=True)
class BuiltPrograms:
    """The integer programs of a build by `float_io`, their keys, and the cached stages of each."""

    programs: "Mapping[bool, Int8Program]"
    keys: Mapping[bool, str]
    cached_stages: Mapping[bool, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class _ProgramBuilder:
    """Builds the programs that are not in the cache, and collects the remarks about them."""

    work: Int8Build
    reported: set["StageRemark"] = field(default_factory=set)
    calibration_remarks: list["StageRemark"] = field(default_factory=list)
    """Remarks about the calibration, which all programs share."""
    cached_stages: list[str] = field(default_factory=list)
    """The earlier stages with results from the cache."""

    def report_remarks(self, remarks: "Iterable[StageRemark]") -> None:
        """Report each remark once."""
        for kind, text in remarks:
            if (kind, text) not in self.reported:
                self.work.report.report_remark(kind, text)
            self.reported.add((kind, text))

    @cached_property
    def lowered_model(self) -> "Model":
        """The lowered float model, ready for calibration."""
        from tcc.compiler.driver import pipeline

        self.work.stages("passes", 0, 1)
        return pipeline.lower_for_int8(
            self.work.chosen_spec.spec, self.work.weight_source, self.work.pass_options
        )

    @cached_property
    def calibration_source(self) -> "CalibrationSource":
        """The calibration, and the images for evaluation."""
        work = self.work
        fresh = work.options.calibration is None and not find_shipped(work)
        source, remarks = self._load_calibration() if fresh else _load_source(work)
        self.calibration_remarks.extend(remarks)
        self.report_remarks(remarks)
        return source

    def _load_calibration(self) -> "tuple[CalibrationSource, Sequence[StageRemark]]":
        """Return the calibration by images, from the cache or new, and its remarks."""
        from tcc.compiler.driver import build_cache, int8_program

        work, images = self.work, self.work.images
        key = work.stage_store.compute_key(
            "calibration", **_collect_calibration_inputs(work, images)
        )
        if cached := work.stage_store.load_calibration(key):
            self.cached_stages.append("calibration")
            return int8_program.attach_images(cached[0], images), cached[1]
        source, remarks = _create_source(work)
        if build_cache.is_unchanged(images):
            work.stage_store.keep_calibration(key, source.document, remarks)
        return source, remarks

    def build_program(self, *, float_io: bool) -> "tuple[Int8Program, list[StageRemark]]":
        """Return a program at or above the accuracy floor, and its remarks."""
        from tcc.compiler.driver import floor_evidence, int8_program

        options = self.work.options
        floor = floor_evidence.resolve_floor(
            self.work.chosen_spec.spec, options.floors, allow_few=options.allow_few
        )
        remarks: list[StageRemark] = []

        def report_program(program: "MeasuredProgram", measured: "Measured") -> None:
            remarks.extend(_describe_comparison(program, measured, floor.cosine))
            self.report_remarks(remarks)

        lowered_model = (
            self.lowered_model
        )  # before the calibration, because its stages come after the passes
        measured_programs = int8_program.build_programs(
            lowered_model, self.calibration_source, floor, {float_io},
            mixed=options.mixed, progress=self.work.stages, report=report_program,
        )  # fmt: skip
        if measured_programs[float_io].calibrated.measured is None:
            text = "no accuracy estimate for the int8 model: no images were given to compare it on"
            remarks.append(("warning", text))
            self.report_remarks(remarks)
        programs = (
            int8_program.add_probes(measured_programs) if options.probes else measured_programs
        )
        return programs[float_io], [*self.calibration_remarks, *remarks]

    def rebuild_program(
        self, calibrated: "Calibrated", calibration: bytes, *, float_io: bool
    ) -> "Model":
        """Return the program of a stored calibration."""
        from tcc.compiler.driver import bundle_program
        from tcc.compiler.driver.build_plan import CALIBRATION
        from tcc.compiler.quant import calibration_document

        document = calibration_document.decode(calibration, CALIBRATION)
        layers = frozenset(calibrated.in_float)
        return bundle_program.rebuild_from_calibration(
            self.lowered_model, document, CALIBRATION, layers, float_io=float_io
        )


def build_int8_programs(work: Int8Build, plans: "Sequence[Plan]") -> BuiltPrograms:
    """Return the integer programs for the targets, at or above their accuracy floor.

    Raises:
        UserError: There are no images to calibrate with, or they do not fit; or the calibration is
            of another network.
        BelowFloor: A program is below its accuracy floor.
    """
    from tcc.compiler.driver import build_cache

    float_io_kinds = {plan.precision.float_io for plan in plans if plan.precision.calibrated}
    if not float_io_kinds:
        return BuiltPrograms({}, {}, {})
    builder, images = _ProgramBuilder(work), _load_images(work)
    # Before the calibration, which takes much longer than to refuse them.
    guard_images = work.guard_images
    key_inputs = _collect_key_inputs(work, images)
    programs, keys = {}, {}
    cached_stages: dict[bool, tuple[str, ...]] = {}
    for float_io in sorted(float_io_kinds):
        key = keys[float_io] = work.stage_store.compute_key("integers", real=float_io, **key_inputs)
        cached = work.stage_store.load_program(
            key, images, partial(builder.rebuild_program, float_io=float_io)
        )
        if cached:
            programs[float_io], cached_remarks = cached
            cached_stages[float_io] = ("integers",)
            builder.report_remarks(cached_remarks)
            continue
        programs[float_io], new_remarks = builder.build_program(float_io=float_io)
        cached_stages[float_io] = tuple(builder.cached_stages)
        # Do not cache a result if its inputs changed while they were read.
        is_unchanged = images is None or build_cache.is_unchanged(images)
        if is_unchanged and key_inputs == _collect_key_inputs(work, images):
            work.stage_store.keep_program(key, programs[float_io], new_remarks)
    built = BuiltPrograms(programs, keys, cached_stages)
    return built if guard_images is None else _add_guards(work, built, guard_images)


def _add_guards(work: Int8Build, built: BuiltPrograms, guard_images: "DataSet") -> BuiltPrograms:
    """Return the programs with guards; keys of bundles depend on them."""
    from tcc.compiler.driver import guard_build

    guard_key = guard_build.compute_key(work.images, guard_images)
    programs = {
        float_io: guard_build.add_guard(program, work.images, guard_images, work.stages)
        for float_io, program in built.programs.items()
    }
    keys = {float_io: f"{key} {guard_key}" for float_io, key in built.keys.items()}
    return replace(built, programs=programs, keys=keys)


def _collect_key_inputs(work: Int8Build, images: "DataSet | None") -> dict[str, Any]:
    """Return all inputs of the integer programs except network and weights, as plain data."""
    options, network = work.options, find_shipped(work)
    return {
        **_collect_calibration_inputs(work, images),
        "calibration": options.calibration and _hash_file(options.calibration),
        "shipped": network and network.name,
        "bounds": astuple(options.floors),
        "mixed": options.mixed,
        "few": options.allow_few,
        "probes": options.probes,
    }


def _collect_calibration_inputs(work: Int8Build, images: "DataSet | None") -> dict[str, Any]:
    """Return all inputs of a new calibration, as plain data."""
    options = work.options
    return {
        "images": images and [(image.digest, image.label) for image in images.items],
        "method": options.method,
        "guard": options.guard,
        "least": options.min_images,
    }


def _hash_file(path: Path) -> str:
    try:
        with regular_files.open_file(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""  # the next reader reports the error


def _load_images(work: Int8Build) -> "DataSet | None":
    """Return the images for calibration or evaluation, if the build uses any."""
    from tcc.compiler.data import dataset

    if work.options.calibration is not None:
        has_images = work.options.data is not None or work.chosen_spec.project.data is not None
        return work.images if has_images else None
    network = find_shipped(work)
    return dataset.read_dataset(network.samples) if network else work.images


def _load_source(work: Int8Build) -> "tuple[CalibrationSource, list[StageRemark]]":
    """Return the calibration of a file or a trained network, its images, and remarks."""
    from tcc.compiler.driver import int8_program

    options, chosen_spec = work.options, work.chosen_spec
    if options.calibration is not None:
        images = _load_images(work)
        return int8_program.from_file(
            options.calibration, chosen_spec.spec, work.weight_source, images
        ), []
    network = find_shipped(work)
    assert network
    work.report.print_detail(f"calibration: {network.calibration}")
    text = (
        f"the int8 model of `{network.name}` uses its stored calibration, and is compared here on"
        " synthetic images; see its card for its accuracy on patients' images"
    )
    source = int8_program.from_trained(network, chosen_spec.spec, work.weight_source)
    return source, [("warning", text)]


def _create_source(work: Int8Build) -> "tuple[CalibrationSource, list[StageRemark]]":
    """Return a new calibration, and its remarks."""
    from tcc.compiler import passes
    from tcc.compiler.driver import int8_program, pipeline
    from tcc.compiler.driver.calibration import find_method
    from tcc.compiler.quant.run_options import RunOptions

    options = work.options
    method, run = (
        find_method(options.method, guard=options.guard),
        work.pass_options.choose_passes(passes.INT8),
    )
    request = pipeline.CalibrationRequest(
        int8_program.ANY_TARGET,
        method,
        RunOptions(progress=work.stages, min_images=options.min_images),
        work.pass_options,
        run,
    )
    source = int8_program.from_images(
        work.chosen_spec.spec, work.weight_source, work.images, request
    )
    warnings = [("warning", notice) for notice in source.document.notices]
    expected = quality_table.format_expected_losses(source.document.expected)
    return source, [*warnings, *(("note", line) for line in expected)]


def find_shipped(work: Int8Build) -> "TrainedNetwork | None":
    """Return the trained network whose stored calibration applies; None if options override it."""
    options, chosen_spec = work.options, work.chosen_spec
    # Its scales fit only these weights and settings. Given images call for a new calibration.
    as_shipped = work.weight_source.origin.origin == "zoo" and not chosen_spec.changed
    has_other_options = options.data or options.method or options.mixed or not options.guard
    has_other_options = has_other_options or work.pass_options.text is not None
    return chosen_spec.trained if as_shipped and not has_other_options else None


def _describe_comparison(
    program: "MeasuredProgram", measured: "Measured", min_cosine: float | None
) -> "Iterator[StageRemark]":
    """Yield remarks about how a program compares with the float model, overall and by layer."""
    comparison, quality = program.comparison, program.comparison.quality
    yield (
        "note",
        f"int8 against fp32 over {quality_table.describe_images(quality, measured.where)}",
    )
    for step in program.steps:
        yield (
            "note",
            f"in float: {step.name} and the layers that read it: loss"
            f" {compute_mean_loss(step.quality):.1e},"
            f" {step.macs:.1%} of the multiply-accumulates",
        )
    for line in quality_table.format_unknown(quality):
        yield "warning", line
    for line in quality_table.format_lines(quality):
        yield "short", f"  {line}"
    for line in quality_table.format_bounds(measured.bounds):
        yield "short", f"  {line}"
    for line in quality_table.format_margins(quality_table.filter_changed(quality)):
        yield "short", f"  {line}"
    outputs = [
        (name, output.kind, *quality_table.format_cells(output)) for name, output in quality.items()
    ]
    yield "full", "\n".join(format_table(("output", "kind", *quality_table.COLUMNS), outputs))
    for line in quality_table.format_margins(quality):
        yield "full", line
    rows = [
        (layer.name, layer.op, f"{layer.cosine:.6f}", f"{layer.snr:.1f}", f"{layer.error:.1f}",
         f"{layer.saturated:.3%}")
        for layer in comparison.layers
    ]  # fmt: skip
    columns = ("layer", "op", "cosine", "SNR dB", "max. error, LSB", "saturated")
    yield "full", "\n".join(format_table(columns, rows))
    if quality_table.is_cosine_idle(quality, min_cosine):
        text = "`min_cosine` has no effect on an output of one value: use `min_correlation`"
        yield "warning", text


def refuse_unused_options(plans: "Sequence[Plan]") -> None:
    """Refuse options that have no effect for any target of the build (E0601)."""
    devices = [plan.device for plan in plans]
    option_requirements.report_facts(
        {
            INT8_TARGET: any(plan.precision.calibrated for plan in plans),
            EXACT_TARGET: any(plan.precision.exact for plan in plans),
            PACKAGE_TARGET: any(device.packager for device in devices),
            RUNNABLE_TARGET: any(device.target.runs for device in devices),
        }
    )


def require_images(work: Int8Build, plans: "Sequence[Plan]") -> None:
    """Refuse options that need images if this build reads none (E0601)."""
    has_int8_plans = any(plan.precision.calibrated for plan in plans)
    calibrates = work.options.calibration is None
    shipped = calibrates and find_shipped(work) is not None
    has_images = work.options.data is not None or work.chosen_spec.project.data is not None
    reads = has_int8_plans and (not shipped if calibrates else has_images)
    option_requirements.report_facts(
        {
            FRESH_CALIBRATION: calibrates and not shipped,
            JUDGED_BUILD: calibrates or has_images,
            READ_IMAGES: bool(work.options.agree) or reads,
            CALIBRATION_IMAGES: reads,
        }
    )
