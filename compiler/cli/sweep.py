"""`tcc train --sweep`: many trainings, and a table of what they came to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver.chosen_spec import ChosenSpec
from tcc.compiler.support import option_needs, task_places
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.option_needs import FIXED_EPOCHS
from tcc.compiler.support.task_places import LostTask, TaskPlace
from tcc.compiler.train.train_data import DataOptions

if TYPE_CHECKING:
    from tcc.compiler.report.sweep_report import SweepRow
    from tcc.compiler.train.recipe_records import Recipe
    from tcc.compiler.train.sweep import Trial, TrialCommand


@dataclass(frozen=True)
class SweepRequest:
    """What is swept, and where; `words` are the options of every training, as they are typed."""

    file: Path
    spec: Path
    recipe: "Recipe"
    words: tuple[str, ...]
    place: TaskPlace


def sweep_words(
    chosen: ChosenSpec,
    given: DataOptions,
    qat: Path | None,
    more: Mapping[str, str | int | None],
    *,
    tensorboard: bool,
) -> tuple[str, ...]:
    """Return the options that every training of a sweep has, with paths that hold anywhere.

    Args:
        chosen: The spec, and the project that may name the images.
        given: What the command line says of images, weights and settings.
        qat: The calibration to train with.
        more: Other options by name; those without a value are left out.
        tensorboard: Whether events are written.
    """
    data = given.path or chosen.project.data
    paths = {"--data": data, "--weights": given.weights, "--qat": qat}
    words = [word for name, path in paths.items() if path for word in (name, str(path.resolve()))]
    others = {"--split": given.shares, **more}
    words += [str(word) for name, value in others.items() if value for word in (name, value)]
    words += ["--tensorboard"] * tensorboard
    return (*words, *(word for setting in given.settings for word in ("--set", setting)))


def sweep(report: Report, stages: Stages, request: SweepRequest) -> None:
    """Run every training that is not finished, and write and print the table.

    Args:
        report: Where results and warnings are told.
        stages: Told of each training.
        request: The sweep, and what each training has in common.

    Raises:
        UserError: The sweep is wrong (E1232), or a training failed (E1233).
    """
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.report import sweep_report
    from tcc.compiler.train import sweep as sweeps
    from tcc.compiler.train.sweep import TrialEnd

    folder = request.place.folder
    trials = sweeps.read(request.file, request.recipe)
    option_needs.require({FIXED_EPOCHS: all("epochs" not in trial.chosen for trial in trials)})
    for settings in dict.fromkeys(trial.settings for trial in trials):
        load(request.spec, dict(one.split("=", 1) for one in settings))  # said before any work
    commands = [_command(request, trial) for trial in trials]
    ends: dict[int, TrialEnd] = {}
    with task_places.opened(request.place, "run a sweep there") as run:
        stages("trainings", 0, len(trials))
        for place, ended in run(sweeps.run_trial, commands):
            end = TrialEnd(None, ended.why) if isinstance(ended, LostTask) else ended
            ends[place] = end
            stages("trainings", len(ends), len(trials))
            report.note(f"{len(ends)}/{len(trials)} {trials[place].name}: {end.said or 'done'}")
            stages.spoke()
    ordered = [ends[place] for place in range(len(trials))]
    found = sweep_report.rows(trials, ordered)
    document = sweep_report.write(folder, trials, ordered, found)
    _print(report, folder, found)
    failed = [(t, e) for t, e in zip(trials, ordered, strict=True) if e.report is None]
    if failed:
        trial, end = failed[0]
        message = f"{len(failed)} of {len(trials)} trainings failed"
        where = whole_file(str(folder / trial.name))
        raise fail("E1233", message, where, label=end.said[:600])
    report.document(document)


def _command(request: SweepRequest, trial: "Trial") -> "TrialCommand":
    """Write a training's recipe, and return its words."""
    from tcc.compiler.support import atomic_files
    from tcc.compiler.train import recipe as recipes
    from tcc.compiler.train.sweep import TrialCommand

    base = request.place.folder.resolve()
    path = base / f"{trial.name}.recipe.json"
    atomic_files.write_file(path, recipes.text(trial.recipe).encode())
    folder = str(base / trial.name)
    settings = [word for setting in trial.settings for word in ("--set", setting)]
    words = ("train", str(request.spec.resolve()), *request.words, *settings, "--recipe", str(path))
    return TrialCommand((*words, "--seed", str(trial.seed), "-o", folder, "-q"), folder)


def _print(report: Report, folder: Path, found: "Sequence[SweepRow]") -> None:
    report.text(str(folder))
    rows = [
        (row.name, row.seeds, _share(row.val), _share(row.spread), _share(row.test), row.failed)
        for row in found
    ]
    heads = ("setting", "seeds", "validation", "deviation", "test", "failed")
    if not report.quiet:
        report.table(heads, rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
