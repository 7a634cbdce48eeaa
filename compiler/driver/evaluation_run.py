"""Evaluate a spec, or a bundle by its artifact: choose the images, fit, and report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.driver import run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec, choose_spec
from tcc.compiler.driver.run_splits import SIDES, list_sides
from tcc.compiler.driver.weights_and_images import find_weights_file, is_synthetic, load_weights
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import UserError, fail, make_command_span, make_file_span
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.bundle.manifest import Manifest, OutputContract
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.data.probability_quality import DecisionCurve, Reliability
    from tcc.compiler.data.split_file import RunSplit
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.fitting import Criterion
    from tcc.compiler.driver.labelled_images import LabelledImages
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.driver.saturation import Saturation
    from tcc.compiler.ir.device import Device
    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.reference.classification_metrics import ClassEvaluation, Scores
    from tcc.compiler.reference.confidence_intervals import Bounds
    from tcc.compiler.support.diagnostics import Diagnostic


@dataclass(frozen=True)
class Resampling:
    """Number of bootstrap resamples (None for no bootstrap), and their seed."""

    count: int | None
    seed: int


@dataclass(frozen=True)
class EvaluationReport:
    """Results of a network on labelled images; `subject` describes the network for JSON.

    `stored_bundle` is the bundle that the operating point was stored in. `saturation` is how often
    values are saturated, if requested. `warnings` list what the operating point misses on these
    images. `target_classes` are those of the decision curve, as typed; None for the default.
    """

    subject: dict[str, Any]
    evaluated: "Evaluated"
    point: "OperatingPoint | None" = None
    stored_bundle: str | None = None
    saturation: "Saturation | None" = None
    warnings: "tuple[Diagnostic, ...]" = ()
    target_classes: str | None = None

    @property
    def name(self) -> str:
        """The bundle or spec, as one word."""
        return str(self.subject.get("bundle") or self.subject["spec"])

    @cached_property
    def scores(self) -> "Scores":
        """Accuracy figures from the predictions."""
        return self.evaluated.scores

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, or their indices."""
        return self.evaluated.images.labels

    @cached_property
    def class_evaluation(self) -> "ClassEvaluation":
        """The predictions with truth and log-odds, for metrics of each class."""
        from tcc.compiler.reference.classification_metrics import ClassEvaluation

        evaluated = self.evaluated
        odds = evaluated.compute_log_odds(self.temperature)
        return ClassEvaluation(
            self.labels, evaluated.images.truth, evaluated.predicted, odds, self.scores
        )

    def estimate_averages(self, resampling: Resampling) -> "dict[str, Bounds | None]":
        """Return bootstrap confidence intervals of the averages over classes."""
        return self.class_evaluation.estimate_average_intervals(resampling.count, resampling.seed)

    @property
    def log_loss(self) -> float | None:
        """The mean negative log-likelihood of the images' classes; None without probabilities."""
        from tcc.compiler.reference import decision_rule

        images, raw = self.evaluated.images, self.evaluated.raw
        if raw is None or images.output.activation == "none":
            return None
        # A single value decides between two classes: its likelihood is that of the second one.
        truth = images.truth[:, 1:] if images.single else images.truth
        return decision_rule.compute_negative_log_likelihood(
            images.output.activation, raw, truth, self.temperature
        )

    @property
    def temperature(self) -> float:
        """The divisor of the raw outputs."""
        return self.point.temperature if self.point else 1.0

    def measure_reliability(self, resampling: Resampling) -> "tuple[Reliability, ...]":
        """Return the calibration error of the classes or of each decision; empty if unknown."""
        from tcc.compiler.driver import probability_curves

        return probability_curves.measure_reliability(
            self.evaluated, self.temperature, resampling.seed
        )

    @cached_property
    def decision_curves(self) -> "tuple[DecisionCurve, ...]":
        """The decision curves of the target classes, or of each class; empty if unknown."""
        from tcc.compiler.driver import probability_curves

        targets = probability_curves.choose_targets(
            self.evaluated.images, self.point, self.target_classes
        )
        return probability_curves.compute_curves(self.evaluated, self.temperature, targets)


