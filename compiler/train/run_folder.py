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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Protocol

from msgspec import Meta, field

from tcc.compiler.bundle.manifest import NetworkRecord, WeightsOrigin
from tcc.compiler.reference.confidence_intervals import Bounds, describe_accuracy
from tcc.compiler.support import atomic_files, json_records
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.support.json_records import OmitDefault, Record
from tcc.compiler.support.value_views import ValueView, count


class OutputMetrics(Record, frozen=True):
    """How one of several outputs does."""

    accuracy: float
    macro_f1: float


class EvaluationMetrics(Record, frozen=True):
    """How the network does on images that it does not learn from; `loss` is without smoothing.

    Where it tells more than one class, an image counts as correct where all that it tells is. Of
    several outputs, `loss` is the sum, `macro_f1` the mean, and `outputs` has each.
    """

    images: int
    loss: float
    accuracy: float
    macro_f1: float
    outputs: OmitDefault[Mapping[str, OutputMetrics]] = field(default_factory=dict)


class EpochMetrics(Record, frozen=True):
    """One epoch, counted from 1: its last learning rate, and means over its steps.

    `accuracy` is of the augmented images, each at the moment when it was learned from.
    """

    epoch: int
    learning_rate: float
    loss: float
    accuracy: float
    val: EvaluationMetrics | None


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

    positives: int = field(name="holds")
    true_positives: int = field(name="told_holds")
    negatives: int = field(name="holds_not")
    true_negatives: int = field(name="told_holds_not")


class OutputScores(Record, frozen=True):
    """The final judgement of one output; `decisions` are those of an output that has some."""

    labels: tuple[str, ...]
    correct: int
    accuracy: float
    interval: Bounds
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    decisions: Mapping[str, DecisionCounts]


class TestScores(ValueView, Record, frozen=True):
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

    def _summarize(self) -> Iterator[str]:
        yield f"{describe_accuracy(self.correct, self.images)}, macro F1 {self.macro_f1:.4f}"


class TrainingReport(ValueView, Record, frozen=True):
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
    val: EvaluationMetrics | None
    test: TestScores | None
    made_with: Mapping[str, str]
    threads: int
    processes: int

    def _summarize(self) -> Iterator[str]:
        images = count(sum(self.data.images.get("train", ())), "training image")
        state = "" if self.finished else ", NOT FINISHED: the time was over"
        yield (
            f"Training of {self.network.name}: {count(self.epochs, 'epoch')}, weights of epoch "
            f"{self.kept}, {images}{state}"
        )
        if self.val:
            images = count(self.val.images, "image")
            yield f"validation: accuracy {self.val.accuracy:.1%} of {images}"
        test = str(self.test) if self.test else "no images were kept apart, accuracy is not known"
        yield f"test: {test}"


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that holds another training, or none to be resumed, before any work.

    Raises:
        UserError: E1229.
    """
    at = make_file_span(str(folder))
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


def write_metrics(folder: Path, epochs: Sequence[EpochMetrics]) -> None:
    """Write a line of JSON for each epoch.

    Raises:
        UserError: The file cannot be written.
    """
    lines = [json.dumps(json_records.encode(epoch_metrics)) + "\n" for epoch_metrics in epochs]
    atomic_files.write_file(folder / METRICS, "".join(lines).encode())


def write_report(folder: Path, report: TrainingReport) -> None:
    """Write what the training says of itself.

    Raises:
        UserError: The file cannot be written.
    """
    text = json.dumps(json_records.encode(report), indent=1, ensure_ascii=False, allow_nan=False)
    atomic_files.write_file(folder / REPORT, f"{text}\n".encode())


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a training that is at its end: a report, and no state to go on."""
    return (folder / REPORT).exists() and not (folder / CHECKPOINT).exists()


def read_report(folder: Path) -> TrainingReport:
    """Return what the report of a finished training says.

    Raises:
        UserError: It cannot be read, or is no report of this version (E1229).
    """
    path, document = folder / REPORT, None
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise atomic_files.explain(error, path, "read the report") from error
    except ValueError:
        pass
    help = "train again, into another folder"
    if not isinstance(document, dict) or not document.get("finished"):
        raise fail(
            "E1229", "there is no training to resume here", make_file_span(str(path)), help=help
        )
    with suppress(AttributeError, LookupError, TypeError, ValueError):
        if document["tcc_training"] == VERSION:
            report: TrainingReport = json_records.decode(TrainingReport, document)
            return report
    message = "this is no report of a training of this version"
    raise fail("E1229", message, make_file_span(str(path)), help=help)


def build_mismatch_error(folder: Path, changed: Sequence[str]) -> UserError:
    """Return the error of a training that is resumed with other things than it began with."""
    changed_names = ", ".join(changed)
    message = f"the training here was begun with another {changed_names}"
    help = "resume it with what it was begun with, or begin another one with -o"
    return fail("E1229", message, make_file_span(str(folder)), help=help)


class TrainingObserver(Protocol):
    """Told how far a training is."""

    def report_step(self, completed_steps: int, total: int) -> None:
        """Hear that so many steps of the whole run are done."""

    def report_epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Hear how an epoch went."""


EVENTS = "tensorboard"
"""The folder of TensorBoard's events, which hold the time and so are never the same twice."""


class MetricsLog:
    """Hears of a training, writes down each epoch, and tells another observer."""

    def __init__(
        self,
        folder: Path,
        completed_epochs: tuple[EpochMetrics, ...],
        events: Any,
        observer: TrainingObserver,
    ) -> None:
        self._folder, self._completed_epochs, self._events, self._observer = (
            folder,
            list(completed_epochs),
            events,
            observer,
        )

    def report_step(self, completed_steps: int, total: int) -> None:
        """Hear that so many steps of the whole run are done."""
        self._observer.report_step(completed_steps, total)

    def report_epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Hear how an epoch went."""
        self._completed_epochs.append(metrics)
        write_metrics(self._folder, self._completed_epochs)
        for name, scalar in _iterate_scalars(metrics) if self._events else ():
            self._events.add_scalar(name, scalar, metrics.epoch)
        self._observer.report_epoch(metrics, epochs)


def _iterate_scalars(metrics: EpochMetrics) -> Iterator[tuple[str, float]]:
    yield "learning_rate", metrics.learning_rate
    yield "loss/train", metrics.loss
    yield "accuracy/train", metrics.accuracy
    if metrics.val:
        yield "loss/val", metrics.val.loss
        yield "accuracy/val", metrics.val.accuracy
        yield "macro_f1/val", metrics.val.macro_f1
        for name, output_metrics in metrics.val.outputs.items():
            yield f"accuracy/val/{name}", output_metrics.accuracy
            yield f"macro_f1/val/{name}", output_metrics.macro_f1


@contextmanager
def open_event_writer(folder: Path, epochs: int, *, is_enabled: bool) -> Iterator[Any]:
    """Give what writes TensorBoard's events after so many epochs; None where it is not wanted."""
    if not is_enabled:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter  # it has no types
    with writer(str(folder / EVENTS), purge_step=epochs + 1) as event_writer:
        yield event_writer


def require_tensorboard(*, tensorboard: bool) -> None:
    """Refuse to go on without TensorBoard where it is wanted.

    Raises:
        MissingTool: It is not installed.
    """
    if tensorboard and find_spec("tensorboard") is None:
        raise MissingTool(Tool("tensorboard", "write its events", None))
