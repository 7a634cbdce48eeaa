"""The rows of an experiment's tables as they were measured: what pages and pictures are of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from experiment_records import (
    Experiment,
    ExperimentForm,
    ExperimentResults,
    ExperimentRow,
    ExperimentTable,
    RunResult,
    place,
    tables,
)

from tcc.compiler.reference import confidence_intervals
from tcc.compiler.reference.classification_metrics import Rates, Scores, compute_scores


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row as measured: a run for each seed, and the judged figures of each."""

    row: ExperimentRow
    runs: Sequence[RunResult]
    judged: Sequence[Scores]
    positive: int | None

    def rates(self) -> Iterator[Rates]:
        """Yield each seed's precision, recall and F1."""
        for each in self.judged:
            yield each.weighted if self.positive is None else each.classes[self.positive].rates

    @property
    def middle(self) -> Scores:
        """The figures of the seed in the middle, by images that are right."""
        return sorted(self.judged, key=lambda each: each.correct)[(len(self.judged) - 1) // 2]

    @property
    def learned(self) -> bool:
        """Whether each seed is better than the most frequent class, as far as images can tell."""
        for each in self.judged:
            bounds = confidence_intervals.compute_share_interval(each.correct, each.images)
            most = max(one.support for one in each.classes)
            if bounds is None or bounds.low <= most / each.images:
                return False
        return True


def judged(confusion: Sequence[Sequence[int]]) -> Scores:
    """Return the figures of a matrix."""
    return compute_scores(np.array(confusion))


def form_of(of: Experiment, found: ExperimentResults) -> ExperimentForm:
    """Return the form that was measured."""
    return of.full if found.form == "full" else of.short


def rows(of: Experiment, table: ExperimentTable, found: ExperimentResults) -> list[TableRow]:
    """Return the rows of a table with what was measured of them."""
    form = form_of(of, found)
    classes = found.data[table.data].classes
    positive = classes.index(table.positive) if table.positive else None
    made = []
    for row in table.rows:
        key = place(row, table.recipe or of.recipe, table.data)
        each = [found.runs[f"{key}/seed-{seed}"] for seed in form.seeds]
        made.append(TableRow(row, each, [judged(run.confusion) for run in each], positive))
    return made


def measured(
    of: Experiment, found: ExperimentResults
) -> Iterator[tuple[ExperimentTable, TableRow]]:
    """Yield each row of all tables that were measured, with its table."""
    for table in tables(of, form_of(of, found)):
        for row in rows(of, table, found):
            yield table, row
