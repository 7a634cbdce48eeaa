"""Write what `tcc COMMAND --help` prints, with all options, into docs/commands.md.

    python tools/make_commands.py [--check]

`--check` writes nothing and fails when the file is out of date. What stands between the printed
parts is written by hand; a command without a section gets one at the end.
"""

import io
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import typer
from generated import settle

from tcc.compiler.cli import app
from tcc.compiler.cli.option_table import MAIN

PATH = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
WIDTH = 88
"""Columns of the printed help."""


def text(before: str) -> str:
    """Return the file with every printed help brought up to date."""
    helps = {name: _help(name) for name in names()}
    gone = set(re.findall(r"<!-- tcc (.+?): generated -->", before)) - set(helps)
    if gone:
        raise SystemExit(f"{PATH.name} has sections of no command: {', '.join(sorted(gone))}")
    for name, printed in helps.items():
        begin, end = f"<!-- tcc {name}: generated -->", f"<!-- tcc {name}: end -->"
        if begin not in before:
            before += f"\n## tcc {name}\n\n{begin}\n{end}\n"
        head, rest = before.split(begin)
        before = f"{head}{begin}\n```text\n{printed}```\n{end}{rest.split(end)[1]}"
    return before


def names() -> list[str]:
    """Return the words after `tcc` of every command, those of a group after the group's."""
    return _below(typer.main.get_command(app), ())


def _below(group: Any, words: tuple[str, ...]) -> list[str]:
    found = []
    for name, command in group.commands.items():
        if command.hidden:
            continue
        here = (*words, name)
        found += [" ".join(here), *(_below(command, here) if hasattr(command, "commands") else ())]
    return found


def _help(name: str) -> str:
    """Return a command's help with all its options, on a screen of WIDTH columns."""
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
    return settle({PATH: text(PATH.read_text())})


if __name__ == "__main__":
    sys.exit(main())
