"""The integer programs of `tcc build`, made or out of the cache, and what is said of them."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.driver import quality_table, run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec
from tcc.compiler.driver.pass_options import PassOptions
from tcc.compiler.driver.weights_and_images import take_images
from tcc.compiler.reference.accuracy_floor import loss
from tcc.compiler.support import option_needs, regular_files
from tcc.compiler.support.console import Report, Stages, table
from tcc.compiler.support.option_needs import (
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
    from tcc.compiler.driver.build_plan import Int8Program
    from tcc.compiler.driver.int8_program import CalibrationSource
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.driver.stored_stages import Said, StoredStages
    from tcc.compiler.frontend.accuracy_bounds import Accuracy
    from tcc.compiler.ir.device import Plan
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.quant.program.measured_program import MeasuredProgram
    from tcc.compiler.zoo.trained import TrainedNetwork


@dataclass(frozen=True, slots=True)
class Int8Options:
    """What the command line says of integers."""

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


@dataclass(frozen=True)
class Int8Build:
    """What a build works with: what was asked, whom to tell, and how models go through passes.

    `weights` is the file of the weights, if they are of one; `stored` are the stages' results that
    are known already.
    """

    report: Report
    stages: Stages
    chosen: ChosenSpec
    given: "WeightSource"
    asked: Int8Options
    passing: PassOptions
    weights: Path | None
    stored: "StoredStages"

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


@dataclass(frozen=True, slots=True)
class BuiltIntegers:
    """The integer programs of a build by their ends, their keys, and what of each was `stored`."""

    programs: "Mapping[bool, Int8Program]"
    keys: Mapping[bool, str]
    stored: Mapping[bool, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class _Making:
    """How programs come about that are not in the cache, and what is said of them."""

    work: Int8Build
    heard: set["Said"] = field(default_factory=set)
    common: list["Said"] = field(default_factory=list)
    """What was said of the calibration, which all ends have in common."""
    stored: list[str] = field(default_factory=list)
    """The stage before it that came out of the cache, if it did."""

    def say(self, said: "Iterable[Said]") -> None:
        """Say each remark once."""
        for kind, text in said:
            if (kind, text) not in self.heard:
                self.work.report.remark(kind, text)
            self.heard.add((kind, text))

    @cached_property
    def ready(self) -> "Model":
        """The float model that integers can compute."""
        from tcc.compiler.driver import pipeline

        self.work.stages("passes", 0, 1)
        return pipeline.ready(self.work.chosen.spec, self.work.given, self.work.passing)

    @cached_property
    def source(self) -> "CalibrationSource":
        """The calibration, and images to judge by."""
        work = self.work
        fresh = work.asked.calibration is None and not find_shipped(work)
        found, said = self._calibrated() if fresh else _source(work)
        self.common.extend(said)
        self.say(said)
        return found

    def _calibrated(self) -> "tuple[CalibrationSource, Sequence[Said]]":
        """Return the calibration by images, out of the cache or fresh; and remarks."""
        from tcc.compiler.driver import int8_program, stored_stages

        work, images = self.work, self.work.images
        key = work.stored.key("calibration", **_calibrated_by(work, images))
        if kept := work.stored.calibration(key):
            self.stored.append("calibration")
            return int8_program.judged(kept[0], images), kept[1]
        source, said = _fresh_source(work)
        if stored_stages.unchanged(images):
            work.stored.keep_calibration(key, source.document, said)
        return source, said

    def made(self, *, real: bool) -> "tuple[Int8Program, list[Said]]":
        """Return the program of an end, at or above the floor, and what is said of it."""
        from tcc.compiler.driver import floor_evidence, int8_program

        asked = self.work.asked
        floor = floor_evidence.floor(self.work.chosen.spec, asked.floors, allow_few=asked.allow_few)
        own: list[Said] = []

        def report_program(program: "MeasuredProgram", measured: "Measured") -> None:
            own.extend(_describe_comparison(program, measured, floor.cosine))
            self.say(own)

        ready = self.ready  # before the calibration, whose stages come after the passes
        found = int8_program.integers(
            ready, self.source, floor, {real},
            mixed=asked.mixed, progress=self.work.stages, report=report_program,
        )  # fmt: skip
        if found[real].calibrated.measured is None:
            text = "nothing is known of how near these integers are to the floats"
            own.append(("warning", text))
            self.say(own)
        made = int8_program.with_probes(found) if asked.probes else found
        return made[real], [*self.common, *own]

    def again(self, about: "Calibrated", calibration: bytes, *, real: bool) -> "Model":
        """Return the program of a calibration that was kept."""
        from tcc.compiler.driver import rebuilt_program
        from tcc.compiler.driver.build_plan import CALIBRATION
        from tcc.compiler.quant import calibration_document

        document = calibration_document.decode(calibration, CALIBRATION)
        layers = frozenset(about.in_float)
        return rebuilt_program.again(self.ready, document, CALIBRATION, layers, real_ends=real)


def integers(work: Int8Build, plans: "Sequence[Plan]") -> BuiltIntegers:
    """Return the integer programs that targets are built of, at or above their floor.

    Raises:
        UserError: There are no images to calibrate with, or they do not fit; the calibration is
            another network's.
        BelowFloor: It loses too much.
    """
    from tcc.compiler.driver import stored_stages

    ends = {plan.precision.real_ends for plan in plans if plan.precision.calibrated}
    if not ends:
        return BuiltIntegers({}, {}, {})
    making, images = _Making(work), _images(work)
    given = _given(work, images)
    programs, keys = {}, {}
    stored: dict[bool, tuple[str, ...]] = {}
    for real in sorted(ends):
        key = keys[real] = work.stored.key("integers", real=real, **given)
        kept = work.stored.integers(key, images, partial(making.again, real=real))
        if kept:
            programs[real], said = kept
            stored[real] = ("integers",)
            making.say(said)
            continue
        programs[real], told = making.made(real=real)
        stored[real] = tuple(making.stored)
        # What changed while it was read is not what the key says.
        same = images is None or stored_stages.unchanged(images)
        if same and given == _given(work, images):
            work.stored.keep_integers(key, programs[real], told)
    return BuiltIntegers(programs, keys, stored)


def _given(work: Int8Build, images: "DataSet | None") -> dict[str, Any]:
    """Return all that shapes integers beside network and weights, as plain data."""
    asked, network = work.asked, find_shipped(work)
    return {
        **_calibrated_by(work, images),
        "calibration": asked.calibration and _file_digest(asked.calibration),
        "shipped": network and network.name,
        "bounds": astuple(asked.floors),
        "mixed": asked.mixed,
        "few": asked.allow_few,
        "probes": asked.probes,
    }


def _calibrated_by(work: Int8Build, images: "DataSet | None") -> dict[str, Any]:
    """Return all that shapes a fresh calibration, as plain data."""
    asked = work.asked
    return {
        "images": images and [(item.digest, item.label) for item in images.items],
        "method": asked.method,
        "guard": asked.guard,
        "least": asked.min_images,
    }


def _file_digest(path: Path) -> str:
    try:
        with regular_files.opened(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""  # whoever reads it next says why


def _images(work: Int8Build) -> "DataSet | None":
    """Return the images to calibrate with or to judge by, if there are to be any."""
    from tcc.compiler.data import dataset

    if work.asked.calibration is not None:
        known = work.asked.data is not None or work.chosen.project.data is not None
        return work.images if known else None
    network = find_shipped(work)
    return dataset.read(network.samples) if network else work.images


def _source(work: Int8Build) -> "tuple[CalibrationSource, list[Said]]":
    """Return the calibration of a file or a network, with images to judge it; and remarks."""
    from tcc.compiler.driver import int8_program

    asked, chosen = work.asked, work.chosen
    if asked.calibration is not None:
        images = _images(work)
        return int8_program.from_file(asked.calibration, chosen.spec, work.given, images), []
    network = find_shipped(work)
    assert network
    work.report.detail(f"calibration: {network.calibration}")
    text = (
        f"the integers of `{network.name}` are of its own calibration, and compared here over"
        " drawings; its card says what they do on patients' images"
    )
    found = int8_program.from_trained(network, chosen.spec, work.given)
    return found, [("warning", text)]


def _fresh_source(work: Int8Build) -> "tuple[CalibrationSource, list[Said]]":
    """Return a fresh calibration; and remarks."""
    from tcc.compiler import passes
    from tcc.compiler.driver import int8_program, pipeline
    from tcc.compiler.driver.calibration import known_method
    from tcc.compiler.quant.run_options import RunOptions

    asked = work.asked
    method, run = known_method(asked.method, guard=asked.guard), work.passing.chosen(passes.INT8)
    wanted = pipeline.CalibrationRequest(
        int8_program.ANY,
        method,
        RunOptions(progress=work.stages, least=asked.min_images),
        work.passing,
        run,
    )
    source = int8_program.from_images(work.chosen.spec, work.given, work.images, wanted)
    warnings = [("warning", notice) for notice in source.document.notices]
    expected = quality_table.expected(source.document.expected)
    return source, [*warnings, *(("note", line) for line in expected)]


def find_shipped(work: Int8Build) -> "TrainedNetwork | None":
    """Return the trained network whose own calibration holds: nothing else is asked for."""
    asked, chosen = work.asked, work.chosen
    # Its scales fit these weights and settings alone; who gives images wants scales of their own.
    as_shipped = work.given.origin.origin == "zoo" and not chosen.changed
    other = asked.data or asked.method or asked.mixed or not asked.guard
    other = other or work.passing.text is not None
    return chosen.trained if as_shipped and not other else None


def _describe_comparison(
    program: "MeasuredProgram", measured: "Measured", least_cosine: float | None
) -> "Iterator[Said]":
    """Yield what there is to say of how integers compare with floats, and where they lose most."""
    comparison, quality = program.comparison, program.comparison.quality
    yield "note", f"integers against floats over {quality_table.over(quality, measured.where)}"
    for step in program.steps:
        yield (
            "note",
            f"in float: {step.name} and what reads it: loss {loss(step.quality):.1e},"
            f" {step.macs:.1%} of the products",
        )
    for line in quality_table.unknown(quality):
        yield "warning", line
    for line in quality_table.lines(quality):
        yield "short", f"  {line}"
    for line in quality_table.format_bounds(measured.bounds):
        yield "short", f"  {line}"
    for line in quality_table.margins(quality_table.changed(quality)):
        yield "short", f"  {line}"
    outputs = [
        (name, output.kind, *quality_table.cells(output)) for name, output in quality.items()
    ]
    yield "full", "\n".join(table(("output", "kind", *quality_table.COLUMNS), outputs))
    for line in quality_table.margins(quality):
        yield "full", line
    rows = [
        (layer.name, layer.op, f"{layer.cosine:.6f}", f"{layer.snr:.1f}", f"{layer.error:.1f}",
         f"{layer.saturated:.3%}")
        for layer in comparison.layers
    ]  # fmt: skip
    columns = ("layer", "op", "cosine", "SNR dB", "steps off", "saturated")
    yield "full", "\n".join(table(columns, rows))
    if quality_table.idle(quality, least_cosine):
        text = "a least cosine says nothing of an output of one value: bound its correlation"
        yield "warning", text


def require_targets(plans: "Sequence[Plan]") -> None:
    """Refuse typed options that none of the targets has a use for (E0601)."""
    devices = [plan.device for plan in plans]
    option_needs.require(
        {
            INT8_TARGET: any(plan.precision.calibrated for plan in plans),
            PACKAGE_TARGET: any(device.packager for device in devices),
            RUNNABLE_TARGET: any(device.target.runs for device in devices),
        }
    )


def require_images(work: Int8Build, plans: "Sequence[Plan]") -> None:
    """Refuse typed options that need images where this build reads none (E0601)."""
    integers = any(plan.precision.calibrated for plan in plans)
    calibrates = work.asked.calibration is None
    shipped = calibrates and find_shipped(work) is not None
    has_images = work.asked.data is not None or work.chosen.project.data is not None
    reads = integers and (not shipped if calibrates else has_images)
    option_needs.require(
        {
            FRESH_CALIBRATION: calibrates and not shipped,
            JUDGED_BUILD: calibrates or has_images,
            READ_IMAGES: bool(work.asked.agree) or reads,
        }
    )
