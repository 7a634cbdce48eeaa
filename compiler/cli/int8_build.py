"""The integer program that `tcc build` makes: its calibration, its floor, its report."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli import quality_table, run_splits
from tcc.compiler.cli.calibrate import known_method
from tcc.compiler.cli.common_options import ChosenSpec, typed
from tcc.compiler.cli.passes import PassOptions
from tcc.compiler.cli.report import Report, Stages, table
from tcc.compiler.cli.weights_and_images import take_images
from tcc.compiler.ir.precision import Precision
from tcc.compiler.reference.accuracy_floor import loss
from tcc.compiler.support.diagnostics import fail

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.build_plan import Int8Programs
    from tcc.compiler.driver.int8_program import CalibrationSource
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.quant.program.measured_program import MeasuredProgram
    from tcc.compiler.zoo.trained import TrainedNetwork

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
        help="Least mean cosine of integer and float outputs; the spec's, or 0.98 for classes.",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0.0,
        max=1.0,
        show_default=False,
        help="Largest share of images whose class or decision may change; the spec's, or any.",
    ),
]
MinCorrelation = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        min=0.0,
        max=1.0,
        show_default=False,
        help="Least correlation of each output with the floats' over images; the spec's, or 0.5.",
    ),
]
MaxError = Annotated[
    float | None,
    typer.Option(
        metavar="E",
        min=0.0,
        show_default=False,
        help="Largest error of each output, relative to the floats' spread; the spec's, or 1 but"
        " for classes.",
    ),
]
Mixed = Annotated[
    bool, typer.Option("--mixed", help="Keep layers in float where the floor needs it.")
]


BOUNDS = ("--min-cosine", "--max-drop", "--min-correlation", "--max-error")
Bounds = tuple[float | None, float | None, float | None, float | None]
"""What is asked for by each of these."""


@dataclass(frozen=True, slots=True)
class Int8Options:
    """What the command line says of integers."""

    calibration: Path | None = None
    data: Path | None = None
    method: str | None = None
    guard: bool = True
    bounds: Bounds = (None, None, None, None)
    mixed: bool = False
    split: str | None = None
    min_images: int = 1
    agree: int = 0
    probes: bool = False
    images: bool = False

    def check(self, precisions: Iterable[Precision]) -> None:
        """Refuse options that only integers understand where nothing has them (E0601)."""
        given = {
            "--calibration": self.calibration,
            "--data": None if self.agree else self.data,
            "--split": self.split,
            "--method": self.method,
            "--no-guard": None if self.guard else True,
            **dict(zip(BOUNDS, self.bounds, strict=True)),
            "--mixed": self.mixed or None,
            "--min-images": self.min_images if self.min_images > 1 else None,
            "--probes": self.probes or None,
            "--include-images": self.images or None,
        }
        idle = [name for name, value in given.items() if value is not None]
        if idle and not any(each.calibrated for each in precisions):
            levels = ", ".join(dict.fromkeys(each.name for each in precisions))
            message = f"{idle[0]} is for integers, and this builds {levels}"
            raise fail("E0601", message, typed(idle[0]), help="say `--precision int8`")


@dataclass(frozen=True)
class Int8Build:
    """What a build works with: what was asked, whom to tell, and how models go through passes.

    `weights` is the file of the weights, if they are of one.
    """

    report: Report
    stages: Stages
    chosen: ChosenSpec
    given: "WeightSource"
    asked: Int8Options
    passing: PassOptions
    weights: Path | None

    def agreeing(self) -> "DataSet | None":
        """Return the images that targets are compared over, if any are asked for.

        Raises:
            UserError: As for `images`.
        """
        from tcc.compiler.data.dataset import check

        if not self.asked.agree:
            return None
        (source,) = self.chosen.spec.graph.inputs
        return check(self.images.first(self.asked.agree), source)

    @cached_property
    def images(self) -> "DataSet":
        """Return the images to calibrate with.

        Raises:
            UserError: As for `take_images`.
        """
        split = run_splits.of_weights(self.asked.split, self.weights)
        return take_images(self.report, self.chosen, self.asked.data, split)


def integers(work: Int8Build, ends: Collection[bool]) -> "Int8Programs":
    """Return the integer programs of a spec with the ends asked for, at or above their floor.

    Raises:
        UserError: There are no images to calibrate with, or they do not fit; the calibration is
            another network's.
        BelowFloor: It loses too much.
    """
    from tcc.compiler.driver import int8_program, pipeline, required_accuracy
    from tcc.compiler.frontend.accuracy_bounds import Accuracy

    asked, spec = work.asked, work.chosen.spec
    work.stages("passes", 0, 1)
    ready = pipeline.ready(spec, work.given, work.passing)

    least = required_accuracy.floor(spec, Accuracy(*asked.bounds))

    def tell(made: "MeasuredProgram", where: str) -> None:
        _tell(work.report, made, where)
        if quality_table.idle(made.comparison.quality, least.cosine):
            text = "a least cosine says nothing of an output of one value: bound its correlation"
            work.report.notice(text)

    result = int8_program.integers(
        ready,
        _source(work),
        least,
        ends,
        mixed=asked.mixed,
        progress=work.stages,
        tell=tell,
    )
    if any(own.calibrated.measured is None for own in result.values()):
        work.report.notice("nothing is known of how near these integers are to the floats")
    return int8_program.with_probes(result) if asked.probes else result


def _source(work: Int8Build) -> "CalibrationSource":
    """Return the calibration of a file, or a fresh one, and the images at hand to judge it."""
    from tcc.compiler import passes
    from tcc.compiler.driver import int8_program, pipeline
    from tcc.compiler.quant.methods.method import RunOptions

    asked, chosen = work.asked, work.chosen
    if asked.calibration is not None:
        known = asked.data is not None or chosen.project.data is not None
        images = work.images if known else None
        return int8_program.from_file(asked.calibration, chosen.spec, work.given, images)
    if network := _shipped(work):
        work.report.detail(f"calibration: {network.calibration}")
        work.report.notice(
            f"the integers of `{network.name}` are of its own calibration, and compared here over"
            " drawings; its card says what they do on patients' images"
        )
        return int8_program.from_trained(network, chosen.spec, work.given)
    images = work.images
    method, run = known_method(asked.method, guard=asked.guard), work.passing.chosen(passes.INT8)
    wanted = pipeline.CalibrationRequest(
        int8_program.ANY,
        method,
        RunOptions(progress=work.stages, least=asked.min_images),
        work.passing,
        run,
    )
    source = int8_program.from_images(chosen.spec, work.given, images, wanted)
    for notice in source.document.notices:
        work.report.notice(notice)
    for line in quality_table.expected(source.document.expected):
        work.report.note(line)
    return source


def _shipped(work: Int8Build) -> "TrainedNetwork | None":
    """Return the trained network whose own calibration holds: nothing else is asked for."""
    asked, chosen = work.asked, work.chosen
    # Its scales fit these weights and settings alone; who gives images wants scales of their own.
    as_shipped = work.given.origin.origin == "zoo" and not chosen.changed
    other = asked.data or asked.method or asked.mixed or not asked.guard
    other = other or work.passing.text is not None
    return chosen.trained if as_shipped and not other else None


def _tell(report: Report, made: "MeasuredProgram", where: str) -> None:
    """Say on standard error how integers compare with floats, and which layers lose the most."""
    comparison, found = made.comparison, made.comparison.quality
    report.note(f"integers against floats over {quality_table.over(found, where)}")
    for step in made.steps:
        report.note(
            f"in float: {step.name} and what reads it: loss {loss(step.quality):.1e},"
            f" {step.macs:.1%} of the products"
        )
    for line in quality_table.unknown(found):
        report.notice(line)
    if not report.verbose:
        for line in quality_table.lines(found):
            report.note(f"  {line}")
        for line in quality_table.margins(quality_table.changed(found)):
            report.note(f"  {line}")
        return
    outputs = [(name, one.kind, *quality_table.cells(one)) for name, one in found.items()]
    report.note("\n".join(table(("output", "kind", *quality_table.COLUMNS), outputs)))
    for line in quality_table.margins(found):
        report.note(line)
    rows = [
        (layer.name, layer.op, f"{layer.cosine:.6f}", f"{layer.snr:.1f}", f"{layer.error:.1f}",
         f"{layer.saturated:.3%}")
        for layer in comparison.layers
    ]  # fmt: skip
    columns = ("layer", "op", "cosine", "SNR dB", "steps off", "saturated")
    report.note("\n".join(table(columns, rows)))
