"""`tcc zoo`: list the networks of tcc; `tcc dev table`: reproduce tables of papers."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, assert_never

import typer

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support.console import Report, fits_terminal, format_cell, format_table
from tcc.compiler.support.diagnostics import fail, make_command_span

if TYPE_CHECKING:
    from tcc.compiler.zoo.tables import Cell, Line, PaperTable, ZooNetwork


class TableFormat(StrEnum):
    """The format of a printed table."""

    TEXT = "text"
    MARKDOWN = "markdown"


def _complete_table(incomplete: str) -> list[str]:
    from tcc.compiler.zoo import tables

    return [name for name in tables.list_tables() if name.startswith(incomplete)]


TableArgument = Annotated[
    str,
    typer.Argument(
        metavar="TABLE",
        autocompletion=_complete_table,
        show_default=False,
        # Written out, because listing the files would read a folder on every `tcc zoo --help`.
        help="ddsnet-1, fastnet-5, fastnet-6, fastnet-7, fastnet-8 or sensors-2.",
    ),
]
FormatOption = Annotated[TableFormat, typer.Option("--format", help="Format of the table.")]


def list_models(*, report: ReportOptions) -> None:
    """List the networks that come with tcc."""
    from tcc.compiler.zoo.tables import iterate_networks

    networks = tuple(iterate_networks())
    if report.quiet:
        report.print_text("\n".join(network.name for network in networks))
    else:
        _list(report, networks)
    report.print_document({"models": [_describe_network(network) for network in networks]})


def print_paper_table(
    name: TableArgument, format: FormatOption = TableFormat.TEXT, *, report: ReportOptions
) -> None:
    """Compute a table of a paper, and compare it with the printed figures."""
    if report.json and format is not TableFormat.TEXT:
        raise fail(
            "E0601",
            "`--json` and `--format` cannot be combined; remove one of them",
            make_command_span(f"--format {format}"),
        )

    from tcc.compiler.zoo import tables

    paper_table = tables.read_table(name, make_command_span(name))
    lines = tuple(tables.compute_lines(paper_table))
    match format:
        case TableFormat.TEXT:
            _print(report, paper_table, lines)
        case TableFormat.MARKDOWN:
            report.print_text("\n".join(_format_markdown(paper_table, lines)))
        case _:
            assert_never(format)
    report.print_document(_build_document(name, paper_table, lines))


def _list(report: Report, networks: Sequence["ZooNetwork"]) -> None:
    columns = ("name", "input", "classes", "params", "MACs", "trained", "tables", "task", "paper")
    rows = [
        (
            *(e.name, str(e.input), e.classes, e.params, e.macs),
            ", ".join(e.trained) or "-",
            ", ".join(e.tables) or "-",
            *(e.description.task, e.description.paper),
        )
        for e in networks
    ]
    lines = format_table(columns, rows)
    # A wrapped table is unreadable. A narrow terminal gets fewer columns; --json has all.
    narrow = format_table(columns[:6], [row[:6] for row in rows])
    report.print_lines(lines if fits_terminal(lines) else narrow)


def _describe_network(network: "ZooNetwork") -> dict[str, Any]:
    return {
        "name": network.name,
        "task": network.description.task,
        "classes": network.classes,
        "input": list(network.input.shape),
        "params": network.params,
        "macs": network.macs,
        "trained": list(network.trained),
        "paper": network.description.paper,
        "tables": list(network.tables),
    }


def _list_heads(paper_table: "PaperTable") -> list[str]:
    heads = ["model", "MACs"]
    for column in paper_table.columns.values():
        heads += [column.title, f"paper {column.unit}".strip(), "difference"]
    return heads


def _format_rows(lines: Sequence["Line"]) -> list[list[str]]:
    rows = []
    for line in lines:
        row = [line.row.model, format_cell(line.macs)]
        for figure in line.cells.values():
            row += [_format_computed(figure), f"{figure.printed:,.{figure.column.digits}f}"]
            row += [_format_difference(figure)]
        rows.append(row)
    return rows


def _format_computed(figure: "Cell") -> str:
    """Return a count exactly, and a size in the paper's unit with one more digit."""
    # One more digit than the paper shows whether it rounded or truncated.
    if figure.column.unit in ("MB", "MiB"):
        return f"{figure.scaled:,.{figure.column.digits + 1}f}"
    return format_cell(figure.computed)


