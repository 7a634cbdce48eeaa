"""`tcc.train`: what `tcc train` does, for who calls it from Python."""

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
    """Says by Python's warnings what a command says on standard error."""

    def warn_text(self, text: str, code: str = "") -> None:
        """Warn."""
        warnings.warn(f"{code}: {text}" if code else text, stacklevel=2)

    def warn(self, diagnostic: Diagnostic | DiagnosticGroup) -> None:
        """Warn."""
        warnings.warn(str(diagnostic), stacklevel=2)

    def print_note(self, text: str) -> None:
        """Say nothing."""


class _SilentObserver:
    """Hears how far a training is, and tells nobody."""

    def report_step(self, completed_steps: int, total: int) -> None:
        """Hear it."""

    def report_epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """Hear it."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """The images, the folder to write, the seed, weights to begin with, and PyTorch's threads.

    With `resume`, the folder's training goes on.
    """

    data_path: Path
    folder: Path
    seed: int
    weights: Path | None
    threads: int | None
    resume: bool = False


def train(spec: "Spec", recipe: "Recipe", training_options: TrainingOptions) -> "TrainingReport":
    """Train a network on the CPU, and write the run's folder.

    Raises:
        UserError: As for `session.train`, or the images are wrong, or the folder is not empty, or
            has nothing to resume.
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
    # A file of weights, or random ones: a trained network's own are asked for by their file.
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
    """Return the parameters that are not as the spec's text has them, as `--set` takes them."""
    from tcc.compiler.driver.pipeline import describe_network

    defaults = describe_network(spec.recompile({})).params
    return tuple(
        f"{k}={v}" for k, v in describe_network(spec).params.items() if defaults.get(k) != v
    )
