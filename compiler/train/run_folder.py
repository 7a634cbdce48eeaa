"""The run folder: the files that a training writes.

- `weights.safetensors`: the weights, for `tcc build --weights`;
- `metrics.jsonl`: the metrics, one line per epoch;
- `split.csv`: the split of each image (`split_file`);
- `recipe.json`: the recipe as used, for `--recipe`;
- `report.json`: all inputs of the training, and its results;
- `calibration.json`: the scales, after quantization-aware training;
- `checkpoint.safetensors`: the state of an unfinished training.

The same training writes identical files. They contain no times, and no paths except those of the
images relative to their folder.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Protocol

from msgspec import Meta, field

from tcc.compiler.bundle.manifest import NetworkRecord, WeightsOrigin
from tcc.compiler.data.probability_quality import DecisionCurve, Reliability
from tcc.compiler.reference.confidence_intervals import Bounds, describe_accuracy
from tcc.compiler.support import atomic_files, json_records
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.support.json_records import OmitDefault, Record
from tcc.compiler.support.value_views import ValueView, count


class OutputMetrics(Record, frozen=True):
    """Metrics of one of several outputs."""

    accuracy: float
    macro_f1: float


class EvaluationMetrics(Record, frozen=True):
    """Metrics on images that the network is not trained on; `loss` is without smoothing.

    For a multi-label network, an image counts as correct if all its labels are. With several
    outputs, `loss` is the sum, `macro_f1` and `balanced_accuracy` are means, and `outputs` has the
    metrics of each. The balanced accuracy is the mean recall of the classes that have images. For
    decisions, it is the mean of sensitivity and specificity.
    """

    images: int
    loss: float
    accuracy: float
    macro_f1: float
    outputs: OmitDefault[Mapping[str, OutputMetrics]] = field(default_factory=dict)
    # With a default: reports of earlier versions lack it.
    balanced_accuracy: float | None = None


class EpochMetrics(Record, frozen=True):
    """Metrics of one epoch, counted from 1: its last learning rate, and means over its steps.

    `accuracy` is that of the augmented images during training.
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
    """The images: the digest and the class counts of each split, and the seed."""

    classes: tuple[str, ...]
    digests: Mapping[str, str]
    images: Mapping[str, tuple[int, ...]]
    seed: int


class DecisionCounts(Record, frozen=True):
    """Counts of a decision's positive and negative images, and of the correct ones of each."""

    positives: int = field(name="holds")
    true_positives: int = field(name="told_holds")
    negatives: int = field(name="holds_not")
    true_negatives: int = field(name="told_holds_not")


class OutputScores(Record, frozen=True):
    """Final scores of one output; `decisions` has the counts of each decision, if any."""

    labels: tuple[str, ...]
    correct: int
    accuracy: float
    interval: Bounds
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    decisions: Mapping[str, DecisionCounts]


class TestScores(ValueView, Record, frozen=True):
    """Final scores of the fp32 model on the test images, computed by the reference executor.

    `interval` is the exact 95 % confidence interval of the accuracy. For a multi-label network, an
    image counts as correct if all its labels are, and `outputs` has the scores of each output. A
    network with one scored output that has probabilities has their calibration errors and decision
    curves.
    """

    images: int
    correct: int
    accuracy: float
    interval: Bounds
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    outputs: OmitDefault[Mapping[str, OutputScores]] = field(default_factory=dict)
    calibration_errors: OmitDefault[tuple[Reliability, ...]] = ()
    decision_curves: OmitDefault[tuple[DecisionCurve, ...]] = ()

    def _summarize(self) -> Iterator[str]:
        yield f"{describe_accuracy(self.correct, self.images)}, macro F1 {self.macro_f1:.4f}"


