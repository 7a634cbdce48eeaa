"""Find the targets and int8 programs that a function's arguments ask for, and write bundles."""

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
    from tcc.compiler.support.option_requirements import Fact


@dataclass(frozen=True)
class Int8Request:
    """The int8 arguments of one call; `caller` is the function that was called."""

    caller: str
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
            UserError: There are no images, or they are damaged.
        """
        from tcc.compiler.data.dataset import read_dataset

        return None if self.data is None else read_dataset(Path(self.data))

    @cached_property
    def accuracy(self) -> "Accuracy":
        """The bounds of `floors`.

        Raises:
            UserError: A bound has an unknown name or an invalid value (E0790).
        """
        from tcc.compiler.frontend.accuracy_bounds import check_floors
        from tcc.compiler.support.diagnostics import make_file_span

        at = make_file_span(self.caller)
        return check_floors((name, value, at) for name, value in (self.floors or {}).items())


def resolve_plans(targets: Sequence[str], precision: str | None, caller: str) -> "tuple[Plan, ...]":
    """Return each target once, with its precision.

    Raises:
        UserError: No target is named, or one is unknown or does not offer the precision.
    """
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.support.diagnostics import fail, make_file_span
    from tcc.compiler.targets import devices

    span = make_file_span(caller)
    if not targets:
        raise fail(
            "E0605", "no target is given", span, help="name a target; `tcc targets` lists them"
        )
    requested_precision = (precision or FP32.name, span)
    return devices.find_all(
        [(target, span) for target in targets],
        requested_precision,
        is_explicit=precision is not None,
    )


def find_int8_facts(
    spec: "Spec",
    weights: "WeightSource",
    targets: "Sequence[Plan]",
    call_arguments: Mapping[str, object],
) -> "Mapping[Fact, bool]":
    """Return the facts that decide whether the arguments for int8 models have an effect.

    Args:
        spec: The network.
        weights: Its weights.
        targets: The targets and their precisions.
        call_arguments: The arguments of the call, by name.
    """
    from tcc.compiler.support.option_requirements import (
        FRESH_CALIBRATION,
        INT8_TARGET,
        JUDGED_BUILD,
    )
    from tcc.compiler.zoo import trained

    has_images, has_file = (call_arguments[name] is not None for name in ("data", "calibration"))
    shipped = weights.origin.origin == "zoo" and trained.find_by_spec(spec) is not None
    return {
        INT8_TARGET: any(target.precision.calibrated for target in targets),
        FRESH_CALIBRATION: has_images or not shipped,
        JUDGED_BUILD: has_images or not has_file,
    }


def find_calibration_source(
    spec: "Spec",
    weight_source: "WeightSource",
    targets: "Sequence[Plan]",
    int8_request: Int8Request,
) -> "CalibrationSource | None":
    """Return the calibration that all targets share; None if all of them are built at fp32.

    Raises:
        UserError: There is nothing to calibrate with, or the calibration does not fit.
    """
    from tcc.compiler.driver import int8_program, pipeline
    from tcc.compiler.quant.calibrate import find_method
    from tcc.compiler.quant.run_options import RunOptions
    from tcc.compiler.support.diagnostics import fail, make_file_span
    from tcc.compiler.zoo import trained

    if not any(plan.precision.calibrated for plan in targets):
        return None
    span, _ = (
        make_file_span(int8_request.caller),
        int8_request.accuracy,
    )  # invalid floors are refused before any work
    images = int8_request.images
    if int8_request.calibration is not None:
        return int8_program.from_file(Path(int8_request.calibration), spec, weight_source, images)
    network = trained.find_by_spec(spec)
    if images is None and network and weight_source.origin.origin == "zoo":
        return int8_program.from_trained(network, spec, weight_source)
    if images is None:
        help = "give images as `data`, or a file that `tcc.calibrate` wrote as `calibration`"
        raise fail("E0616", "no images to calibrate the int8 model with", span, help=help)
    method = find_method(int8_request.method, span)
    request = pipeline.CalibrationRequest(int8_program.ANY_TARGET, method, RunOptions())
    return int8_program.from_images(spec, weight_source, images, request)


def build_int8_programs(
    spec: "Spec",
    weight_source: "WeightSource",
    targets: "Sequence[Plan]",
    int8_request: Int8Request,
    calibration_source: "CalibrationSource | None",
) -> "Int8Programs | None":
    """Return the int8 programs of targets that share a calibration; None without a calibration.

    Raises:
        UserError: The calibration does not fit.
        BelowFloor: The int8 model is below one of its accuracy bounds.
    """
    from tcc.compiler.driver import floor_evidence, int8_program, pipeline

    if calibration_source is None:
        return None
    lowered_model = pipeline.lower_for_int8(spec, weight_source)
    accuracy_floor = floor_evidence.resolve_floor(
        spec, int8_request.accuracy, allow_few=int8_request.allow_few
    )
    float_io_modes = {plan.precision.float_io for plan in targets if plan.precision.calibrated}
    return int8_program.build_programs(
        lowered_model, calibration_source, accuracy_floor, float_io_modes, mixed=int8_request.mixed
    )


def collect_warnings(
    spec: "Spec",
    data_path: str | PathLike[str],
    images: "DataSet",
    document: "CalibrationDocument | None",
) -> Iterator[str]:
    """Yield the warnings about images, and about the weights of a new calibration and itself."""
    from tcc.compiler.driver.weights_and_images import describe_synthetic
    from tcc.compiler.zoo import trained

    if document and document.weights.notice:
        yield document.weights.notice
    yield from map(str, images.warnings)
    if warning := describe_synthetic(images, Path(data_path), trained.find_by_spec(spec)):
        yield warning
    yield from document.notices if document else ()


def describe_few_images(int8_programs: "Int8Programs | None") -> Iterator[str]:
    """Yield a warning if few images measured the accuracy of an int8 program."""
    from tcc.compiler.driver import build_warnings

    for program in (int8_programs or {}).values():
        for warning in build_warnings.warn_few_images(program.calibrated.measured):
            yield f"{warning.code}: {warning.message}: {warning.found}"


def write_bundles(
    spec: "Spec",
    weight_source: "WeightSource",
    plans: "Sequence[Plan]",
    int8_programs: "Int8Programs | None",
    out: Path,
) -> "BuildAgreement":
    """Write the bundle of each target, and return how the targets agree.

    Args:
        spec: The network.
        weight_source: Its weights.
        plans: The targets and their precisions.
        int8_programs: The int8 programs; None if no target needs one.
        out: The parent folder of the bundles.

    Raises:
        UserError: A target does not support the network.
        Disagreement: An artifact does not match the reference. It is not written.
    """
    from tcc.compiler.bundle import bundle_folder
    from tcc.compiler.driver import build_cache, pipeline, target_agreement
    from tcc.compiler.driver.build import BundleWriter
    from tcc.compiler.driver.build_comparison import BuildComparison
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.support.console import Stages
    from tcc.compiler.support.progress import silent
    from tcc.compiler.support.stage_cache import StageCache
    from tcc.compiler.targets import devices

    model = Model(spec.graph, weight_source.tensors)
    comparison = BuildComparison(model, int8_programs) if len(plans) > 1 else None
    cached_stages = build_cache.create_stages(StageCache(None), spec, weight_source, None)
    writer = BundleWriter(Stages(), True, cached_stages, model, int8_programs, comparison)
    compared_targets = []
    for plan, contents in zip(
        plans, pipeline.build(spec, weight_source, plans, silent, int8_programs), strict=True
    ):
        compared_target = writer.write(contents, plan, out).compared
        assert compared_target
        # Read the bundle again, to check its files.
        reread_bundle = bundle_folder.read_bundle(
            compared_target.bundle.folder, devices.find_precision, None
        )
        compared_targets.append(compared_target.with_bundle(reread_bundle))
    return target_agreement.compare_targets(compared_targets)
