"""The options that kinds of `tcc plot` share, and how each ends."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.plots.pictures import Make

Out = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="The picture: a .png or .svg file."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Images: a folder of class folders, or an .npz file; without it, the project file's.",
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="A calibration; without it, the images calibrate.",
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(metavar="PATH", show_default=False, help="A layer, by its path in the spec."),
]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class", metavar="NAME", show_default=False, help="A class; without it, the predicted."
    ),
]
Most = Annotated[
    int,
    # As many as t-SNE places in bearable time: `MOST` of `plots/embedding.py`.
    typer.Option("--images", metavar="N", min=1, max=5000, help="Take the first N images at most."),
]
PointSeed = Annotated[int, typer.Option("--tsne-seed", metavar="N", min=0, help="Seed of t-SNE.")]
SpecWord = Annotated[str, typer.Argument(metavar="SPEC", help="A spec file, or a known name.")]
Pictures = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGE", help="Image files, or folders of them.", show_default=False),
]


def finish(report: Report, prepare: Callable[[], "Make"], out: Path, said: dict[str, Any]) -> None:
    """Write a picture, and say where it is.

    Args:
        report: Where results and warnings are told.
        prepare: Computes what is shown, which may take long, and returns what draws it.
        out: The file, whose suffix says which kind it is.
        said: What the JSON document says beside the file's name.
    """
    from tcc.compiler.plots import drawing

    with report.stages() as stages:
        stages("picture", 0, 1)
        drawing.write(prepare(), out)
        stages.end()
    report.text(str(out))
    report.document({**said, "output": str(out)})
