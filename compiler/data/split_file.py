"""`split.csv` of a run's folder: on which side of the split each image was.

A line an image: `file`, below the folder of the images, or its place in an `.npz` file; `label`,
the network's class; `group`, empty where none are known; `split`, one of train, val and test; and
`sha256` of the image's contents, which tells it wherever it lies and whatever it is called.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tcc.compiler.data.dataset import DataSet, Item
from tcc.compiler.support import atomic_files, regular_files
from tcc.compiler.support.diagnostics import Span, fail, make_file_span

NAME = "split.csv"
SPLITS = ("train", "val", "test")
COLUMNS = ("file", "label", "group", "split", "sha256")
MAX_BYTES = 1 << 28
"""Largest file that is read."""
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class SplitLine:
    """One image; `line` is its line in the file, from 1."""

    file: str
    label: str
    group: str
    split: str
    digest: str
    line: int


@dataclass(frozen=True)
class RunSplit:
    """The images of a run, and the file that says so."""

    path: Path
    lines: tuple[SplitLine, ...]

    @cached_property
    def split_by_digest(self) -> Mapping[str, str]:
        """The side of each image by its contents; equal ones are on one."""
        return {line.digest: line.split for line in self.lines}

    @cached_property
    def labels_by_digest(self) -> Mapping[str, frozenset[str]]:
        """The labels of each image by its contents: one, but for contradictions."""
        labels: dict[str, frozenset[str]] = {}
        for line in self.lines:
            labels[line.digest] = labels.get(line.digest, frozenset()) | {line.label}
        return labels


def format_item_name(item: Item, root: Path) -> str:
    """Return what the file calls an image of the data set at `root`."""
    if item.index is not None:
        return f"{item.path.name}[{item.index}]"
    return item.path.relative_to(root).as_posix()


def write(
    path: Path, root: Path, datasets: Mapping[str, DataSet], groups: Mapping[str, str]
) -> None:
    """Write a split, in the order of sides and names.

    Args:
        path: The file.
        root: The folder of the images, or their `.npz` file.
        datasets: The images of each side.
        groups: The group of an image by its name, where one is known.

    Raises:
        UserError: The file cannot be written.
    """
    buffer = io.StringIO(newline="")
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(COLUMNS)
    for split, dataset in datasets.items():
        rows = [
            (
                format_item_name(item, root),
                item.label,
                groups.get(item.name, ""),
                split,
                item.digest,
            )
            for item in dataset.items
        ]
        table.writerows(sorted(rows))
    # Names of files need not be text.
    atomic_files.write_file(path, buffer.getvalue().encode("utf-8", "surrogateescape"))


def read_split(path: Path) -> RunSplit:
    """Return the split of a run's folder, or of the file itself.

    Raises:
        UserError: There is none, or it is damaged (E1217).
    """
    path = path / NAME if path.is_dir() else path
    at = Span(str(path), 1, 1)
    try:
        with regular_files.open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        help = "name the folder that `tcc train` wrote, or its split.csv"
        label, message = error.strerror or "", "cannot read a run's split here"
        raise fail("E1217", message, make_file_span(str(path)), label=label, help=help) from None
    text = content[:MAX_BYTES].decode("utf-8", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[SplitLine] = []
    start_line = 1
    try:
        for cells in reader:
            if start_line > 1:
                lines.append(_parse_line(cells, Span(str(path), start_line, 1)))
            elif tuple(cells) != COLUMNS:
                label = f"its first line is to be {','.join(COLUMNS)}"
                raise fail("E1217", "this is no run's split", at, label=label)
            start_line = reader.line_num + 1
    except csv.Error as error:
        at = Span(str(path), start_line, 1)
        raise fail("E1217", "this run's split is damaged", at, label=str(error)) from None
    if not lines or len(content) > MAX_BYTES:
        problem = "it is too large" if lines else "it has no images"
        raise fail("E1217", "this is no run's split", at, label=problem)
    return RunSplit(path, tuple(lines))


def _parse_line(cells: list[str], at: Span) -> SplitLine:
    problem = ""
    if len(cells) != len(COLUMNS):
        problem = f"it has {len(cells)} cells of {len(COLUMNS)}"
    elif not _is_below(cells[0]):
        problem = "its file is not below the folder of the images"
    elif cells[3] not in SPLITS:
        problem = f"`{cells[3][:40]}` is none of {', '.join(SPLITS)}"
    elif len(cells[4]) != 64 or not _HEX.issuperset(cells[4]):
        problem = "its last cell is no SHA-256"
    if problem:
        raise fail("E1217", "this line of a run's split is damaged", at, label=problem)
    file, label, group, split, digest = cells
    return SplitLine(file, label, group, split, digest, at.line)


def _is_below(file: str) -> bool:
    return bool(file) and not file.startswith("/") and ".." not in file.split("/")
