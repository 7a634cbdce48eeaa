"""`index.csv`, the table beside images that says what each of them shows and whom it is of.

Its first line names the columns: `file`, below the table's folder; `label`; `group`, the patient
or slide whose images must stay together; `split`, one of train, val and test. All but `file` may
be left out, and others are passed over. Commas, semicolons or tabs lie between them.
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
"""Largest table, in bytes and in lines."""
COLUMNS = ("file", "label", "group", "split")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What the three parts of a split are called in tables and folders, whatever the case."""


@dataclass(frozen=True, slots=True)
class ImageLine:
    """What one line says; `None` for a column that the table does not have."""

    file: str
    label: str | None
    group: str | None
    split: str | None
    at: Span


def read_table(path: Path) -> tuple[ImageLine, ...]:
    """Return the lines of a table, each of another file.

    Raises:
        UserError: It cannot be read, is too large, or a line of it says nothing that can be used
            (E1201); it names a file twice (E1202).
    """
    text = _read_text(path)
    if len(lines := text.split("\n")) > MAX_LINES:
        raise fail(
            "E1201", f"this table has more than {MAX_LINES:,} lines", make_file_span(str(path))
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
        raise fail("E1201", "this line cannot be read as a table's", at, label=str(error)) from None
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
        # Spreadsheet programs on Windows begin UTF-8 with a byte order mark, which would be part of
        # `file`.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        help = "save the table as UTF-8"
        message = "this table is not UTF-8 text"
        raise fail("E1201", message, Span(str(path), line, 1), help=help) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise fail("E1201", "this table holds a NUL character", Span(str(path), line, 1))
    # Line ends of any system, so that lines are counted as editors show them.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _find_separator(text: str) -> str:
    header = text.partition("\n")[0]
    # Where the comma is the decimal sign, spreadsheet programs separate by semicolons.
    return max(",;\t", key=header.count)


def _parse_columns(header: list[str], at: Span) -> Mapping[str, int]:
    """Return the place of each column that is known."""
    names = [name.strip().casefold() for name in header]
    duplicates = [name for name in COLUMNS if names.count(name) > 1]
    if duplicates:
        raise fail("E1201", f"this table has two columns `{duplicates[0]}`", at)
    if "file" not in names:
        help = f"the first line names the columns: {', '.join(COLUMNS)}; `file` must be there"
        raise fail("E1201", "this table has no column `file`", at, help=help)
    return {name: names.index(name) for name in COLUMNS if name in names} | {"": len(names)}


def _parse_line(cells: list[str], columns: Mapping[str, int], at: Span) -> ImageLine | Diagnostic:
    """Return what a line says, or what is wrong with it."""
    count = columns[""]
    if len(cells) != count:
        message = f"this line has {len(cells)} cells, the table {count} columns"
        return Diagnostic("E1201", message, at, help="put a cell that holds a comma in quotes")
    fields = {name: cells[index].strip() for name, index in columns.items() if name}
    empty = [name for name, cell in fields.items() if not cell]
    if empty:
        return Diagnostic("E1201", f"this line has no {empty[0]}", at)
    if "split" in fields and fields["split"].casefold() not in SPLIT_NAMES:
        message = f"`{fields['split']}` is no part of a split"
        return Diagnostic("E1201", message, at, help="write train, val or test")
    file = _normalize_path(fields["file"])
    if file is None:
        message = "a file is named by its path below the table's folder"
        return Diagnostic("E1201", message, at, help="leave out drives, `..` and a `/` in front")
    split = SPLIT_NAMES[fields["split"].casefold()] if "split" in fields else None
    return ImageLine(file, fields.get("label"), fields.get("group"), split, at)


def _normalize_path(name: str) -> str | None:
    """Return a path below the table's folder in one way of writing it; None if it is not below."""
    windows = PureWindowsPath(name)
    if windows.drive or windows.root:
        return None
    # Tables are made on Windows and read elsewhere; a path that leaves the folder could name any
    # file.
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
        message = f"`{line.file}` has a line already"
        label = f"its first is line {earlier_line.at.line}"
        mistakes.add([Diagnostic("E1202", message, line.at, label=label, help="keep one of them")])


def find_mismatches(
    path: Path, lines: tuple[ImageLine, ...], images: tuple[str, ...]
) -> Iterator[Diagnostic]:
    """Yield what the table says of no image, and the images of which it says nothing."""
    image_names = set(images)
    # Windows does not tell case apart, and tables that were made there need not either.
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
            help="add their lines, or take the images out of the folder",
        )


def _get_class(line: ImageLine) -> str:
    """Return the class that a line says, or else the folder of its file; or nothing."""
    return line.label or PurePosixPath(line.file).parent.name


def _report_missing(label: str, lines: list[ImageLine]) -> Iterator[Diagnostic]:
    """Yield what is to be said of images of a class that are not there."""
    if len(lines) < MIN_GROUP_SIZE:
        help = "leave the line out, or bring the image"
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
        help="leave their lines out, or bring the images",
    )


def check_table(path: Path, lines: tuple[ImageLine, ...], images: tuple[str, ...]) -> None:
    """Refuse a table that does not fit the images beside it.

    Raises:
        UserError: A line names an image that is not there, or an image has no line (E1202).
    """
    mistakes = Mistakes()
    mistakes.add(find_mismatches(path, lines, images))
    if mistakes:
        raise UserError(tuple(mistakes.diagnostics), mistakes.omitted_count)
