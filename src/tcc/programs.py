"""The targets and the integer programs that a function's arguments ask for, and their bundles."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.build_plan import Int8Programs
    from tcc.compiler.driver.int8_program import CalibrationSource
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.driver.target_agreement import BuildAgreement
    from tcc.compiler.frontend.accuracy_bounds import Accuracy
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.ir.device import Plan
    from tcc.compiler.quant.calibration_document import CalibrationDocument
    from tcc.compiler.support.option_needs import Fact


@dataclass(frozen=True)
class WantedIntegers:
    """What the arguments say of integers; `by` is the function that they are of."""

    by: str
    calibration: str | PathLike[str] | None
    data: str | PathLike[str] | None
    method: str
    floors: Mapping[str, float] | None = None
    mixed: bool = False
    allow_few: bool = False

    @cached_property
    def images(self) -> "DataSet | None":
        """The images of `data`, read once.

        Raises:
            UserError: There are none, or they are damaged.
        """
        from tcc.compiler.data.dataset import read

        return None if self.data is None else read(Path(self.data))

    @cached_property
    def accuracy(self) -> "Accuracy":
        """The bounds of `floors`.

        Raises:
            UserError: One has no such name, or is no number that it may be (E0790).
        """
        from tcc.compiler.frontend.accuracy_bounds import check_floors
        from tcc.compiler.support.diagnostics import whole_file

        at = whole_file(self.by)
        return check_floors((name, value, at) for name, value in (self.floors or {}).items())


def plans(targets: Sequence[str], precision: str | None, by: str) -> "tuple[Plan, ...]":
    """Return targets, each once, and what each is built at.

    Raises:
        UserError: There are none, or some are not known, or not built at this precision.
    """
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.support.diagnostics import fail, whole_file
    from tcc.compiler.targets import devices

    here = whole_file(by)
    if not targets:
        raise fail("E0605", "which target?", here, help="`tcc targets` lists them")
    level = (precision or FP32.name, here)
    return devices.find_all([(each, here) for each in targets], level, asked=precision is not None)


def find_facts(
    spec: "Spec", weights: "WeightSource", targets: "Sequence[Plan]", called: Mapping[str, object]
) -> "Mapping[Fact, bool]":
    """Return the facts that arguments about integers need.

    Args:
        spec: The network.
        weights: Its weights.
        targets: What is built, and at which precision.
        called: The arguments by name.
    """
    from tcc.compiler.support.option_needs import FRESH_CALIBRATION, INT8_TARGET, JUDGED_BUILD
    from tcc.compiler.zoo import trained

    has_images, has_file = (called[name] is not None for name in ("data", "calibration"))
    shipped = weights.origin.origin == "zoo" and trained.of(spec) is not None
    return {
        INT8_TARGET: any(target.precision.calibrated for target in targets),
        FRESH_CALIBRATION: has_images or not shipped,
        JUDGED_BUILD: has_images or not has_file,
    }


def source(
    spec: "Spec", given: "WeightSource", targets: "Sequence[Plan]", wanted: WantedIntegers
) -> "CalibrationSource | None":
    """Return the calibration that all targets share; None where they are built of floats alone.

    Raises:
        UserError: There is nothing to calibrate with, or it does not fit.
    """
    from tcc.compiler.driver import int8_program, pipeline
    from tcc.compiler.quant.calibrate import known
    from tcc.compiler.quant.run_options import RunOptions
    from tcc.compiler.support.diagnostics import fail, whole_file
    from tcc.compiler.zoo import trained

    if not any(each.precision.calibrated for each in targets):
        return None
    here, _ = whole_file(wanted.by), wanted.accuracy  # wrong floors are refused before any work
    images = wanted.images
    if wanted.calibration is not None:
        return int8_program.from_file(Path(wanted.calibration), spec, given, images)
    network = trained.of(spec)
    if images is None and network and given.origin.origin == "zoo":
        return int8_program.from_trained(network, spec, given)
    if images is None:
        help = "give `data`, or a file that `tcc.calibrate` wrote as `calibration`"
        raise fail("E0616", "calibrate with which images?", here, help=help)
    method = known(wanted.method, here)
    request = pipeline.CalibrationRequest(int8_program.ANY, method, RunOptions())
    return int8_program.from_images(spec, given, images, request)


def integers(
    spec: "Spec",
    given: "WeightSource",
    targets: "Sequence[Plan]",
    wanted: WantedIntegers,
    found: "CalibrationSource | None",
) -> "Int8Programs | None":
    """Return the integer programs of targets that share a calibration; None without one.

    Raises:
        UserError: It does not fit.
        BelowFloor: They lose more than their bounds allow.
    """
    from tcc.compiler.driver import floor_evidence, int8_program, pipeline

    if found is None:
        return None
    ready = pipeline.ready(spec, given)
    least = floor_evidence.floor(spec, wanted.accuracy, allow_few=wanted.allow_few)
    ends = {each.precision.real_ends for each in targets if each.precision.calibrated}
    return int8_program.integers(ready, found, least, ends, mixed=wanted.mixed)


def doubts(
    spec: "Spec", data: str | PathLike[str], images: "DataSet", made: "CalibrationDocument | None"
) -> Iterator[str]:
    """Yield what commands warn of: images, and the weights and the words of a fresh calibration."""
    from tcc.compiler.driver.weights_and_images import drawn
    from tcc.compiler.zoo import trained

    if made and made.weights.notice:
        yield made.weights.notice
    yield from map(str, images.warnings)
    if doubt := drawn(images, Path(data), trained.of(spec)):
        yield doubt
    yield from made.notices if made else ()


def describe_few_images(int8_programs: "Int8Programs | None") -> Iterator[str]:
    """Yield what a build warns of where few images judged its integers."""
    from tcc.compiler.driver import build_warnings

    for program in (int8_programs or {}).values():
        for warning in build_warnings.warn_few_images(program.calibrated.measured):
            yield f"{warning.code}: {warning.message}: {warning.found}"


def written(
    spec: "Spec",
    given: "WeightSource",
    targets: "Sequence[Plan]",
    whole: "Int8Programs | None",
    out: Path,
) -> "BuildAgreement":
    """Write the bundle of each target, and return how they agree.

    Raises:
        UserError: A target refuses the network.
        Disagreement: An artifact gives something else than the reference; it is not written.
    """
    from tcc.compiler.bundle import bundle_folder
    from tcc.compiler.driver import pipeline, stored_stages, target_agreement
    from tcc.compiler.driver.build import BundleWriter
    from tcc.compiler.driver.build_comparison import BuildComparison
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.support.console import Stages
    from tcc.compiler.support.progress import silent
    from tcc.compiler.support.stage_cache import StageCache
    from tcc.compiler.targets import devices

    model = Model(spec.graph, given.tensors)
    several = BuildComparison(model, whole) if len(targets) > 1 else None
    stored = stored_stages.of_build(StageCache(None), spec, given, None)
    writer = BundleWriter(Stages(), True, stored, model, whole, several)
    found = []
    for plan, contents in zip(
        targets, pipeline.build(spec, given, targets, silent, whole), strict=True
    ):
        compared = writer.write(contents, plan, out).compared
        assert compared
        again = bundle_folder.read(compared.bundle.folder, devices.precision, None)
        found.append(compared.at(again))
    return target_agreement.agreement(found)
