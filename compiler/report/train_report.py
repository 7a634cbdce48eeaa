"""What `tcc train` says of a training at its end."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.support.console import Report, Stages

if TYPE_CHECKING:
    from tcc.compiler.train.run_folder import OutputScores, TrainingReport


def print_training(report: Report, folder: Path, training: "TrainingReport") -> None:
    """Say what a training came to.

    Args:
        report: Where it is told.
        folder: The run's.
        training: What the run says of itself.
    """
    from tcc.compiler.train import run_folder

    report.print_text(str(folder))
    if report.quiet:
        return
    if not training.finished:
        report.warn_text(f"the time was over after {training.epochs} epochs; --resume goes on")
    scales = folder / run_folder.CALIBRATION
    # A training as integers is judged by them after each epoch, and at its end in floats.
    integers, floats = (", as integers", ", in floats") if scales.exists() else ("", "")
    if training.val:
        validation = training.val
        report.print_text(
            f"  validation accuracy {validation.accuracy:.2%} of {validation.images:,} "
            f"images{integers}"
        )
    if training.test:
        test, interval = training.test, training.test.interval
        text = f"  test accuracy {test.accuracy:.2%}, {test.correct:,} of {test.images:,} images"
        text += f" (95% interval {interval.low:.2%} to {interval.high:.2%}){floats}"
        report.print_text(text)
        for line in _describe_outputs(test.outputs):
            report.print_text(f"    {line}")
    if integers:
        report.print_text(f"  build the integers with --calibration {scales}")


def _describe_outputs(scores_by_output: "Mapping[str, OutputScores]") -> Iterator[str]:
    """Yield how each of several outputs, and each decision, does on the test images."""
    for name, output_scores in scores_by_output.items():
        if len(scores_by_output) > 1:
            yield f"{name}: {output_scores.correct:,} right, {output_scores.accuracy:.2%}"
        for label, decision in output_scores.decisions.items():
            yes = f"{decision.true_positives:,} of {decision.positives:,} where it holds"
            yield f"{label}: {yes}, {decision.true_negatives:,} of {decision.negatives:,} where not"


def encode_training(folder: Path, training: "TrainingReport", stages: Stages) -> dict[str, Any]:
    """Return what `--json` prints of a training."""
    from tcc.compiler.support import json_records

    return {"path": str(folder), **json_records.encode(training), "seconds": stages.seconds}
