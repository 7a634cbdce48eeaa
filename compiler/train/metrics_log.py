"""The log of a training: a line of JSON an epoch and, if wanted, events for TensorBoard."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.train import run_folder
from tcc.compiler.train.loop import TrainingObserver
from tcc.compiler.train.metrics import EpochMetrics

EVENTS = "tensorboard"
"""The folder of TensorBoard's events, which hold the time and so are never the same twice."""


class MetricsLog:
    """Hears of a training, writes down each epoch, and tells another observer."""

    def __init__(
        self, folder: Path, done: tuple[EpochMetrics, ...], events: Any, told: TrainingObserver
    ) -> None:
        self._folder, self._done, self._events, self._told = folder, list(done), events, told

    def step(self, done: int, total: int) -> None:
        """Hear that so many steps of the whole run are done."""
        self._told.step(done, total)

    def epoch(self, found: EpochMetrics, epochs: int) -> None:
        """Hear how an epoch went."""
        self._done.append(found)
        run_folder.write_metrics(self._folder, self._done)
        for name, value in _scalars(found) if self._events else ():
            self._events.add_scalar(name, value, found.epoch)
        self._told.epoch(found, epochs)


def _scalars(found: EpochMetrics) -> Iterator[tuple[str, float]]:
    yield "learning_rate", found.learning_rate
    yield "loss/train", found.loss
    yield "accuracy/train", found.accuracy
    if found.val:
        yield "loss/val", found.val.loss
        yield "accuracy/val", found.val.accuracy
        yield "macro_f1/val", found.val.macro_f1
        for name, each in found.val.outputs.items():
            yield f"accuracy/val/{name}", each.accuracy
            yield f"macro_f1/val/{name}", each.macro_f1


@contextmanager
def events(folder: Path, epochs: int, *, wanted: bool) -> Iterator[Any]:
    """Give what writes TensorBoard's events after so many epochs; None where it is not wanted."""
    if not wanted:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter  # it has no types
    with writer(str(folder / EVENTS), purge_step=epochs + 1) as made:
        yield made


def require(*, tensorboard: bool) -> None:
    """Refuse to go on without TensorBoard where it is wanted.

    Raises:
        MissingTool: It is not installed.
    """
    if tensorboard and find_spec("tensorboard") is None:
        raise MissingTool(Tool("tensorboard", "write its events", None))
