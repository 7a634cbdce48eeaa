"""`tcc help`: what an error code or a kind of warning means, and how a command is used."""

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support.diagnostics import UserError, fail, nearest, typed

if TYPE_CHECKING:
    from tcc.compiler.support.error_codes import ErrorCode

FORMER_NAMES = {
    ("passes",): ("dev", "passes"),
    ("cache",): ("dev", "cache"),
    ("zoo", "table"): ("dev", "table"),
    ("slide", "view"): ("serve", "--output", "viewer"),
}
"""What commands were called before, and the words that stand for it now."""
WIDTH = 100
"""Columns of the text of an entry, at most."""
NEAR = 3
"""Codes that are named where one is not known."""

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CODE | KIND | COMMAND]",
        show_default=False,
        help="An error code (E0607 or 607), a kind of warning (unused-name), or a command.",
    ),
]


def help_(
    context: typer.Context,
    words: Words = None,
    *,
    report: ReportOptions,
) -> None:
    """Explain an error code, a kind of warning or a command."""
    root = context.find_root()
    named = takewhile(lambda word: not word.startswith("-"), find_present_name(words or ()))
    command = _command(root, list(named))
    if command is not None:
        report.text(command.get_help())
        report.document({"command": command.command_path, "help": command.get_help()})
        return

    from tcc.compiler.frontend.warnings.warning_kinds import WARNING_KINDS
    from tcc.compiler.support.error_codes import entries

    kinds = {kind.code: kind.name for kind in WARNING_KINDS}
    found = _entry(words or (), entries(), kinds, list(getattr(root.command, "commands", ())))
    report.text(_shown(found, kinds.get(found.code, "")))
    report.document({**asdict(found), "kind": kinds.get(found.code)})


def find_present_name(words: Sequence[str]) -> list[str]:
    """Return a command line in which a command has the name that it has now."""
    for former, present in FORMER_NAMES.items():
        if tuple(words[: len(former)]) == former:
            return [*present, *words[len(former) :]]
    return list(words)


def _command(root: Any, words: Collection[str]) -> Any:
    """Return the context of the command that words name, `tcc` for no word; None if unknown."""
    context = root
    for word in words:
        command = getattr(context.command, "commands", {}).get(word)
        if command is None:
            return None
        # Made by hand, since a command's help belongs to a parsed command line; the settings go
        # along.
        context = typer.Context(command, info_name=word, parent=context, **_settings(root))
    return context


def _settings(root: Any) -> dict[str, Any]:
    """Return what the help of a command looks like, which Typer hands down when it parses."""
    return {"max_content_width": root.max_content_width, "help_option_names": ["-h", "--help"]}


def _entry(
    words: Collection[str],
    known: "Mapping[str, ErrorCode]",
    kinds: Mapping[str, str],
    commands: Collection[str],
) -> "ErrorCode":
    """Return the entry that a word means.

    Raises:
        UserError: There is none (E0619).
    """
    from tcc.compiler.support.error_codes import find

    word = " ".join(words)
    by_name = {name: code for code, name in kinds.items()}
    code = by_name.get(word.strip("[]").lower()) or find(word, known)
    if code is None:
        raise _unknown(word, known, [*by_name, *commands])
    return known[code]


def _unknown(word: str, known: Collection[str], names: Collection[str]) -> UserError:
    """Return the error of what has no help, with what is near it."""
    written = re.fullmatch(r"\[?([EW]?)(\d{1,9})\]?", word.upper(), re.ASCII)
    if written:
        among = [code for code in known if code.startswith(written[1])]
        # By number: areas have numbers beside each other.
        by_distance = sorted(among, key=lambda code: abs(int(code[1:]) - int(written[2])))
        close = f"codes near it: {', '.join(sorted(by_distance[:NEAR]))}"
    else:
        name = nearest(word, names)
        close = f"did you mean `{name}`?" if name else "`tcc help` lists the commands"
    message = f"there is no error code, kind of warning or command `{word[:80]}`"
    return fail("E0619", message, typed(f"help {word}"), help=close)


def _shown(entry: "ErrorCode", kind: str) -> str:
    """Return an entry as lines that fit a screen; what is indented stays as it is."""
    text = str(entry)
    if kind:
        text += f"\n\n`allow: [{kind}]` in the spec silences it."
    return "\n\n".join(
        # Examples are indented and keep their lines.
        part if part.startswith(" ") else textwrap.fill(part, WIDTH)
        for part in text.split("\n\n")
    )
