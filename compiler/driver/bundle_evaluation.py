"""`tcc eval` of a bundle, by its own artifact, and the fitting of how its outputs are read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver import evaluation_images, run_splits
from tcc.compiler.driver.evaluation_images import EvaluationRequest, ImageWish
from tcc.compiler.driver.evaluation_report import EvaluationReport, SaturationReport
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.bundle.manifest import Manifest
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.labelled_images import LabelledImages
    from tcc.compiler.ir.device import Device
    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.support.diagnostics import Diagnostic


@dataclass(frozen=True)
class _BundleImages:
    """A bundle that is evaluated, with images to judge it and, with --fit, to fit to."""

    bundle: "Bundle"
    device: "Device"
    judging: "LabelledImages"
    fitting: "LabelledImages | None"


def evaluate_bundle(
    report: Report, stages: Stages, folder: Path, request: EvaluationRequest
) -> EvaluationReport | SaturationReport:
    """Evaluate a bundle, after fitting how its outputs are read, where that is asked for.

    Raises:
        UserError: The bundle, the images or the options are wrong; or, if `request.strict`, what
            was fitted misses its target.
    """
    from tcc.compiler.driver import saturation

    bundle, device = trusted_bundle.load(folder, trust=request.trust)
    about = bundle.manifest
    if about.weights.notice:
        report.notice(about.weights.notice)
    carried = _start_points(bundle, request)
    wish = _choose_images(request, about)
    origin = {"bundle": str(folder), "target": about.target, "precision": about.precision}
    try:
        given, learn = evaluation_images.labelled(report, stages, wish, about.outputs)
    except UserError as error:
        refusal = evaluation_images.refusal_of(error, request)
        images, path = evaluation_images.judging(report, stages, wish)
        saturated = saturation.of_artifact(bundle, device, images, stages)
        return SaturationReport(origin, images, path, saturated, refusal)
    sides = _BundleImages(bundle, device, given, learn)
    counts = None
    if request.saturation:
        # Before anything is stored: what is fitted into a signed program has to be signed again.
        counts = saturation.of_artifact(bundle, device, given.data, stages)
    evaluated, point, warnings = _judge(report, stages, sides, request, carried)
    stored = str(folder) if request.fit or request.carry else None
    return EvaluationReport(origin, evaluated, point, stored, counts, warnings)


def _start_points(bundle: "Bundle", request: EvaluationRequest) -> "tuple[OperatingPoint, ...]":
    """Return the operating points to begin with: the bundle's, or with --carry another's."""
    from tcc.compiler.driver import fitting
    from tcc.compiler.targets import devices

    if not request.carry:
        return bundle.manifest.operating_points
    policy = devices.signature_policy(any_key=request.trust)
    return fitting.carried(bundle, devices.load(request.carry, policy)[0])


def _judge(
    report: Report,
    stages: Stages,
    given: _BundleImages,
    request: EvaluationRequest,
    points: "Sequence[OperatingPoint]",
) -> "tuple[Evaluated, OperatingPoint | None, tuple[Diagnostic, ...]]":
    """Return what the images give, how it is read, and what of that does not hold.

    What is fitted or carried is stored in the bundle.
    """
    from tcc.compiler.driver import evaluation, fitting, target_check

    bundle, device = given.bundle, given.device
    about, fit_outputs = bundle.manifest, None
    if request.fit and given.fitting:
        fit_outputs = evaluation.by_artifact(bundle, device, given.fitting, stages)
        program = f"{about.target} {about.precision}"
        points = (fitting.fit(fit_outputs, program, request.fit),)
    name = given.judging.output.name
    point = next((each for each in points if each.output == name), None)
    evaluated = evaluation.by_artifact(bundle, device, given.judging, stages, point)
    if fit_outputs:
        # Before anything is stored: an operating point that was judged by its own images is worse
        # than none.
        fitting.check_apart(fit_outputs, evaluated)
    warnings: tuple[Diagnostic, ...] = ()
    if point:
        judged = replace(point, judged=target_check.judge(point, evaluated))
        assert judged.judged
        warnings = target_check.find_misses(judged, judged.judged, str(given.judging.path))
        points = tuple(judged if each is point else each for each in points)
        point = judged
    if request.strict and warnings:
        raise UserError(tuple(replace(warning, severity="error") for warning in warnings))
    for warning in warnings:
        report.insist(warning)
    if (request.fit or request.carry) and points != about.operating_points:
        fitting.store(bundle, device, points)
        tell_programs(report, device, bundle.model)
    if request.fit and request.fit.positive and point and point.positive is None:
        report.notice(
            f"no threshold for `{request.fit.positive}` is stored: on the images that it is fitted "
            "to, none does better than the largest output"
        )
    _warn_seen(report, given.judging, point)
    return evaluated, point, warnings


def _choose_images(request: EvaluationRequest, about: "Manifest") -> ImageWish:
    """Return what is origin of the images that judge a bundle."""
    from tcc.compiler.support import project_file

    project = project_file.find(Path())
    return ImageWish(
        evaluation_images.place(request.data, project.data),
        run_splits.of_bundle(request.split, about.weights.digest, project.weights),
        request.side,
        fits=request.fit is not None,
        learned=run_splits.is_unknown(request.split, about.weights.origin),
    )


def tell_programs(report: Report, device: "Device", model: Path) -> None:
    """Say which of a bundle's programs do not know of what was fitted; `model` is their folder."""
    from tcc.compiler.ir.backend import OperatingPointReader

    if device.runner_signature(model):
        report.notice(
            "the program's signature was of the program before, and is removed: it does not "
            "start until `tcc sign BUNDLE --runner-key PRIVATE.pem`"
        )
    if device.packager:
        report.notice(
            "the package's programs for the board know nothing of what was fitted: apply the "
            "temperature and the thresholds of manifest.json to their raw outputs"
        )
    backend = device.backend
    if not isinstance(backend, OperatingPointReader):
        return
    if backend.follows_everywhere(device.target, model):
        report.note("libraries and program have what was fitted in them: install them again")
    else:
        report.notice(
            "this bundle is of an older version: its program follows what was fitted where the "
            "file beside it goes with it, and its C library does not. Build it again"
        )


def _warn_seen(report: Report, given: "LabelledImages", point: "OperatingPoint | None") -> None:
    """Say loudly that values were fitted to the very images that judge them."""
    if point and point.fitted.digest == given.data.digest:
        report.notice(
            f"the images in {given.path} are those that temperature and thresholds were fitted "
            "to: what follows is too good. Judge by others"
        )
