"""Options of `tcc eval`."""

from pathlib import Path
from typing import Annotated

import typer

LabelledOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Labelled images: a folder of class folders, or of `test` and other splits, or an "
        ".npz file with `labels`; without it, the project file's.",
    ),
]
FitOption = Annotated[
    bool,
    typer.Option(
        "--fit",
        help="Fit the temperature, and thresholds, to the images of DIR/val, or of the run's "
        "`val`, store them in the bundle, and judge by those of `test`.",
    ),
]
CarryOption = Annotated[
    Path | None,
    typer.Option(
        "--carry",
        metavar="BUNDLE",
        show_default=False,
        help="Store in the bundle what was fitted of another of the same network.",
    ),
]
PositiveOption = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        show_default=False,
        help="With --fit, also fit a threshold from which an image is taken for this class.",
    ),
]
SensitivityOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0.0,
        max=1.0,
        show_default=False,
        help="With --fit, the least sensitivity of thresholds on the images fitted to, which is "
        "checked on those that judge; without it, Youden's J decides.",
    ),
]
Bootstrap = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=10_000_000,
        show_default=False,
        help="Draw N resamples for the intervals of averages, 1000 without it, and give the one "
        "that holds the accuracy of 95 % of them as well.",
    ),
]
BootstrapSeed = Annotated[
    int, typer.Option("--bootstrap-seed", metavar="N", min=0, help="Seed of the resamples.")
]
SaturationOption = Annotated[
    bool,
    typer.Option(
        "--saturation",
        help="Count each layer's saturated integers, and compare them with the calibration's "
        "images; images need no labels.",
    ),
]
IntegersOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="With --saturation of a spec: the integers, as `tcc calibrate` wrote them.",
    ),
]
