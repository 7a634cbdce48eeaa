"""Read the labelled images of a training dataset from folders, a table or an array."""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tcc.compiler.data import dataset
from tcc.compiler.data.dataset import DataSet, get_class_indices
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    Span,
    UserError,
    fail,
    find_nearest_name,
    join_names,
    make_file_span,
)
from tcc.compiler.support.image_folders import ImageListing, list_images
from tcc.compiler.train import image_table
from tcc.compiler.train.image_table import ImageLine


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Labelled images, with their splits, groups and table lines, where known, by item name."""

    path: Path
    dataset: DataSet
    splits: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    spans: Mapping[str, Span] = field(default_factory=dict)
    warnings: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class _FileAnnotation:
    """The label, split, group and table line of one file."""

    file: Path
    label: str
    split: str | None = None
    group: str | None = None
    at: Span | None = None


def read_labelled_files(path: Path) -> LabelledFiles:
    """Return the labelled images of a folder or an `.npz` file.

    Raises:
        UserError: The path is not a dataset (E0710 to E0712) or has an unknown layout (E1200), its
            table is invalid (E1201, E1202), or there is one class or too many (E1207).
    """
    if not path.is_dir():
        return _read_array_file(path)
    image_listing = list_images(path)
    if not image_listing.images:
        raise UserError((image_listing.make_empty_error("E0711", path),))
    table = path / image_table.NAME
    image_listing = replace(
        image_listing,
        other_files=tuple(file for file in image_listing.other_files if file != table),
    )
    annotations = (
        _label_by_table(path, table, image_listing)
        if table.exists()
        else _label_by_folders(path, image_listing)
    )
    _check_count(Counter(annotation.label for annotation in annotations), path)
    _check_class_folders(path, image_listing)
    labelled_images = dataset.load_files(
        [(annotation.file, annotation.label) for annotation in annotations]
    )
    return LabelledFiles(
        path,
        labelled_images,
        {
            str(annotation.file): annotation.split
            for annotation in annotations
            if annotation.split is not None
        },
        {
            str(annotation.file): annotation.group
            for annotation in annotations
            if annotation.group is not None
        },
        {
            str(annotation.file): annotation.at
            for annotation in annotations
            if annotation.at is not None
        },
        (*image_listing.collect_warnings(), *labelled_images.warnings),
    )


def _read_array_file(path: Path) -> LabelledFiles:
    labelled_images = dataset.read_dataset(path)
    bare = sum(item.label is None for item in labelled_images.items)
    if bare:
        help = "add the array `labels` with class names or indices to the file"
        raise fail("E1200", "these images have no labels", make_file_span(str(path)), help=help)
    _check_count(Counter(item.label or "" for item in labelled_images.items), path)
    return LabelledFiles(path, labelled_images, warnings=labelled_images.warnings)


def _label_by_folders(path: Path, image_listing: ImageListing) -> list[_FileAnnotation]:
    """Return the annotations from folder names: `split/class/...` or `class/...`."""
    at = make_file_span(str(path))
    parts = {file: file.relative_to(path).parts for file in image_listing.images}
    tops = Counter(p[0] for p in parts.values() if len(p) > 1)
    loose = [p[0] for p in parts.values() if len(p) == 1]
    if loose:
        message = f"{len(loose):,} images are not in a class folder"
        help = f"put each into a folder with the name of its class, or add an {image_table.NAME}"
        raise fail("E1200", message, at, label=f"such as {loose[0]}", help=help)
    # Ignoring case: `Train` and `TEST` are as common.
    split_folders = {top for top in tops if top.casefold() in image_table.SPLIT_NAMES}
    if not _has_split_folders(split_folders):
        return [_FileAnnotation(file, p[0]) for file, p in parts.items()]
    other_folders = sorted(set(tops) - split_folders)
    if other_folders:
        message = (
            f"besides {join_names(sorted(split_folders))}, these folders contain images: "
            f"{join_names(other_folders)}"
        )
        help = "move them into train, val or test, or out of this folder"
        raise fail("E1200", message, at, help=help)
    flat = [p for p in parts.values() if len(p) == 2]
    if flat:
        message = f"{len(flat):,} images of `{flat[0][0]}` are not in a class folder"
        help = f"put each into a folder with the name of its class, in `{flat[0][0]}`"
        raise fail("E1200", message, at, label=f"such as {'/'.join(flat[0])}", help=help)
    return [
        _FileAnnotation(f, p[1], image_table.SPLIT_NAMES[p[0].casefold()]) for f, p in parts.items()
    ]


def _has_split_folders(names: set[str]) -> bool:
    """Whether folders with split names are splits; without `train`, they may be classes."""
    return "train" in {image_table.SPLIT_NAMES[name.casefold()] for name in names}


def _label_by_table(path: Path, table: Path, image_listing: ImageListing) -> list[_FileAnnotation]:
    """Return the annotations of the table, completed by the folders' labels and splits."""
    files = {file.relative_to(path).as_posix(): file for file in image_listing.images}
    lines = image_table.read_table(table)
    image_table.check_table(table, lines, tuple(files))
    if lines[0].label is None or lines[0].split is None:
        folder_annotations = {
            annotation.file: annotation
            for annotation in _try_folders(path, image_listing, lines[0])
        }
    else:
        folder_annotations = {}
    annotations = [
        _merge_annotation(line, files[line.file], folder_annotations.get(files[line.file]))
        for line in lines
    ]
    _check_folders(path, annotations, lines[0])
    return annotations


