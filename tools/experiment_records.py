"""What an experiment of a paper is, and what came out of it: the files that both lie in.

A declaration is a file of `tools/experiments`; its results lie in `docs/experiments`, as JSON.
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
"""The part of the training images that integers are calibrated with."""
FORMS = {
    "fp32": "float32",
    "dynamic": "dynamic range",
    "fp16": "half precision",
    "int8": "full integer",
}
"""The files of LiteRT that a network is written as, and what the page calls them."""
INTEGERS = ("int8 right", "int8 accuracy", "cosine")
"""The columns that need the integer program."""


class ExperimentForm(Record, frozen=True):
    """How much is trained: the recipe's epochs, the spec's size and all images where 0 or none.

    `images` is how many of a class are taken at most, by side; `without` are the titles of tables
    that are not measured; `recipe` are keys of all recipes, `rows` of those of single rows, by
    their names.
    """

    seeds: tuple[int, ...]
    epochs: int = 0
    size: int = 0
    images: Mapping[str, int] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    recipe: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class ImageSource(Record, frozen=True):
    """A folder of images, below that of all data; `classes` names those that make up a class."""

    folder: str
    about: str
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class ExperimentRow(Record, frozen=True):
    """A network of a table: its spec and settings, keys of the recipe, and what the paper prints.

    A key of the recipe has dots between sections, and YAML for a value.
    """

    name: str
    spec: str
    settings: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, str] = field(default_factory=dict)
    printed: tuple[str, ...] = ()


class ExperimentTable(Record, frozen=True):
    """A table: its images, columns and rows.

    `printed` heads the paper's own figures, `positive` is the class of precision, recall and F1,
    without which they are weighted averages; `confusion` are the rows whose matrices are drawn,
    `layers` those whose cosines are drawn layer by layer.
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
    """An experiment: what its page says first, its images, its two forms, its tables."""

    title: str
    about: str
    recipe: str
    data: Mapping[str, ImageSource]
    short: ExperimentForm
    full: ExperimentForm
    tables: tuple[ExperimentTable, ...]


@dataclass(frozen=True, slots=True)
class ExperimentRun:
    """A training of an experiment, and which figures beyond accuracy are measured."""

    row: ExperimentRow
    recipe: str
    data: str
    seed: int
    integers: bool
    forms: bool
    layers: bool

    @property
    def key(self) -> str:
        """What tells it from others, as a path."""
        return f"{make_run_path(self.row, self.recipe, self.data)}/seed-{self.seed}"


class IntegerResult(Record, frozen=True):
    """The integer program: images by class and class taken, and the outputs' mean cosine.

    `layers` are all values that integers keep, with their cosines over the test images.
    """

    confusion: tuple[tuple[int, ...], ...]
    cosine: float
    layers: OmitDefault[Mapping[str, float]] = field(default_factory=dict)


class FormResult(Record, frozen=True):
    """A file of one form: how many test images it gets right, and its bytes."""

    correct: int
    bytes: int


class RunResult(Record, frozen=True):
    """What came out of a training; shares of images in training and validation, counts in test."""

    parameters: int
    epochs: int
    training: float
    validation: float
    confusion: tuple[tuple[int, ...], ...]
    integers: IntegerResult | None
    forms: Mapping[str, FormResult]


class ImageCounts(Record, frozen=True):
    """The images that an experiment saw: classes, how many of each on each side, digests."""

    classes: tuple[str, ...]
    images: Mapping[str, tuple[int, ...]]
    digests: Mapping[str, str]


class ExperimentResults(Record, frozen=True):
    """All figures of an experiment, by the key of their run."""

    form: str
    made_with: Mapping[str, str]
    threads: int
    data: Mapping[str, ImageCounts]
    runs: Mapping[str, RunResult]


def make_run_path(row: ExperimentRow, recipe: str, data: str) -> str:
    """Return what a row's runs have in common, as a path."""
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
    """Yield the trainings that the tables need, each once."""
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
    """Return the figures of a file."""
    figures: ExperimentResults = json_records.decode(
        ExperimentResults, json.loads(path.read_text())
    )
    return figures


def format_record(record: object) -> str:
    """Return the text of a file of figures."""
    return json.dumps(json_records.encode(record), indent=1) + "\n"
