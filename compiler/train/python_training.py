"""Implementation of `tcc.train`, the Python counterpart of `tcc train`."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver.chosen_spec import ChosenSpec
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import Diagnostic, DiagnosticGroup
from tcc.compiler.support.project_file import Project
from tcc.compiler.train import train_data
from tcc.compiler.train.train_data import DataOptions

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.train.recipe_records import Recipe
    from tcc.compiler.train.run_folder import EpochMetrics, TrainingReport


class PythonReport(Report):
    """A report that issues Python warnings instead of writing to standard error."""

    def warn_text(self, text: str, code: str = "") -> None:
        """Issue a warning with an optional error code."""
        warnings.warn(f"{code}: {text}" if code else text, stacklevel=2)

    def warn(self, diagnostic: Diagnostic | DiagnosticGroup) -> None:
        """Issue a diagnostic as a warning."""
        warnings.warn(str(diagnostic), stacklevel=2)

    def print_note(self, text: str) -> None:
        """Discard a note."""


class _SilentObserver:
    """An observer that ignores the progress of a training."""

    def report_step(self, completed_steps: int, total: int) -> None:
        """Ignore a step."""

    def report_epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """Ignore an epoch."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Options of `tcc.train`.

    Attributes:
        data_path: The images.
        folder: The run folder.
        seed: The seed.
        weights: The initial weights; None for random weights.
        threads: The number of PyTorch threads; None for the default.
        resume: Whether to resume the training in `folder`.
    """

    data_path: Path
    folder: Path
    seed: int
    weights: Path | None
    threads: int | None
    resume: bool = False


def train(spec: "Spec", recipe: "Recipe", training_options: TrainingOptions) -> "TrainingReport":
    """Train a network on the CPU and write the run folder.

    Raises:
        UserError: As for `session.train`; or the images are invalid, the folder is not empty, or
            there is no training to resume.
    """
    from tcc.compiler.driver import pipeline
    from tcc.compiler.train import checkpoint, run_folder, session
    from tcc.compiler.train.training_request import TrainingRequest
    from tcc.compiler.zoo import trained

    report, stages = PythonReport(), Stages()
    run_folder.check_folder(training_options.folder, resume=training_options.resume)
    checkpoint_path = training_options.folder / run_folder.CHECKPOINT
    chosen_spec = ChosenSpec(spec, Project(), False, trained.find_by_spec(spec))
    options = DataOptions(
        training_options.data_path,
        training_options.seed,
        None,
        _list_settings(spec),
        training_options.weights,
    )
    chosen_spec, image_split = train_data.split_images(report, stages, chosen_spec, options)
    stores = train_data.decode_splits(report, stages, chosen_spec.spec, image_split, "refuse")
    # A weights file, or random weights; the weights of a zoo network must be given as a file.
    start = pipeline.load_weights(chosen_spec.spec, training_options.weights, training_options.seed)
    request = TrainingRequest(
        chosen_spec.spec,
        start,
        recipe,
        image_split,
        stores,
        training_options.folder,
        training_options.seed,
    )
    threads = checkpoint.resolve_thread_count(checkpoint_path, training_options.threads)
    return session.train(replace(request, threads=threads), _SilentObserver(), stages)


def _list_settings(spec: "Spec") -> tuple[str, ...]:
    """Return the parameters that differ from the spec's defaults, in the form of `--set`."""
    from tcc.compiler.driver.pipeline import describe_network

    defaults = describe_network(spec.recompile({})).params
    return tuple(
        f"{k}={v}" for k, v in describe_network(spec).params.items() if defaults.get(k) != v
    )
