"""What a sweep came to: a table of its trainings, the mean over seeds, and a picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tcc.compiler.figures import svg
from tcc.compiler.figures.scene import Bar, bar_chart
from tcc.compiler.support import atomic_files
from tcc.compiler.train.sweep import Trial, TrialEnd

JSON, PICTURE = "sweep.json", "sweep.svg"


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One setting of a sweep: means over its seeds; `spread` is the validation's deviation."""

    chosen: Mapping[str, str]
    seeds: int
    val: float | None
    spread: float | None
    test: float | None
    failed: int

    @property
    def name(self) -> str:
        """What is chosen, in words."""
        return ", ".join(f"{key} {value}" for key, value in self.chosen.items()) or "as it is"


def rows(trials: Sequence[Trial], ends: Sequence[TrialEnd]) -> list[SweepRow]:
    """Return the settings, those that did best on the validation images first."""
    groups: dict[tuple[tuple[str, str], ...], list[TrialEnd]] = {}
    for trial, end in zip(trials, ends, strict=True):
        key = tuple((k, v) for k, v in trial.chosen.items() if k != "seed")
        groups.setdefault(key, []).append(end)
    made = [_row(dict(key), group) for key, group in groups.items()]
    return sorted(made, key=lambda row: -1.0 if row.val is None else row.val, reverse=True)


def _row(chosen: Mapping[str, str], ends: Sequence[TrialEnd]) -> SweepRow:
    reports = [end.report for end in ends if end.report]
    vals = [r["val"]["accuracy"] for r in reports if r["val"]]
    tests = [r["test"]["accuracy"] for r in reports if r["test"]]
    return SweepRow(
        chosen,
        len(ends),
        mean(vals) if vals else None,
        stdev(vals) if len(vals) > 1 else None,
        mean(tests) if tests else None,
        sum(end.report is None for end in ends),
    )


def write(
    folder: Path, trials: Sequence[Trial], ends: Sequence[TrialEnd], found: Sequence[SweepRow]
) -> Mapping[str, Any]:
    """Write the table as JSON, and its picture; return what the JSON says.

    Args:
        folder: Where the files go.
        trials: The trainings.
        ends: What became of each of them, in the same order.
        found: The rows that `rows` makes of these.

    Raises:
        UserError: A file cannot be written.
    """
    document = {
        "tcc_sweep": 1,
        "rows": [
            {"chosen": dict(r.chosen), "seeds": r.seeds, "val_accuracy": r.val,
             "val_deviation": r.spread, "test_accuracy": r.test, "failed": r.failed}
            for r in found
        ],
        "trials": [
            {"name": t.name, "chosen": dict(t.chosen), "report": e.report, "said": e.said}
            for t, e in zip(trials, ends, strict=True)
        ],
    }  # fmt: skip
    text = json.dumps(document, indent=1, ensure_ascii=False)
    atomic_files.write_file(folder / JSON, f"{text}\n".encode())
    bars = [Bar(row.name, row.val) for row in found if row.val is not None]
    if bars:
        title = "Validation accuracy, mean over seeds"
        scene = bar_chart(title, bars, bars[0].value)
        atomic_files.write_file(folder / PICTURE, svg.render_scene(scene, title).encode())
    return document
