"""The images of a data set for training, as folders, a table or an array have them, and classes."""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tcc.compiler.data import dataset
from tcc.compiler.data.dataset import DataSet, indices
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    Span,
    UserError,
    fail,
    listed,
    nearest,
    whole_file,
)
from tcc.compiler.support.image_folders import Listing, listing
from tcc.compiler.train import image_table
from tcc.compiler.train.image_table import ImageLine


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Images with labels; their sides and groups by their items' names, where any are given.

    `places` has the lines of the table that speak of them.
    """

    path: Path
    data: DataSet
    sides: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Span] = field(default_factory=dict)
    warnings: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class _Named:
    """What is said of one file."""

    file: Path
    label: str
    side: str | None = None
    group: str | None = None
    at: Span | None = None


def read_labelled_files(path: Path) -> LabelledFiles:
    """Return what is at a path.

    Raises:
        UserError: It is no data set (E0710 to E0712), not in a form that is known (E1200), or its
            table is wrong (E1201, E1202), or there is one class or too many (E1207).
    """
    if not path.is_dir():
        return _array(path)
    found = listing(path)
    if not found.images:
        raise UserError((found.nothing("E0711", path),))
    table = path / image_table.NAME
    found = replace(found, others=tuple(file for file in found.others if file != table))
    named = _by_table(path, table, found) if table.exists() else _by_folders(path, found)
    _check_count(Counter(one.label for one in named), path)
    _check_class_folders(path, found)
    data = dataset.of_files([(one.file, one.label) for one in named])
    return LabelledFiles(
        path,
        data,
        {str(one.file): one.side for one in named if one.side is not None},
        {str(one.file): one.group for one in named if one.group is not None},
        {str(one.file): one.at for one in named if one.at is not None},
        (*found.warnings(), *data.warnings),
    )


def _array(path: Path) -> LabelledFiles:
    data = dataset.read(path)
    bare = sum(item.label is None for item in data.items)
    if bare:
        help = "save `labels` beside `images` or `tensors`: class names or indices"
        raise fail("E1200", "these images have no labels", whole_file(str(path)), help=help)
    _check_count(Counter(item.label or "" for item in data.items), path)
    return LabelledFiles(path, data, warnings=data.warnings)


def _by_folders(path: Path, found: Listing) -> list[_Named]:
    """Return what the folders say: `side/class/...` or `class/...`."""
    where = whole_file(str(path))
    parts = {file: file.relative_to(path).parts for file in found.images}
    tops = Counter(p[0] for p in parts.values() if len(p) > 1)
    loose = [p[0] for p in parts.values() if len(p) == 1]
    if loose:
        message = f"{len(loose):,} images lie in no class folder"
        help = f"put each into a folder named as its class, or write an {image_table.NAME}"
        raise fail("E1200", message, where, label=f"such as {loose[0]}", help=help)
    # Without regard to case: `Train` and `TEST` are written as often.
    sided = {top for top in tops if top.casefold() in image_table.SIDES}
    if not _are_sides(sided):
        return [_Named(file, p[0]) for file, p in parts.items()]
    others = sorted(set(tops) - sided)
    if others:
        message = f"beside {listed(sorted(sided))}, these folders have images: {listed(others)}"
        help = "put them into one of train, val and test, or elsewhere"
        raise fail("E1200", message, where, help=help)
    flat = [p for p in parts.values() if len(p) == 2]
    if flat:
        message = f"{len(flat):,} images of `{flat[0][0]}` lie in no class folder"
        raise fail("E1200", message, where, label=f"such as {'/'.join(flat[0])}")
    return [_Named(f, p[1], image_table.SIDES[p[0].casefold()]) for f, p in parts.items()]


def _are_sides(names: set[str]) -> bool:
    """Whether folders that are called as sides are are sides: a class may be called `test`."""
    return "train" in {image_table.SIDES[name.casefold()] for name in names}


def _by_table(path: Path, table: Path, found: Listing) -> list[_Named]:
    """Return what the table says, and the folders where it says nothing of label or side."""
    files = {file.relative_to(path).as_posix(): file for file in found.images}
    lines = image_table.read(table)
    image_table.checked(table, lines, tuple(files))
    if lines[0].label is None or lines[0].side is None:
        folders = {one.file: one for one in _folders_or_none(path, found, lines[0])}
    else:
        folders = {}
    named = [_joined(line, files[line.file], folders.get(files[line.file])) for line in lines]
    _check_folders(path, named, lines[0])
    return named


def _folders_or_none(path: Path, found: Listing, first: ImageLine) -> list[_Named]:
    """Return what the folders say; nothing, if the table has labels and the folders none."""
    try:
        return _by_folders(path, found)
    except UserError:
        if first.label is None:
            raise
        return []


def _joined(line: ImageLine, file: Path, folder: _Named | None) -> _Named:
    label = line.label or (folder.label if folder else "")
    side = line.side or (folder.side if folder else None)
    return _Named(file, label, side, line.group, line.at)


def _check_folders(path: Path, named: list[_Named], first: ImageLine) -> None:
    """Refuse a table that says another label or side than the folder that a file lies in."""
    # Data sets come with both a table and folders; where the two disagree one is wrong, and no rule
    # of ours could tell which.
    labels = {one.label.casefold() for one in named}
    problems = []
    for one in named:
        folders = one.file.relative_to(path).parts[:-1]
        sided = image_table.SIDES.get(folders[0].casefold()) if folders else None
        said = next((f for f in folders if f.casefold() in labels), one.label)
        assert one.at is not None
        if first.label is not None and said.casefold() != one.label.casefold():
            message = f"the table says `{one.label}`, the file lies in `{said}`"
            problems.append(Diagnostic("E1202", message, one.at, help="let both say the same"))
        elif first.side is not None and sided not in (None, one.side):
            message = f"the table says `{one.side}`, the file lies in `{folders[0]}`"
            problems.append(Diagnostic("E1202", message, one.at, help="let both say the same"))
    if problems:
        raise UserError(tuple(problems))


def _check_class_folders(path: Path, found: Listing) -> None:
    """Refuse a folder in the place of a class in which there is no image, or that is a link."""
    filled = {file.parent for file in found.images}
    # A folder of folders with images is not empty.
    filled |= {folder for file in filled for folder in file.parents}
    sided = [f for f in path.iterdir() if f.is_dir() and f.name.casefold() in image_table.SIDES]
    places = sided if _are_sides({f.name for f in sided}) else [path]
    empty = [
        folder
        for place in places
        for folder in sorted(place.iterdir())
        if folder.is_dir() and folder not in filled and not folder.name.startswith((".", "__"))
    ]
    if empty and any(file.parent != path for file in found.images):
        why = "a link, which is not followed" if empty[0].is_symlink() else "no image is in it"
        message = f"{len(empty):,} class folder{'s have' if len(empty) > 1 else ' has'} no images"
        help = "put images into it, or take it out"
        raise fail("E1206", message, whole_file(str(empty[0])), label=why, help=help)


MOST = 1024
"""Most classes."""


def match_classes(
    found: LabelledFiles, labels: Sequence[str], settable: bool = False
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the classes in the network's order, and the class of each label that images have.

    Where the network has no labels, the classes are those of the images: by name, or by number
    where all are numbers.

    Args:
        found: The images.
        labels: The network's classes in order, if it names them.
        settable: Whether `--set labels=` gives the network others, which a message then suggests.

    Raises:
        UserError: Two classes differ by case alone, or they are not those of the network (E1207).
    """
    where = whole_file(str(found.path))
    counts = Counter(item.label or "" for item in found.data.items)
    alike = defaultdict(list)
    for name in sorted(counts):
        alike[name.casefold()].append(name)
    twice = [names for names in alike.values() if len(names) > 1]
    if twice:
        message = f"these classes differ by case alone: {listed(twice[0])}"
        raise fail("E1207", message, where, help="put their images into one folder")
    if not labels:
        # Folders 0 to 10: by name, 10 would come before 2 and stand for another class.
        return _sort_classes(counts), {name: name for name in counts}
    given = (item.label or "" for item in found.data.items)
    places = dict(zip(given, indices(found.data, labels), strict=True))
    known = {name: labels[at] for name, at in places.items() if at is not None and at < len(labels)}
    if problem := _find_mismatch(counts, known, labels, settable=settable):
        raise UserError((replace(problem, at=where),))
    return tuple(labels), known


