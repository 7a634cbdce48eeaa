"""The folder of a training: what is written there, and what it says of itself.

- `weights.safetensors`: what `tcc build --weights` takes;
- `metrics.jsonl`: a line an epoch;
- `split.csv`: on which side each image was (`split_file`);
- `recipe.json`: the recipe as used, which `--recipe` takes again;
- `report.json`: all that the weights depend on, and what they are worth;
- `calibration.json`: the scales, where the network was trained as its integer program;
- `checkpoint.safetensors`: the state of a training that is not at its end.

The same training gives the same bytes: no time is in them, and no path but the images' own below
their folder.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from msgspec import Meta, field

from tcc.compiler.bundle.manifest import NetworkRecord, WeightsOrigin
from tcc.compiler.reference.confidence_intervals import Bounds
from tcc.compiler.support import atomic_files, json_records
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.json_records import OmitDefault, Record
from tcc.compiler.train.metrics import EpochMetrics, Judgement

WEIGHTS, METRICS, RECIPE = "weights.safetensors", "metrics.jsonl", "recipe.json"
CALIBRATION = "calibration.json"
REPORT, CHECKPOINT = "report.json", "checkpoint.safetensors"
VERSION = 1


class TrainedData(Record, frozen=True):
    """The images: the digest of each side, how many images each class has there, and the seed."""

    classes: tuple[str, ...]
    digests: Mapping[str, str]
    images: Mapping[str, tuple[int, ...]]
    seed: int


class DecisionCounts(Record, frozen=True):
    """Images of which a decision holds, of which it does not, and how many of each are told so."""

    holds: int
    told_holds: int
    holds_not: int
    told_holds_not: int


class OutputScores(Record, frozen=True):
    """The final judgement of one output; `decisions` are those of an output that has some."""

    labels: tuple[str, ...]
    correct: int
    accuracy: float
    interval: Bounds
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    decisions: Mapping[str, DecisionCounts]


class TestScores(Record, frozen=True):
    """The final judgement, in floats by the reference executor, on images of no other use.

    `interval` is the accuracy's exact one, of 95 %. Where a network tells more than one class, an
    image counts as correct where all is told right, and `outputs` has each output.
    """

    images: int
    correct: int
    accuracy: float
    interval: Bounds
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    outputs: OmitDefault[Mapping[str, OutputScores]] = field(default_factory=dict)


class TrainingReport(Record, frozen=True):
    """All that `report.json` says; `weights` is the digest of the tensors that were kept.

    `kept` is the epoch whose weights they are; `finished` is false where the time was over first.
    """

    tcc_training: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    network: NetworkRecord
    start: WeightsOrigin
    recipe: str
    seed: int
    data: TrainedData
    finished: bool
    epochs: int
    kept: int
    weights: str
    val: Judgement | None
    test: TestScores | None
    made_with: Mapping[str, str]
    threads: int
    processes: int


def check(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that holds another training, or none to be resumed, before any work.

    Raises:
        UserError: E1229.
    """
    at = whole_file(str(folder))
    begun = any((folder / name).exists() for name in (CHECKPOINT, REPORT))
    if begun and not resume:
        help = "`--resume` goes on with it; else choose another folder with -o"
        raise fail("E1229", "this folder holds a training already", at, help=help)
    # Files of another kind would be mixed with ours, and `--resume` could not tell whose they are.
    if not begun and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        help = "choose a folder that is empty, or not there yet, with -o"
        raise fail("E1229", "this holds something else than a training", at, help=help)
    if resume and not begun:
        help = "leave out `--resume` to begin"
        raise fail("E1229", "there is no training to resume here", at, help=help)


def write_metrics(folder: Path, done: Sequence[EpochMetrics]) -> None:
    """Write a line of JSON for each epoch.

    Raises:
        UserError: The file cannot be written.
    """
    lines = [json.dumps(json_records.encode(each)) + "\n" for each in done]
    atomic_files.write_file(folder / METRICS, "".join(lines).encode())


def write_report(folder: Path, report: TrainingReport) -> None:
    """Write what the training says of itself.

    Raises:
        UserError: The file cannot be written.
    """
    text = json.dumps(json_records.encode(report), indent=1, ensure_ascii=False, allow_nan=False)
    atomic_files.write_file(folder / REPORT, f"{text}\n".encode())


def finished(folder: Path) -> bool:
    """Whether a folder holds a training that is at its end: a report, and no state to go on."""
    return (folder / REPORT).exists() and not (folder / CHECKPOINT).exists()


def read(folder: Path) -> TrainingReport:
    """Return what the report of a finished training says.

    Raises:
        UserError: It cannot be read, or is no report of this version (E1229).
    """
    path, plain = folder / REPORT, None
    try:
        plain = json.loads(path.read_bytes())
    except OSError as error:
        raise atomic_files.explain(error, path, "read the report") from error
    except ValueError:
        pass
    help = "train again, into another folder"
    if not isinstance(plain, dict) or not plain.get("finished"):
        raise fail("E1229", "there is no training to resume here", whole_file(str(path)), help=help)
    with suppress(AttributeError, LookupError, TypeError, ValueError):
        if plain["tcc_training"] == VERSION:
            found: TrainingReport = json_records.decode(TrainingReport, plain)
            return found
    message = "this is no report of a training of this version"
    raise fail("E1229", message, whole_file(str(path)), help=help)


def other(folder: Path, changed: Sequence[str]) -> UserError:
    """Return the error of a training that is resumed with other things than it began with."""
    said = ", ".join(changed)
    message = f"the training here was begun with another {said}"
    help = "resume it with what it was begun with, or begin another one with -o"
    return fail("E1229", message, whole_file(str(folder)), help=help)