def _try_folders(
    path: Path, image_listing: ImageListing, first_line: ImageLine
) -> list[_FileAnnotation]:
    """Return the folders' annotations; none if only the table has labels."""
    try:
        return _label_by_folders(path, image_listing)
    except UserError:
        if first_line.label is None:
            raise
        return []


def _merge_annotation(
    line: ImageLine, file: Path, folder_annotation: _FileAnnotation | None
) -> _FileAnnotation:
    label = line.label or (folder_annotation.label if folder_annotation else "")
    split = line.split or (folder_annotation.split if folder_annotation else None)
    return _FileAnnotation(file, label, split, line.group, line.at)


def _check_folders(path: Path, annotations: list[_FileAnnotation], first_line: ImageLine) -> None:
    """Reject a table with other labels or splits than the files' folders."""
    # Some datasets have both a table and folders. If they disagree, one is wrong, but we cannot
    # know which.
    labels = {annotation.label.casefold() for annotation in annotations}
    problems = []
    for annotation in annotations:
        folders = annotation.file.relative_to(path).parts[:-1]
        folder_split = image_table.SPLIT_NAMES.get(folders[0].casefold()) if folders else None
        folder_label = next((f for f in folders if f.casefold() in labels), annotation.label)
        assert annotation.at is not None
        if first_line.label is not None and folder_label.casefold() != annotation.label.casefold():
            message = f"the label is `{annotation.label}`, but the file is in `{folder_label}`"
            problems.append(
                Diagnostic("E1202", message, annotation.at, help="change the line or move the file")
            )
        elif first_line.split is not None and folder_split not in (None, annotation.split):
            message = f"the split is `{annotation.split}`, but the file is in `{folders[0]}`"
            problems.append(
                Diagnostic("E1202", message, annotation.at, help="change the line or move the file")
            )
    if problems:
        raise UserError(tuple(problems))


def _check_class_folders(path: Path, image_listing: ImageListing) -> None:
    """Reject class folders that are empty or links (E1206)."""
    filled_folders = {file.parent for file in image_listing.images}
    # A folder of folders with images is not empty.
    filled_folders |= {folder for file in filled_folders for folder in file.parents}
    split_folders = [
        f for f in path.iterdir() if f.is_dir() and f.name.casefold() in image_table.SPLIT_NAMES
    ]
    class_parents = split_folders if _has_split_folders({f.name for f in split_folders}) else [path]
    empty = [
        folder
        for class_parent in class_parents
        for folder in sorted(class_parent.iterdir())
        if folder.is_dir()
        and folder not in filled_folders
        and not folder.name.startswith((".", "__"))
    ]
    if empty and any(file.parent != path for file in image_listing.images):
        reason = (
            "this is a link, and links are not followed"
            if empty[0].is_symlink()
            else "there is no image in it"
        )
        message = f"{len(empty):,} class folder{'s have' if len(empty) > 1 else ' has'} no images"
        help = "add images to it, or remove it"
        raise fail("E1206", message, make_file_span(str(empty[0])), label=reason, help=help)


