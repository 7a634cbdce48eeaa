"""The request for a training, and its comparison with an existing run."""

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
from tcc.compiler.train.distributed import SINGLE_PROCESS, World
from tcc.compiler.train.image_split import ImageSplit
from tcc.compiler.train.pixel_store import PixelStore
from tcc.compiler.train.recipe_records import Recipe
from tcc.compiler.train.run_folder import TrainingReport


@dataclass(frozen=True, eq=False)
class TrainingRequest:
    """All inputs of a training, and its folder; `deadline` is a time of `time.monotonic`."""

    spec: Spec
    initial_weights: WeightSource
    recipe: Recipe
    split: ImageSplit
    stores: Mapping[str, PixelStore]
    folder: Path
    seed: int = 0
    threads: int = 1
    deadline: float | None = None
    world: World = SINGLE_PROCESS
    tensorboard: bool = False
    qat: CalibrationDocument | None = None


NETWORK, START, SCALES, RECIPE = "network", "initial weights", "calibration (--qat)", "recipe"
IMAGES = {"train": "training images", "val": "validation images", "test": "test images"}
CLASSES, SEED = "classes", "seed"


def check_identity(folder: Path, previous: TrainingIdentity, current: TrainingIdentity) -> None:
    """Check that a resumed training has the inputs that it started with.

    Raises:
        UserError: An input differs (E1229).
    """
    old_parts, new_parts = _list_parts(previous), _list_parts(current)
    if changed := [
        part_name for part_name, part in old_parts.items() if part != new_parts[part_name]
    ]:
        raise run_folder.build_mismatch_error(folder, changed)


def _list_parts(identity: TrainingIdentity) -> dict[str, object]:
    """Return the inputs of a training by their names in messages."""
    return {
        NETWORK: identity.network,
        START: identity.start[:DIGEST_LENGTH],
        SCALES: identity.start[DIGEST_LENGTH:],
        RECIPE: identity.recipe,
        IMAGES["train"]: identity.train,
        IMAGES["val"]: identity.val,
        CLASSES: identity.classes,
        SEED: identity.seed,
    }


DIGEST_LENGTH = 64
"""Digits of a SHA-256: the weights' digest, optionally followed by a calibration's seal."""


def read_finished_report(request: TrainingRequest) -> TrainingReport:
    """Return the report of the folder's finished training, if it has the requested inputs.

    Raises:
        UserError: An input differs, the report is not of this version (E1229), or the calibration
            cannot be read (E0730).
    """
    report = run_folder.read_report(request.folder)
    if changed := _find_changes(request, report):
        raise run_folder.build_mismatch_error(request.folder, changed)
    return report


def _find_changes(request: TrainingRequest, report: TrainingReport) -> list[str]:
    """Return the names of the inputs in which a finished training differs from the request."""
    digests = {split_name: dataset.digest for split_name, dataset in request.split.datasets.items()}
    matches = {
        NETWORK: report.network == pipeline.describe_network(request.spec),
        START: report.start.digest == request.initial_weights.origin.digest,
        SCALES: report.calibration == (request.qat.seal if request.qat else "")
        if report.calibration
        else _has_same_scales(request),
        RECIPE: report.recipe in map(recipes.digest, _list_possible_recipes(request.recipe)),
        **{
            part_name: report.data.digests[split_name] == digests[split_name]
            for split_name, part_name in IMAGES.items()
        },
        CLASSES: report.data.classes == request.split.classes,
        SEED: report.seed == request.seed,
    }
    return [part_name for part_name, is_match in matches.items() if not is_match]


def _list_possible_recipes(recipe: Recipe) -> tuple[Recipe, ...]:
    """Return the recipes with each precision that `auto` may have been resolved to."""
    if recipe.precision != "auto":
        return (recipe,)
    return replace(recipe, precision="bf16"), replace(recipe, precision="fp32")


def _has_same_scales(request: TrainingRequest) -> bool:
    """Whether a training of an earlier version had the requested calibration, or neither has one.

    Its report has no seal, and it kept all scales.
    """
    path = request.folder / run_folder.CALIBRATION
    if request.qat is None or not path.exists():
        return request.qat is None and not path.exists()
    return _get_scales(calibration_document.read_document(path)) == _get_scales(request.qat)


def _get_scales(document: CalibrationDocument) -> tuple[object, ...]:
    # The training changes all other fields: the weights, their rounding, the evaluation, the seal.
    return document.values, document.factors, document.in_float, document.data, document.passes


def build_identity(request: TrainingRequest) -> TrainingIdentity:
    """Return the identity of a training."""
    # Hash the graph, not the file: comments and spelling do not change the network.
    text = printer.print_graph(request.spec.graph)
    return TrainingIdentity(
        network=hashlib.sha256(text.encode()).hexdigest(),
        # With other scales it is another training, even if the weights are equal.
        start=request.initial_weights.origin.digest + (request.qat.seal if request.qat else ""),
        recipe=recipes.digest(request.recipe),
        train=_digest(request.stores["train"]),
        val=_digest(request.stores["val"]),
        classes=request.split.classes,
        seed=request.seed,
    )


def _digest(store: PixelStore) -> str:
    """Return the SHA-256 of the pixels' checksums and the classes, in order."""
    hasher = hashlib.sha256(np.asarray(store.checksums, "<u4").tobytes())
    hasher.update(store.classes.numpy().astype("<i8").tobytes())
    return hasher.hexdigest()
