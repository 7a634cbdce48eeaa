"""The weights and images that a command works with: the named ones, the project's, or others."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver import run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec, tell_project
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import fail, typed

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.data.split_file import RunSplit
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.zoo.trained import TrainedNetwork


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
    tell_project(report, chosen, weights=weights is None and seed is None)
    if path := weights_file(chosen, weights, seed):
        report.detail(f"weights: {path}")
        return pipeline.read_weights(path, chosen.spec.graph, report.warn)
    if chosen.trained and seed is None:
        report.detail(f"weights: those of `{chosen.trained.name}`, {chosen.trained.weights}")
        return pipeline.zoo_weights(chosen.trained, chosen.spec.graph)
    given = pipeline.random_weights(chosen.spec.graph, seed or 0)
    report.notice(f"{given.origin.notice}; give trained ones with --weights{_trained(chosen)}")
    return given


def choose_folder(report: Report, chosen: ChosenSpec, output: Path | None) -> Path:
    """Return the folder to write to: as the command line says, the project, or `build`."""
    project = chosen.project
    if output or not project.out:
        return output or Path("build")
    report.note(f"{project.path} chooses the output {project.out}")
    return project.out


def note_digest(report: Report, path: Path | None) -> None:
    """Say which weights were read, by a digest that `sha256sum` gives: they have no checksum.

    Args:
        report: Where results and warnings are told.
        path: The file; None where they are of none.
    """
    from tcc.compiler.support import regular_files

    if path:
        report.note(f"weights: {path}, SHA-256 {regular_files.hash_file(path)}")


def weights_file(chosen: ChosenSpec, weights: Path | None, seed: int | None) -> Path | None:
    """Return the weights that are named, or the project's; None for random or the zoo's.

    Args:
        chosen: The spec, and the project that it may come from.
        weights: The file that was typed, if one was.
        seed: That of random weights, if they are asked for.
    """
    # A project's weights are for its own spec: another spec's names would not fit, or worse, would.
    own = chosen.project.weights if chosen.own and seed is None else None
    return weights or own


def _trained(chosen: ChosenSpec) -> str:
    """Return the trained networks of a spec in words."""
    from tcc.compiler.zoo import trained

    names = trained.of_spec(chosen.spec.path)
    return f", or name a trained network: {', '.join(names)}" if names else ""


def take_images(
    report: Report, chosen: ChosenSpec, data: Path | None, split: "RunSplit | None"
) -> "DataSet":
    """Return the images to calibrate with: those of `train`, of a run's split or by their folder.

    Synthetic ones are announced on standard error.

    Args:
        report: Where results and warnings are told.
        chosen: The spec, and the project that it may come from.
        data: The folder or file that was typed, if one was.
        split: That of the run that the weights are from, if one is known.

    Raises:
        UserError: There are none (E0616), they are no data set, or not the run's (E1218, E1219).
    """
    from tcc.compiler.data.dataset import read

    path, project = data or chosen.project.data, chosen.project
    if data is None and path is not None:
        report.note(f"{project.path} chooses the images {path}")
    if path is None:
        help = "give images of the kind that the network is meant for, with --data"
        raise fail("E0616", "calibrate with which images?", typed("--data"), help=help)
    report.detail(f"images: {path}")
    if split:
        found = run_splits.images(report, path, split, "train", "calibrated with")
    else:
        if "train" in run_splits.sides(path):
            path /= "train"
            report.note(f"calibrated with {path}")
        found = read(path)
        report.warnings(found.warnings)
    if doubt := drawn(found, path, chosen.trained):
        report.notice(doubt)
    return found


def drawn(data: "DataSet", path: Path, network: "TrainedNetwork | None") -> str | None:
    """Return what is to be said of images that a program drew; None of others.

    Args:
        data: The images.
        path: Where they are.
        network: The trained network that is calibrated, if it is one.
    """
    if not synthetic(data):
        return None
    worth = ""
    if network:
        worth = f". `{network.name}` learned from real ones, and what it is worth on "
        worth += "drawings says nothing of patients"
    return (
        f"the images in {path} are synthetic: a program drew them. Calibrate with images of "
        f"the kind that the network is meant for{worth}"
    )


def synthetic(data: "DataSet") -> bool:
    """Whether some of the images are the samples, all of which a program drew."""
    from tcc.compiler.support.image_folders import listing
    from tcc.compiler.zoo import shipped

    # By contents: samples that were copied elsewhere are synthetic there too.
    known = set(data.digests)
    return any(
        hashlib.sha256(path.read_bytes()).hexdigest() in known
        for folder in shipped.drawings()
        for path in listing(folder).images
    )
