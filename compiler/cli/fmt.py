"""`tcc fmt`: rewrite specs in canonical form and keep their comments."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tcc.compiler.cli import failures
from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support import option_requirements
from tcc.compiler.support.atomic_files import write_file
from tcc.compiler.support.console import echo
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span
from tcc.compiler.support.option_requirements import FORMATTED_FILES

STDIN = "-"

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE",
        show_default=False,
        help="Specs to rewrite in place, or - to format stdin to stdout.",
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="Write nothing; exit with 1 if a file would change.")
]


def format_files(
    files: Files,
    check: Check = False,
    *,
    report: ReportOptions,
) -> None:
    """Rewrite specs in canonical form.

    The meaning and the comments are kept. With --check, exit with 1 if a file would change.
    """
    option_requirements.report_facts({FORMATTED_FILES: Path(STDIN) not in files})
    if Path(STDIN) in files:
        _filter(check, is_only_file=len(files) == 1)
        return
    changed = _find_changed(files)
    for path, content in changed.items():
        if not check:
            write_file(path, content)
        report.print_text(f"{'would change' if check else 'changed'} {path}")
    if not changed:
        report.print_note(f"files already in canonical form: {len(files)}")
    names = [str(path) for path in changed]
    report.print_document(
        {"files": [str(path) for path in files], "changed": names, "check": check}
    )
    if check and changed:
        # 1 as in other formatters (`black --check`, `ruff format --check`), not 2: the file has no
        # error.
        raise typer.Exit(failures.GENERAL_FAILURE)


def _filter(check: bool, is_only_file: bool) -> None:
    """Format standard input to standard output; with `check`, only report a change."""
    from tcc.compiler.frontend.formatter import format_spec
    from tcc.compiler.frontend.yaml import MAX_YAML_BYTES

    if not is_only_file:
        raise fail(
            "E0601",
            "`-` reads standard input and cannot be combined with files",
            make_file_span("command line: -"),
        )
    # One byte more than allowed: reading ends, and the limit still shows.
    source = sys.stdin.buffer.read(MAX_YAML_BYTES + 1)
    formatted = format_spec(source, "<stdin>")
    if not check:
        echo(formatted, nl=False)
    elif formatted.encode() != source:
        raise typer.Exit(failures.GENERAL_FAILURE)


def _find_changed(files: list[Path]) -> dict[Path, bytes]:
    """Return the canonical form of the files that would change; read all before any is written.

    Raises:
        UserError: Some files cannot be read or are not YAML or JSON; all of them are listed.
    """
    from tcc.compiler.frontend.formatter import format_spec

    changed: dict[Path, bytes] = {}
    problems: list[Diagnostic] = []
    for path in files:
        try:
            source = _read_spec(path)
            formatted = format_spec(source, str(path)).encode()
        except UserError as error:
            problems += error.diagnostics
            continue
        if formatted != source:
            changed[path] = formatted
    # Write all files or none.
    if problems:
        raise UserError(tuple(problems))
    return changed


def _read_spec(path: Path) -> bytes:
    from tcc.compiler.frontend.yaml import get_max_bytes
    from tcc.compiler.support import regular_files

    return regular_files.read_file(path, "read this", get_max_bytes(str(path)) + 1)
