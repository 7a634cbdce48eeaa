"""What a training is asked to do."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tcc.compiler.driver import pipeline
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir import printer
from tcc.compiler.quant import calibration_document
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.train import recipe as recipes
from tcc.compiler.train import run_folder
from tcc.compiler.train.checkpoint import TrainingIdentity
from tcc.compiler.train.distributed import ALONE, World
from tcc.compiler.train.image_split import ImageSplit
from tcc.compiler.train.pixel_store import PixelStore
from tcc.compiler.train.recipe_records import Recipe
from tcc.compiler.train.run_folder import TrainingReport


@dataclass(frozen=True, eq=False)
class TrainingRequest:
    """What to train, with what, and where to; `deadline` is a time of `time.monotonic`."""

    spec: Spec
    start: WeightSource
    recipe: Recipe
    split: ImageSplit
    stores: Mapping[str, PixelStore]
    folder: Path
    seed: int = 0
    threads: int = 1
    deadline: float | None = None
    world: World = ALONE
    tensorboard: bool = False
    qat: CalibrationDocument | None = None


NETWORK, START, SCALES, RECIPE = "network", "weights to start from", "calibration (--qat)", "recipe"
IMAGES = {"train": "images to learn from", "val": "validation images", "test": "test images"}
CLASSES, SEED = "classes", "seed"


def check(folder: Path, before: TrainingIdentity, now: TrainingIdentity) -> None:
    """Refuse to go on with another training than was begun.

    Raises:
        UserError: E1229.
    """
    old, new = _parts(before), _parts(now)
    if changed := [said for said, value in old.items() if value != new[said]]:
        raise run_folder.other(folder, changed)


def _parts(found: TrainingIdentity) -> dict[str, object]:
    """Return what a training depends on, by what it is called."""
    return {
        NETWORK: found.network,
        START: found.start[:DIGEST],
        SCALES: found.start[DIGEST:],
        RECIPE: found.recipe,
        IMAGES["train"]: found.train,
        IMAGES["val"]: found.val,
        CLASSES: found.classes,
        SEED: found.seed,
    }


DIGEST = 64
"""Digits of a SHA-256: those of the weights, which those of a calibration may follow."""


def finished(request: TrainingRequest) -> TrainingReport:
    """Return the report of the folder's finished training, if it is the one that is asked for.

    Raises:
        UserError: It is another one, or it is no report of this version (E1229), or its calibration
            cannot be read (E0730).
    """
    report = run_folder.read(request.folder)
    if changed := _changed(request, report):
        raise run_folder.other(request.folder, changed)
    return report


def _changed(request: TrainingRequest, report: TrainingReport) -> list[str]:
    """Return, in words, in what a finished training is another than the one that is asked for."""
    sides = {side: data.digest for side, data in request.split.sides.items()}
    same = {
        NETWORK: report.network == pipeline.network(request.spec),
        START: report.start.digest == request.start.origin.digest,
        SCALES: _same_scales(request),
        RECIPE: report.recipe in map(recipes.digest, _settled(request.recipe)),
        **{said: report.data.digests[side] == sides[side] for side, said in IMAGES.items()},
        CLASSES: report.data.classes == request.split.classes,
        SEED: report.seed == request.seed,
    }
    return [said for said, holds in same.items() if not holds]


def _settled(recipe: Recipe) -> tuple[Recipe, ...]:
    """Return the recipes that one may have become: `auto` is whichever was the quicker there."""
    if recipe.precision != "auto":
        return (recipe,)
    return replace(recipe, precision="bf16"), replace(recipe, precision="fp32")


def _same_scales(request: TrainingRequest) -> bool:
    """Whether a finished training was of the integers that are asked for, or of floats alike."""
    path = request.folder / run_folder.CALIBRATION
    if request.qat is None or not path.exists():
        return request.qat is None and not path.exists()
    return _scales(calibration_document.read(path)) == _scales(request.qat)


def _scales(found: CalibrationDocument) -> tuple[object, ...]:
    # All else becomes another by the training: the weights and how they are rounded, what was
    # judged, and with them the seal.
    return found.values, found.factors, found.in_float, found.data, found.passes


def of(request: TrainingRequest) -> TrainingIdentity:
    """Return what a training depends on."""
    # Of the graph, not of the file: a comment or another spelling is the same network.
    text = printer.show(request.spec.graph)
    return TrainingIdentity(
        network=hashlib.sha256(text.encode()).hexdigest(),
        # Other scales make another training, though the weights be the same.
        start=request.start.origin.digest + (request.qat.seal if request.qat else ""),
        recipe=recipes.digest(request.recipe),
        train=_digest(request.stores["train"]),
        val=_digest(request.stores["val"]),
        classes=request.split.classes,
        seed=request.seed,
    )


def _digest(store: PixelStore) -> str:
    """Return the SHA-256 of the levels' checksums and the classes, in their order."""
    found = hashlib.sha256(np.asarray(store.checksums, "<u4").tobytes())
    found.update(store.classes.numpy().astype("<i8").tobytes())
    return found.hexdigest()
