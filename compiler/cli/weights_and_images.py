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

SIDES = frozenset({"train", "val", "test"})
"""What the folders of a data set are called that is split already."""
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

    Args:
        report: Where results and warnings are told.
        chosen: The spec, and the project that it may come from.
        weights: The file that was typed, if one was.
        seed: Asks for random weights.

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
    if chosen.trained and seed is None:
        report.detail(f"weights: those of `{chosen.trained.name}`, {chosen.trained.weights}")
        return pipeline.zoo_weights(chosen.trained, chosen.spec.graph)
    given = pipeline.random_weights(chosen.spec.graph, seed or 0)
    report.notice(f"{given.origin.notice}; give trained ones with --weights{_trained(chosen)}")
    return given


def _trained(chosen: ChosenSpec) -> str:
    """Return the trained networks of a spec in words."""
    from tcc.compiler.zoo import trained

    names = trained.of_spec(chosen.spec.path)
    return f", or name a trained network: {', '.join(names)}" if names else ""


def sides(path: Path) -> frozenset[str]:
    """Return which of train, val and test a folder has, if it has two or more and no other."""
    below = (
        frozenset(each.name for each in path.iterdir() if each.is_dir()) if path.is_dir() else ()
    )
    return frozenset(below) if len(below) > 1 and SIDES.issuperset(below) else frozenset()


def take_images(report: Report, chosen: ChosenSpec, data: Path | None) -> "DataSet":
    """Return the images to calibrate with: of a folder with `train` and `test`, those of `train`.

    Synthetic ones are announced on standard error.

    Args:
        report: Where results and warnings are told.
        chosen: The spec, and the project that it may come from.
        data: The folder or file that was typed, if one was.

    Raises:
        UserError: There are none (E0616), or they are no data set.
    """
    from tcc.compiler.data.dataset import read

    path = data or chosen.project.data
    if path is None:
        help = "give images of the kind that the network is meant for, with --data"
        raise fail("E0616", "calibrate with which images?", typed("--data"), help=help)
    if "train" in sides(path):
        path /= "train"
        report.note(f"calibrated with {path}")
    report.detail(f"images: {path}")
    found = read(path)
    report.warnings(found.warnings)
    if synthetic(found):
        worth = ""
        if chosen.trained:
            worth = f". `{chosen.trained.name}` learned from real ones, and what it is worth on "
            worth += "drawings says nothing of patients"
        report.notice(
            f"the images in {path} are synthetic: a program drew them. Calibrate with images of "
            f"the kind that the network is meant for{worth}"
        )
    return found


def synthetic(data: "DataSet") -> bool:
    """Whether some of the images are the samples, all of which a program drew."""
    from tcc.compiler.data.dataset import read
    from tcc.compiler.zoo import shipped

    return any(set(data.digests) & set(read(folder).digests) for folder in shipped.drawings())
