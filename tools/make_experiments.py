"""Write the pages and plots of docs/experiments from the JSON results in that folder.

    python tools/make_experiments.py [--check]

`paper_experiments.py` measures the results. The declarations of the experiments are in
`tools/experiments`.
"""

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import experiment_pictures
from experiment_records import (
    DECLARATIONS,
    FORMS,
    RESULT_FOLDER,
    Experiment,
    ExperimentResults,
    ExperimentTable,
    list_tables,
    read_declaration,
    read_results,
)
from experiment_rows import TableRow, get_form, list_rows, score_confusion
from generated import write_or_check

from tcc.compiler.figures import svg
from tcc.compiler.reference import confidence_intervals
from tcc.compiler.reference.classification_metrics import Scores

MARK = "\u2020"


def _format_share(shares: Sequence[float]) -> str:
    mean = statistics.fmean(shares)
    if len(shares) == 1:
        return f"{mean:.4f}"
    return f"{mean:.4f} ({min(shares):.4f} to {max(shares):.4f})"


def _format_correct(scores: Sequence[Scores]) -> str:
    return ", ".join(str(seed_scores.correct) for seed_scores in scores) + f" of {scores[0].images}"


def _format_interval(row: TableRow) -> str:
    bounds = confidence_intervals.compute_share_interval(row.middle.correct, row.middle.images)
    return f"{bounds.low:.4f} to {bounds.high:.4f}" if bounds else ""


def _score_int8(row: TableRow) -> list[Scores]:
    return [score_confusion(run.integers.confusion) for run in row.runs if run.integers]


def _make_int8_column(show: Callable[[list[Scores]], str]) -> Callable[[TableRow], str]:
    def format_row(row: TableRow) -> str:
        scores = _score_int8(row)
        return show(scores) if len(scores) == len(row.runs) else "not written"

    return format_row


def _format_cosine(row: TableRow) -> str:
    cosines = [run.integers.cosine for run in row.runs if run.integers]
    return f"{statistics.fmean(cosines):.6f}" if cosines else ""


def _make_form_column(name: str) -> Callable[[TableRow], str]:
    def format_row(row: TableRow) -> str:
        form_figures = [run.forms[name] for run in row.runs]
        shares = _format_share(
            [form_figure.correct / row.middle.images for form_figure in form_figures]
        )
        return f"{shares}, {form_figures[0].bytes / 1e6:.2f} MB"

    return format_row


COLUMNS: Mapping[str, Callable[[TableRow], str]] = {
    "parameters": lambda row: f"{row.runs[0].parameters:,}",
    "training accuracy": lambda row: _format_share([run.training for run in row.runs]),
    "validation accuracy": lambda row: _format_share([run.validation for run in row.runs]),
    "right": lambda row: _format_correct(row.seed_scores),
    "accuracy": lambda row: _format_share([scores.accuracy for scores in row.seed_scores]),
    "interval": _format_interval,
    "precision": lambda row: _format_share([rates.precision for rates in row.list_rates()]),
    "recall": lambda row: _format_share([rates.recall for rates in row.list_rates()]),
    "F1": lambda row: _format_share([rates.f1 for rates in row.list_rates()]),
    "int8 right": _make_int8_column(_format_correct),
    "int8 accuracy": _make_int8_column(
        lambda seed_scores: _format_share([scores.accuracy for scores in seed_scores])
    ),
    "cosine": _format_cosine,
    **{name: _make_form_column(name) for name in FORMS},
}
"""The cell of each column for a row."""


def format_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def format_experiment_table(
    experiment: Experiment, table: ExperimentTable, figures: ExperimentResults
) -> str:
    """Return a table of the page, with its notes."""
    table_rows = list_rows(experiment, table, figures)
    head = ["network", *table.columns, *(f"paper: {name}" for name in table.printed)]
    lines = []
    for table_row in table_rows:
        name = table_row.row.name + ("" if table_row.beats_majority else f" {MARK}")
        lines.append([name, *(COLUMNS[column](table_row) for column in table.columns)])
        lines[-1] += table_row.row.printed
    parts = [f"## {table.title}", format_table([FORMS.get(name, name) for name in head], lines)]
    if table.recipe:
        parts.append(f"The recipe of this table is `{table.recipe}`.")
    if table.positive:
        parts.append(f"Precision, recall and F1 are of `{table.positive}`.")
    elif "precision" in table.columns:
        parts.append(
            "Precision, recall and F1 are averages over the classes, weighted by their images."
        )
    if not all(table_row.beats_majority for table_row in table_rows):
        parts.append(
            f"{MARK} **Not converged**: the interval of a seed contains the share of the most"
            " frequent class, the accuracy of always answering that class. In the last epoch, "
            + "; ".join(
                _describe_training(table_row)
                for table_row in table_rows
                if not table_row.beats_majority
            )
            + "."
        )
    return "\n\n".join(parts)


