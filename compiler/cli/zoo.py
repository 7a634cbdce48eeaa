"""`tcc zoo` lists the networks of tcc; `tcc dev table` sets papers' tables beside their costs."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, assert_never

import typer

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support.console import Report, cell, fits, table
from tcc.compiler.support.diagnostics import fail, typed

if TYPE_CHECKING:
    from tcc.compiler.zoo.tables import Cell, Line, PaperTable, ZooNetwork


class TableFormat(StrEnum):
    """What a table is printed as."""

    TEXT = "text"
    MARKDOWN = "markdown"


def _table_names(incomplete: str) -> list[str]:
    from tcc.compiler.zoo import tables

    return [name for name in tables.names() if name.startswith(incomplete)]


TableArgument = Annotated[
    str,
    typer.Argument(
        metavar="TABLE",
        autocompletion=_table_names,
        show_default=False,
        # Written out: to list the files, every `tcc zoo --help` would have to read a folder.
        help="ddsnet-1, fastnet-5, fastnet-6, fastnet-7, fastnet-8 or sensors-2.",
    ),
]
FormatOption = Annotated[TableFormat, typer.Option("--format", help="Text, or a Markdown table.")]


def models(*, report: ReportOptions) -> None:
    """List the networks that come with tcc."""
    from tcc.compiler.zoo.tables import entries

    found = tuple(entries())
    if report.quiet:
        report.text("\n".join(entry.name for entry in found))
    else:
        _list(report, found)
    report.document({"models": [_entry_document(entry) for entry in found]})


def regenerate(
    name: TableArgument, format: FormatOption = TableFormat.TEXT, *, report: ReportOptions
) -> None:
    """Regenerate a paper's table beside its printed figures."""
    if report.json and format is not TableFormat.TEXT:
        raise fail("E0601", "--json and --format exclude each other", typed(f"--format {format}"))

    from tcc.compiler.zoo import tables

    read = tables.read(name, typed(name))
    lines = tuple(tables.computed(read))
    match format:
        case TableFormat.TEXT:
            _print(report, read, lines)
        case TableFormat.MARKDOWN:
            report.text("\n".join(_markdown(read, lines)))
        case _:
            assert_never(format)
    report.document(_document(name, read, lines))


def _list(report: Report, entries: Sequence["ZooNetwork"]) -> None:
    columns = ("name", "input", "classes", "params", "MACs", "trained", "tables", "task", "paper")
    rows = [
        (
            *(e.name, str(e.input), e.classes, e.params, e.macs),
            ", ".join(e.trained) or "-",
            ", ".join(e.tables) or "-",
            *(e.about.task, e.about.paper),
        )
        for e in entries
    ]
    lines = table(columns, rows)
    # Text that wraps is no table: what a narrow terminal has no room for stands in --json.
    narrow = table(columns[:6], [row[:6] for row in rows])
    report.lines(lines if fits(lines) else narrow)


def _entry_document(entry: "ZooNetwork") -> dict[str, Any]:
    return {
        "name": entry.name,
        "task": entry.about.task,
        "classes": entry.classes,
        "input": list(entry.input.shape),
        "params": entry.params,
        "macs": entry.macs,
        "trained": list(entry.trained),
        "paper": entry.about.paper,
        "tables": list(entry.tables),
    }


def _heads(read: "PaperTable") -> list[str]:
    heads = ["model", "MACs"]
    for column in read.columns.values():
        heads += [column.title, f"paper {column.unit}".strip(), "difference"]
    return heads


def _rows(lines: Sequence["Line"]) -> list[list[str]]:
    rows = []
    for line in lines:
        row = [line.row.model, cell(line.macs)]
        for figure in line.cells.values():
            row += [_computed(figure), f"{figure.printed:,.{figure.column.digits}f}"]
            row += [_difference(figure)]
        rows.append(row)
    return rows


def _computed(figure: "Cell") -> str:
    """Return a count exactly, a size in the paper's unit with one more digit."""
    # One digit more than the paper prints, so that rounding and truncation can be told apart.
    if figure.column.unit in ("MB", "MiB"):
        return f"{figure.scaled:,.{figure.column.digits + 1}f}"
    return cell(figure.computed)


def _difference(figure: "Cell") -> str:
    """Return computed less printed, and whether rounding or truncation explains it."""
    from tcc.compiler.zoo.tables import PrintedMatch

    if figure.agreement is PrintedMatch.EQUAL:
        return "0"
    digits = figure.column.digits + 1
    off = f"{round(figure.difference, digits):+,.{digits}f}"
    return off if figure.agreement is PrintedMatch.NONE else f"{off} {figure.agreement}"


def _notes(read: "PaperTable", lines: Sequence["Line"]) -> list[str]:
    """Return what is counted, a line a column, then what holds for the table and for rows."""
    rules = [f"{column.title}: {column.rule.rule}" for column in read.columns.values()]
    own = [f"{line.row.model}: {line.row.why}" for line in lines if line.row.why]
    return [*rules, *([read.note] if read.note else []), *own]


def _print(report: Report, read: "PaperTable", lines: Sequence["Line"]) -> None:
    heads, rows = _heads(read), _rows(lines)
    wide = table(heads, _aligned(heads, rows))
    if not fits(wide):
        wide = _long(read, lines)
    notes = [] if report.quiet else ["", *_notes(read, lines)]
    report.lines([*([] if report.quiet else [read.title, ""]), *wide, *notes])


def _long(read: "PaperTable", lines: Sequence["Line"]) -> list[str]:
    """Return the table with a line a figure, for a narrow terminal."""
    heads = ("model", "figure", "computed", "paper", "difference")
    rows = []
    for line, row in zip(lines, _rows(lines), strict=True):
        cells = (row[2 + 3 * i : 5 + 3 * i] for i in range(len(line.cells)))
        for column, figures in zip(read.columns.values(), cells, strict=True):
            rows.append([row[0], f"{column.title} {column.unit}".strip(), *figures])
    return table(heads, _aligned(heads, rows, 2))


def _aligned(
    heads: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1
) -> list[list[str]]:
    """Return rows whose cells after the first `words` stand right in their columns."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        [*row[:words], *(c.rjust(w) for c, w in zip(row[words:], widths[words:], strict=True))]
        for row in rows
    ]


def _markdown(read: "PaperTable", lines: Sequence["Line"]) -> list[str]:
    heads = _heads(read)
    rule = ["---", *("---:" for _ in heads[1:])]
    body = ["| " + " | ".join(row) + " |" for row in (heads, rule, *_rows(lines))]
    return [f"**{read.title}**", "", *body, "", *(f"- {note}" for note in _notes(read, lines))]


def _document(name: str, read: "PaperTable", lines: Sequence["Line"]) -> dict[str, Any]:
    return {
        "table": name,
        "title": read.title,
        "note": read.note,
        "columns": {
            key: {"title": column.title, "unit": column.unit, "convention": column.rule.rule}
            for key, column in read.columns.items()
        },
        "rows": [
            {
                "model": line.row.model,
                "spec": line.row.spec,
                "set": dict(line.row.settings or {}),
                "params": line.params,
                "macs": line.macs,
                "figures": {key: _figure(figure) for key, figure in line.cells.items()},
                "why": line.row.why,
            }
            for line in lines
        ],
    }


def _figure(figure: "Cell") -> dict[str, Any]:
    digits = figure.column.digits
    return {
        "computed": figure.computed,
        "in_unit": float(round(figure.scaled, digits + 3)),
        "printed": float(figure.printed),
        "difference": float(round(figure.difference, digits + 3)),
        "agreement": str(figure.agreement),
    }
