"""Evaluating a spec, or a bundle by its own artifact: which images judge it, and what is fitted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.driver import run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec, choose
from tcc.compiler.driver.run_splits import SIDES, sides
from tcc.compiler.driver.weights_and_images import synthetic, take, weights_file
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import UserError, fail, typed, whole_file
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.bundle.manifest import Manifest, OutputContract
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.data.split_file import RunSplit
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.fitting import Criterion
    from tcc.compiler.driver.labelled_images import LabelledImages
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.driver.saturation import Saturation
    from tcc.compiler.ir.device import Device
    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.reference.classification_metrics import JudgedClasses, Scores
    from tcc.compiler.reference.confidence_intervals import Bounds
    from tcc.compiler.support.diagnostics import Diagnostic


@dataclass(frozen=True)
class Resampling:
    """How many resamples are asked for, if any are, and the seed of their draw."""

    count: int | None
    seed: int


@dataclass(frozen=True)
class EvaluationReport:
    """How a network did on labelled images; `about` says what ran, for the document.

    `stored` is the bundle that the operating point was just stored in; `saturation` how often
    integers are saturated, where that is asked for. `warnings` say what of the
    operating point does not hold on these images.
    """

    about: dict[str, Any]
    found: "Evaluated"
    point: "OperatingPoint | None" = None
    stored: str | None = None
    saturation: "Saturation | None" = None
    warnings: "tuple[Diagnostic, ...]" = ()

    @property
    def name(self) -> str:
        """What ran, in one word."""
        return str(self.about.get("bundle") or self.about["spec"])

    @cached_property
    def scores(self) -> "Scores":
        """The figures of the counts."""
        return self.found.scores

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, or their indices."""
        return self.found.given.labels

    @cached_property
    def judged(self) -> "JudgedClasses":
        """What the images were taken for."""
        from tcc.compiler.reference.classification_metrics import JudgedClasses

        found = self.found
        odds = found.odds(self.point.temperature if self.point else 1.0)
        return JudgedClasses(self.labels, found.given.holds, found.taken, odds, self.scores)

    def averages(self, drawn: Resampling) -> "dict[str, Bounds | None]":
        """Return the intervals of averages over classes, by a bootstrap."""
        return self.judged.averages(drawn.count, drawn.seed)

    @property
    def log_loss(self) -> float | None:
        """The mean negative log-likelihood of the images' classes; None without probabilities."""
        from tcc.compiler.reference import decision_rule

        given, raw = self.found.given, self.found.raw
        if raw is None or given.output.activation == "none":
            return None
        # One value tells two classes apart: its likelihood is that of the second.
        holds = given.holds[:, 1:] if given.single else given.holds
        temperature = self.point.temperature if self.point else 1.0
        return decision_rule.likelihood(given.output.activation, raw, holds, temperature)


@dataclass(frozen=True)
class SaturationReport:
    """What was counted on images whose accuracy cannot be measured.

    `about` says what ran, `refusal` refusal nothing is known of their classes.
    """

    about: dict[str, Any]
    data: "DataSet"
    path: Path
    counts: "Saturation"
    refusal: "Diagnostic"


NO_CLASSES = frozenset({"E0714", "E0715", "E0716"})
"""Errors that say that images have no class of the network, or that it has none."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What a bundle or spec is evaluated with."""

    data: Path | None
    weights: Path | None
    seed: int | None
    settings: Sequence[str] | None
    strict: bool
    fit: "Criterion | None"
    carry: Path | None
    split: str | None
    side: str | None
    saturation: bool
    calibration: Path | None
    trust: bool
    bootstrap: int | None


@dataclass(frozen=True)
class ImageWish:
    """What is said of images: where, whose split, which side, and whether values are fitted.

    `learned` says that the network has learned from some images, which need not be these.
    """

    where: Path
    split: "RunSplit | None"
    side: str | None
    fits: bool
    learned: bool


def _find_images(data: Path | None, own: Path | None) -> Path:
    """Return where the images lie: as the command line says, or the project.

    Raises:
        UserError: It is not said (E0616).
    """
    if found := data or own:
        return found
    help = "give labelled images with --data: a folder of class folders"
    raise fail("E0616", "evaluate on which images?", typed("--data"), help=help)


def read_labelled(
    report: Report, stages: Stages, wish: ImageWish, outputs: "Sequence[OutputContract]"
) -> "tuple[LabelledImages, LabelledImages | None]":
    """Return the images that judge, and those that values are fitted to where they are.

    Args:
        report: Where warnings are told.
        stages: What hears how far this is.
        wish: Which images are meant.
        outputs: The network's.

    Raises:
        UserError: They are no labelled data set for the network, there are no two sides to fit
            and to judge (E1260), or the run's images are not there (E1218, E1219).
    """
    from tcc.compiler.driver import labelled_images

    stages("data", 0, 1)
    judge, learn = _places(report, wish)
    found = [
        labelled_images.labelled(_read(report, wish, side, path), outputs, path)
        for side, path in ((wish.side or "test", judge), ("val", learn))
        if path is not None
    ]
    return found[0], found[1] if learn else None


def _read_judging(report: Report, stages: Stages, wish: ImageWish) -> "tuple[DataSet, Path]":
    """Return the images that judge, whatever their labels, and where they lie.

    Raises:
        UserError: As for `labelled`, but for labels.
    """
    stages("data", 0, 1)
    judge, _ = _places(report, wish)
    return _read(report, wish, wish.side or "test", judge), judge


