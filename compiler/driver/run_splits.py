"""The data split of a training run, and the images of one of its parts.

Weights in a run folder come with the run's split, so that a network is not evaluated on its own
training images when the command line names only the image folder.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import Diagnostic, fail, make_command_span, make_file_span

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.data.split_file import RunSplit

SIDES = frozenset({"train", "val", "test"})
"""Folder names of the parts of a split dataset."""
NO_SPLIT = "none"
"""Option value for no split."""


def find_weights_split(option: str | None, weights: Path | None) -> "RunSplit | None":
    """Return the split of a named run, or of the run folder that has the weights.

    Raises:
        UserError: The named run has no split, or it is damaged (E1217).
    """
    if option == NO_SPLIT or (option is None and weights is None):
        return None
    from tcc.compiler.data import split_file

    if option is not None:
        return split_file.read_split(Path(option))
    split_path = weights.parent / split_file.NAME if weights else None
    return split_file.read_split(split_path) if split_path and split_path.is_file() else None


def find_bundle_split(option: str | None, digest: str, weights: Path | None) -> "RunSplit | None":
    """Return the split of a named run, or of the project's weights if the bundle has them.

    Args:
        option: Value of `--split`.
        digest: Digest of the bundle's weights.
        weights: The project's weights, if it names some.

    Raises:
        UserError: As for `find_weights_split`.
    """
    split = find_weights_split(option, weights)
    if split is None or option is not None:
        return split
    try:
        # A bundle has no split. That of the project's weights applies if the bundle has these
        # weights.
        training_report = json.loads((split.path.parent / "report.json").read_bytes())
    except (OSError, ValueError):
        return None
    return (
        split
        if isinstance(training_report, dict) and training_report.get("weights") == digest
        else None
    )


def read_side_images(
    report: Report, path: Path, split: "RunSplit", side: str, use: str
) -> "DataSet":
    """Return the images of one part of a run's split at a path, and report their use.

    Args:
        report: Receives the use and warnings.
        path: The folder or file of the images.
        split: The run's split.
        side: One of train, val and test.
        use: The use of the images, as the start of the note.

    Raises:
        UserError: As for `run_split_images.find`.
    """
    from tcc.compiler.data import run_split_images

    selection = run_split_images.find(split, path, find_side_folder(path, side), side)
    report.warn_grouped(selection.warnings)
    count, had = len(selection.images), sum(line.split == side for line in split.lines)
    # Either the split has all of the images, or some are new to the run.
    if selection.known_count == count:
        part = "the" if count == had else f"{count:,} of the"
        description = f"{part} {had:,} images of `{side}` of {split.path.parent}"
    else:
        images = "image" if count == 1 else "images"
        description = f"{count:,} {images} that {split.path.parent} did not train on"
        if selection.known_count:
            description += f", {selection.known_count:,} of them from its `{side}`"
    report.print_note(f"{use} {description}")
    return selection.images


def list_sides(path: Path) -> frozenset[str]:
    """Return which of train, val and test a folder has; empty if one or if it has others too."""
    names = (
        frozenset(child.name for child in path.iterdir() if child.is_dir()) if path.is_dir() else ()
    )
    return frozenset(names) if len(names) > 1 and SIDES.issuperset(names) else frozenset()


def find_side_folder(path: Path, side: str) -> Path:
    """Return the folder of a part of the split, or the path itself if there is none."""
    return path / side if side in list_sides(path) else path


def parse_side(option: str | None) -> str | None:
    """Return the requested part of the split, if any.

    Raises:
        UserError: There is no such part (E0601).
    """
    if option is None or option in SIDES:
        return option
    message = f"`{option[:40]}` is not a split: use train, val or test"
    raise fail("E0601", message, make_command_span(f"--side {option}"))


def is_unknown(option: str | None, origin: str) -> bool:
    """Whether weights of an origin may have been trained on any image."""
    return origin == "file" and option != NO_SPLIT


def create_unknown_warning(path: Path) -> Diagnostic:
    """Return the warning that the training images of weights are not known."""
    message = "it is not known which of these images the network was trained on"
    label = "if it was trained on some of them, the figures are too optimistic"
    help = "name its run with --split, or use `--split none` if it was trained on none of them"
    at = make_file_span(str(path))
    return Diagnostic("E1216", message, at, label, help=help, severity="warning")
