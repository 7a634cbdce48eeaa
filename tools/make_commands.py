"""Write the help of every command, with all options, to docs/commands.md.

    python tools/make_commands.py [--check]

With `--check`, write nothing and fail if the file is out of date. The text between the generated
parts is written by hand. A new command gets a section at the end.
"""

import io
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import typer
from generated import write_or_check

from tcc.compiler.cli import app
from tcc.compiler.cli.option_table import MAIN

PATH = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
WIDTH = 88
"""Number of columns of the printed help."""


def update_page(page: str) -> str:
    """Return the page with the current help of every command."""
    helps = {name: _render_help(name) for name in list_commands()}
    gone = set(re.findall(r"<!-- tcc (.+?): generated -->", page)) - set(helps)
    if gone:
        raise SystemExit(
            f"{PATH.name} has sections of unknown commands: {', '.join(sorted(gone))}; remove them"
        )
    for name, printed in helps.items():
        begin, end = f"<!-- tcc {name}: generated -->", f"<!-- tcc {name}: end -->"
        if begin not in page:
            page += f"\n## tcc {name}\n\n{begin}\n{end}\n"
        head, text_below = page.split(begin)
        page = f"{head}{begin}\n```text\n{printed}```\n{end}{text_below.split(end)[1]}"
    return page


def list_commands() -> list[str]:
    """Return the words after `tcc` of every command, subcommands after their group."""
    return _list_subcommands(typer.main.get_command(app), ())


def _list_subcommands(group: Any, prefix: tuple[str, ...]) -> list[str]:
    commands = []
    for name, command in group.commands.items():
        if command.hidden:
            continue
        command_path = (*prefix, name)
        commands += [
            " ".join(command_path),
            *(_list_subcommands(command, command_path) if hasattr(command, "commands") else ()),
        ]
    return commands


def _render_help(name: str) -> str:
    """Return a command's help with all its options, in WIDTH columns."""
    os.environ["COLUMNS"] = str(WIDTH)
    printed = io.StringIO()
    with redirect_stdout(printed):
        try:
            app([*name.split(), "--help-all" if name in MAIN else "--help"])
        except SystemExit as end:
            if end.code:
                raise
    return printed.getvalue()


def main() -> int:
    """Write or check the file; return the exit code."""
    return write_or_check({PATH: update_page(PATH.read_text())})


if __name__ == "__main__":
    sys.exit(main())