def _read(report: Report, wish: ImageWish, side: str, path: Path) -> "DataSet":
    from tcc.compiler.data import dataset

    report.detail(f"images: {path}")
    if wish.split:
        use = "fitted to" if wish.fits and side == "val" else "judged by"
        found = run_splits.images(report, wish.where, wish.split, side, use)
    else:
        found = dataset.read(path)
        report.warnings(found.warnings)
    if synthetic(found):
        report.notice(f"the images in {path} are synthetic: a program drew them")
    return found


def _places(report: Report, wish: ImageWish) -> tuple[Path, Path | None]:
    """Return where the images lie that judge, and those that values are fitted to.

    Raises:
        UserError: There are no two sides to fit and to judge (E1260), or not the one asked for.
    """
    where, found = wish.where, sides(wish.where)
    if wish.split:
        judge = run_splits.folder(where, wish.side or "test")
        return judge, run_splits.folder(where, "val") if wish.fits else None
    if wish.fits:
        if not {"val", "test"} <= found:
            message = "values are fitted to the images of `val` and judged by those of `test`"
            label = "there are no such two folders here, and no run's split says which these are"
            help = "give a folder with class folders in `val` and `test`, which share no image"
            raise fail("E1260", message, whole_file(str(where)), label=label, help=help)
        return where / "test", where / "val"
    side = wish.side or ("test" if "test" in found else None)
    if side is None:
        if wish.learned and where.name not in SIDES:
            report.warn(run_splits.unknown(where))
        return where, None
    if side not in found:
        message = f"there is no folder `{side}` here, and no run's split says which these are"
        raise fail("E1260", message, whole_file(str(where)), help="name the run with --split")
    report.note(f"judged by {where / side}")
    return where / side, None


def _find_refusal(error: UserError, request: EvaluationRequest) -> "Diagnostic":
    """Return why nothing is known of the images' classes, where counting needs none of them.

    Raises:
        UserError: It is another error, or classes are needed.
    """
    refusal = error.diagnostics[0]
    counts_suffice = request.saturation and not (request.fit or request.carry or request.bootstrap)
    if not counts_suffice or refusal.code not in NO_CLASSES:
        raise error
    return refusal


def evaluate_spec(
    report: Report, stages: Stages, name: str | None, request: EvaluationRequest
) -> EvaluationReport | SaturationReport:
    """Evaluate a spec; `name` is as typed, None for the project's.

    Raises:
        UserError: The spec or the images are wrong, or options are for bundles (E0601).
    """
    from tcc.compiler.bundle import manifest
    from tcc.compiler.driver import evaluation
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.reference import float_program

    chosen = choose(name, request.settings, request.strict)
    weights = take(report, chosen, request.weights, request.seed)
    spec = chosen.spec
    file = weights_file(chosen, request.weights, request.seed)
    wish = ImageWish(
        _find_images(request.data, chosen.project.data),
        run_splits.of_weights(request.split, file),
        request.side,
        fits=False,
        learned=run_splits.is_unknown(request.split, weights.origin.origin),
    )
    outputs = manifest.results(spec.graph)
    reference = f"reference ({float_program.NAME})"
    said = {"spec": spec.name, "target": reference, "precision": FP32.name}
    try:
        given, _ = read_labelled(report, stages, wish, outputs)
    except UserError as error:
        refusal = _find_refusal(error, request)
        images, path = _read_judging(report, stages, wish)
        counts = count_saturated(stages, chosen, weights, request.calibration, images)
        return SaturationReport(said, images, path, counts, refusal)
    found = evaluation.by_reference(Model(spec.graph, weights.tensors), given, stages)
    ends = None
    if request.saturation:
        ends = count_saturated(stages, chosen, weights, request.calibration, given.data)
    return EvaluationReport(said, found, saturation=ends)


def count_saturated(
    stages: Stages,
    chosen: ChosenSpec,
    weights: "WeightSource",
    calibration: Path | None,
    data: "DataSet",
) -> "Saturation":
    """Return what the integer program of a spec's calibration gives in the reference executor.

    Args:
        stages: Told how far the work is.
        chosen: The spec.
        weights: Its weights.
        calibration: The file of its calibration; without one, that of a trained network.
        data: Images that it takes.

    Raises:
        UserError: There is no calibration (E1267), or it is another network's.
    """
    from tcc.compiler.driver import int8_program, pipeline, saturation
    from tcc.compiler.quant import calibration_file
    from tcc.compiler.quant.program.quantize import quantize

    own = chosen.trained.calibration if chosen.trained and not chosen.changed else None
    path = calibration or own
    if path is None:
        message = "a spec has no integers to count"
        help = "give its calibration with --calibration, or evaluate a bundle of it"
        raise fail("E1267", message, typed("--saturation"), help=help)
    source = int8_program.from_file(path, chosen.spec, weights, None)
    ready = pipeline.ready(chosen.spec, weights)
    document = source.document
    # The program that a build would make, without what a target adds.
    program = quantize(ready, calibration_file.calibration(document, ready, source.name))
    return saturation.of_program(program, document, data, stages)


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
        given, learn = read_labelled(report, stages, wish, about.outputs)
    except UserError as error:
        refusal = _find_refusal(error, request)
        images, path = _read_judging(report, stages, wish)
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
        _find_images(request.data, project.data),
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