def _describe_training(row: TableRow) -> str:
    """Return the training accuracy of a network."""
    runs, name = row.runs, row.row.name
    return (
        f"{name} classified {_format_share([run.training for run in runs])}"
        " of its training images correctly"
    )


def describe_images(experiment: Experiment, figures: ExperimentResults) -> Iterator[str]:
    """Yield a description of each dataset, with the number of images per class."""
    for name, image_counts in figures.data.items():
        source = experiment.data[name]
        lines = [[side, *map(str, image_counts.images[side])] for side in image_counts.images]
        digest = image_counts.digests["test"][:16]
        yield f"**{name}**: {source.about} The test images' digest begins with `{digest}`.\n"
        yield format_table(["images", *image_counts.classes], lines) + "\n"


def describe_form(experiment: Experiment, figures: ExperimentResults, name: str) -> str:
    """Return the paragraph about how the results were measured."""
    form = get_form(experiment, figures)
    epochs = sorted({run.epochs for run in figures.runs.values()})
    versions = "; ".join(f"{key} {setting}" for key, setting in figures.made_with.items())
    conditions = [
        f"images of {form.size} x {form.size} pixels" if form.size else "the sizes of the specs",
        f"{' or '.join(map(str, epochs))} epochs",
        "one seed" if len(form.seeds) == 1 else f"{len(form.seeds)} seeds",
        ", ".join(f"at most {count} a class in {side}" for side, count in form.images.items())
        or "all images",
        f"the recipe `{experiment.recipe}`",
        *(f"`{key}: {setting}` in all recipes" for key, setting in form.recipe.items()),
        *(
            f"of {name} " + " and ".join(f"`{key}: {setting}`" for key, setting in keys.items())
            for name, keys in form.rows.items()
        ),
        *(f"without {title!r}" for title in form.without),
        f"{figures.threads} thread{'s' * (figures.threads > 1)}",
    ]
    option = " --full" if figures.form == "full" else ""
    full_note = (
        "" if option else " `--full` runs the full form: the papers' size and epochs, three seeds."
    )
    return (
        f"This is the **{figures.form} form**: {'; '.join(conditions)}. `python "
        "tools/paper_experiments.py"
        f" {name} --data DIR{option}` generated it, with {versions}.{full_note}"
    )


def make_pages(experiment: Experiment, figures: ExperimentResults, stem: Path) -> dict[Path, str]:
    """Return the page of an experiment and its plots; `stem` is their path without suffix."""
    files, links = {}, []
    for kind, picture in experiment_pictures.draw_experiment(experiment, figures).items():
        path = stem.with_name(f"{stem.name}-{kind}.svg")
        files[path] = svg.render_scene(picture, f"{experiment.title}: {kind}")
        links.append(f"![{experiment.title}: {kind}]({path.name})")
    spread = (
        "One seed was trained; another seed gives other figures."
        if len({key.rpartition("-")[2] for key in figures.runs}) == 1
        else "Shares are means over the seeds, with the least and the largest. An interval is that"
        " of the median seed."
    )
    parts = [
        f"# {experiment.title}",
        experiment.about.strip(),
        "**The images are not the paper's, so the figures differ**: do not treat a column `paper`"
        " as a target, and do not rank networks by so few images. Intervals are exact 95 %"
        f" confidence intervals (Clopper, Pearson). {spread}",
        describe_form(experiment, figures, stem.name),
        "\n".join(describe_images(experiment, figures)).strip(),
        *(
            format_experiment_table(experiment, table, figures)
            for table in list_tables(experiment, get_form(experiment, figures))
        ),
        *(["## Figures", *links] if links else []),
        f"All figures are in [{stem.name}.json]({stem.name}.json).",
    ]
    return {stem.with_suffix(".md"): "\n\n".join(parts) + "\n", **files}


def main() -> int:
    """Write or check the pages; return the exit code."""
    pages: dict[Path, str] = {}
    for path in sorted(RESULT_FOLDER.glob("*.json")):
        experiment = read_declaration(DECLARATIONS / f"{path.stem}.yaml")
        pages |= make_pages(experiment, read_results(path), RESULT_FOLDER / path.stem)
    return write_or_check(pages)


if __name__ == "__main__":
    sys.exit(main())
