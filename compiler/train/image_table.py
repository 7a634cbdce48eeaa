"""Read `index.csv`, the table of an image folder with labels, groups and splits.

The first line names the columns: `file`, relative to the table's folder; `label`; `group`, the
patient or slide, because its images must stay in one split; `split`, one of train, val and test.
Only `file` is required. Other columns are ignored. The separator is a comma, semicolon or tab.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from tcc.compiler.support import image_folders, regular_files
from tcc.compiler.support.diagnostics import (
    MIN_GROUP_SIZE,
    Diagnostic,
    Mistakes,
    Span,
    UserError,
    fail,
    make_file_span,
)

NAME = image_folders.TABLE
MAX_BYTES, MAX_LINES = 1 << 26, 1 << 20
"""Maximum size of a table in bytes, and in lines."""
COLUMNS = ("file", "label", "group", "split")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Split names in tables and folders (case-insensitive), and the splits that they mean."""


@dataclass(frozen=True, slots=True)
class ImageLine:
    """One line of the table; None for columns that the table does not have."""

    file: str
    label: str | None
    group: str | None
    split: str | None
    at: Span


def read_table(path: Path) -> tuple[ImageLine, ...]:
    """Return the lines of a table, one for each file.

    Raises:
        UserError: The table cannot be read, is too large or has an invalid line (E1201), or lists a
            file twice (E1202).
    """
    text = _read_text(path)
    if len(lines := text.split("\n")) > MAX_LINES:
        raise fail(
            "E1201",
            f"this table has more than {MAX_LINES:,} lines",
            make_file_span(str(path)),
            help="train on fewer images",
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_find_separator(text), strict=True)
    mistakes = Mistakes()
    lines_by_file: dict[str, ImageLine] = {}
    try:
        columns = _parse_columns(next(reader, []), Span(str(path), 1, 1, lines[0] if lines else ""))
        for cells in reader:
            at = Span(str(path), reader.line_num, 1, _get_line(lines, reader.line_num))
            if cells:
                _add_line(_parse_line(cells, columns, at), lines_by_file, mistakes)
    except csv.Error as error:
        at = Span(str(path), reader.line_num, 1, _get_line(lines, reader.line_num))
        message, help = "this line is not valid CSV", "check the quotes in this line"
        raise fail("E1201", message, at, label=str(error), help=help) from None
    if mistakes:
        raise mistakes.make_error()
    return tuple(lines_by_file.values())


def _get_line(lines: list[str], number: int) -> str:
    return lines[number - 1] if 0 < number <= len(lines) else ""


def _read_text(path: Path) -> str:
    at = make_file_span(str(path))
    try:
        with regular_files.open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise fail("E1201", "cannot read this table", at, label=error.strerror or "") from None
    if len(content) > MAX_BYTES:
        raise fail("E1201", f"this table is larger than {MAX_BYTES >> 20} MiB", at)
    try:
        # Spreadsheet programs on Windows start UTF-8 files with a byte order mark, which would
        # become part of the first column's name.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        help = "save the table as UTF-8"
        message = "this table is not UTF-8 text"
        raise fail("E1201", message, Span(str(path), line, 1), help=help) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        message, help = "this table contains a NUL character", "save the table as UTF-8"
        raise fail("E1201", message, Span(str(path), line, 1), help=help)
    # Normalize line ends, so that line numbers match an editor's.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _find_separator(text: str) -> str:
    header = text.partition("\n")[0]
    # Spreadsheet programs use semicolons in locales with a decimal comma.
    return max(",;\t", key=header.count)


def _parse_columns(header: list[str], at: Span) -> Mapping[str, int]:
    """Return the index of each known column, and under "" the number of columns."""
    names = [name.strip().casefold() for name in header]
    duplicates = [name for name in COLUMNS if names.count(name) > 1]
    if duplicates:
        message = f"this table has two columns `{duplicates[0]}`"
        raise fail("E1201", message, at, help="remove or rename one of them")
    if "file" not in names:
        help = f"the first line names the columns: {', '.join(COLUMNS)}; only `file` is required"
        raise fail("E1201", "this table has no column `file`", at, help=help)
    return {name: names.index(name) for name in COLUMNS if name in names} | {"": len(names)}


