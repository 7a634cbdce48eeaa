"""Find the images of one split of a training run in a folder or an `.npz` file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.data import dataset, split_file
from tcc.compiler.data.dataset import DataSet, Item
from tcc.compiler.data.split_file import RunSplit, SplitLine
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span

MAX_LISTED = 10
"""Maximum number of images that a message lists."""


@dataclass(frozen=True, eq=False)
class SplitImages:
    """Images that a command may use, and warnings about the other images.

    `known_count` is the number of images that were in this split of the run. The run did not
    contain the others.
    """

    images: DataSet
    known_count: int
    warnings: tuple[Diagnostic, ...] = ()


def find(run_split: RunSplit, folder: Path, split_folder: Path, split_name: str) -> SplitImages:
    """Return the images of a split, with the run's labels.

    If `folder` is the run's folder, these are the run's images of the split, complete and
    unchanged. For another folder, these are the images that are new to the run, and the images that
    were in this split.

    Args:
        run_split: The run's images of each split.
        folder: The folder or the `.npz` file of all images.
        split_folder: The folder of the split's images; used if `folder` is not the run's.
        split_name: One of train, val and test.

    Raises:
        UserError: `folder` is not a dataset, images of the split are missing or changed (E1218), or
            no image is in the split (E1219).
    """
    images = dataset.read_dataset(folder)
    item_by_file = {split_file.format_item_name(item, folder): item for item in images.items}
    # One image with the same name and contents identifies the run's folder. Missing or changed
    # images in it are then errors (docs/decisions/0032-splits.md).
    is_run_folder = any(
        line.file in item_by_file and item_by_file[line.file].digest == line.digest
        for line in run_split.lines
    )
    if is_run_folder:
        return _select_unchanged(run_split, folder, split_name, images, item_by_file)
    other_images = images if split_folder == folder else dataset.read_dataset(split_folder)
    return _select_other(run_split, split_folder, split_name, other_images)


def _select_unchanged(
    run_split: RunSplit,
    folder: Path,
    split_name: str,
    images: DataSet,
    item_by_file: dict[str, Item],
) -> SplitImages:
    """Return the images of the split in the run's folder."""
    split_lines = [line for line in run_split.lines if line.split == split_name]
    _check_unchanged(run_split, folder, split_lines, item_by_file)
    if not split_lines:
        raise _make_empty_error(run_split, folder, split_name)
    # Images that were added later belong to no split: it is unknown whether they are independent of
    # the training images.
    unknown_files = sorted(item_by_file.keys() - {line.file for line in run_split.lines})
    items = (replace(item_by_file[line.file], label=line.label) for line in split_lines)
    warnings = images.warnings
    if unknown_files:
        count = f"{len(unknown_files):,} images are" if len(unknown_files) > 1 else "1 image is"
        message = f"{count} not in the run's split and not used"
        at = make_file_span(str(folder / unknown_files[0]))
        help = "train again to add new images to a split"
        notes = tuple(unknown_files[1:MAX_LISTED])
        warnings += (Diagnostic("E1219", message, at, "", notes, help, "warning"),)
    return SplitImages(_sort_images(images, items, warnings), len(split_lines), warnings)


def _check_unchanged(
    run_split: RunSplit,
    folder: Path,
    split_lines: Sequence[SplitLine],
    item_by_file: dict[str, Item],
) -> None:
    """Reject a folder in which images of the run are missing or changed (E1218)."""
    problems = []
    for line in split_lines:
        current_item = item_by_file.get(line.file)
        if current_item is not None and current_item.digest == line.digest:
            continue
        change = "was removed or renamed" if current_item is None else "was changed"
        note = f"{run_split.path}:{line.line}: an image of split `{line.split}`"
        help = "restore the run's images, or train again with the current images"
        at = make_file_span(str(folder / line.file))
        message = f"this image {change} after the training"
        problems.append(Diagnostic("E1218", message, at, notes=(note,), help=help))
    if problems:
        raise UserError(tuple(problems))


def _select_other(
    run_split: RunSplit, folder: Path, split_name: str, images: DataSet
) -> SplitImages:
    """Return the images of another folder, without those in other splits of the run."""
    excluded = [
        item
        for item in images.items
        if run_split.split_by_digest.get(item.digest, split_name) != split_name
    ]
    selected = [
        item
        for item in images.items
        if run_split.split_by_digest.get(item.digest, split_name) == split_name
    ]
    if not selected:
        raise _make_empty_error(run_split, folder, split_name)
    warnings = images.warnings
    if excluded:
        split_names = sorted({run_split.split_by_digest[item.digest] for item in excluded})
        count = f"{len(excluded):,} images are" if len(excluded) > 1 else "1 image is"
        message = f"{count} in the run's {' and '.join(split_names)} split and not used"
        notes = tuple(item.name for item in excluded[1:MAX_LISTED])
        at = make_file_span(excluded[0].name)
        warnings += (Diagnostic("E1219", message, at, notes=notes, severity="warning"),)
    known_count = sum(item.digest in run_split.split_by_digest for item in selected)
    items = (replace(item, label=_find_label(run_split, item)) for item in selected)
    return SplitImages(_sort_images(images, items, warnings), known_count, warnings)


def _find_label(run_split: RunSplit, item: Item) -> str | None:
    """Return the run's label of an image; its folder's label if the run does not contain it."""
    labels = run_split.labels_by_digest.get(item.digest)
    # The folder's layout may differ from the run's: the run's label takes precedence.
    return item.label if not labels or item.label in labels else min(labels)


def _sort_images(
    images: DataSet, items: Iterable[Item], warnings: tuple[Diagnostic, ...]
) -> DataSet:
    ordered = sorted(items, key=lambda item: (item.digest, item.label or ""))
    return replace(images, items=tuple(ordered), warnings=warnings)


def _make_empty_error(run_split: RunSplit, folder: Path, split_name: str) -> UserError:
    message = f"none of these images is in the run's `{split_name}` split"
    label = f"{run_split.path} lists the images of each split"
    help = "give the folder of the run's training"
    return fail("E1219", message, make_file_span(str(folder)), label=label, help=help)