@dataclass(frozen=True)
class SaturationReport:
    """Counts of saturated values on images that cannot be scored.

    `subject` describes the network for JSON. `refusal` is why the classes of the images are
    unknown.
    """

    subject: dict[str, Any]
    dataset: "DataSet"
    path: Path
    counts: "Saturation"
    refusal: "Diagnostic"


NO_CLASSES = frozenset({"E0714", "E0715", "E0716"})
"""Errors about images without a class of the network, or a network without classes."""


@dataclass(frozen=True)
class EvaluationRequest:
    """Options for the evaluation of a bundle or spec."""

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
    target_classes: str | None


@dataclass(frozen=True)
class ImageSelection:
    """The requested images: path, run split, side of it, and whether values are fitted.

    `learned`: the network was trained on unknown images, possibly these.
    """

    path: Path
    split: "RunSplit | None"
    side: str | None
    fits: bool
    learned: bool


def _find_images(data: Path | None, project_data: Path | None) -> Path:
    """Return the path of the images from the command line or the project.

    Raises:
        UserError: Neither names one (E0616).
    """
    if path := data or project_data:
        return path
    help = "give labelled images with --data: a folder with one folder per class"
    raise fail("E0616", "no images to evaluate on", make_command_span("--data"), help=help)


def read_labelled_images(
    report: Report, stages: Stages, selection: ImageSelection, outputs: "Sequence[OutputContract]"
) -> "tuple[LabelledImages, LabelledImages | None]":
    """Return the images to evaluate on, and those to fit values to; None without fitting.

    Args:
        report: Receives warnings.
        stages: Receives the progress.
        selection: The requested images.
        outputs: The network's outputs.

    Raises:
        UserError: They are no labelled dataset for the network, there are no separate splits for
            fitting and evaluation (E1260), or the run's images are missing (E1218, E1219).
    """
    from tcc.compiler.driver import labelled_images

    stages("data", 0, 1)
    judging_path, fitting_path = _find_folders(report, selection)
    cases = selection.split.group_by_digest if selection.split else {}
    image_sets = [
        (_read_images(report, selection, side, path), path)
        for side, path in ((selection.side or "test", judging_path), ("val", fitting_path))
        if path is not None
    ]
    labelled_sets = [
        labelled_images.add_cases(labelled_images.label_images(images, outputs, path), cases)
        for images, path in image_sets
    ]
    return labelled_sets[0], labelled_sets[1] if fitting_path else None


def _read_judging(
    report: Report, stages: Stages, selection: ImageSelection
) -> "tuple[DataSet, Path]":
    """Return the images to evaluate on, with any labels, and their path.

    Raises:
        UserError: As for `read_labelled_images`, except for labels.
    """
    stages("data", 0, 1)
    judging_path, _ = _find_folders(report, selection)
    return _read_images(report, selection, selection.side or "test", judging_path), judging_path


def _read_images(report: Report, selection: ImageSelection, side: str, path: Path) -> "DataSet":
    from tcc.compiler.data import dataset

    report.print_detail(f"images: {path}")
    if selection.split:
        use = "fitted to" if selection.fits and side == "val" else "evaluated on"
        images = run_splits.read_side_images(report, selection.path, selection.split, side, use)
    else:
        images = dataset.read_dataset(path)
        report.warn_grouped(images.warnings)
    if is_synthetic(images):
        report.warn_text(f"the images in {path} are synthetic (generated by a program)")
    return images


