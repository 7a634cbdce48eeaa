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
from tcc.compiler.quant.program import measured_program
from tcc.compiler.quant.program.float_comparison import FloatComparison
from tcc.compiler.quant.program.measured_program import MeasuredProgram
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference.accuracy_floor import AccuracyFloor, FloorBounds
from tcc.compiler.reference.integer_program import inexact
from tcc.compiler.reference.output_comparison import (
    ComparisonImages,
    comparison_images,
    judged_outputs,
)
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress, silent
from tcc.compiler.zoo.trained import TrainedNetwork

REPORT = "report/int8.json"
"""The place of what each layer and the outputs lose."""
CHOSE = "; other images chose the layers that stay in float"
"""What is added to the images that judge a program with layers in float."""
DRAWN = "that a program drew"
"""The images that judge a trained network of the zoo, whose own are not here."""
ANY = "any"
"""The target of a calibration that is made while building, for all targets at once."""


@dataclass(frozen=True, slots=True)
class CalibrationSource:
    """The document of a calibration, its file's name, and images to judge by, if there are any.

    `learn` are those that a search for layers may look at; `where` says which `judge` are. They may
    be `user_images` and not the calibration's: then they judge beside it.
    """

    document: CalibrationDocument
    name: str = CALIBRATION
    learn: DataSet | None = None
    judge: DataSet | None = None
    where: str = ""
    user_images: bool = False


def from_file(
    path: Path, spec: Spec, given: WeightSource, images: DataSet | None
) -> CalibrationSource:
    """Return the calibration of a file, and which of the images are to judge it.

    Args:
        path: The file that `tcc calibrate` wrote.
        spec: The network.
        given: Its weights.
        images: Images to judge by: those of the calibration, or others; without any, its file's
            word counts.

    Raises:
        UserError: It is no calibration, or that of another spec or of other weights.
    """
    found = calibration_document.read(path)
    calibration_file.check(found, pipeline.network(spec), given.origin, str(path))
    if images is None:
        return CalibrationSource(found, str(path))
    # Other images judge as a whole: none of them can have been learned from.
    if not found.data.are_of(images):
        description = "not those of the calibration"
        return CalibrationSource(found, str(path), images, images, description, user_images=True)
    return replace(judged(found, images), name=str(path))


def from_trained(network: TrainedNetwork, spec: Spec, given: WeightSource) -> CalibrationSource:
    """Return the calibration that comes with a trained network, its drawings to judge by.

    Raises:
        UserError: It is that of another spec.
    """
    found = from_file(network.calibration, spec, given, dataset.read(network.samples))
    # Drawings are no images of its kind: what the calibration states of those holds the floor.
    return replace(found, where=DRAWN, user_images=False)


def from_images(
    spec: Spec, given: WeightSource, images: DataSet, wanted: CalibrationRequest
) -> CalibrationSource:
    """Return a fresh calibration.

    Args:
        spec: The network.
        given: Its weights.
        images: Those to learn from, of which some are held out.
        wanted: The method, and how to run it.

    Raises:
        UserError: The network does not take these images, or gives no finite numbers for them.
    """
    return judged(pipeline.calibrate(spec, given, images, wanted), images)


def judged(found: CalibrationDocument, images: DataSet) -> CalibrationSource:
    """Return a calibration with the images that it was made with, some of which judge it."""
    learn, judge = found.data.parts(images)
    # Of fewer different images than can be parted, all are both.
    held_out = found.data.held_out and set(learn.digests).isdisjoint(judge.digests)
    description = "held out of the calibration" if held_out else "of the calibration itself"
    return CalibrationSource(found, CALIBRATION, learn, judge, description)


def compared(
    spec: Spec,
    given: WeightSource,
    document: CalibrationDocument,
    images: DataSet,
    progress: Progress = silent,
) -> FloatComparison:
    """Return how the integer program of a fresh calibration compares with the floats.

    It is of the images that were held out of it, if there are any.

    Args:
        spec: The network.
        given: Its weights.
        document: The calibration.
        images: Those that it was made with.
        progress: Told of each stage.
    """
    ready = pipeline.ready(spec, given)
    calibration = calibration_file.calibration(document, ready, CALIBRATION)
    learn, judge = document.data.parts(images)
    made = measured_program.measured(ready, calibration, comparison_images(judge, learn), progress)
    return made.comparison


def integers(
    ready: Model,
    source: CalibrationSource,
    least: AccuracyFloor,
    ends: Collection[bool] = (True,),
    *,
    mixed: bool = False,
    progress: Progress = silent,
    report: Callable[[MeasuredProgram, Measured], None] | None = None,
) -> Int8Programs:
    """Return the integer programs of a ready model with the ends asked for, above their floor.

    Each is measured by itself.

    Args:
        ready: The float model that integers can compute.
        source: The calibration, and images to judge by, if there are any.
        least: The floor of each output.
        ends: Whether programs end in real numbers: one program for each value.
        mixed: Keep in float the layers that the floor needs.
        progress: Told of each stage.
        report: Told how a program compares with the floats before it may be refused.

    Raises:
        UserError: The calibration is another graph's, or nothing says whether the floor is kept.
        TooFewImages: Too few different images say so (E0722).
        BelowFloor: It is not.
    """
    calibration = calibration_file.calibration(source.document, ready, source.name)
    if source.user_images and source.judge is not None:
        different = floor_evidence.filter_different(ready, source.judge)
        source = replace(source, learn=different, judge=different)
    run = _Run(ready, source, least, mixed, progress, report)
    return {real: run.made(replace(calibration, real_ends=real)) for real in sorted(set(ends))}


