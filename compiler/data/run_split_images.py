"""The images of one side of a run's split, found again in a folder or an `.npz` file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.data import dataset, split_file
from tcc.compiler.data.dataset import DataSet, Item
from tcc.compiler.data.split_file import RunSplit, SplitLine
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span

MAX_LISTED = 10
"""Images that an error lists."""


@dataclass(frozen=True, eq=False)
class SplitImages:
    """Images that a command may take, and what is to be said of others.

    `known_count` is how many of them the run had on the side; the rest it has never seen.
    """

    images: DataSet
    known_count: int
    warnings: tuple[Diagnostic, ...] = ()


def find(run_split: RunSplit, folder: Path, split_folder: Path, split_name: str) -> SplitImages:
    """Return the images of a side, with the run's labels.

    Of the run's own folder they are those that the run had there, all of them and unchanged. Of
    another they are those that the run does not know, and those that it had on that side.

    Args:
        run_split: What the run had on each side.
        folder: The folder, or the `.npz` file, of all images.
        split_folder: That of the side's images, if the first is not the run's.
        split_name: One of train, val and test.

    Raises:
        UserError: It is no data set, images of the side are gone or changed (E1218), or none is of
            the side (E1219).
    """
    images = dataset.read_dataset(folder)
    item_by_file = {split_file.format_item_name(item, folder): item for item in images.items}
    # One image of the same name and contents is enough: then what is missing or changed there is an
    # error, and not another folder (docs/decisions/0032-splits.md).
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
    """Return the images of the side in the folder that the run had."""
    split_lines = [line for line in run_split.lines if line.split == split_name]
    _check_unchanged(run_split, folder, split_lines, item_by_file)
    if not split_lines:
        raise _make_empty_error(run_split, folder, split_name)
    # Images that came since belong to no side: nobody may say that they were not learnt from.
    unknown_files = sorted(item_by_file.keys() - {line.file for line in run_split.lines})
    items = (replace(item_by_file[line.file], label=line.label) for line in split_lines)
    warnings = images.warnings
    if unknown_files:
        count = f"{len(unknown_files):,} images are" if len(unknown_files) > 1 else "1 image is"
        message = f"{count} not of the run's split, and left out"
        at = make_file_span(str(folder / unknown_files[0]))
        help = "train anew to have them on a side"
        notes = tuple(unknown_files[1:MAX_LISTED])
        warnings += (Diagnostic("E1219", message, at, "", notes, help, "warning"),)
    return SplitImages(_sort_images(images, items, warnings), len(split_lines), warnings)


def _check_unchanged(
    run_split: RunSplit,
    folder: Path,
    split_lines: Sequence[SplitLine],
    item_by_file: dict[str, Item],
) -> None:
    """Refuse a folder in which images of the run are gone or have other contents (E1218)."""
    problems = []
    for line in split_lines:
        current_item = item_by_file.get(line.file)
        if current_item is not None and current_item.digest == line.digest:
            continue
        change = "is gone" if current_item is None else "has other contents"
        note = f"{run_split.path}:{line.line}: an image of `{line.split}`"
        help = "bring back what the run had, or train anew with what is there now"
        at = make_file_span(str(folder / line.file))
        message = f"this image {change} since the training"
        problems.append(Diagnostic("E1218", message, at, notes=(note,), help=help))
    if problems:
        raise UserError(tuple(problems))


def _select_other(
    run_split: RunSplit, folder: Path, split_name: str, images: DataSet
) -> SplitImages:
    """Return the images of another folder but those that the run had on other sides."""
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
        message = f"{count} of the run's {' and '.join(split_names)}, and left out"
        notes = tuple(item.name for item in excluded[1:MAX_LISTED])
        at = make_file_span(excluded[0].name)
        warnings += (Diagnostic("E1219", message, at, notes=notes, severity="warning"),)
    known_count = sum(item.digest in run_split.split_by_digest for item in selected)
    items = (replace(item, label=_find_label(run_split, item)) for item in selected)
    return SplitImages(_sort_images(images, items, warnings), known_count, warnings)


def _find_label(run_split: RunSplit, item: Item) -> str | None:
    """Return the run's label of an image, or its folder's where the run does not know it."""
    labels = run_split.labels_by_digest.get(item.digest)
    # A folder may be laid out otherwise: what the run called an image's class holds.
    return item.label if not labels or item.label in labels else min(labels)


def _sort_images(
    images: DataSet, items: Iterable[Item], warnings: tuple[Diagnostic, ...]
) -> DataSet:
    ordered = sorted(items, key=lambda item: (item.digest, item.label or ""))
    return replace(images, items=tuple(ordered), warnings=warnings)


def _make_empty_error(run_split: RunSplit, folder: Path, split_name: str) -> UserError:
    message = f"none of these images is of the run's `{split_name}`"
    label = f"{run_split.path} says which were"
    help = "give the folder that the run was trained with"
    return fail("E1219", message, make_file_span(str(folder)), label=label, help=help)
