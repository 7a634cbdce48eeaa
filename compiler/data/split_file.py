"""Read and write `split.csv` of a run folder, which lists the images of each split.

Each line is one image: `file`, its path relative to the image folder, or its index in an `.npz`
file; `label`, the network's class; `group`, empty if no groups are known; `split`, one of train,
val and test; and `sha256` of its contents, which identifies it independently of its path.
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
"""Maximum file size in bytes."""
HELP = "give the folder that `tcc train` wrote, or its split.csv"
RESTORE = "restore the file that `tcc train` wrote"
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class SplitLine:
    """One image; `line` is its line number in the file, from 1."""

    file: str
    label: str
    group: str
    split: str
    digest: str
    line: int


@dataclass(frozen=True)
class RunSplit:
    """The images of a run, and the file that they were read from."""

    path: Path
    lines: tuple[SplitLine, ...]

    @cached_property
    def split_by_digest(self) -> Mapping[str, str]:
        """The split of each image by digest; images with equal contents are in one split."""
        return {line.digest: line.split for line in self.lines}

    @cached_property
    def labels_by_digest(self) -> Mapping[str, frozenset[str]]:
        """The labels of each image by digest; several only if the labels contradict each other."""
        labels: dict[str, frozenset[str]] = {}
        for line in self.lines:
            labels[line.digest] = labels.get(line.digest, frozenset()) | {line.label}
        return labels


def format_item_name(item: Item, root: Path) -> str:
    """Return the name in the file of an image of the dataset at `root`."""
    if item.index is not None:
        return f"{item.path.name}[{item.index}]"
    return item.path.relative_to(root).as_posix()


def write(
    path: Path, root: Path, datasets: Mapping[str, DataSet], groups: Mapping[str, str]
) -> None:
    """Write a split, ordered by split and name.

    Args:
        path: The file.
        root: The image folder or `.npz` file.
        datasets: The images by split.
        groups: The known groups of images, by name.

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
    # File names may be invalid UTF-8.
    atomic_files.write_file(path, buffer.getvalue().encode("utf-8", "surrogateescape"))


def read_split(path: Path) -> RunSplit:
    """Return the split of a run folder, or of its `split.csv`.

    Raises:
        UserError: The file is missing or damaged (E1217).
    """
    path = path / NAME if path.is_dir() else path
    at = Span(str(path), 1, 1)
    try:
        with regular_files.open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        label, message = error.strerror or "", "cannot read the split of a run"
        raise fail("E1217", message, make_file_span(str(path)), label=label, help=HELP) from None
    text = content[:MAX_BYTES].decode("utf-8", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[SplitLine] = []
    start_line = 1
    try:
        for cells in reader:
            if start_line > 1:
                lines.append(_parse_line(cells, Span(str(path), start_line, 1)))
            elif tuple(cells) != COLUMNS:
                label = f"the first line must be {','.join(COLUMNS)}"
                raise fail("E1217", "this is not the split of a run", at, label=label, help=HELP)
            start_line = reader.line_num + 1
    except csv.Error as error:
        at = Span(str(path), start_line, 1)
        message = "this run's split is damaged"
        raise fail("E1217", message, at, label=str(error), help=RESTORE) from None
    if not lines or len(content) > MAX_BYTES:
        problem = "the file is too large" if lines else "the file lists no images"
        raise fail("E1217", "this is not the split of a run", at, label=problem, help=HELP)
    return RunSplit(path, tuple(lines))


def _parse_line(cells: list[str], at: Span) -> SplitLine:
    problem = ""
    if len(cells) != len(COLUMNS):
        problem = f"it has {len(cells)} cells instead of {len(COLUMNS)}"
    elif not _is_below(cells[0]):
        problem = "its file is not inside the image folder"
    elif cells[3] not in SPLITS:
        problem = f"split `{cells[3][:40]}` is not one of {', '.join(SPLITS)}"
    elif len(cells[4]) != 64 or not _HEX.issuperset(cells[4]):
        problem = "its last cell is not a SHA-256"
    if problem:
        message = "this line of the run's split is damaged"
        raise fail("E1217", message, at, label=problem, help=RESTORE)
    file, label, group, split, digest = cells
    return SplitLine(file, label, group, split, digest, at.line)


def _is_below(file: str) -> bool:
    return bool(file) and not file.startswith("/") and ".." not in file.split("/")