def _parse_line(cells: list[str], columns: Mapping[str, int], at: Span) -> ImageLine | Diagnostic:
    """Return a parsed line, or its error."""
    count = columns[""]
    if len(cells) != count:
        message = f"this line has {len(cells)} cells, but the table has {count} columns"
        return Diagnostic("E1201", message, at, help="quote cells that contain the separator")
    fields = {name: cells[index].strip() for name, index in columns.items() if name}
    empty = [name for name, cell in fields.items() if not cell]
    if empty:
        message = f"this line has no {empty[0]}"
        return Diagnostic("E1201", message, at, help=f"fill in the column `{empty[0]}`")
    if "split" in fields and fields["split"].casefold() not in SPLIT_NAMES:
        message = f"`{fields['split']}` is not a split"
        return Diagnostic("E1201", message, at, help="use train, val or test")
    file = _normalize_path(fields["file"])
    if file is None:
        message = "`file` must be a path inside the table's folder"
        return Diagnostic("E1201", message, at, help="remove drives, `..` and a leading `/`")
    split = SPLIT_NAMES[fields["split"].casefold()] if "split" in fields else None
    return ImageLine(file, fields.get("label"), fields.get("group"), split, at)


def _normalize_path(name: str) -> str | None:
    """Return a normalized path inside the table's folder; None if the path is outside."""
    windows = PureWindowsPath(name)
    if windows.drive or windows.root:
        return None
    # Tables from Windows are read on other systems. A path outside the folder could name any file.
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "/".join(parts) if parts and ".." not in parts else None


def _add_line(
    line: ImageLine | Diagnostic, lines_by_file: dict[str, ImageLine], mistakes: Mistakes
) -> None:
    if isinstance(line, Diagnostic):
        mistakes.add([line])
        return
    earlier_line = lines_by_file.setdefault(line.file, line)
    if earlier_line is not line:
        message = f"`{line.file}` is listed twice"
        label = f"it is first listed in line {earlier_line.at.line}"
        help = "keep only one of the lines"
        mistakes.add([Diagnostic("E1202", message, line.at, label=label, help=help)])


def find_mismatches(
    path: Path, lines: tuple[ImageLine, ...], images: tuple[str, ...]
) -> Iterator[Diagnostic]:
    """Yield errors for lines without an image, and for images without a line."""
    image_names = set(images)
    # File names in tables from Windows may differ in case.
    folded = {name.casefold(): name for name in images}
    absent_by_class: dict[str, list[ImageLine]] = {}
    for line in lines:
        if line.file in image_names:
            continue
        if similar_name := folded.get(line.file.casefold()):
            message = f"there is no image `{line.file}`"
            yield Diagnostic("E1202", message, line.at, help=f"there is `{similar_name}`")
        else:
            absent_by_class.setdefault(_get_class(line), []).append(line)
    for label, absent in absent_by_class.items():
        yield from _report_missing(label, absent)
    listed_files = {line.file for line in lines}
    missing = [name for name in images if name not in listed_files]
    if missing:
        count = len(missing)
        subject = "1 image has" if count == 1 else f"{count:,} images have"
        remainder = (f"and {count - 10:,} more",) if count > 10 else ()
        yield Diagnostic(
            "E1202",
            f"{subject} no line in this table",
            make_file_span(str(path)),
            notes=(*missing[:10], *remainder),
            help="add lines for them, or remove the images from the folder",
        )


def _get_class(line: ImageLine) -> str:
    """Return a line's class: its label, or else the name of its file's folder."""
    return line.label or PurePosixPath(line.file).parent.name


def _report_missing(label: str, lines: list[ImageLine]) -> Iterator[Diagnostic]:
    """Yield the errors for missing images of a class."""
    if len(lines) < MIN_GROUP_SIZE:
        help = "remove the line, or add the image"
        for line in lines:
            yield Diagnostic("E1202", f"there is no image `{line.file}`", line.at, help=help)
        return
    owner = f"of class `{label}`" if label else "of this table"
    names = [f"line {line.at.line}: {line.file}" for line in lines[:MIN_GROUP_SIZE]]
    yield Diagnostic(
        "E1202",
        f"{len(lines):,} images {owner} are missing",
        lines[0].at,
        notes=(*names, f"and {len(lines) - MIN_GROUP_SIZE:,} more")
        if len(lines) > MIN_GROUP_SIZE
        else tuple(names),
        help="remove their lines, or add the images",
    )


def check_table(path: Path, lines: tuple[ImageLine, ...], images: tuple[str, ...]) -> None:
    """Check that a table matches the images of its folder.

    Raises:
        UserError: A line names a missing image, or an image has no line (E1202).
    """
    mistakes = Mistakes()
    mistakes.add(find_mismatches(path, lines, images))
    if mistakes:
        raise UserError(tuple(mistakes.diagnostics), mistakes.omitted_count)