def _find_folders(report: Report, selection: ImageSelection) -> tuple[Path, Path | None]:
    """Return the paths of the images for evaluation, and for fitting.

    Raises:
        UserError: There are no separate splits for them, or not the requested one (E1260).
    """
    path, side_names = selection.path, list_sides(selection.path)
    if selection.split:
        judging_path = run_splits.find_side_folder(path, selection.side or "test")
        return judging_path, run_splits.find_side_folder(path, "val") if selection.fits else None
    if selection.fits:
        if not {"val", "test"} <= side_names:
            message = "--fit needs two splits: it fits to `val` and evaluates on `test`"
            label = "there are no such two folders here, and no run's split defines them"
            help = "give a folder with class folders in `val` and `test` that share no image"
            raise fail("E1260", message, make_file_span(str(path)), label=label, help=help)
        return path / "test", path / "val"
    side = selection.side or ("test" if "test" in side_names else None)
    if side is None:
        if selection.learned and path.name not in SIDES:
            report.warn(run_splits.create_unknown_warning(path))
        return path, None
    if side not in side_names:
        message = f"there is no folder `{side}` here, and no run's split defines one"
        raise fail("E1260", message, make_file_span(str(path)), help="name the run with --split")
    report.print_note(f"evaluated on {path / side}")
    return path / side, None


def _find_refusal(error: UserError, request: EvaluationRequest) -> "Diagnostic":
    """Return why the classes of the images are unknown, if saturated values can still be counted.

    Raises:
        UserError: It is another error, or the classes are needed.
    """
    refusal = error.diagnostics[0]
    needs_classes = request.fit or request.carry or request.bootstrap or request.target_classes
    counts_suffice = request.saturation and not needs_classes
    if not counts_suffice or refusal.code not in NO_CLASSES:
        raise error
    return refusal


def evaluate_spec(
    report: Report, stages: Stages, name: str | None, request: EvaluationRequest
) -> EvaluationReport | SaturationReport:
    """Evaluate a spec; `name` is as typed, None for the project's.

    Raises:
        UserError: The spec or the images are invalid, or options are for bundles only (E0601).
    """
    from tcc.compiler.bundle import manifest
    from tcc.compiler.driver import evaluation
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.reference import float_program

    chosen_spec = choose_spec(name, request.settings, request.strict)
    weights = load_weights(report, chosen_spec, request.weights, request.seed)
    spec = chosen_spec.spec
    file = find_weights_file(chosen_spec, request.weights, request.seed)
    selection = ImageSelection(
        _find_images(request.data, chosen_spec.project.data),
        run_splits.find_weights_split(request.split, file),
        request.side,
        fits=False,
        learned=run_splits.is_unknown(request.split, weights.origin.origin),
    )
    outputs = manifest.build_output_contracts(spec.graph)
    reference = f"reference ({float_program.NAME})"
    subject = {"spec": spec.name, "target": reference, "precision": FP32.name}
    try:
        labelled, _ = read_labelled_images(report, stages, selection, outputs)
    except UserError as error:
        refusal = _find_refusal(error, request)
        images, path = _read_judging(report, stages, selection)
        counts = count_saturated(stages, chosen_spec, weights, request.calibration, images)
        return SaturationReport(subject, images, path, counts, refusal)
    _check_target_classes(labelled, request)
    evaluated = evaluation.evaluate_reference(Model(spec.graph, weights.tensors), labelled, stages)
    saturation = None
    if request.saturation:
        saturation = count_saturated(
            stages, chosen_spec, weights, request.calibration, labelled.dataset
        )
    return EvaluationReport(
        subject, evaluated, saturation=saturation, target_classes=request.target_classes
    )


def _check_target_classes(labelled: "LabelledImages", request: EvaluationRequest) -> None:
    """Check the classes of the decision curve before the network runs.

    Raises:
        UserError: The network has no such classes (E1262), or no probabilities (E0601).
    """
    from tcc.compiler.driver import probability_curves

    if request.target_classes is None:
        return
    probability_curves.find_target_classes(labelled, request.target_classes)
    if labelled.output.activation == "none":
        message = f"`--class` has no effect: `{labelled.output.name}` has no probabilities"
        help = "remove `--class`, or set the `activation` of the output in the spec"
        raise fail("E0601", message, make_command_span("--class"), help=help)