def _format_difference(figure: "Cell") -> str:
    """Return computed minus printed, and whether rounding or truncation explains it."""
    from tcc.compiler.zoo.tables import PrintedMatch

    if figure.agreement is PrintedMatch.EQUAL:
        return "0"
    digits = figure.column.digits + 1
    off = f"{round(figure.difference, digits):+,.{digits}f}"
    return off if figure.agreement is PrintedMatch.NONE else f"{off} {figure.agreement}"


def _list_notes(paper_table: "PaperTable", lines: Sequence["Line"]) -> list[str]:
    """Return what each column counts, one per line, then the notes of the table and its rows."""
    rules = [f"{column.title}: {column.rule.rule}" for column in paper_table.columns.values()]
    row_notes = [f"{line.row.model}: {line.row.why}" for line in lines if line.row.why]
    return [*rules, *([paper_table.note] if paper_table.note else []), *row_notes]


def _print(report: Report, paper_table: "PaperTable", lines: Sequence["Line"]) -> None:
    heads, rows = _list_heads(paper_table), _format_rows(lines)
    table_lines = format_table(heads, _align_rows(heads, rows))
    if not fits_terminal(table_lines):
        table_lines = _format_long(paper_table, lines)
    notes = [] if report.quiet else ["", *_list_notes(paper_table, lines)]
    report.print_lines([*([] if report.quiet else [paper_table.title, ""]), *table_lines, *notes])


def _format_long(paper_table: "PaperTable", lines: Sequence["Line"]) -> list[str]:
    """Return the table with one figure per line, for a narrow terminal."""
    heads = ("model", "figure", "computed", "paper", "difference")
    rows = []
    for line, row in zip(lines, _format_rows(lines), strict=True):
        cells = (row[2 + 3 * i : 5 + 3 * i] for i in range(len(line.cells)))
        for column, figures in zip(paper_table.columns.values(), cells, strict=True):
            rows.append([row[0], f"{column.title} {column.unit}".strip(), *figures])
    return format_table(heads, _align_rows(heads, rows, 2))


def _align_rows(
    heads: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1
) -> list[list[str]]:
    """Return rows with the cells after the first `text_columns` aligned to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        [
            *row[:text_columns],
            *(c.rjust(w) for c, w in zip(row[text_columns:], widths[text_columns:], strict=True)),
        ]
        for row in rows
    ]


def _format_markdown(paper_table: "PaperTable", lines: Sequence["Line"]) -> list[str]:
    heads = _list_heads(paper_table)
    rule = ["---", *("---:" for _ in heads[1:])]
    body = ["| " + " | ".join(row) + " |" for row in (heads, rule, *_format_rows(lines))]
    return [
        f"**{paper_table.title}**",
        "",
        *body,
        "",
        *(f"- {note}" for note in _list_notes(paper_table, lines)),
    ]


def _build_document(
    name: str, paper_table: "PaperTable", lines: Sequence["Line"]
) -> dict[str, Any]:
    return {
        "table": name,
        "title": paper_table.title,
        "note": paper_table.note,
        "columns": {
            key: {"title": column.title, "unit": column.unit, "convention": column.rule.rule}
            for key, column in paper_table.columns.items()
        },
        "rows": [
            {
                "model": line.row.model,
                "spec": line.row.spec,
                "set": dict(line.row.settings or {}),
                "params": line.params,
                "macs": line.macs,
                "figures": {key: _describe_figure(figure) for key, figure in line.cells.items()},
                "why": line.row.why,
            }
            for line in lines
        ],
    }


def _describe_figure(figure: "Cell") -> dict[str, Any]:
    digits = figure.column.digits
    return {
        "computed": figure.computed,
        "in_unit": float(round(figure.scaled, digits + 3)),
        "printed": float(figure.printed),
        "difference": float(round(figure.difference, digits + 3)),
        "agreement": str(figure.agreement),
    }
