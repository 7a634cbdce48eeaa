"""`tcc train`: from labelled images and a recipe to weights."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.options import ClusterOptions, ReportOptions, SpecOptions
from tcc.compiler.cli.sweep import SweepRequest, list_sweep_options
from tcc.compiler.cli.sweep import run_sweep as swept
from tcc.compiler.driver.chosen_spec import ChosenSpec, report_project
from tcc.compiler.report import train_report
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import fail, make_command_span
from tcc.compiler.train import train_data
from tcc.compiler.train.train_data import DataOptions

if TYPE_CHECKING:
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.quant.calibration_document import CalibrationDocument
    from tcc.compiler.train.distributed import World
    from tcc.compiler.train.image_split import ImageSplit
    from tcc.compiler.train.recipe_records import Recipe
    from tcc.compiler.train.run_folder import EpochMetrics, TrainingReport
    from tcc.compiler.train.training_request import TrainingRequest

RUNS = Path("runs")
"""Where trainings go that are not given a folder."""
SWEEP_OPTIONS = ("--threads", "--corrupt", "--max-time", "--device")
"""Options that each training of a sweep has too."""
_TIME = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII)


@dataclass(frozen=True)
class ProgressObserver:
    """Shows how far a training is: a bar on a terminal, and a line an epoch everywhere."""

    report: Report
    stages: Stages

    def report_step(self, completed_steps: int, total: int) -> None:
        """Move the bar."""
        self.stages("training", completed_steps, total)

    def report_epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """Say how the epoch went."""
        text = f"epoch {metrics.epoch}/{epochs}: loss {metrics.loss:.4f}"
        if metrics.val:
            text += f", validation accuracy {metrics.val.accuracy:.2%}"
        self.stages.show_detail(text)
        self.report.print_note(text)
        self.stages.record_output()


def _complete_recipe(incomplete: str) -> list[str]:
    from tcc.compiler.zoo import shipped

    return [name for name in shipped.list_recipes() if name.startswith(incomplete)]


Images = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Labelled images: a folder with train, val and test, each of class folders; or of "
        "class folders, or with an index.csv, which is split by the seed; without it, the "
        "project file's.",
    ),
]
SplitShares = Annotated[
    str | None,
    typer.Option(
        metavar="TRAIN,VAL,TEST",
        show_default=False,
        help="Shares of a split by the seed, where the images have none; 70,15,15 by default.",
    ),
]
RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        autocompletion=_complete_recipe,
        help="How to train: a recipe file, or the name of a known recipe.",
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        show_default=False,
        help="Folder for weights, metrics and report; runs/SPEC-RECIPE by default.",
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=100_000, show_default=False, help="Epochs, in the recipe's place."
    ),
]
TrainingSeed = Annotated[
    int,
    typer.Option("--seed", metavar="N", min=0, help="Seed of split, start, order and changes."),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        show_default=False,
        help="End after so long, as 90m or 1h30m, with a state that --resume goes on from.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the folder's training.")]
StartWeights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Weights to start from; random ones by default.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=4096,
        show_default=False,
        help="Threads; the same number gives the same weights again.",
    ),
]
TrainingDevice = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda",
        help="Where to train; by auto on a GPU that PyTorch finds, or else on the CPU.",
    ),
]
CorruptImages = Annotated[
    str,
    typer.Option(
        "--corrupt", metavar="refuse|skip", help="What is done about images that do not decode."
    ),
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write events for TensorBoard beside the metrics.")
]
Qat = Annotated[
    Path | None,
    typer.Option(
        "--qat",
        metavar="FILE",
        show_default=False,
        help="Train --weights as the integer program of this calibration (tcc calibrate).",
    ),
]
SweepFile = Annotated[
    Path | None,
    typer.Option(
        "--sweep",
        metavar="FILE",
        show_default=False,
        help="Train every combination that this file lists, each in a folder of its own.",
    ),
]
Workers = Annotated[
    int, typer.Option(metavar="N", min=1, max=1024, help="Processes of `--dask local`.")
]


def train(
    data: Images = None,
    split: SplitShares = None,
    recipe: RecipeOption = "quick",
    output: RunFolder = None,
    epochs: Epochs = None,
    seed: TrainingSeed = 0,
    max_time: MaxTime = None,
    resume: Resume = False,
    weights: StartWeights = None,
    threads: Threads = None,
    device: TrainingDevice = "auto",
    corrupt: CorruptImages = "refuse",
    tensorboard: TensorBoard = False,
    qat: Qat = None,
    sweep: SweepFile = None,
    workers: Workers = 2,
    *,
    spec: SpecOptions,
    cluster: ClusterOptions,
    report: ReportOptions,
) -> None:
    """Train a spec's network on labelled images, by a recipe.

    Validation images are judged after each epoch, test images at the end. The same seed, data,
    recipe, PyTorch, threads and kind of CPU give the same bytes, also after an interruption.
    """
    _require_torch()
    from tcc.compiler.train import checkpoint, run_folder

    began, seconds = time.monotonic(), _parse_seconds(max_time)
    run_folder.require_tensorboard(tensorboard=tensorboard)
    with _join_processes(device) as world, _disable_output(speaks=world.is_main):
        with report.track_stages() as stages:
            stages("spec", 0, 1)
            chosen_spec = spec.choose()
            report_project(report, chosen_spec)
            training_recipe = _read_recipe(recipe, epochs)
            folder = output or RUNS / f"{chosen_spec.spec.name}-{Path(recipe).stem}"
            options = DataOptions(data, seed, split, spec.settings or (), weights)
            if sweep:
                extra_options = dict(
                    zip(SWEEP_OPTIONS, (threads, corrupt, max_time, device), strict=True)
                )
                option_texts = list_sweep_options(
                    chosen_spec, options, qat, extra_options, tensorboard=tensorboard
                )
                # Here one after another: each training has all cores.
                task_place = cluster.create_task_place(folder, workers if cluster.dask else 1)
                swept(
                    report,
                    stages,
                    SweepRequest(
                        sweep, chosen_spec.spec.path, training_recipe, option_texts, task_place
                    ),
                )
                return
            run_folder.check_folder(folder, resume=resume)
            if run_folder.is_finished(folder):
                report.print_note(f"{folder} is finished: nothing is trained")
            chosen_spec, sides = train_data.split_images(report, stages, chosen_spec, options)
            setup = _TrainingSetup(
                chosen_spec,
                training_recipe,
                _load_start_weights(report, chosen_spec, training_recipe, options),
                folder,
                seed,
            )
            request = replace(
                _create_request(report, stages, setup, sides, corrupt),
                threads=checkpoint.resolve_thread_count(folder / run_folder.CHECKPOINT, threads),
                deadline=None if seconds is None else began + seconds,
                world=world,
                tensorboard=tensorboard,
                qat=_read_calibration(qat),
            )
            training_report = _run_training(report, stages, request)
            stages.finish_stage()
        if world.is_main:
            train_report.print_training(report, folder, training_report)
            report.print_document(train_report.encode_training(folder, training_report, stages))


@dataclass(frozen=True)
class _TrainingSetup:
    """What the command line asks for."""

    chosen_spec: ChosenSpec
    recipe: "Recipe"
    start: "WeightSource"
    folder: Path
    seed: int


@contextmanager
def _disable_output(*, speaks: bool) -> Iterator[None]:
    """Have all processes but one say nothing, so that all is said once; errors end each of them."""
    out, err = (sys.stdout, sys.stderr) if speaks else (None, None)
    with redirect_stdout(out), redirect_stderr(err):
        yield


def _read_calibration(path: Path | None) -> "CalibrationDocument | None":
    """Return the calibration to train with.

    Raises:
        UserError: It is none (E0730).
    """
    from tcc.compiler.quant import calibration_document

    return None if path is None else calibration_document.read_document(path)


def _require_torch() -> None:
    """Refuse to go on without PyTorch, which trains.

    Raises:
        MissingTool: It is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    from tcc.compiler.support.external_tools import MissingTool, Tool

    try:
        version("torch")
    except PackageNotFoundError:
        raise MissingTool(Tool("torch", "train networks", None)) from None