def count_saturated(
    stages: Stages,
    chosen_spec: ChosenSpec,
    weights: "WeightSource",
    calibration: Path | None,
    dataset: "DataSet",
) -> "Saturation":
    """Count the saturated values of a spec's int8 model, in the reference executor.

    Args:
        stages: Receives the progress.
        chosen_spec: The spec.
        weights: Its weights.
        calibration: The file of its calibration; None for that of a trained network.
        dataset: Images for its input.

    Raises:
        UserError: There is no calibration (E1267), or it is of another network.
    """
    from tcc.compiler.driver import int8_program, pipeline, saturation
    from tcc.compiler.quant import calibration_file
    from tcc.compiler.quant.program.quantize import quantize

    default_path = (
        chosen_spec.trained.calibration if chosen_spec.trained and not chosen_spec.changed else None
    )
    path = calibration or default_path
    if path is None:
        message = "a spec without a calibration has no quantized values to count"
        help = "give its calibration with --calibration, or evaluate an int8 bundle of it"
        raise fail("E1267", message, make_command_span("--saturation"), help=help)
    source = int8_program.from_file(path, chosen_spec.spec, weights, None)
    lowered_model = pipeline.lower_for_int8(chosen_spec.spec, weights)
    document = source.document
    # The program that a build would create, before target-specific steps.
    program = quantize(
        lowered_model, calibration_file.decode_calibration(document, lowered_model, source.name)
    )
    return saturation.measure_program(program, document, dataset, stages)


@dataclass(frozen=True)
class _BundleImages:
    """A bundle, with the images to evaluate it on and, with --fit, to fit to."""

    bundle: "Bundle"
    device: "Device"
    judging: "LabelledImages"
    fitting: "LabelledImages | None"


def evaluate_bundle(
    report: Report, stages: Stages, folder: Path, request: EvaluationRequest
) -> EvaluationReport | SaturationReport:
    """Evaluate a bundle, after fitting its operating point if requested.

    Raises:
        UserError: The bundle, the images or the options are invalid; or, if `request.strict`, the
            operating point misses its target.
    """
    from tcc.compiler.driver import saturation

    bundle, device = trusted_bundle.load(folder, trust=request.trust)
    manifest = bundle.manifest
    if manifest.weights.notice:
        report.warn_text(manifest.weights.notice)
    start_points = _load_start_points(bundle, request)
    selection = _choose_images(request, manifest)
    origin = {"bundle": str(folder), "target": manifest.target, "precision": manifest.precision}
    try:
        labelled, fitting_images = read_labelled_images(report, stages, selection, manifest.outputs)
    except UserError as error:
        refusal = _find_refusal(error, request)
        images, path = _read_judging(report, stages, selection)
        saturated = saturation.measure_artifact(bundle, device, images, stages)
        return SaturationReport(origin, images, path, saturated, refusal)
    _check_target_classes(labelled, request)
    bundle_images = _BundleImages(bundle, device, labelled, fitting_images)
    counts = None
    if request.saturation:
        # Before anything is stored: storing into a signed program invalidates its signature.
        counts = saturation.measure_artifact(bundle, device, labelled.dataset, stages)
    evaluated, point, warnings = _evaluate_images(
        report, stages, bundle_images, request, start_points
    )
    stored_folder = str(folder) if request.fit or request.carry else None
    return EvaluationReport(
        origin, evaluated, point, stored_folder, counts, warnings, request.target_classes
    )


def _load_start_points(
    bundle: "Bundle", request: EvaluationRequest
) -> "tuple[OperatingPoint, ...]":
    """Return the initial operating points: the bundle's, or with --carry those of another."""
    from tcc.compiler.driver import fitting
    from tcc.compiler.targets import devices

    if not request.carry:
        return bundle.manifest.operating_points
    policy = devices.create_signature_policy(any_key=request.trust)
    return fitting.get_carried_points(bundle, devices.load_bundle(request.carry, policy)[0])