class TrainingReport(ValueView, Record, frozen=True):
    """The contents of `report.json`.

    `weights` is the digest of the saved tensors, and `kept` is their epoch. `finished` is false if
    the training reached its time limit. After quantization-aware training, `val` is that of the
    int8 model, `start_val` is that of the int8 model before the training, and `calibration` is the
    seal of its calibration.
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
    start_val: OmitDefault[EvaluationMetrics | None] = None
    calibration: OmitDefault[str] = ""

    def _summarize(self) -> Iterator[str]:
        images = count(sum(self.data.images.get("train", ())), "training image")
        state = "" if self.finished else ", NOT FINISHED: reached the time limit"
        yield (
            f"Training of {self.network.name}: {count(self.epochs, 'epoch')}, weights of epoch "
            f"{self.kept}, {images}{state}"
        )
        if self.val:
            images = count(self.val.images, "image")
            yield f"validation: accuracy {self.val.accuracy:.1%} of {images}"
        test = str(self.test) if self.test else "no images were held out, so accuracy is unknown"
        yield f"test: {test}"


def check_folder(folder: Path, *, resume: bool) -> None:
    """Check that a folder can be used for a new or, with `resume`, an existing training.

    Raises:
        UserError: It contains a training already, contains other files, or has no training to
            resume (E1229).
    """
    at = make_file_span(str(folder))
    begun = any((folder / name).exists() for name in (CHECKPOINT, REPORT))
    if begun and not resume:
        help = "resume it with `--resume`, or choose another folder with -o"
        raise fail("E1229", "this folder already contains a training", at, help=help)
    # Do not mix other files with ours: `--resume` could not distinguish them.
    if not begun and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        help = "choose an empty or new folder with -o"
        raise fail("E1229", "this is neither an empty folder nor a training", at, help=help)
    if resume and not begun:
        help = "remove `--resume` to start a new training"
        raise fail("E1229", "there is no training to resume here", at, help=help)


def write_metrics(folder: Path, epochs: Sequence[EpochMetrics]) -> None:
    """Write a line of JSON for each epoch.

    Raises:
        UserError: The file cannot be written.
    """
    lines = [json.dumps(json_records.encode(epoch_metrics)) + "\n" for epoch_metrics in epochs]
    atomic_files.write_file(folder / METRICS, "".join(lines).encode())


def write_report(folder: Path, report: TrainingReport) -> None:
    """Write `report.json`.

    Raises:
        UserError: The file cannot be written.
    """
    text = json.dumps(json_records.encode(report), indent=1, ensure_ascii=False, allow_nan=False)
    atomic_files.write_file(folder / REPORT, f"{text}\n".encode())


def is_finished(folder: Path) -> bool:
    """Whether a folder contains a finished training: a report, and no checkpoint."""
    return (folder / REPORT).exists() and not (folder / CHECKPOINT).exists()


def read_report(folder: Path) -> TrainingReport:
    """Return the report of a finished training.

    Raises:
        UserError: The report cannot be read, or is not of this version (E1229).
    """
    path, document = folder / REPORT, None
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise atomic_files.explain(error, path, "read the report") from error
    except ValueError:
        pass
    help = "train again, with another folder"
    if not isinstance(document, dict) or not document.get("finished"):
        raise fail(
            "E1229",
            "this is no report of a finished training",
            make_file_span(str(path)),
            help=help,
        )
    with suppress(AttributeError, LookupError, TypeError, ValueError):
        if document["tcc_training"] == VERSION:
            report: TrainingReport = json_records.decode(TrainingReport, document)
            return report
    message = "this is not a training report of this version of tcc"
    raise fail("E1229", message, make_file_span(str(path)), help=help)


def build_mismatch_error(folder: Path, changed: Sequence[str]) -> UserError:
    """Return the error of a training that is resumed with changed inputs."""
    changed_names = ", ".join(changed)
    message = f"the training in this folder was started with different inputs: {changed_names}"
    help = "resume it with the original inputs, or start another training with -o"
    return fail("E1229", message, make_file_span(str(folder)), help=help)


class TrainingObserver(Protocol):
    """Receives the progress of a training."""

    def report_step(self, completed_steps: int, total: int) -> None:
        """Receive the number of completed steps of the run."""

    def report_epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Receive the metrics of a completed epoch."""


EVENTS = "tensorboard"
"""The folder of TensorBoard's events; they contain times, so they differ between runs."""


class MetricsLog:
    """An observer that writes the metrics of each epoch, and forwards them to another observer."""

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
        """Forward the number of completed steps of the run."""
        self._observer.report_step(completed_steps, total)

    def report_epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Write and forward the metrics of a completed epoch."""
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
    """Yield a TensorBoard event writer, which continues after `epochs`; None if not enabled."""
    if not is_enabled:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter  # it has no types
    with writer(str(folder / EVENTS), purge_step=epochs + 1) as event_writer:
        yield event_writer


def require_tensorboard(*, tensorboard: bool) -> None:
    """Check that TensorBoard is installed if it is enabled.

    Raises:
        MissingTool: TensorBoard is not installed.
    """
    if tensorboard and find_spec("tensorboard") is None:
        raise MissingTool(Tool("tensorboard", "write its events", None))
