"""`tcc eval` of a spec: in floats, by the reference executor."""

from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver import evaluation_images, run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec, choose
from tcc.compiler.driver.evaluation_images import EvaluationRequest, ImageWish
from tcc.compiler.driver.evaluation_report import EvaluationReport, SaturationReport
from tcc.compiler.driver.weights_and_images import take, weights_file
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import UserError, fail, typed

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.driver.saturation import Saturation


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
        evaluation_images.place(request.data, chosen.project.data),
        run_splits.of_weights(request.split, file),
        request.side,
        fits=False,
        learned=run_splits.is_unknown(request.split, weights.origin.origin),
    )
    outputs = manifest.results(spec.graph)
    reference = f"reference ({float_program.NAME})"
    said = {"spec": spec.name, "target": reference, "precision": FP32.name}
    try:
        given, _ = evaluation_images.labelled(report, stages, wish, outputs)
    except UserError as error:
        refusal = evaluation_images.refusal_of(error, request)
        images, path = evaluation_images.judging(report, stages, wish)
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