def _evaluate_images(
    report: Report,
    stages: Stages,
    bundle_images: _BundleImages,
    request: EvaluationRequest,
    points: "Sequence[OperatingPoint]",
) -> "tuple[Evaluated, OperatingPoint | None, tuple[Diagnostic, ...]]":
    """Return the evaluation, the operating point, and warnings about it.

    A fitted or carried operating point is stored in the bundle.
    """
    from tcc.compiler.driver import evaluation, fitting, target_check

    bundle, device = bundle_images.bundle, bundle_images.device
    manifest, fit_outputs = bundle.manifest, None
    if request.fit and bundle_images.fitting:
        fit_outputs = evaluation.evaluate_artifact(bundle, device, bundle_images.fitting, stages)
        program = f"{manifest.target} {manifest.precision}"
        points = (fitting.fit(fit_outputs, program, request.fit),)
    name = bundle_images.judging.output.name
    point = next((candidate for candidate in points if candidate.output == name), None)
    evaluated = evaluation.evaluate_artifact(bundle, device, bundle_images.judging, stages, point)
    if fit_outputs:
        # Before anything is stored: an operating point that is evaluated on its own images is
        # worse than none.
        fitting.check_apart(fit_outputs, evaluated)
    warnings: tuple[Diagnostic, ...] = ()
    if point:
        judged_point = replace(point, judged=target_check.evaluate_point(point, evaluated))
        assert judged_point.judged
        warnings = target_check.find_misses(
            judged_point, judged_point.judged, str(bundle_images.judging.path)
        )
        points = tuple(judged_point if candidate is point else candidate for candidate in points)
        point = judged_point
    if request.strict and warnings:
        raise UserError(tuple(replace(warning, severity="error") for warning in warnings))
    for warning in warnings:
        report.warn_always(warning)
    if (request.fit or request.carry) and points != manifest.operating_points:
        fitting.store(bundle, device, points)
        report_programs(report, device, bundle.model)
    if request.fit and request.fit.positive and point and point.positive is None:
        report.warn_text(
            f"no threshold for `{request.fit.positive}` is stored: on the images for fitting, "
            "none does better than choosing the largest output"
        )
    _warn_seen(report, bundle_images.judging, point)
    return evaluated, point, warnings


def _choose_images(request: EvaluationRequest, manifest: "Manifest") -> ImageSelection:
    """Return the images to evaluate a bundle on, as requested."""
    from tcc.compiler.support import project_file

    project = project_file.find_project(Path())
    return ImageSelection(
        _find_images(request.data, project.data),
        run_splits.find_bundle_split(request.split, manifest.weights.digest, project.weights),
        request.side,
        fits=request.fit is not None,
        learned=run_splits.is_unknown(request.split, manifest.weights.origin),
    )


def report_programs(report: Report, device: "Device", model: Path) -> None:
    """Report which of a bundle's programs lack the fitted values; `model` is their folder."""
    from tcc.compiler.ir.backend import OperatingPointReader

    if device.read_runner_signature(model):
        report.warn_text(
            "the program changed, so its signature was removed. It does not start until you sign "
            "it: `tcc sign BUNDLE --runner-key PRIVATE.pem`"
        )
    if device.packager:
        report.warn_text(
            "the package's programs for the board do not use the fitted values: apply the "
            "temperature and the thresholds in manifest.json to their raw outputs"
        )
    backend = device.backend
    if not isinstance(backend, OperatingPointReader):
        return
    if backend.has_operating_points_in_libraries(device.target, model):
        report.print_note("libraries and program contain the fitted values: install them again")
    else:
        report.warn_text(
            "this bundle is of an older version: its program needs the file with the fitted values "
            "next to it, and its C library does not use them. Build the bundle again"
        )


def _warn_seen(report: Report, labelled: "LabelledImages", point: "OperatingPoint | None") -> None:
    """Warn that values were fitted to the images that they are evaluated on."""
    if point and point.fitted.digest == labelled.dataset.digest:
        report.warn_text(
            f"temperature and thresholds were fitted to the images in {labelled.path}, so the "
            "figures are too optimistic. Evaluate on other images"
        )
