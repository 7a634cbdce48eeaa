"""Read the measured rows of an experiment's tables, for pages and plots."""

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
    list_tables,
    make_run_path,
)

from tcc.compiler.reference import confidence_intervals
from tcc.compiler.reference.classification_metrics import Rates, Scores, compute_scores


@dataclass(frozen=True, slots=True)
class TableRow:
    """A measured row: a run for each seed, and the scores of each run."""

    row: ExperimentRow
    runs: Sequence[RunResult]
    seed_scores: Sequence[Scores]
    positive: int | None

    def list_rates(self) -> Iterator[Rates]:
        """Yield each seed's precision, recall and F1."""
        for class_scores in self.seed_scores:
            yield (
                class_scores.weighted
                if self.positive is None
                else class_scores.classes[self.positive].rates
            )

    @property
    def middle(self) -> Scores:
        """The scores of the median seed by number of correct images."""
        return sorted(self.seed_scores, key=lambda run_scores: run_scores.correct)[
            (len(self.seed_scores) - 1) // 2
        ]

    @property
    def beats_majority(self) -> bool:
        """Whether each seed's confidence interval is above the most frequent class's share."""
        for run_scores in self.seed_scores:
            bounds = confidence_intervals.compute_share_interval(
                run_scores.correct, run_scores.images
            )
            majority_count = max(class_scores.support for class_scores in run_scores.classes)
            if bounds is None or bounds.low <= majority_count / run_scores.images:
                return False
        return True


def score_confusion(confusion: Sequence[Sequence[int]]) -> Scores:
    """Return the scores of a confusion matrix."""
    return compute_scores(np.array(confusion))


def get_form(experiment: Experiment, figures: ExperimentResults) -> ExperimentForm:
    """Return the form that was measured."""
    return experiment.full if figures.form == "full" else experiment.short


def list_rows(
    experiment: Experiment, table: ExperimentTable, figures: ExperimentResults
) -> list[TableRow]:
    """Return the rows of a table with their measurements."""
    form = get_form(experiment, figures)
    classes = figures.data[table.data].classes
    positive = classes.index(table.positive) if table.positive else None
    table_rows = []
    for row in table.rows:
        key = make_run_path(row, table.recipe or experiment.recipe, table.data)
        seed_runs = [figures.runs[f"{key}/seed-{seed}"] for seed in form.seeds]
        table_rows.append(
            TableRow(
                row, seed_runs, [score_confusion(run.confusion) for run in seed_runs], positive
            )
        )
    return table_rows


def list_measured_rows(
    experiment: Experiment, figures: ExperimentResults
) -> Iterator[tuple[ExperimentTable, TableRow]]:
    """Yield each row of all measured tables, with its table."""
    for table in list_tables(experiment, get_form(experiment, figures)):
        for row in list_rows(experiment, table, figures):
            yield table, row