def _join_processes(device: str) -> "AbstractContextManager[World]":
    """Join the processes of a training, each on the device that a word names."""
    from tcc.compiler.train import arithmetic, distributed

    return distributed.join_processes(
        arithmetic.select_device(device, make_command_span(f"--device {device}"))
    )


def _read_recipe(name: str, epochs: int | None) -> "Recipe":
    from tcc.compiler.train import recipe as recipes

    recipe = recipes.read_recipe(recipes.find_recipe(name, make_command_span(f"--recipe {name}")))
    return recipe if epochs is None else replace(recipe, epochs=epochs)


def _parse_seconds(text: str | None) -> float | None:
    """Return the seconds that a time such as `1h30m` means.

    Raises:
        UserError: It is no time (E0601).
    """
    if text is None:
        return None
    parts = _TIME.fullmatch(text)
    if not text or parts is None:
        help = "such as 45s, 90m, 1h or 1h30m"
        raise fail("E0601", "this is no time", make_command_span(f"--max-time {text}"), help=help)
    hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return hours * 3600.0 + minutes * 60 + seconds


def _load_start_weights(
    report: Report, chosen_spec: ChosenSpec, recipe: "Recipe", options: DataOptions
) -> "WeightSource":
    from tcc.compiler.driver import pipeline

    graph = chosen_spec.spec.graph
    if options.weights is None:
        return pipeline.create_random_weights(
            graph, options.seed, he=recipe.initial_weights == "he"
        )
    return pipeline.read_weights(options.weights, graph, report.warn)


def _create_request(
    report: Report, stages: Stages, setup: _TrainingSetup, split: "ImageSplit", corrupt: str
) -> "TrainingRequest":
    """Return the request, its images decoded."""
    from tcc.compiler.train.training_request import TrainingRequest

    spec = setup.chosen_spec.spec
    stores = train_data.decode_splits(report, stages, spec, split, corrupt)
    # What was skipped is on no side: other commands would look for it, and fail at it.
    split = split.select_items({side: store.names for side, store in stores.items()})
    return TrainingRequest(spec, setup.start, setup.recipe, split, stores, setup.folder, setup.seed)


def _run_training(report: Report, stages: Stages, request: "TrainingRequest") -> "TrainingReport":
    from tcc.compiler.train import arithmetic, run_folder, session

    request.world.wait()
    if request.recipe.precision == "bf16" and arithmetic.is_bf16_slow(request.world.device):
        report.warn_text(
            f"this {'GPU' if request.world.device.type == 'cuda' else 'processor'} has no"
            " instructions for bfloat16: `precision: auto` does without"
        )
    try:
        return session.train(request, ProgressObserver(report, stages), stages)
    except KeyboardInterrupt:
        if (request.folder / run_folder.CHECKPOINT).exists():
            report.print_note(
                f"{request.folder} has the state of the last seconds: --resume goes on"
            )
        raise
