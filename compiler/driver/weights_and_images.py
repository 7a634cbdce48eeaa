"""The weights and images that a command works with: the named ones, the project's, or others."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver import run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec, report_project
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import fail, make_command_span

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.data.split_file import RunSplit
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.zoo.trained import TrainedNetwork


def load_weights(
    report: Report, chosen_spec: ChosenSpec, weights: Path | None, seed: int | None
) -> "WeightSource":
    """Return weights for a spec; random ones are announced on standard error.

    Args:
        report: Where results and warnings are told.
        chosen_spec: The spec, and the project that it may come from.
        weights: The file that was typed, if one was.
        seed: Asks for random weights.

    Raises:
        UserError: Both are asked for (E0601), or the file does not fit the spec.
    """
    from tcc.compiler.driver import pipeline

    if weights and seed is not None:
        raise fail(
            "E0601", "--weights and --seed exclude each other", make_command_span(f"--seed {seed}")
        )
    report_project(report, chosen_spec, weights=weights is None and seed is None)
    if path := find_weights_file(chosen_spec, weights, seed):
        report.print_detail(f"weights: {path}")
        return pipeline.read_weights(path, chosen_spec.spec.graph, report.warn)
    if chosen_spec.trained and seed is None:
        report.print_detail(
            f"weights: those of `{chosen_spec.trained.name}`, {chosen_spec.trained.weights}"
        )
        return pipeline.load_zoo_weights(chosen_spec.trained, chosen_spec.spec.graph)
    weight_source = pipeline.create_random_weights(chosen_spec.spec.graph, seed or 0)
    report.warn_text(
        f"{weight_source.origin.notice}; give trained ones with "
        f"--weights{_list_trained(chosen_spec)}"
    )
    return weight_source


def choose_folder(report: Report, chosen_spec: ChosenSpec, output: Path | None) -> Path:
    """Return the folder to write to: as the command line says, the project, or `build`."""
    project = chosen_spec.project
    if output or not project.out:
        return output or Path("build")
    report.print_note(f"{project.path} chooses the output {project.out}")
    return project.out


def report_digest(report: Report, path: Path | None) -> None:
    """Say which weights were read, by a digest that `sha256sum` gives: they have no checksum.

    Args:
        report: Where results and warnings are told.
        path: The file; None where they are of none.
    """
    from tcc.compiler.support import regular_files

    if path:
        report.print_note(f"weights: {path}, SHA-256 {regular_files.hash_file(path)}")


def find_weights_file(
    chosen_spec: ChosenSpec, weights: Path | None, seed: int | None
) -> Path | None:
    """Return the weights that are named, or the project's; None for random or the zoo's.

    Args:
        chosen_spec: The spec, and the project that it may come from.
        weights: The file that was typed, if one was.
        seed: That of random weights, if they are asked for.
    """
    # A project's weights are for its own spec: another spec's names would not fit, or worse, would.
    project_weights = (
        chosen_spec.project.weights if chosen_spec.is_project_spec and seed is None else None
    )
    return weights or project_weights


def _list_trained(chosen_spec: ChosenSpec) -> str:
    """Return the trained networks of a spec in words."""
    from tcc.compiler.zoo import trained

    names = trained.list_names_of_spec(chosen_spec.spec.path)
    return f", or name a trained network: {', '.join(names)}" if names else ""


def load_images(
    report: Report, chosen_spec: ChosenSpec, data: Path | None, split: "RunSplit | None"
) -> "DataSet":
    """Return the images to calibrate with: those of `train`, of a run's split or by their folder.

    Synthetic ones are announced on standard error.

    Args:
        report: Where results and warnings are told.
        chosen_spec: The spec, and the project that it may come from.
        data: The folder or file that was typed, if one was.
        split: That of the run that the weights are from, if one is known.

    Raises:
        UserError: There are none (E0616), they are no data set, or not the run's (E1218, E1219).
    """
    from tcc.compiler.data.dataset import read_dataset

    path, project = data or chosen_spec.project.data, chosen_spec.project
    if data is None and path is not None:
        report.print_note(f"{project.path} chooses the images {path}")
    if path is None:
        help = "give images of the kind that the network is meant for, with --data"
        raise fail("E0616", "calibrate with which images?", make_command_span("--data"), help=help)
    report.print_detail(f"images: {path}")
    if split:
        images = run_splits.read_side_images(report, path, split, "train", "calibrated with")
    else:
        if "train" in run_splits.list_sides(path):
            path /= "train"
            report.print_note(f"calibrated with {path}")
        images = read_dataset(path)
        report.warn_grouped(images.warnings)
    if doubt := describe_synthetic(images, path, chosen_spec.trained):
        report.warn_text(doubt)
    return images


def describe_synthetic(
    images: "DataSet", path: Path, network: "TrainedNetwork | None"
) -> str | None:
    """Return what is to be said of images that a program drew; None of others.

    Args:
        images: The images.
        path: Where they are.
        network: The trained network that is calibrated, if it is one.
    """
    if not is_synthetic(images):
        return None
    worth = ""
    if network:
        worth = f". `{network.name}` learned from real ones, and what it is worth on "
        worth += "drawings says nothing of patients"
    return (
        f"the images in {path} are synthetic: a program drew them. Calibrate with images of "
        f"the kind that the network is meant for{worth}"
    )


def is_synthetic(images: "DataSet") -> bool:
    """Whether some of the images are the samples, all of which a program drew."""
    from tcc.compiler.support.image_folders import list_images
    from tcc.compiler.zoo import shipped

    # By contents: samples that were copied elsewhere are synthetic there too.
    digests = set(images.digests)
    return any(
        hashlib.sha256(path.read_bytes()).hexdigest() in digests
        for folder in shipped.list_synthetic_folders()
        for path in list_images(folder).images
    )
