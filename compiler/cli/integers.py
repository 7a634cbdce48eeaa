"""The integer program that `tcc build` makes: its calibration, its floor, its report."""

import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.calibrate import known_method
from tcc.compiler.cli.given import take_images
from tcc.compiler.cli.options import Chosen, typed
from tcc.compiler.cli.passes import Passing
from tcc.compiler.cli.report import Report, Stages, size, table
from tcc.compiler.floor import COSINE, Floor
from tcc.compiler.source import fail

if TYPE_CHECKING:
    from tcc.compiler.graph import Model
    from tcc.compiler.manifest import Measured
    from tcc.compiler.pipeline import Given, Integers
    from tcc.compiler.quant.calibration import Calibration
    from tcc.compiler.quant.data import DataSet
    from tcc.compiler.quant.document import Document
    from tcc.compiler.quant.program import Made

CALIBRATION = "calibration.json"
"""The calibration's place in a bundle."""
REPORT = "report/int8.json"
"""The place of what each layer and the outputs lose."""
INTEGER = ("int8", "int8-u8u8", "int8-qdq")
"""The precisions at which a target is given the integer program."""
ANY = "any"
"""The target of a calibration that is made while building, for all targets at once."""

CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="Integers as a file says that `tcc calibrate` wrote; without it, calibrate here.",
    ),
]
MinCosine = Annotated[
    float | None,
    typer.Option(
        metavar="C",
        min=0.0,
        max=1.0,
        show_default=False,
        help="Least mean cosine of integer and float outputs; the spec's, or 0.98.",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0.0,
        max=1.0,
        show_default=False,
        help="Largest share of images whose class may change; the spec's, or any.",
    ),
]
Mixed = Annotated[
    bool, typer.Option("--mixed", help="Keep layers in float where the floor needs it.")
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of integers."""

    calibration: Path | None = None
    data: Path | None = None
    method: str | None = None
    min_cosine: float | None = None
    max_drop: float | None = None
    mixed: bool = False

    def floor(self, chosen: Chosen) -> Floor:
        """Return the floor: asked for, or else the spec's, or else the default."""
        own = chosen.spec.accuracy
        cosine = next(c for c in (self.min_cosine, own.min_cosine, COSINE) if c is not None)
        return Floor(cosine, own.max_drop if self.max_drop is None else self.max_drop)

    def check(self, precision: str) -> None:
        """Refuse options that only integers understand at another precision (E0601)."""
        given = {
            "--calibration": self.calibration,
            "--data": self.data,
            "--method": self.method,
            "--min-cosine": self.min_cosine,
            "--max-drop": self.max_drop,
            "--mixed": self.mixed or None,
        }
        idle = [name for name, value in given.items() if value is not None]
        if idle and precision not in INTEGER:
            message = f"{idle[0]} is for integers, and this builds {precision}"
            raise fail("E0601", message, typed(idle[0]), help="say `--precision int8`")


@dataclass(frozen=True, slots=True)
class Work:
    """What a build works with: what was asked, whom to tell, and how models go through passes."""

    report: Report
    stages: Stages
    chosen: Chosen
    given: "Given"
    asked: Asked
    passing: Passing


@dataclass(frozen=True, slots=True)
class Source:
    """The document of a calibration, its file's name, and images to judge by, if there are any.

    `learn` are those that a search for layers may look at; `where` says which `judge` are.
    """

    document: "Document"
    name: str
    learn: "DataSet | None" = None
    judge: "DataSet | None" = None
    where: str = ""


def integers(work: Work) -> "Integers":
    """Return the integer program of a spec, at or above its floor.

    Raises:
        UserError: There are no images to calibrate with, or they do not fit; the calibration is
            another network's.
        BelowFloor: It loses too much.
    """
    from tcc.compiler import pipeline
    from tcc.compiler.manifest import Measured
    from tcc.compiler.quant import program, stored

    work.stages("passes", 0, 1)
    ready = pipeline.ready(work.chosen.spec, work.given, work.passing)
    source = _read(work) if work.asked.calibration else _calibrated(work)
    calibration = stored.calibration(source.document, ready, source.name)
    floor = work.asked.floor(work.chosen)
    if source.judge is None or source.learn is None:
        return _unmeasured(work, ready, source, calibration, floor)
    made = program.make(ready, calibration, source.judge, work.stages)
    if work.asked.mixed:
        made = program.above(ready, made, floor, source.learn, source.judge, work.stages)
    _tell(work.report, made, source.where)
    program.check(made, floor)
    measured = Measured(source.where, *astuple(made.comparison.quality))
    text = json.dumps(_document(made, source.where, floor), indent=2) + "\n"
    return _packed(made.program, source, made.calibration, measured, {REPORT: text.encode()})


def _read(work: Work) -> Source:
    """Return the calibration of a file, and the images that are at hand to judge it."""
    from tcc.compiler import pipeline
    from tcc.compiler.quant import document, stored

    path, chosen = work.asked.calibration, work.chosen
    assert path is not None
    found = document.read(path)
    stored.check(found, pipeline.network(chosen.spec), work.given.origin, str(path))
    if work.asked.data is None and chosen.project.data is None:
        return Source(found, str(path))
    images = take_images(work.report, chosen, work.asked.data)
    if images.digest != found.data.digest:
        return Source(found, str(path), images, images, "not those of the calibration")
    return Source(found, str(path), *images.split(), _where(found))


def _calibrated(work: Work) -> Source:
    """Return a fresh calibration with the images asked for, or else the project's."""
    from tcc.compiler import passes, pipeline
    from tcc.compiler.quant.calibrate import How

    images = take_images(work.report, work.chosen, work.asked.data)
    method, run = known_method(work.asked.method), work.passing.chosen(passes.INT8)
    wanted = pipeline.Calibrating(ANY, method, How(watch=work.stages), work.passing, run)
    found = pipeline.calibrate(work.chosen.spec, work.given, images, wanted)
    for notice in found.notices:
        work.report.notice(notice)
    return Source(found, CALIBRATION, *images.split(), _where(found))


def _where(found: "Document") -> str:
    """Say which images judge a calibration that was made with the same set."""
    return "held out of the calibration" if found.data.held_out else "of the calibration itself"


def _unmeasured(
    work: Work, ready: "Model", source: Source, calibration: "Calibration", floor: Floor
) -> "Integers":
    """Return the program of a calibration file without images: its file says how good it is."""
    from tcc.compiler.floor import BelowFloor
    from tcc.compiler.manifest import Measured
    from tcc.compiler.quant.quantize import quantize

    quality = source.document.judged.get(source.document.used)
    measured = None
    if quality is not None:
        if broken := floor.broken(quality):
            raise BelowFloor(broken, quality, ())
        measured = Measured("as the calibration says", *astuple(quality))
    elif floor.cosine > 0 or floor.drop not in (None, 1):
        help = "give images with --data, or --min-cosine 0 --max-drop 1 to build without"
        raise fail("E0618", "the accuracy floor needs images", typed("--data"), help=help)
    else:
        work.report.notice("nothing is known of how near these integers are to the floats")
    return _packed(quantize(ready, calibration), source, calibration, measured, {})


def _packed(
    program: "Model",
    source: Source,
    calibration: "Calibration",
    measured: "Measured | None",
    files: "Mapping[str, bytes]",
) -> "Integers":
    """Return what a build takes: the program, the manifest's words, and the files of the bundle."""
    from tcc.compiler.manifest import Calibrated
    from tcc.compiler.pipeline import Integers
    from tcc.compiler.quant import document
    from tcc.compiler.quant.integer import inexact

    found = source.document
    about = Calibrated(
        found.used,
        document.digest(found),
        found.data.digest,
        found.data.images,
        measured,
        tuple(sorted(calibration.in_float)),
        tuple(name.removesuffix(":float") for name in inexact(program.graph)),
    )
    return Integers(program, about, {CALIBRATION: document.encode(found), **files})


def _tell(report: Report, made: "Made", where: str) -> None:
    """Say on standard error how integers compare with floats, and which layers lose the most."""
    comparison, quality = made.comparison, made.comparison.quality
    report.note(
        f"integers against floats over {quality.images} images {where}: mean cosine"
        f" {quality.cosine:.6f}, least {quality.least_cosine:.6f}, same class"
        f" {quality.agreement:.1%}, probabilities within {quality.difference:.4f}"
    )
    share = comparison.integer_bytes / comparison.float_bytes
    report.note(f"weights: {size(comparison.integer_bytes)}, {share:.0%} of the floats'")
    for step in made.steps:
        report.note(
            f"in float: {step.name} and what reads it: mean cosine {step.quality.cosine:.6f},"
            f" {step.macs:.1%} of the products"
        )
    layers = comparison.layers if report.verbose else comparison.worst()
    rows = [
        (layer.name, layer.op, f"{layer.cosine:.6f}", f"{layer.snr:.1f}", f"{layer.error:.1f}",
         f"{layer.saturated:.3%}")
        for layer in layers
    ]  # fmt: skip
    columns = ("layer", "op", "cosine", "SNR dB", "steps off", "saturated")
    report.note("\n".join(table(columns, rows)))


def _document(made: "Made", where: str, floor: Floor) -> dict[str, Any]:
    """Return the report as plain data."""
    found = asdict(made.comparison)
    steps = [asdict(step) for step in made.steps]
    return {"where": where, "floor": asdict(floor), **found, "steps": steps}
