"""`tcc train --sweep`: run many trainings and print a table of their results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver.chosen_spec import ChosenSpec
from tcc.compiler.support import option_requirements, task_runners
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.option_requirements import FIXED_EPOCHS
from tcc.compiler.support.task_runners import LostTask, TaskLocation
from tcc.compiler.train.train_data import DataOptions

if TYPE_CHECKING:
    from tcc.compiler.report.sweep_report import SweepRow
    from tcc.compiler.train.recipe_records import Recipe
    from tcc.compiler.train.sweep import Trial, TrialCommand


@dataclass(frozen=True)
class SweepRequest:
    """The trainings of a sweep, and where they run; `options` are those of each, as typed."""

    file: Path
    spec: Path
    recipe: "Recipe"
    options: tuple[str, ...]
    task_place: TaskLocation


def list_sweep_options(
    chosen_spec: ChosenSpec,
    data_options: DataOptions,
    qat: Path | None,
    extra_options: Mapping[str, str | int | None],
    *,
    tensorboard: bool,
) -> tuple[str, ...]:
    """Return the options of every training of a sweep, with absolute paths.

    Args:
        chosen_spec: The spec, and the project that can name the images.
        data_options: The images, weights and settings of the command line.
        qat: The calibration to train with.
        extra_options: Other options by name; those without a value are left out.
        tensorboard: Whether events are written.
    """
    data_path = data_options.path or chosen_spec.project.data
    paths = {"--data": data_path, "--weights": data_options.weights, "--qat": qat}
    option_texts = [
        text for name, path in paths.items() if path for text in (name, str(path.resolve()))
    ]
    other_options = {"--split": data_options.shares, **extra_options}
    option_texts += [
        str(text) for name, value in other_options.items() if value for text in (name, value)
    ]
    option_texts += ["--tensorboard"] * tensorboard
    return (
        *option_texts,
        *(text for setting in data_options.settings for text in ("--set", setting)),
    )


def run_sweep(report: Report, stages: Stages, request: SweepRequest) -> None:
    """Run every training that is not finished, and write and print the table.

    Args:
        report: Prints results and warnings.
        stages: Shows the progress.
        request: The sweep, and the options of all trainings.

    Raises:
        UserError: The sweep is wrong (E1232), or a training failed (E1233).
    """
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.report import sweep_report
    from tcc.compiler.train import sweep as sweeps
    from tcc.compiler.train.sweep import TrialOutcome

    folder = request.task_place.folder
    trials = sweeps.read_sweep(request.file, request.recipe)
    option_requirements.report_facts(
        {FIXED_EPOCHS: all("epochs" not in trial.varied_settings for trial in trials)}
    )
    for settings in dict.fromkeys(trial.settings for trial in trials):
        load(
            request.spec, dict(setting.split("=", 1) for setting in settings)
        )  # check before any work
    commands = [_write_command(request, trial) for trial in trials]
    trial_ends: dict[int, TrialOutcome] = {}
    with task_runners.open_runner(request.task_place, "run a sweep there") as run:
        stages("trainings", 0, len(trials))
        for index, ended in run(sweeps.run_trial, commands):
            end = TrialOutcome(None, ended.reason) if isinstance(ended, LostTask) else ended
            trial_ends[index] = end
            stages("trainings", len(trial_ends), len(trials))
            report.print_note(
                f"{len(trial_ends)}/{len(trials)} {trials[index].name}: {end.error_text or 'done'}"
            )
            stages.record_output()
    ordered = [trial_ends[index] for index in range(len(trials))]
    rows = sweep_report.build_rows(trials, ordered)
    document = sweep_report.write_sweep(folder, trials, ordered, rows)
    _print(report, folder, rows)
    failed = [(t, e) for t, e in zip(trials, ordered, strict=True) if e.report is None]
    if failed:
        trial, end = failed[0]
        message = f"{len(failed)} of {len(trials)} trainings failed"
        location = make_file_span(str(folder / trial.name))
        raise fail("E1233", message, location, label=end.error_text[:600])
    report.print_document(document)


def _write_command(request: SweepRequest, trial: "Trial") -> "TrialCommand":
    """Write the recipe of a training, and return its command line."""
    from tcc.compiler.support import atomic_files
    from tcc.compiler.train import recipe as recipes
    from tcc.compiler.train.sweep import TrialCommand

    base = request.task_place.folder.resolve()
    path = base / f"{trial.name}.recipe.json"
    atomic_files.write_file(path, recipes.render_json(trial.recipe).encode())
    folder = str(base / trial.name)
    settings = [text for setting in trial.settings for text in ("--set", setting)]
    arguments = (
        "train",
        str(request.spec.resolve()),
        *request.options,
        *settings,
        "--recipe",
        str(path),
    )
    return TrialCommand((*arguments, "--seed", str(trial.seed), "-o", folder, "-q"), folder)


def _print(report: Report, folder: Path, sweep_rows: "Sequence[SweepRow]") -> None:
    report.print_text(str(folder))
    rows = [
        (
            row.name,
            row.seeds,
            _format_share(row.val_accuracy),
            _format_share(row.val_deviation),
            _format_share(row.test_accuracy),
            row.failed,
        )
        for row in sweep_rows
    ]
    heads = ("setting", "seeds", "validation", "deviation", "test", "failed")
    if not report.quiet:
        report.print_table(heads, rows)


def _format_share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
