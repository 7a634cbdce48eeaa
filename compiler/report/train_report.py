"""What `tcc train` says of a training at its end."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.support.console import Report, Stages

if TYPE_CHECKING:
    from tcc.compiler.train.run_folder import OutputScores, TrainingReport


def say(report: Report, folder: Path, found: "TrainingReport") -> None:
    """Say what a training came to.

    Args:
        report: Where it is told.
        folder: The run's.
        found: What the run says of itself.
    """
    from tcc.compiler.train import run_folder

    report.text(str(folder))
    if report.quiet:
        return
    if not found.finished:
        report.notice(f"the time was over after {found.epochs} epochs; --resume goes on")
    scales = folder / run_folder.CALIBRATION
    # A training as integers is judged by them after each epoch, and at its end in floats.
    integers, floats = (", as integers", ", in floats") if scales.exists() else ("", "")
    if found.val:
        val = found.val
        report.text(f"  validation accuracy {val.accuracy:.2%} of {val.images:,} images{integers}")
    if found.test:
        test, within = found.test, found.test.interval
        text = f"  test accuracy {test.accuracy:.2%}, {test.correct:,} of {test.images:,} images"
        text += f" (95% interval {within.low:.2%} to {within.high:.2%}){floats}"
        report.text(text)
        for line in _outputs(test.outputs):
            report.text(f"    {line}")
    if integers:
        report.text(f"  build the integers with --calibration {scales}")


def _outputs(found: "Mapping[str, OutputScores]") -> Iterator[str]:
    """Yield how each of several outputs, and each decision, does on the test images."""
    for name, each in found.items():
        if len(found) > 1:
            yield f"{name}: {each.correct:,} right, {each.accuracy:.2%}"
        for label, told in each.decisions.items():
            yes = f"{told.told_holds:,} of {told.holds:,} where it holds"
            yield f"{label}: {yes}, {told.told_holds_not:,} of {told.holds_not:,} where not"


def document(folder: Path, found: "TrainingReport", stages: Stages) -> dict[str, Any]:
    """Return what `--json` prints of a training."""
    from tcc.compiler.support import json_records

    return {"path": str(folder), **json_records.encode(found), "seconds": stages.seconds}
