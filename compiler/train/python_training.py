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

    def notice(self, text: str, code: str = "") -> None:
        """Warn."""
        warnings.warn(f"{code}: {text}" if code else text, stacklevel=2)

    def warn(self, diagnostic: Diagnostic | DiagnosticGroup) -> None:
        """Warn."""
        warnings.warn(str(diagnostic), stacklevel=2)

    def note(self, text: str) -> None:
        """Say nothing."""


class _Unheard:
    """Hears how far a training is, and tells nobody."""

    def step(self, done: int, total: int) -> None:
        """Hear it."""

    def epoch(self, found: "EpochMetrics", epochs: int) -> None:
        """Hear it."""


@dataclass(frozen=True, slots=True)
class TrainingPlace:
    """The images, the folder to write, the seed, weights to begin with, and PyTorch's threads.

    With `resume`, the folder's training goes on.
    """

    data: Path
    folder: Path
    seed: int
    weights: Path | None
    threads: int | None
    resume: bool = False


def train(spec: "Spec", recipe: "Recipe", place: TrainingPlace) -> "TrainingReport":
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
    run_folder.check(place.folder, resume=place.resume)
    state = place.folder / run_folder.CHECKPOINT
    chosen = ChosenSpec(spec, Project(), False, trained.of(spec))
    options = DataOptions(place.data, place.seed, None, _settings(spec), place.weights)
    chosen, sides = train_data.split(report, stages, chosen, options)
    stores = train_data.stores(report, stages, chosen.spec, sides, "refuse")
    # A file of weights, or random ones: a trained network's own are asked for by their file.
    start = pipeline.weights_of(chosen.spec, place.weights, place.seed)
    request = TrainingRequest(chosen.spec, start, recipe, sides, stores, place.folder, place.seed)
    threads = checkpoint.threads(state, place.threads)
    return session.train(replace(request, threads=threads), _Unheard(), stages)


def _settings(spec: "Spec") -> tuple[str, ...]:
    """Return the parameters that are not as the spec's text has them, as `--set` takes them."""
    from tcc.compiler.driver.pipeline import network

    usual = network(spec.again({})).params
    return tuple(f"{k}={v}" for k, v in network(spec).params.items() if usual.get(k) != v)
