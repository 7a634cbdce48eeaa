"""The images of a data set for training, as folders, a table or an array have them, and classes."""

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
    """Images with labels; their sides and groups by their items' names, where any are given.

    `spans` has the lines of the table that speak of them.
    """

    path: Path
    dataset: DataSet
    splits: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    spans: Mapping[str, Span] = field(default_factory=dict)
    warnings: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class _FileAnnotation:
    """What is said of one file."""

    file: Path
    label: str
    split: str | None = None
    group: str | None = None
    at: Span | None = None


def read_labelled_files(path: Path) -> LabelledFiles:
    """Return what is at a path.

    Raises:
        UserError: It is no data set (E0710 to E0712), not in a form that is known (E1200), or its
            table is wrong (E1201, E1202), or there is one class or too many (E1207).
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
        help = "save `labels` beside `images` or `tensors`: class names or indices"
        raise fail("E1200", "these images have no labels", make_file_span(str(path)), help=help)
    _check_count(Counter(item.label or "" for item in labelled_images.items), path)
    return LabelledFiles(path, labelled_images, warnings=labelled_images.warnings)


def _label_by_folders(path: Path, image_listing: ImageListing) -> list[_FileAnnotation]:
    """Return what the folders say: `side/class/...` or `class/...`."""
    at = make_file_span(str(path))
    parts = {file: file.relative_to(path).parts for file in image_listing.images}
    tops = Counter(p[0] for p in parts.values() if len(p) > 1)
    loose = [p[0] for p in parts.values() if len(p) == 1]
    if loose:
        message = f"{len(loose):,} images lie in no class folder"
        help = f"put each into a folder named as its class, or write an {image_table.NAME}"
        raise fail("E1200", message, at, label=f"such as {loose[0]}", help=help)
    # Without regard to case: `Train` and `TEST` are written as often.
    split_folders = {top for top in tops if top.casefold() in image_table.SPLIT_NAMES}
    if not _has_split_folders(split_folders):
        return [_FileAnnotation(file, p[0]) for file, p in parts.items()]
    other_folders = sorted(set(tops) - split_folders)
    if other_folders:
        message = (
            f"beside {join_names(sorted(split_folders))}, these folders have images: "
            f"{join_names(other_folders)}"
        )
        help = "put them into one of train, val and test, or elsewhere"
        raise fail("E1200", message, at, help=help)
    flat = [p for p in parts.values() if len(p) == 2]
    if flat:
        message = f"{len(flat):,} images of `{flat[0][0]}` lie in no class folder"
        raise fail("E1200", message, at, label=f"such as {'/'.join(flat[0])}")
    return [
        _FileAnnotation(f, p[1], image_table.SPLIT_NAMES[p[0].casefold()]) for f, p in parts.items()
    ]


def _has_split_folders(names: set[str]) -> bool:
    """Whether folders that are called as sides are are sides: a class may be called `test`."""
    return "train" in {image_table.SPLIT_NAMES[name.casefold()] for name in names}


def _label_by_table(path: Path, table: Path, image_listing: ImageListing) -> list[_FileAnnotation]:
    """Return what the table says, and the folders where it says nothing of label or side."""
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
    """Return what the folders say; nothing, if the table has labels and the folders none."""
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
    """Refuse a table that says another label or side than the folder that a file lies in."""
    # Data sets come with both a table and folders; where the two disagree one is wrong, and no rule
    # of ours could tell which.
    labels = {annotation.label.casefold() for annotation in annotations}
    problems = []
    for annotation in annotations:
        folders = annotation.file.relative_to(path).parts[:-1]
        folder_split = image_table.SPLIT_NAMES.get(folders[0].casefold()) if folders else None
        folder_label = next((f for f in folders if f.casefold() in labels), annotation.label)
        assert annotation.at is not None
        if first_line.label is not None and folder_label.casefold() != annotation.label.casefold():
            message = f"the table says `{annotation.label}`, the file lies in `{folder_label}`"
            problems.append(
                Diagnostic("E1202", message, annotation.at, help="let both say the same")
            )
        elif first_line.split is not None and folder_split not in (None, annotation.split):
            message = f"the table says `{annotation.split}`, the file lies in `{folders[0]}`"
            problems.append(
                Diagnostic("E1202", message, annotation.at, help="let both say the same")
            )
    if problems:
        raise UserError(tuple(problems))


def _check_class_folders(path: Path, image_listing: ImageListing) -> None:
    """Refuse a folder in the place of a class in which there is no image, or that is a link."""
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
        reason = "a link, which is not followed" if empty[0].is_symlink() else "no image is in it"
        message = f"{len(empty):,} class folder{'s have' if len(empty) > 1 else ' has'} no images"
        help = "put images into it, or take it out"
        raise fail("E1206", message, make_file_span(str(empty[0])), label=reason, help=help)


MAX_CLASSES = 1024
"""Most classes."""


def match_classes(
    files: LabelledFiles, labels: Sequence[str], settable: bool = False
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the classes in the network's order, and the class of each label that images have.

    Where the network has no labels, the classes are those of the images: by name, or by number
    where all are numbers.

    Args:
        files: The images.
        labels: The network's classes in order, if it names them.
        settable: Whether `--set labels=` gives the network others, which a message then suggests.

    Raises:
        UserError: Two classes differ by case alone, or they are not those of the network (E1207).
    """
    span = make_file_span(str(files.path))
    counts = Counter(item.label or "" for item in files.dataset.items)
    names_by_case = defaultdict(list)
    for name in sorted(counts):
        names_by_case[name.casefold()].append(name)
    duplicates = [names for names in names_by_case.values() if len(names) > 1]
    if duplicates:
        message = f"these classes differ by case alone: {join_names(duplicates[0])}"
        raise fail("E1207", message, span, help="put their images into one folder")
    if not labels:
        # Folders 0 to 10: by name, 10 would come before 2 and stand for another class.
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
    """Refuse one class alone, and too many (E1207); `counts` has the images of each."""
    at = make_file_span(str(path))
    if len(counts) == 1:
        (name,) = counts
        message = f"there is one class alone, `{name}`: nothing can be told from it"
        help = "give the folder that holds a folder for each class"
        raise fail("E1207", message, at, help=help)
    if len(counts) > MAX_CLASSES:
        message = f"there are {len(counts):,} classes, at most {MAX_CLASSES:,} are learned"
        median_count = sorted(counts.values())[len(counts) // 2]
        label = f"most have {median_count:,} image{'s' * (median_count != 1)}"
        help = "if these folders are patients, name them as groups in an `index.csv`"
        raise fail("E1207", message, at, label=label, help=help)


def _sort_classes(names: Collection[str]) -> tuple[str, ...]:
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if numbers else sorted(names))


def _find_mismatch(
    counts: Counter[str], classes: Mapping[str, str], labels: Sequence[str], *, settable: bool
) -> Diagnostic | None:
    """Return how the images' classes differ from the network's (E1207); None if they do not."""
    extra = sorted(set(counts) - set(classes))
    missing = [label for label in labels if label not in classes.values()]
    parts = []
    if extra:
        parts.append(f"the network has no class {join_names([f'`{name[:80]}`' for name in extra])}")
    if missing:
        parts.append(f"there is no image of the network's classes {join_names(missing)}")
    if not parts:
        return None
    suggestion = find_nearest_name(extra[0], labels) if extra else None
    help = f"its classes are {join_names(list(labels))}: name the folders so"
    if settable:
        # A YAML list in JSON's form, quoted for a shell: the setting can be copied as it is.
        setting = f"labels={json.dumps(_sort_classes(counts), ensure_ascii=False)}"
        help += f", or train and build with `--set {shlex.quote(setting)}`"
    else:
        help += ", or write the images' classes into the spec's labels"
    label = f"did you mean `{suggestion}`?" if suggestion else ""
    return Diagnostic("E1207", ", and ".join(parts), make_file_span(""), label, help=help)
