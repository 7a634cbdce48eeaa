"""The weights and images that a command works with: the named ones, the project's, or others."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.common_options import ChosenSpec, typed
from tcc.compiler.cli.report import Report
from tcc.compiler.support.diagnostics import fail

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.pipeline import WeightSource

WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Weights as safetensors; without them, the project file's, or random ones.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", min=0, show_default=False, help="Take random weights of this seed."
    ),
]

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Images to calibrate with: a folder, a folder of class folders, or an .npz file; "
        "without it, the project file's.",
    ),
]


def take(
    report: Report, chosen: ChosenSpec, weights: Path | None, seed: int | None
) -> "WeightSource":
    """Return weights for a spec; random ones are announced on standard error.

    Raises:
        UserError: Both are asked for (E0601), or the file does not fit the spec.
    """
    from tcc.compiler.driver import pipeline

    if weights and seed is not None:
        raise fail("E0601", "--weights and --seed exclude each other", typed(f"--seed {seed}"))
    own = chosen.project.weights if chosen.own and seed is None else None
    path = weights or own
    if path:
        report.detail(f"weights: {path}")
        return pipeline.read_weights(path, chosen.spec.graph, report.warn)
    given = pipeline.random_weights(chosen.spec.graph, seed or 0)
    report.notice(f"{given.origin.notice}; give trained ones with --weights")
    return given


def take_images(report: Report, chosen: ChosenSpec, data: Path | None) -> "DataSet":
    """Return the images to calibrate with; synthetic ones are announced on standard error.

    Raises:
        UserError: There are none (E0616), or they are no data set.
    """
    from tcc.compiler.data.dataset import read

    path = data or chosen.project.data
    if path is None:
        help = "give images of the kind that the network is meant for, with --data"
        raise fail("E0616", "calibrate with which images?", typed("--data"), help=help)
    report.detail(f"images: {path}")
    found = read(path)
    report.warnings(found.warnings)
    if synthetic(found):
        report.notice(
            f"the images in {path} are synthetic: a program drew them. Calibrate with images of "
            "the kind that the network is meant for"
        )
    return found


def synthetic(data: "DataSet") -> bool:
    """Whether some of the images are the samples, which a program drew."""
    from tcc.compiler.data.dataset import read
    from tcc.compiler.zoo import shipped

    folder = shipped.samples_folder()
    return folder.is_dir() and bool(set(data.digests) & set(read(folder).digests))
