"""Define and read the declarations and the results of a paper's experiments.

Declarations are YAML files in `tools/experiments`. Results are JSON files in `docs/experiments`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import field

from tcc.compiler.frontend.yaml import parse, to_plain
from tcc.compiler.support import json_records
from tcc.compiler.support.json_records import OmitDefault, Record

ROOT = Path(__file__).resolve().parents[1]
DECLARATIONS = ROOT / "tools" / "experiments"
RESULT_FOLDER = ROOT / "docs" / "experiments"
SPLITS = ("train", "val", "test")
CALIBRATION = "calibration"
"""The subset of the training images that calibrates int8."""
FORMS = {
    "fp32": "float32",
    "dynamic": "dynamic range",
    "fp16": "half precision",
    "int8": "full integer",
}
"""The LiteRT files of a network, and their names on the page."""
INTEGERS = ("int8 right", "int8 accuracy", "cosine")
"""The columns that need the integer program."""


class ExperimentForm(Record, frozen=True):
    """The amount of training. By default: the recipe's epochs, the spec's size, all images.

    `images` limits the number per class, by split. `without` lists the titles of tables that are
    not measured. `recipe` has keys of all recipes. `rows` has keys of the recipes of single rows,
    by row name.
    """

    seeds: tuple[int, ...]
    epochs: int = 0
    size: int = 0
    images: Mapping[str, int] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    recipe: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class ImageSource(Record, frozen=True):
    """An image folder below the data folder; `classes` lists the subfolders of each class."""

    folder: str
    about: str
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class ExperimentRow(Record, frozen=True):
    """A network of a table: its spec, settings, recipe keys and the paper's figures.

    A recipe key has dots between sections and a value in YAML.
    """

    name: str
    spec: str
    settings: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, str] = field(default_factory=dict)
    printed: tuple[str, ...] = ()


class ExperimentTable(Record, frozen=True):
    """A table: its images, columns and rows.

    `printed` are the headings of the paper's own figures. `positive` is the class of precision,
    recall and F1; without it, they are weighted averages. `confusion` lists the rows with a plotted
    confusion matrix, `layers` the rows with a plot of the cosine by layer.
    """

    title: str
    data: str
    columns: tuple[str, ...]
    rows: tuple[ExperimentRow, ...]
    printed: tuple[str, ...] = ()
    positive: str = ""
    recipe: str = ""
    confusion: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


class Experiment(Record, frozen=True):
    """An experiment: the introduction of its page, its images, its two forms and its tables."""

    title: str
    about: str
    recipe: str
    data: Mapping[str, ImageSource]
    short: ExperimentForm
    full: ExperimentForm
    tables: tuple[ExperimentTable, ...]


@dataclass(frozen=True, slots=True)
class ExperimentRun:
    """A training run of an experiment, and the figures beyond accuracy that it measures."""

    row: ExperimentRow
    recipe: str
    data: str
    seed: int
    integers: bool
    forms: bool
    layers: bool

    @property
    def key(self) -> str:
        """A unique key of the run, as a path."""
        return f"{make_run_path(self.row, self.recipe, self.data)}/seed-{self.seed}"


class IntegerResult(Record, frozen=True):
    """The int8 model: its confusion matrix (true class by predicted class) and mean cosine.

    `layers` has the cosine of every integer value over the test images.
    """

    confusion: tuple[tuple[int, ...], ...]
    cosine: float
    layers: OmitDefault[Mapping[str, float]] = field(default_factory=dict)


class FormResult(Record, frozen=True):
    """A file of one form: the number of correct test images and the size in bytes."""

    correct: int
    bytes: int


class RunResult(Record, frozen=True):
    """The result of a training: accuracies in training and validation, counts in test."""

    parameters: int
    epochs: int
    training: float
    validation: float
    confusion: tuple[tuple[int, ...], ...]
    integers: IntegerResult | None
    forms: Mapping[str, FormResult]


class ImageCounts(Record, frozen=True):
    """The images of an experiment: classes, number per class and split, digests."""

    classes: tuple[str, ...]
    images: Mapping[str, tuple[int, ...]]
    digests: Mapping[str, str]


class ExperimentResults(Record, frozen=True):
    """All figures of an experiment, by the key of the run."""

    form: str
    made_with: Mapping[str, str]
    threads: int
    data: Mapping[str, ImageCounts]
    runs: Mapping[str, RunResult]


def make_run_path(row: ExperimentRow, recipe: str, data: str) -> str:
    """Return the common part of the keys of a row's runs, as a path."""
    settings = (f"{key}={setting}" for key, setting in {**row.settings, **row.recipe}.items())
    plainly = re.sub(r"[^\w.=-]+", "-", "-".join([Path(row.spec).stem, recipe, *settings]))
    return f"{data}/{plainly.strip('-')}"


def list_tables(experiment: Experiment, form: ExperimentForm) -> list[ExperimentTable]:
    """Return the tables that a form measures."""
    return [
        replace(table, rows=tuple(_apply_form(row, form) for row in table.rows))
        for table in experiment.tables
        if table.title not in form.without
    ]


def _apply_form(row: ExperimentRow, form: ExperimentForm) -> ExperimentRow:
    return replace(row, recipe={**row.recipe, **form.rows.get(row.name, {})})


def list_runs(experiment: Experiment, form: ExperimentForm) -> Iterator[ExperimentRun]:
    """Yield the training runs that the tables need, each once."""
    run_keys = set()
    for table in list_tables(experiment, form):
        integers = any(column in INTEGERS for column in table.columns)
        forms = any(column in FORMS for column in table.columns)
        recipe = table.recipe or experiment.recipe
        for row in table.rows:
            for seed in form.seeds:
                layers = row.name in table.layers
                run = ExperimentRun(row, recipe, table.data, seed, integers, forms, layers)
                if run.key not in run_keys:
                    run_keys.add(run.key)
                    yield run


def read_declaration(path: Path) -> Experiment:
    """Return the experiment that a file declares."""
    experiment: Experiment = json_records.decode(
        Experiment, to_plain(parse(path.read_text(), path.name))
    )
    return experiment


def read_results(path: Path) -> ExperimentResults:
    """Return the figures in a file."""
    figures: ExperimentResults = json_records.decode(
        ExperimentResults, json.loads(path.read_text())
    )
    return figures


def format_record(record: object) -> str:
    """Return a record as the text of its file."""
    return json.dumps(json_records.encode(record), indent=1) + "\n"
