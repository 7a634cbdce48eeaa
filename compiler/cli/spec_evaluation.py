"""`tcc eval` of a spec: in floats, by the reference executor."""

from tcc.compiler.cli import evaluation_images
from tcc.compiler.cli.evaluation_images import EvaluationRequest, ImageWish
from tcc.compiler.cli.evaluation_report import EvaluationReport
from tcc.compiler.cli.saturation import SaturationReport, of_spec
from tcc.compiler.driver import run_splits
from tcc.compiler.driver.chosen_spec import choose
from tcc.compiler.driver.weights_and_images import take, weights_file
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import UserError


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
        counts = of_spec(stages, chosen, weights, request.calibration, images)
        return SaturationReport(said, images, path, counts, refusal)
    found = evaluation.by_reference(Model(spec.graph, weights.tensors), given, stages)
    ends = None
    if request.saturation:
        ends = of_spec(stages, chosen, weights, request.calibration, given.data)
    return EvaluationReport(said, found, saturation=ends)