MAX_CLASSES = 1024
"""Maximum number of classes."""


def match_classes(
    files: LabelledFiles, labels: Sequence[str], settable: bool = False
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the classes in the network's order, and the class of each image label.

    If the network has no labels, the classes are the images', sorted by name, or by number if all
    are numbers.

    Args:
        files: The images.
        labels: The network's classes in order, if it names them.
        settable: Whether `--set labels=` can change the network's classes; messages then suggest
            it.

    Raises:
        UserError: Two classes differ only by case, or do not match the network's (E1207).
    """
    span = make_file_span(str(files.path))
    counts = Counter(item.label or "" for item in files.dataset.items)
    names_by_case = defaultdict(list)
    for name in sorted(counts):
        names_by_case[name.casefold()].append(name)
    duplicates = [names for names in names_by_case.values() if len(names) > 1]
    if duplicates:
        message = f"these classes differ only by case: {join_names(duplicates[0])}"
        raise fail("E1207", message, span, help="put their images into one folder")
    if not labels:
        # Sort folders 0 to 10 as numbers: by name, 10 would precede 2 and become another class.
        return _sort_classes(counts), {name: name for name in counts}
    item_labels = (item.label or "" for item in files.dataset.items)
    indices_by_label = dict(zip(item_labels, get_class_indices(files.dataset, labels), strict=True))
    classes_by_label = {
        name: labels[index]
        for name, index in indices_by_label.items()
        if index is not None and index < len(labels)
    }
    if problem := _find_mismatch(counts, classes_by_label, labels, settable=settable):
        raise UserError((replace(problem, at=span),))
    return tuple(labels), classes_by_label


def _check_count(counts: Counter[str], path: Path) -> None:
    """Reject a single class, and too many classes (E1207); `counts` has the images of each."""
    at = make_file_span(str(path))
    if len(counts) == 1:
        (name,) = counts
        message = f"there is only one class, `{name}`; training needs at least two"
        help = "give the folder that contains a folder for each class"
        raise fail("E1207", message, at, help=help)
    if len(counts) > MAX_CLASSES:
        message = f"there are {len(counts):,} classes, the limit is {MAX_CLASSES:,}"
        median_count = sorted(counts.values())[len(counts) // 2]
        label = f"the median class has {median_count:,} image{'s' * (median_count != 1)}"
        help = "if these folders are patients, list them as groups in an `index.csv`"
        raise fail("E1207", message, at, label=label, help=help)


def _sort_classes(names: Collection[str]) -> tuple[str, ...]:
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if numbers else sorted(names))


def _find_mismatch(
    counts: Counter[str], classes: Mapping[str, str], labels: Sequence[str], *, settable: bool
) -> Diagnostic | None:
    """Return the error of image classes that differ from the network's (E1207), or None."""
    extra = sorted(set(counts) - set(classes))
    missing = [label for label in labels if label not in classes.values()]
    parts = []
    if extra:
        parts.append(f"the network has no class {join_names([f'`{name[:80]}`' for name in extra])}")
    if missing:
        parts.append(f"there are no images of the network's classes {join_names(missing)}")
    if not parts:
        return None
    suggestion = find_nearest_name(extra[0], labels) if extra else None
    help = f"rename the folders to the network's classes, {join_names(list(labels))}"
    if settable:
        # A YAML list in JSON syntax, quoted for a shell, so that it can be copied.
        setting = f"labels={json.dumps(_sort_classes(counts), ensure_ascii=False)}"
        help += f", or train and build with `--set {shlex.quote(setting)}`"
    else:
        help += ", or change the spec's labels to the images' classes"
    label = f"did you mean `{suggestion}`?" if suggestion else ""
    return Diagnostic("E1207", ", and ".join(parts), make_file_span(""), label, help=help)
