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
from tcc.compiler.driver import pipeline, saturation
from tcc.compiler.driver.build_plan import CALIBRATION, Int8Program, Int8Programs
from tcc.compiler.driver.pipeline import CalibrationRequest, WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.graph import Model
from tcc.compiler.passes.validate import sample
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.program import measured_program
from tcc.compiler.quant.program.float_comparison import FloatComparison
from tcc.compiler.quant.program.measured_program import MeasuredProgram
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import float_program, output_comparison, output_quality
from tcc.compiler.reference.accuracy_floor import AccuracyFloor, BelowFloor
from tcc.compiler.reference.integer_program import inexact
from tcc.compiler.reference.output_comparison import comparison_images
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress, silent
from tcc.compiler.zoo.trained import TrainedNetwork

REPORT = "report/int8.json"
"""The place of what each layer and the outputs lose."""
CHOSE = ", which said how many layers stay in float"
"""What is added to the images that judge where they have been looked at before: the figures of a
program made to pass on them are rather too good."""
DRAWN = "that a program drew"
"""The images that judge a trained network of the zoo, whose own are not here."""
TRIED = 4
"""Inputs that a program is tried on where there are no images."""
ANY = "any"
"""The target of a calibration that is made while building, for all targets at once."""


@dataclass(frozen=True, slots=True)
class CalibrationSource:
    """The document of a calibration, its file's name, and images to judge by, if there are any.

    `learn` are those that a search for layers may look at; `where` says which `judge` are.
    """

    document: CalibrationDocument
    name: str = CALIBRATION
    learn: DataSet | None = None
    judge: DataSet | None = None
    where: str = ""


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
        return CalibrationSource(found, str(path), images, images, "not those of the calibration")
    return replace(judged(found, images), name=str(path))


def from_trained(network: TrainedNetwork, spec: Spec, given: WeightSource) -> CalibrationSource:
    """Return the calibration that comes with a trained network, its drawings to judge by.

    Raises:
        UserError: It is that of another spec.
    """
    found = from_file(network.calibration, spec, given, dataset.read(network.samples))
    return replace(found, where=DRAWN)


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
    where = "held out of the calibration" if found.data.held_out else "of the calibration itself"
    return CalibrationSource(found, CALIBRATION, *found.data.parts(images), where)


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
    tell: Callable[[MeasuredProgram, str], None] | None = None,
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
        tell: Hears how a program compares with the floats before it may be refused.

    Raises:
        UserError: The calibration is another graph's, or nothing says whether the floor is kept.
        BelowFloor: It is not.
    """
    calibration = calibration_file.calibration(source.document, ready, source.name)
    run = _Run(ready, source, least, mixed, progress, tell)
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
    least: AccuracyFloor
    mixed: bool
    progress: Progress
    tell: Callable[[MeasuredProgram, str], None] | None

    def made(self, calibration: Calibration) -> Int8Program:
        """Return the program of a calibration."""
        source, least, progress = self.source, self.least, self.progress
        if source.judge is None or source.learn is None:
            measured = _said(source, least, calibration)
            blind = quantize(self.ready, calibration)
            # A file's word for a program is of one made elsewhere. A network that gives one answer
            # for everything is seen without images, and is the worst that integers do.
            if least.correlation > 0 and calibration.real_ends:
                _tried(self.ready, blind)
            return _packed(blind, source, calibration, measured, {})
        images = comparison_images(source.judge, source.learn)
        made = measured_program.measured(self.ready, calibration, images, progress)
        if self.mixed:
            made = measured_program.with_float_layers(
                self.ready, made, least, source.learn, images, progress
            )
        where = f"{source.where}{CHOSE}" if made.steps else source.where
        if self.tell:
            self.tell(made, where)
        measured_program.require_floor(made, least)
        measured = Measured(where, made.comparison.quality)
        text = json.dumps(_report(made, where, least), indent=2) + "\n"
        return _packed(made.program, source, made.calibration, measured, {REPORT: text.encode()})


def _said(
    source: CalibrationSource, least: AccuracyFloor, calibration: Calibration
) -> Measured | None:
    """Return how good a calibration file says that it is, where there are no images.

    What it says is of real ends: it knows nothing of a program that ends in integers.
    """
    quality = source.document.judged.get(source.document.used)
    if quality is not None and calibration.real_ends:
        if broken := least.broken(quality):
            raise BelowFloor(broken, quality, ())
        return Measured("as the calibration says", quality)
    # A floor that nobody can look at is not kept in silence: it must be given up in so many words.
    if least.cosine != 0 or least.drop not in (None, 1):
        help = "give images with --data, or --min-cosine 0 --max-drop 1 to build without"
        raise fail("E0618", "the accuracy floor needs images", whole_file(source.name), help=help)
    return None


def _tried(ready: Model, made: Model) -> None:
    """Refuse a program that gives one answer for pixels dark and bright, whatever was said of it.

    Raises:
        BelowFloor: Floats tell these well apart.
    """
    (source,) = ready.graph.inputs
    # From dark to bright, since a collapsed network keeps a constant answer over noise as well.
    tensors = [sample(source, seed, (seed + 1) / TRIED) for seed in range(TRIED)]
    expected, found = (
        output_comparison.stacked_outputs(ready, float_program.run(one, tensors))
        for one in (ready, made)
    )
    same = [name for name in expected if output_quality.frozen(expected[name], found[name])]
    if same:
        said = (f"`{name}` is the same for {TRIED} inputs that floats tell apart" for name in same)
        raise BelowFloor(tuple(said), output_comparison.qualities(ready, expected, found), ())


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
