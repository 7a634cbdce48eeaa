"""The split of the run that weights are from, and the images of one of its sides.

Weights that lie in a run's folder bring its split along: nobody is to judge a network by what it
has learned from because the folder of the images is all that the command line names.
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
"""What the folders of a data set are called that is split already."""
NO_SPLIT = "none"
"""Says that no run's split holds."""


def find_weights_split(option: str | None, weights: Path | None) -> "RunSplit | None":
    """Return the split of a run that is named, or of the run's folder that the weights lie in.

    Raises:
        UserError: There is none where one is named, or it is damaged (E1217).
    """
    if option == NO_SPLIT or (option is None and weights is None):
        return None
    from tcc.compiler.data import split_file

    if option is not None:
        return split_file.read_split(Path(option))
    split_path = weights.parent / split_file.NAME if weights else None
    return split_file.read_split(split_path) if split_path and split_path.is_file() else None


def find_bundle_split(option: str | None, digest: str, weights: Path | None) -> "RunSplit | None":
    """Return the split of a run that is named, or of the project's weights if a bundle has them.

    Args:
        option: What `--split` says.
        digest: That of the bundle's weights.
        weights: The project's, if it names some.

    Raises:
        UserError: As for `find_weights_split`.
    """
    split = find_weights_split(option, weights)
    if split is None or option is not None:
        return split
    try:
        # A bundle has no split of its own: that of the project's weights holds if these are the
        # bundle's.
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
    """Return the images of a side of a run in a place, and say what they are used for.

    Args:
        report: Where this and warnings are told.
        path: The folder or file of the images.
        split: The run's.
        side: One of train, val and test.
        use: What the images are for, in words before theirs.

    Raises:
        UserError: As for `run_split_images.find_split_images`.
    """
    from tcc.compiler.data import run_split_images

    selection = run_split_images.find(split, path, find_side_folder(path, side), side)
    report.warn_grouped(selection.warnings)
    count, had = len(selection.images), sum(line.split == side for line in split.lines)
    # All of them known: the run's own images, or some of them. Else some were never seen.
    if selection.known_count == count:
        part = "the" if count == had else f"{count:,} of the"
        description = f"{part} {had:,} images of `{side}` of {split.path.parent}"
    else:
        description = (
            f"{count:,} image{'s' * (count != 1)} that {split.path.parent} has not learned from"
        )
        if selection.known_count:
            description += f", {selection.known_count:,} of them of its `{side}`"
    report.print_note(f"{use} {description}")
    return selection.images


def list_sides(path: Path) -> frozenset[str]:
    """Return which of train, val and test a folder has, if it has two or more and no other."""
    names = (
        frozenset(child.name for child in path.iterdir() if child.is_dir()) if path.is_dir() else ()
    )
    return frozenset(names) if len(names) > 1 and SIDES.issuperset(names) else frozenset()


def find_side_folder(path: Path, side: str) -> Path:
    """Return the folder of a side where there is one, or else the place itself."""
    return path / side if side in list_sides(path) else path


def parse_side(option: str | None) -> str | None:
    """Return the side that is asked for, if one is.

    Raises:
        UserError: There is no such side (E0601).
    """
    if option is None or option in SIDES:
        return option
    raise fail("E0601", "say train, val or test", make_command_span(f"--side {option}"))


def is_unknown(option: str | None, origin: str) -> bool:
    """Whether weights of an origin may have learned from any image, and nobody says from which."""
    return origin == "file" and option != NO_SPLIT


def create_unknown_warning(path: Path) -> Diagnostic:
    """Return the warning that nothing says which images weights of a file have learned from."""
    message = "nothing says which of these images the network has learned from"
    label = "if it has from some of them, the figures are too good"
    help = "name its run with --split, or `none` if it has seen no image of these"
    at = make_file_span(str(path))
    return Diagnostic("E1216", message, at, label, help=help, severity="warning")
