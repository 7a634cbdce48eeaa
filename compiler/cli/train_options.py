"""The options of `tcc train`."""

from pathlib import Path
from typing import Annotated

import typer


def _recipe_names(incomplete: str) -> list[str]:
    from tcc.compiler.zoo import shipped

    return [name for name in shipped.recipes() if name.startswith(incomplete)]


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
        autocompletion=_recipe_names,
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
