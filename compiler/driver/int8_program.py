"""The integer program of a spec for its bundles: calibrated, measured, and held to a floor."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tcc.compiler.bundle import program_file
from tcc.compiler.bundle.manifest import Calibrated, Measured
from tcc.compiler.data import dataset
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.driver import floor_evidence, pipeline, saturation
from tcc.compiler.driver.build_plan import CALIBRATION, Int8Program, Int8Programs
from tcc.compiler.driver.pipeline import CalibrationRequest, WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.program import floor_program
from tcc.compiler.quant.program.float_comparison import FloatComparison
from tcc.compiler.quant.program.floor_program import MeasuredProgram
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference.accuracy_floor import AccuracyFloor, FloorBounds
from tcc.compiler.reference.integer_program import find_inexact_nodes
from tcc.compiler.reference.output_comparison import (
    ComparisonImages,
    get_inference_outputs,
    select_comparison_images,
)
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.progress import Progress, silent
from tcc.compiler.zoo.trained import TrainedNetwork

REPORT = "report/int8.json"
"""The place of what each layer and the outputs lose."""
SELECTION_NOTE = "; other images chose the layers that stay in float"
"""What is added to the images that judge a program with layers in float."""
SYNTHETIC_ORIGIN = "that a program drew"
"""The images that judge a trained network of the zoo, whose own are not here."""
ANY_TARGET = "any"
"""The target of a calibration that is made while building, for all targets at once."""


@dataclass(frozen=True, slots=True)
class CalibrationSource:
    """The document of a calibration, its file's name, and images to judge by, if there are any.

    `fit_images` are those that a search for layers may look at; `image_origin` says which
    `held_out_images` are. They may be `user_images` and not the calibration's: then they judge
    beside it.
    """

    document: CalibrationDocument
    name: str = CALIBRATION
    fit_images: DataSet | None = None
    held_out_images: DataSet | None = None
    image_origin: str = ""
    user_images: bool = False


def from_file(
    path: Path, spec: Spec, weight_source: WeightSource, images: DataSet | None
) -> CalibrationSource:
    """Return the calibration of a file, and which of the images are to judge it.

    Args:
        path: The file that `tcc calibrate` wrote.
        spec: The network.
        weight_source: Its weights.
        images: Images to judge by: those of the calibration, or others; without any, its file's
            word counts.

    Raises:
        UserError: It is no calibration, or that of another spec or of other weights.
    """
    document = calibration_document.read_document(path)
    calibration_file.check(
        document, pipeline.describe_network(spec), weight_source.origin, str(path)
    )
    if images is None:
        return CalibrationSource(document, str(path))
    # Other images judge as a whole: none of them can have been learned from.
    if not document.data.is_prefix_of(images):
        description = "not those of the calibration"
        return CalibrationSource(document, str(path), images, images, description, user_images=True)
    return replace(attach_images(document, images), name=str(path))


def from_trained(
    network: TrainedNetwork, spec: Spec, weight_source: WeightSource
) -> CalibrationSource:
    """Return the calibration that comes with a trained network, its drawings to judge by.

    Raises:
        UserError: It is that of another spec.
    """
    source = from_file(
        network.calibration, spec, weight_source, dataset.read_dataset(network.samples)
    )
    # Drawings are no images of its kind: what the calibration states of those holds the floor.
    return replace(source, image_origin=SYNTHETIC_ORIGIN, user_images=False)


def from_images(
    spec: Spec, weight_source: WeightSource, images: DataSet, request: CalibrationRequest
) -> CalibrationSource:
    """Return a fresh calibration.

    Args:
        spec: The network.
        weight_source: Its weights.
        images: Those to learn from, of which some are held out.
        request: The method, and how to run it.

    Raises:
        UserError: The network does not take these images, or gives no finite numbers for them.
    """
    return attach_images(pipeline.calibrate(spec, weight_source, images, request), images)


def attach_images(document: CalibrationDocument, images: DataSet) -> CalibrationSource:
    """Return a calibration with the images that it was made with, some of which judge it."""
    fit_images, held_out_images = document.data.split_images(images)
    # Of fewer different images than can be parted, all are both.
    held_out = document.data.held_out and set(fit_images.digests).isdisjoint(
        held_out_images.digests
    )
    description = "held out of the calibration" if held_out else "of the calibration itself"
    return CalibrationSource(document, CALIBRATION, fit_images, held_out_images, description)


def compare_with_floats(
    spec: Spec,
    weight_source: WeightSource,
    document: CalibrationDocument,
    images: DataSet,
    progress: Progress = silent,
) -> FloatComparison:
    """Return how the integer program of a fresh calibration compares with the floats.

    It is of the images that were held out of it, if there are any.

    Args:
        spec: The network.
        weight_source: Its weights.
        document: The calibration.
        images: Those that it was made with.
        progress: Told of each stage.
    """
    lowered_model = pipeline.lower_for_int8(spec, weight_source)
    calibration = calibration_file.decode_calibration(document, lowered_model, CALIBRATION)
    fit_images, held_out_images = document.data.split_images(images)
    measured = floor_program.measure_program(
        lowered_model, calibration, select_comparison_images(held_out_images, fit_images), progress
    )
    return measured.comparison


def build_programs(
    lowered_model: Model,
    source: CalibrationSource,
    floor: AccuracyFloor,
    float_io_kinds: Collection[bool] = (True,),
    *,
    mixed: bool = False,
    progress: Progress = silent,
    report: Callable[[MeasuredProgram, Measured], None] | None = None,
) -> Int8Programs:
    """Return the integer programs of a ready model with the ends asked for, above their floor.

    Each is measured by itself.

    Args:
        lowered_model: The float model that integers can compute.
        source: The calibration, and images to judge by, if there are any.
        floor: The floor of each output.
        float_io_kinds: Whether programs end in real numbers: one program for each value.
        mixed: Keep in float the layers that the floor needs.
        progress: Told of each stage.
        report: Told how a program compares with the floats before it may be refused.

    Raises:
        UserError: The calibration is another graph's, or nothing says whether the floor is kept.
        TooFewImages: Too few different images say so (E0722).
        BelowFloor: It is not.
    """
    calibration = calibration_file.decode_calibration(source.document, lowered_model, source.name)
    if source.user_images and source.held_out_images is not None:
        different_images = floor_evidence.filter_different(lowered_model, source.held_out_images)
        source = replace(source, fit_images=different_images, held_out_images=different_images)
    builder = _ProgramBuilder(lowered_model, source, floor, mixed, progress, report)
    return {
        float_io: builder.build_program(replace(calibration, float_io=float_io))
        for float_io in sorted(set(float_io_kinds))
    }


def add_probes(programs: Int8Programs) -> Int8Programs:
    """Return the programs, each among the files that go with it."""
    return {
        float_io: replace(
            program, files={**program.files, **program_file.encode_program(program.program)}
        )
        for float_io, program in programs.items()
    }


@dataclass(frozen=True)
class _ProgramBuilder:
    """What the programs of one build have in common."""

    lowered_model: Model
    source: CalibrationSource
    floor: AccuracyFloor
    mixed: bool
    progress: Progress
    report: Callable[[MeasuredProgram, Measured], None] | None

    def build_program(self, calibration: Calibration) -> Int8Program:
        """Return the program of a calibration."""
        source, floor = self.source, self.floor
        if source.held_out_images is None or source.fit_images is None:
            return self._build_unseen(calibration)
        images = floor_evidence.split_images(
            source.fit_images, source.held_out_images, mixed=self.mixed
        )
        self._require(images.different_count, str(source.held_out_images.items[0].path.parent))
        program = floor_program.measure_program(
            self.lowered_model, calibration, images.judging_set, self.progress
        )
        # Floats cost time on every device: none where the floor is kept without.
        bounds = self._estimate_bounds(program, images.judging_set)
        if self.mixed and not floor.is_met(program.comparison.quality, bounds):
            program = floor_program.add_float_layers(
                self.lowered_model,
                program,
                floor,
                images.selection_set,
                images.judging_set,
                self.progress,
            )
            bounds = self._estimate_bounds(program, images.judging_set)
        learned = (
            f", and {images.learned_count} that the calibration used"
            if images.learned_count
            else ""
        )
        description = f"{source.image_origin}{learned}{SELECTION_NOTE if program.steps else ''}"
        measured = Measured(description, program.comparison.quality, bounds, images.different_count)
        if self.report:
            self.report(program, measured)
        floor_program.require_floor(program, floor, bounds, mixed=self.mixed)
        text = json.dumps(_create_report(program, description, floor), indent=2) + "\n"
        return _pack_program(
            program.program, source, program.calibration, measured, {REPORT: text.encode()}
        )

    def _estimate_bounds(self, program: MeasuredProgram, images: ComparisonImages) -> FloorBounds:
        source = self.source
        return floor_evidence.estimate_program_bounds(
            source.document, self.lowered_model, program, images, user_images=source.user_images
        )

    def _require(self, different: int, name: str) -> None:
        """Refuse too few images, unless nothing is asked of them."""
        kinds = [output.meaning for output in get_inference_outputs(self.lowered_model)]
        if self.mixed or self.floor.needs_images(kinds):
            fewest = self.floor.images
            floor_evidence.require_images(different, fewest, name, mixed=self.mixed)

    def _build_unseen(self, calibration: Calibration) -> Int8Program:
        """Return the program of a calibration file without images, by what the file states."""
        source, floor = self.source, self.floor
        if self.mixed:
            help = "give them with --data, or build without --mixed"
            message = "`--mixed` needs images to choose layers by"
            raise fail("E0618", message, make_file_span(source.name), help=help)
        losses = floor_evidence.read_stated_losses(source.document, self.lowered_model)
        if losses and calibration.float_io:
            self._require(min(loss.images for loss in losses.values()), source.name)
        measured = floor_evidence.check_stated(
            source.name, floor, losses if calibration.float_io else {}
        )
        program = quantize(self.lowered_model, calibration)
        # A file's word for a program is of one made elsewhere. A network that gives one answer
        # for everything is seen without images, and is the worst that integers do.
        if floor.correlation > 0 and calibration.float_io:
            floor_evidence.refuse_collapsed(self.lowered_model, program)
        return _pack_program(program, source, calibration, measured, {})


def _pack_program(
    program: Model,
    source: CalibrationSource,
    calibration: Calibration,
    measured: Measured | None,
    files: Mapping[str, bytes],
) -> Int8Program:
    """Return the program, the manifest's words, and the files of the bundle."""
    document = source.document
    calibrated = Calibrated(
        document.used,
        calibration_document.digest(document),
        document.data.digest,
        document.data.images,
        measured,
        tuple(sorted(calibration.in_float)),
        tuple(name.removesuffix(":float") for name in find_inexact_nodes(program.graph)),
    )
    return Int8Program(
        lambda: program,
        calibrated,
        {
            CALIBRATION: calibration_document.encode(document),
            **saturation.create_files(document),
            **files,
        },
        source.fit_images,
    )


def _create_report(
    program: MeasuredProgram, image_origin: str, floor: AccuracyFloor
) -> dict[str, Any]:
    """Return the report as plain data."""
    steps = [asdict(step) for step in program.steps]
    comparison = program.comparison
    bounds = {
        name: asdict(floor.resolve_defaults(quality.kind))
        for name, quality in comparison.quality.items()
    }
    return {"where": image_origin, "floor": bounds, **asdict(comparison), "steps": steps}
