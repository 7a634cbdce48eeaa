"""Load the weights and images of a command: from options, the project file, or defaults."""

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
    """Return the weights for a spec; warn on standard error if they are random.

    Args:
        report: Receives results and warnings.
        chosen_spec: The spec, and its project.
        weights: The file from the command line, if any.
        seed: Seed of random weights, if requested.

    Raises:
        UserError: Both are given (E0601), or the file does not fit the spec.
    """
    from tcc.compiler.driver import pipeline

    if weights and seed is not None:
        raise fail(
            "E0601",
            "--weights and --seed cannot be combined; remove one of them",
            make_command_span(f"--seed {seed}"),
        )
    report_project(report, chosen_spec, weights=weights is None and seed is None)
    if path := find_weights_file(chosen_spec, weights, seed):
        report.print_detail(f"weights: {path}")
        return pipeline.read_weights(path, chosen_spec.spec.graph, report.warn)
    if chosen_spec.trained and seed is None:
        report.print_detail(
            f"weights: from `{chosen_spec.trained.name}`, {chosen_spec.trained.weights}"
        )
        return pipeline.load_zoo_weights(chosen_spec.trained, chosen_spec.spec.graph)
    weight_source = pipeline.create_random_weights(chosen_spec.spec.graph, seed or 0)
    report.warn_text(
        f"{weight_source.origin.notice}; give trained weights with "
        f"--weights{_list_trained(chosen_spec)}"
    )
    return weight_source


def choose_folder(report: Report, chosen_spec: ChosenSpec, output: Path | None) -> Path:
    """Return the output folder: from the command line, the project, or `build`."""
    project = chosen_spec.project
    if output or not project.out:
        return output or Path("build")
    report.print_note(f"{project.path} sets the output folder {project.out}")
    return project.out


def report_digest(report: Report, path: Path | None) -> None:
    """Report the SHA-256 of the weights file, as by `sha256sum`; the format has no checksum.

    Args:
        report: Receives the note.
        path: The file; None if there is none.
    """
    from tcc.compiler.support import regular_files

    if path:
        report.print_note(f"weights: {path}, SHA-256 {regular_files.hash_file(path)}")


def find_weights_file(
    chosen_spec: ChosenSpec, weights: Path | None, seed: int | None
) -> Path | None:
    """Return the weights file from the command line or the project; None for other weights.

    Args:
        chosen_spec: The spec, and its project.
        weights: The file from the command line, if any.
        seed: Seed of random weights, if requested.
    """
    # A project's weights fit its own spec only; a misfit with another spec could go unnoticed.
    project_weights = (
        chosen_spec.project.weights if chosen_spec.is_project_spec and seed is None else None
    )
    return weights or project_weights


def _list_trained(chosen_spec: ChosenSpec) -> str:
    """Return a hint with the trained networks of a spec; empty if there are none."""
    from tcc.compiler.zoo import trained

    names = trained.list_names_of_spec(chosen_spec.spec.path)
    return f", or name a trained network: {', '.join(names)}" if names else ""


def load_images(
    report: Report, chosen_spec: ChosenSpec, data: Path | None, split: "RunSplit | None"
) -> "DataSet":
    """Return the images to calibrate with: `train`, or the run's split, or the folder.

    Synthetic images cause a warning on standard error.

    Args:
        report: Receives results and warnings.
        chosen_spec: The spec, and its project.
        data: The folder or file from the command line, if any.
        split: The split of the run that made the weights, if known.

    Raises:
        UserError: There are none (E0616), they are no dataset, or not the run's (E1218, E1219).
    """
    from tcc.compiler.data.dataset import read_dataset

    path, project = data or chosen_spec.project.data, chosen_spec.project
    if data is None and path is not None:
        report.print_note(f"{project.path} sets the images {path}")
    if path is None:
        help = "give images like those that the network will see, with --data"
        raise fail("E0616", "no images to calibrate with", make_command_span("--data"), help=help)
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
    """Return a warning about synthetic images; None for others.

    Args:
        images: The images.
        path: Their path.
        network: The trained network to calibrate, if it is one.
    """
    if not is_synthetic(images):
        return None
    worth = ""
    if network:
        worth = f". `{network.name}` was trained on real images; accuracy on synthetic ones does "
        worth += "not predict accuracy on patients' images"
    return (
        f"the images in {path} are synthetic (generated by a program). Calibrate with images "
        f"like those that the network will see{worth}"
    )


def is_synthetic(images: "DataSet") -> bool:
    """Whether some of the images are the package's synthetic samples."""
    from tcc.compiler.support.image_folders import list_images
    from tcc.compiler.zoo import shipped

    # By content: copies in other folders are found too.
    digests = set(images.digests)
    return any(
        hashlib.sha256(path.read_bytes()).hexdigest() in digests
        for folder in shipped.list_synthetic_folders()
        for path in list_images(folder).images
    )
