"""Write the pages of docs/experiments, and their pictures, from the figures beside them.

    python tools/make_experiments.py [--check]

`paper_experiments.py` measures the figures, which are JSON; what is measured is declared in
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
    RESULTS,
    Experiment,
    ExperimentResults,
    ExperimentTable,
    declaration,
    results,
    tables,
)
from experiment_rows import TableRow, form_of, judged, rows
from generated import settle

from tcc.compiler.figures import svg
from tcc.compiler.reference import confidence_intervals
from tcc.compiler.reference.classification_metrics import Scores

MARK = "\u2020"


def _share(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.4f}"
    return f"{mean:.4f} ({min(values):.4f} to {max(values):.4f})"


def _right(found: Sequence[Scores]) -> str:
    return ", ".join(str(each.correct) for each in found) + f" of {found[0].images}"


def _interval(row: TableRow) -> str:
    bounds = confidence_intervals.compute_share_interval(row.middle.correct, row.middle.images)
    return f"{bounds.low:.4f} to {bounds.high:.4f}" if bounds else ""


def _integers(row: TableRow) -> list[Scores]:
    return [judged(each.integers.confusion) for each in row.runs if each.integers]


def _of_integers(show: Callable[[list[Scores]], str]) -> Callable[[TableRow], str]:
    def shown(row: TableRow) -> str:
        found = _integers(row)
        return show(found) if len(found) == len(row.runs) else "not written"

    return shown


def _cosine(row: TableRow) -> str:
    found = [each.integers.cosine for each in row.runs if each.integers]
    return f"{statistics.fmean(found):.6f}" if found else ""


def _form(name: str) -> Callable[[TableRow], str]:
    def shown(row: TableRow) -> str:
        found = [run.forms[name] for run in row.runs]
        shares = _share([each.correct / row.middle.images for each in found])
        return f"{shares}, {found[0].bytes / 1e6:.2f} MB"

    return shown


COLUMNS: Mapping[str, Callable[[TableRow], str]] = {
    "parameters": lambda row: f"{row.runs[0].parameters:,}",
    "training accuracy": lambda row: _share([each.training for each in row.runs]),
    "validation accuracy": lambda row: _share([each.validation for each in row.runs]),
    "right": lambda row: _right(row.judged),
    "accuracy": lambda row: _share([each.accuracy for each in row.judged]),
    "interval": _interval,
    "precision": lambda row: _share([each.precision for each in row.rates()]),
    "recall": lambda row: _share([each.recall for each in row.rates()]),
    "F1": lambda row: _share([each.f1 for each in row.rates()]),
    "int8 right": _of_integers(_right),
    "int8 accuracy": _of_integers(lambda found: _share([each.accuracy for each in found])),
    "cosine": _cosine,
    **{name: _form(name) for name in FORMS},
}
"""What a column shows of a row."""


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def shown(of: Experiment, table: ExperimentTable, found: ExperimentResults) -> str:
    """Return a table of the page, with what has to be said of it."""
    measured = rows(of, table, found)
    head = ["network", *table.columns, *(f"paper: {name}" for name in table.printed)]
    lines = []
    for each in measured:
        name = each.row.name + ("" if each.learned else f" {MARK}")
        lines.append([name, *(COLUMNS[column](each) for column in table.columns)])
        lines[-1] += each.row.printed
    parts = [f"## {table.title}", markdown([FORMS.get(name, name) for name in head], lines)]
    if table.recipe:
        parts.append(f"The recipe here is `{table.recipe}`.")
    if table.positive:
        parts.append(f"Precision, recall and F1 are of `{table.positive}`.")
    elif "precision" in table.columns:
        parts.append("Precision, recall and F1 are averages over the classes, by their images.")
    if not all(each.learned for each in measured):
        parts.append(
            f"{MARK} **Not converged**: the interval of a seed holds the share of the most frequent"
            " class, which is right without a look at the image. In the last epoch "
            + "; ".join(_learned(each) for each in measured if not each.learned)
            + "."
        )
    return "\n\n".join(parts)


def _learned(row: TableRow) -> str:
    """Return how far a network came with the images that it learned from."""
    runs, name = row.runs, row.row.name
    return f"{name} told {_share([each.training for each in runs])} of its training images right"


def about_images(of: Experiment, found: ExperimentResults) -> Iterator[str]:
    """Yield what the images are, and how many there were of each class."""
    for name, seen in found.data.items():
        source = of.data[name]
        lines = [[side, *map(str, seen.images[side])] for side in seen.images]
        digest = seen.digests["test"][:16]
        yield f"**{name}**: {source.about} The test images' digest begins with `{digest}`.\n"
        yield markdown(["images", *seen.classes], lines) + "\n"


def about_form(of: Experiment, found: ExperimentResults, name: str) -> str:
    """Return what the page says of how it was made."""
    form = form_of(of, found)
    epochs = sorted({run.epochs for run in found.runs.values()})
    made = "; ".join(f"{key} {value}" for key, value in found.made_with.items())
    said = [
        f"images of {form.size} x {form.size} pixels" if form.size else "the specs' own sizes",
        f"{' or '.join(map(str, epochs))} epochs",
        "one seed" if len(form.seeds) == 1 else f"{len(form.seeds)} seeds",
        ", ".join(f"at most {count} a class in {side}" for side, count in form.images.items())
        or "all images",
        f"the recipe `{of.recipe}`",
        *(f"`{key}: {value}` in all recipes" for key, value in form.recipe.items()),
        *(
            f"of {name} " + " and ".join(f"`{key}: {value}`" for key, value in keys.items())
            for name, keys in form.rows.items()
        ),
        *(f"without {title!r}" for title in form.without),
        f"{found.threads} thread{'s' * (found.threads > 1)}",
    ]
    option = " --full" if found.form == "full" else ""
    more = "" if option else " `--full` is the whole one: the papers' size and epochs, three seeds."
    return (
        f"This is the **{found.form} form**: {'; '.join(said)}. `python tools/paper_experiments.py"
        f" {name} --data DIR{option}` made it, with {made}.{more}"
    )


def page(of: Experiment, found: ExperimentResults, stem: Path) -> dict[Path, str]:
    """Return the page of an experiment and its pictures; `stem` is their path without suffix."""
    files, links = {}, []
    for kind, picture in experiment_pictures.drawn(of, found).items():
        path = stem.with_name(f"{stem.name}-{kind}.svg")
        files[path] = svg.render_scene(picture, f"{of.title}: {kind}")
        links.append(f"![{of.title}: {kind}]({path.name})")
    spread = (
        "One seed was trained: another one gives other figures."
        if len({key.rpartition("-")[2] for key in found.runs}) == 1
        else "Shares are means over the seeds, with the least and the largest; an interval is that"
        " of the seed in the middle."
    )
    parts = [
        f"# {of.title}",
        of.about.strip(),
        "**Other images than the paper's, and so other figures**: a column `paper` is no target,"
        " and networks are not ranked by a few images. Intervals are exact ones of 95 % (Clopper,"
        f" Pearson). {spread}",
        about_form(of, found, stem.name),
        "\n".join(about_images(of, found)).strip(),
        *(shown(of, table, found) for table in tables(of, form_of(of, found))),
        *(["## Pictures", *links] if links else []),
        f"All figures are in [{stem.name}.json]({stem.name}.json).",
    ]
    return {stem.with_suffix(".md"): "\n\n".join(parts) + "\n", **files}


def main() -> int:
    """Write or check the pages; return the exit code."""
    wanted: dict[Path, str] = {}
    for path in sorted(RESULTS.glob("*.json")):
        of = declaration(DECLARATIONS / f"{path.stem}.yaml")
        wanted |= page(of, results(path), RESULTS / path.stem)
    return settle(wanted)


if __name__ == "__main__":
    sys.exit(main())
