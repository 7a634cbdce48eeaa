"""Results of a sweep: a table of its runs, means over seeds, and a bar chart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tcc.compiler.figures import svg
from tcc.compiler.figures.scene import Bar, build_bar_chart
from tcc.compiler.support import atomic_files
from tcc.compiler.train.sweep import Trial, TrialOutcome

JSON_FILE, FIGURE_FILE = "sweep.json", "sweep.svg"


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One setting of a sweep: mean accuracies over seeds, and the deviation for validation."""

    parameters: Mapping[str, str]
    seeds: int
    val_accuracy: float | None
    val_deviation: float | None
    test_accuracy: float | None
    failed: int

    @property
    def name(self) -> str:
        """The varied parameters with their values."""
        return (
            ", ".join(f"{key} {setting}" for key, setting in self.parameters.items()) or "defaults"
        )


def build_rows(trials: Sequence[Trial], outcomes: Sequence[TrialOutcome]) -> list[SweepRow]:
    """Return a row for each setting, best validation accuracy first."""
    groups: dict[tuple[tuple[str, str], ...], list[TrialOutcome]] = {}
    for trial, outcome in zip(trials, outcomes, strict=True):
        key = tuple((k, v) for k, v in trial.varied_settings.items() if k != "seed")
        groups.setdefault(key, []).append(outcome)
    setting_rows = [_build_row(dict(key), group) for key, group in groups.items()]
    return sorted(
        setting_rows,
        key=lambda row: -1.0 if row.val_accuracy is None else row.val_accuracy,
        reverse=True,
    )


def _build_row(parameters: Mapping[str, str], outcomes: Sequence[TrialOutcome]) -> SweepRow:
    reports = [outcome.report for outcome in outcomes if outcome.report]
    val_accuracies = [r["val"]["accuracy"] for r in reports if r["val"]]
    test_accuracies = [r["test"]["accuracy"] for r in reports if r["test"]]
    return SweepRow(
        parameters,
        len(outcomes),
        mean(val_accuracies) if val_accuracies else None,
        stdev(val_accuracies) if len(val_accuracies) > 1 else None,
        mean(test_accuracies) if test_accuracies else None,
        sum(outcome.report is None for outcome in outcomes),
    )


def write_sweep(
    folder: Path,
    trials: Sequence[Trial],
    outcomes: Sequence[TrialOutcome],
    sweep_rows: Sequence[SweepRow],
) -> Mapping[str, Any]:
    """Write the table as JSON, and its bar chart; return the JSON document.

    Args:
        folder: The output folder.
        trials: The training runs.
        outcomes: The outcome of each run, in the same order.
        sweep_rows: The rows from `build_rows`.

    Raises:
        UserError: A file cannot be written.
    """
    document = {
        "tcc_sweep": 1,
        "rows": [
            {
                "chosen": dict(r.parameters),
                "seeds": r.seeds,
                "val_accuracy": r.val_accuracy,
                "val_deviation": r.val_deviation,
                "test_accuracy": r.test_accuracy,
                "failed": r.failed,
            }
            for r in sweep_rows
        ],
        "trials": [
            {
                "name": t.name,
                "chosen": dict(t.varied_settings),
                "report": outcome.report,
                "said": outcome.error_text,
            }
            for t, outcome in zip(trials, outcomes, strict=True)
        ],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False)
    atomic_files.write_file(folder / JSON_FILE, f"{text}\n".encode())
    bars = [Bar(row.name, row.val_accuracy) for row in sweep_rows if row.val_accuracy is not None]
    if bars:
        title = "Validation accuracy, mean over seeds"
        scene = build_bar_chart(title, bars, bars[0].value)
        atomic_files.write_file(folder / FIGURE_FILE, svg.render_scene(scene, title).encode())
    return document
