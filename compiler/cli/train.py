"""`tcc train`: train weights on labelled images with a recipe."""

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
"""Default folder of trainings."""
SWEEP_OPTIONS = ("--threads", "--corrupt", "--max-time", "--device")
"""Options that are passed to each training of a sweep."""
_TIME = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII)


@dataclass(frozen=True)
class ProgressObserver:
    """Shows the progress of a training: a bar on a terminal, and one line per epoch."""

    report: Report
    stages: Stages

    def report_step(self, completed_steps: int, total: int) -> None:
        """Update the bar."""
        self.stages("training", completed_steps, total)

    def report_epoch(self, metrics: "EpochMetrics", epochs: int) -> None:
        """Print the metrics of an epoch."""
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
        help="Labelled images: a folder with train, val and test, each with class folders; "
        "or class folders or a folder with an index.csv, which the seed splits. "
        "Default: the project file's.",
    ),
]
SplitShares = Annotated[
    str | None,
    typer.Option(
        metavar="TRAIN,VAL,TEST",
        show_default=False,
        help="Shares of the split by the seed, if the images have no split. Default: 70,15,15.",
    ),
]
RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        autocompletion=_complete_recipe,
        help="Recipe: a file, or the name of a known recipe.",
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        show_default=False,
        help="Folder for weights, metrics and report. Default: runs/SPEC-RECIPE.",
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=100_000,
        show_default=False,
        help="Number of epochs, instead of the recipe's.",
    ),
]
TrainingSeed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        help="Seed of the split, the initial weights, the image order and the augmentation.",
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        show_default=False,
        help="Stop after this time, such as 90m or 1h30m. --resume continues from there.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the training in the folder.")]
StartWeights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Weights to start from. Default: random weights.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=4096,
        show_default=False,
        help="Number of threads. The same number gives the same weights again.",
    ),
]
TrainingDevice = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda",
        help="Device: auto uses a GPU if PyTorch finds one, otherwise the CPU.",
    ),
]
CorruptImages = Annotated[
    str,
    typer.Option(
        "--corrupt", metavar="refuse|skip", help="How to treat images that cannot be decoded."
    ),
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write events for TensorBoard next to the metrics.")
]
Qat = Annotated[
    Path | None,
    typer.Option(
        "--qat",
        metavar="FILE",
        show_default=False,
        help="Quantization-aware training: train --weights as the int8 program of this "
        "calibration (tcc calibrate).",
    ),
]
SweepFile = Annotated[
    Path | None,
    typer.Option(
        "--sweep",
        metavar="FILE",
        show_default=False,
        help="Train every combination in this file, each in a separate folder.",
    ),
]
Workers = Annotated[
    int, typer.Option(metavar="N", min=1, max=1024, help="Number of processes of `--dask local`.")
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
    """Train a spec's network on labelled images with a recipe.

    The validation images are evaluated after each epoch, the test images at the end. The same seed,
    data, recipe, PyTorch, threads and kind of CPU give the same bytes, also after an interruption.
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
                # On this machine one after another: each training uses all cores.
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
                report.print_note(f"{folder} has a finished training: nothing to do")
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
    """The training that the command line asks for."""

    chosen_spec: ChosenSpec
    recipe: "Recipe"
    start: "WeightSource"
    folder: Path
    seed: int


@contextmanager
def _disable_output(*, speaks: bool) -> Iterator[None]:
    """Silence all processes but one, so that output appears once; errors end each process."""
    out, err = (sys.stdout, sys.stderr) if speaks else (None, None)
    with redirect_stdout(out), redirect_stderr(err):
        yield


def _read_calibration(path: Path | None) -> "CalibrationDocument | None":
    """Return the calibration to train with.

    Raises:
        UserError: The file is not a calibration (E0730).
    """
    from tcc.compiler.quant import calibration_document

    return None if path is None else calibration_document.read_document(path)


def _require_torch() -> None:
    """Check that PyTorch is installed.

    Raises:
        MissingTool: It is not.
    """
    from importlib.metadata import PackageNotFoundError, version

    from tcc.compiler.support.external_tools import MissingTool, Tool

    try:
        version("torch")
    except PackageNotFoundError:
        raise MissingTool(Tool("torch", "train networks", None)) from None


def _join_processes(device: str) -> "AbstractContextManager[World]":
    """Join the processes of a training, each on the named device."""
    from tcc.compiler.train import arithmetic, distributed

    return distributed.join_processes(
        arithmetic.select_device(device, make_command_span(f"--device {device}"))
    )


def _read_recipe(name: str, epochs: int | None) -> "Recipe":
    from tcc.compiler.train import recipe as recipes

    recipe = recipes.read_recipe(recipes.find_recipe(name, make_command_span(f"--recipe {name}")))
    return recipe if epochs is None else replace(recipe, epochs=epochs)


def _parse_seconds(text: str | None) -> float | None:
    """Return the seconds of a time such as `1h30m`.

    Raises:
        UserError: The text is not a time (E0601).
    """
    if text is None:
        return None
    parts = _TIME.fullmatch(text)
    if not text or parts is None:
        help = "write a time such as 45s, 90m, 1h or 1h30m"
        raise fail(
            "E0601", "this is not a time", make_command_span(f"--max-time {text}"), help=help
        )
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
    """Return the request with decoded images."""
    from tcc.compiler.train.training_request import TrainingRequest

    spec = setup.chosen_spec.spec
    stores = train_data.decode_splits(report, stages, spec, split, corrupt)
    # Remove skipped images from the split: other commands would fail on them.
    split = split.select_items({side: store.names for side, store in stores.items()})
    return TrainingRequest(spec, setup.start, setup.recipe, split, stores, setup.folder, setup.seed)


def _run_training(report: Report, stages: Stages, request: "TrainingRequest") -> "TrainingReport":
    from tcc.compiler.train import arithmetic, run_folder, session

    request.world.wait()
    if request.recipe.precision == "bf16" and arithmetic.is_bf16_slow(request.world.device):
        report.warn_text(
            f"this {'GPU' if request.world.device.type == 'cuda' else 'processor'} has "
            "no bfloat16 instructions: use `precision: auto` in the recipe"
        )
    try:
        return session.train(request, ProgressObserver(report, stages), stages)
    except KeyboardInterrupt:
        if (request.folder / run_folder.CHECKPOINT).exists():
            report.print_note(f"{request.folder} has a checkpoint: continue with --resume")
        raise
