"""The images of `tcc eval`: which of them judge a network, and which values are fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver import run_splits
from tcc.compiler.driver.run_splits import SIDES, sides
from tcc.compiler.driver.weights_and_images import synthetic
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import UserError, fail, typed, whole_file

if TYPE_CHECKING:
    from tcc.compiler.bundle.manifest import OutputContract
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.data.split_file import RunSplit
    from tcc.compiler.driver.fitting import Criterion
    from tcc.compiler.driver.labelled_images import LabelledImages
    from tcc.compiler.support.diagnostics import Diagnostic


NO_CLASSES = frozenset({"E0714", "E0715", "E0716"})
"""Errors that say that images have no class of the network, or that it has none."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What a bundle or spec is evaluated with."""

    data: Path | None
    weights: Path | None
    seed: int | None
    settings: Sequence[str] | None
    strict: bool
    fit: "Criterion | None"
    carry: Path | None
    split: str | None
    side: str | None
    saturation: bool
    calibration: Path | None
    trust: bool
    bootstrap: int | None


@dataclass(frozen=True)
class ImageWish:
    """What is said of images: where, whose split, which side, and whether values are fitted.

    `learned` says that the network has learned from some images, which need not be these.
    """

    where: Path
    split: "RunSplit | None"
    side: str | None
    fits: bool
    learned: bool


def place(data: Path | None, own: Path | None) -> Path:
    """Return where the images lie: as the command line says, or the project.

    Raises:
        UserError: It is not said (E0616).
    """
    if found := data or own:
        return found
    help = "give labelled images with --data: a folder of class folders"
    raise fail("E0616", "evaluate on which images?", typed("--data"), help=help)


def labelled(
    report: Report, stages: Stages, wish: ImageWish, outputs: "Sequence[OutputContract]"
) -> "tuple[LabelledImages, LabelledImages | None]":
    """Return the images that judge, and those that values are fitted to where they are.

    Args:
        report: Where warnings are told.
        stages: What hears how far this is.
        wish: Which images are meant.
        outputs: The network's.

    Raises:
        UserError: They are no labelled data set for the network, there are no two sides to fit
            and to judge (E1260), or the run's images are not there (E1218, E1219).
    """
    from tcc.compiler.driver import labelled_images

    stages("data", 0, 1)
    judge, learn = _places(report, wish)
    found = [
        labelled_images.labelled(_read(report, wish, side, path), outputs, path)
        for side, path in ((wish.side or "test", judge), ("val", learn))
        if path is not None
    ]
    return found[0], found[1] if learn else None


def judging(report: Report, stages: Stages, wish: ImageWish) -> "tuple[DataSet, Path]":
    """Return the images that judge, whatever their labels, and where they lie.

    Raises:
        UserError: As for `labelled`, but for labels.
    """
    stages("data", 0, 1)
    judge, _ = _places(report, wish)
    return _read(report, wish, wish.side or "test", judge), judge


def _read(report: Report, wish: ImageWish, side: str, path: Path) -> "DataSet":
    from tcc.compiler.data import dataset

    report.detail(f"images: {path}")
    if wish.split:
        use = "fitted to" if wish.fits and side == "val" else "judged by"
        found = run_splits.images(report, wish.where, wish.split, side, use)
    else:
        found = dataset.read(path)
        report.warnings(found.warnings)
    if synthetic(found):
        report.notice(f"the images in {path} are synthetic: a program drew them")
    return found


def _places(report: Report, wish: ImageWish) -> tuple[Path, Path | None]:
    """Return where the images lie that judge, and those that values are fitted to.

    Raises:
        UserError: There are no two sides to fit and to judge (E1260), or not the one asked for.
    """
    where, found = wish.where, sides(wish.where)
    if wish.split:
        judge = run_splits.folder(where, wish.side or "test")
        return judge, run_splits.folder(where, "val") if wish.fits else None
    if wish.fits:
        if not {"val", "test"} <= found:
            message = "values are fitted to the images of `val` and judged by those of `test`"
            label = "there are no such two folders here, and no run's split says which these are"
            help = "give a folder with class folders in `val` and `test`, which share no image"
            raise fail("E1260", message, whole_file(str(where)), label=label, help=help)
        return where / "test", where / "val"
    side = wish.side or ("test" if "test" in found else None)
    if side is None:
        if wish.learned and where.name not in SIDES:
            report.warn(run_splits.unknown(where))
        return where, None
    if side not in found:
        message = f"there is no folder `{side}` here, and no run's split says which these are"
        raise fail("E1260", message, whole_file(str(where)), help="name the run with --split")
    report.note(f"judged by {where / side}")
    return where / side, None


def refusal_of(error: UserError, request: EvaluationRequest) -> "Diagnostic":
    """Return why nothing is known of the images' classes, where counting needs none of them.

    Raises:
        UserError: It is another error, or classes are needed.
    """
    refusal = error.diagnostics[0]
    counts_suffice = request.saturation and not (request.fit or request.carry or request.bootstrap)
    if not counts_suffice or refusal.code not in NO_CLASSES:
        raise error
    return refusal