def with_probes(programs: Int8Programs) -> Int8Programs:
    """Return the programs, each among the files that go with it."""
    return {
        ends: replace(own, files={**own.files, **program_file.files(own.program)})
        for ends, own in programs.items()
    }


@dataclass(frozen=True)
class _Run:
    """What the programs of one build have in common."""

    ready: Model
    source: CalibrationSource
    floor: AccuracyFloor
    mixed: bool
    progress: Progress
    report: Callable[[MeasuredProgram, Measured], None] | None

    def made(self, calibration: Calibration) -> Int8Program:
        """Return the program of a calibration."""
        source, floor = self.source, self.floor
        if source.judge is None or source.learn is None:
            return self._build_unseen(calibration)
        images = floor_evidence.split_images(source.learn, source.judge, mixed=self.mixed)
        self._require(images.different, str(source.judge.items[0].path.parent))
        program = measured_program.measured(self.ready, calibration, images.judge, self.progress)
        # Floats cost time on every device: none where the floor is kept without.
        bounds = self._estimate_bounds(program, images.judge)
        if self.mixed and not floor.holds(program.comparison.quality, bounds):
            program = measured_program.with_float_layers(
                self.ready, program, floor, images.choose, images.judge, self.progress
            )
            bounds = self._estimate_bounds(program, images.judge)
        learned = f", and {images.learned} that the calibration used" if images.learned else ""
        description = f"{source.where}{learned}{CHOSE if program.steps else ''}"
        measured = Measured(description, program.comparison.quality, bounds, images.different)
        if self.report:
            self.report(program, measured)
        measured_program.require_floor(program, floor, bounds, mixed=self.mixed)
        text = json.dumps(_report(program, description, floor), indent=2) + "\n"
        return _packed(
            program.program, source, program.calibration, measured, {REPORT: text.encode()}
        )

    def _estimate_bounds(self, program: MeasuredProgram, images: ComparisonImages) -> FloorBounds:
        source = self.source
        return floor_evidence.estimate_program_bounds(
            source.document, self.ready, program, images, user_images=source.user_images
        )

    def _require(self, different: int, name: str) -> None:
        """Refuse too few images, unless nothing is asked of them."""
        kinds = [output.meaning for output in judged_outputs(self.ready)]
        if self.mixed or self.floor.needs_images(kinds):
            fewest = self.floor.images
            floor_evidence.require_images(different, fewest, name, mixed=self.mixed)

    def _build_unseen(self, calibration: Calibration) -> Int8Program:
        """Return the program of a calibration file without images, by what the file states."""
        source, floor = self.source, self.floor
        if self.mixed:
            help = "give them with --data, or build without --mixed"
            message = "`--mixed` needs images to choose layers by"
            raise fail("E0618", message, whole_file(source.name), help=help)
        losses = floor_evidence.read_stated_losses(source.document, self.ready)
        if losses and calibration.real_ends:
            self._require(min(loss.images for loss in losses.values()), source.name)
        measured = floor_evidence.check_stated(
            source.name, floor, losses if calibration.real_ends else {}
        )
        blind = quantize(self.ready, calibration)
        # A file's word for a program is of one made elsewhere. A network that gives one answer
        # for everything is seen without images, and is the worst that integers do.
        if floor.correlation > 0 and calibration.real_ends:
            floor_evidence.refuse_collapsed(self.ready, blind)
        return _packed(blind, source, calibration, measured, {})


def _packed(
    made: Model,
    source: CalibrationSource,
    calibration: Calibration,
    measured: Measured | None,
    files: Mapping[str, bytes],
) -> Int8Program:
    """Return the program, the manifest's words, and the files of the bundle."""
    found = source.document
    about = Calibrated(
        found.used,
        calibration_document.digest(found),
        found.data.digest,
        found.data.images,
        measured,
        tuple(sorted(calibration.in_float)),
        tuple(name.removesuffix(":float") for name in inexact(made.graph)),
    )
    return Int8Program(
        lambda: made,
        about,
        {CALIBRATION: calibration_document.encode(found), **saturation.files(found), **files},
        source.learn,
    )


def _report(made: MeasuredProgram, where: str, least: AccuracyFloor) -> dict[str, Any]:
    """Return the report as plain data."""
    steps = [asdict(step) for step in made.steps]
    found = made.comparison
    bounds = {name: asdict(least.of(one.kind)) for name, one in found.quality.items()}
    return {"where": where, "floor": bounds, **asdict(found), "steps": steps}