def _check_count(counts: Counter[str], path: Path) -> None:
    """Refuse one class alone, and too many (E1207); `counts` has the images of each."""
    where = whole_file(str(path))
    if len(counts) == 1:
        (name,) = counts
        message = f"there is one class alone, `{name}`: nothing can be told from it"
        help = "give the folder that holds a folder for each class"
        raise fail("E1207", message, where, help=help)
    if len(counts) > MOST:
        message = f"there are {len(counts):,} classes, at most {MOST:,} are learned"
        most = sorted(counts.values())[len(counts) // 2]
        label = f"most have {most:,} image{'s' * (most != 1)}"
        help = "if these folders are patients, name them as groups in an `index.csv`"
        raise fail("E1207", message, where, label=label, help=help)


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
        parts.append(f"the network has no class {listed([f'`{name[:80]}`' for name in extra])}")
    if missing:
        parts.append(f"there is no image of the network's classes {listed(missing)}")
    if not parts:
        return None
    suggestion = nearest(extra[0], labels) if extra else None
    help = f"its classes are {listed(list(labels))}: name the folders so"
    if settable:
        # A YAML list in JSON's form, quoted for a shell: the setting can be copied as it is.
        setting = f"labels={json.dumps(_sort_classes(counts), ensure_ascii=False)}"
        help += f", or train and build with `--set {shlex.quote(setting)}`"
    else:
        help += ", or write the images' classes into the spec's labels"
    label = f"did you mean `{suggestion}`?" if suggestion else ""
    return Diagnostic("E1207", ", and ".join(parts), whole_file(""), label, help=help)
