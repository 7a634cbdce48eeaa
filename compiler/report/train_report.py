"""The report of `tcc train` at the end of a run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.support.console import Report, Stages

if TYPE_CHECKING:
    from tcc.compiler.train.run_folder import EvaluationMetrics, OutputScores, TrainingReport


def print_training(report: Report, folder: Path, training: "TrainingReport") -> None:
    """Print the results of a training run.

    Args:
        report: Receives results and warnings.
        folder: The run's folder.
        training: The run's report.
    """
    from tcc.compiler.train import run_folder

    report.print_text(str(folder))
    if report.quiet:
        return
    if not training.finished:
        report.warn_text(
            f"the time limit was reached after {training.epochs} epochs; continue with --resume"
        )
    scales = folder / run_folder.CALIBRATION
    # Quantization-aware training validates the int8 model after each epoch, and tests fp32 last.
    integers, floats = (", int8", ", fp32") if scales.exists() else ("", "")
    if training.val:
        validation = training.val
        report.print_text(
            f"  validation accuracy {validation.accuracy:.2%} of {validation.images:,} "
            f"images{integers}"
        )
    if training.val and training.start_val:
        _report_gain(report, training.start_val, training.val)
    if training.test:
        test, interval = training.test, training.test.interval
        text = f"  test accuracy {test.accuracy:.2%}, {test.correct:,} of {test.images:,} images"
        text += f" (95 % confidence interval {interval.low:.2%} to {interval.high:.2%}){floats}"
        report.print_text(text)
        for line in _describe_outputs(test.outputs):
            report.print_text(f"    {line}")
    if integers:
        report.print_text(f"  to build the int8 model, give --calibration {scales}")


def _report_gain(report: Report, before: "EvaluationMetrics", after: "EvaluationMetrics") -> None:
    """Print the validation metrics of the int8 model before and after, and warn without a gain."""
    if before.balanced_accuracy is None or after.balanced_accuracy is None:
        return
    report.print_text(
        f"  int8 before this training: accuracy {before.accuracy:.2%}, balanced accuracy "
        f"{before.balanced_accuracy:.2%}; after: {after.accuracy:.2%}, "
        f"{after.balanced_accuracy:.2%}; of {after.images:,} validation images"
    )
    gains = (
        after.accuracy - before.accuracy,
        after.balanced_accuracy - before.balanced_accuracy,
    )
    names = ("accuracy", "balanced accuracy")
    lower = [name for name, gain in zip(names, gains, strict=True) if gain < 0]
    if lower:
        lost = f"lowered the {' and the '.join(lower)} of the int8 model on the validation images"
        remedy = "compare both on other images before you use it, or build with the weights and "
        report.warn_text(f"this training {lost}: {remedy}calibration that it started from")
    elif not any(gains):
        report.warn_text(
            "this training gained no accuracy on the validation images: the weights and the "
            "calibration that it started from do as well there"
        )


def _describe_outputs(scores_by_output: "Mapping[str, OutputScores]") -> Iterator[str]:
    """Yield the test results of each output, if there are several, and of each decision."""
    for name, output_scores in scores_by_output.items():
        if len(scores_by_output) > 1:
            yield f"{name}: {output_scores.correct:,} correct, {output_scores.accuracy:.2%}"
        for label, decision in output_scores.decisions.items():
            yes = f"{decision.true_positives:,} of {decision.positives:,} positives correct"
            no = f"{decision.true_negatives:,} of {decision.negatives:,} negatives correct"
            yield f"{label}: {yes}, {no}"


def encode_training(folder: Path, training: "TrainingReport", stages: Stages) -> dict[str, Any]:
    """Return the JSON document of a training run."""
    from tcc.compiler.support import json_records

    return {"path": str(folder), **json_records.encode(training), "seconds": stages.seconds}
