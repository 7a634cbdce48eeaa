"""`tcc help`: explain error codes, kinds of warnings and commands."""

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support.diagnostics import UserError, fail, find_nearest_name, make_command_span

if TYPE_CHECKING:
    from tcc.compiler.support.error_codes import ErrorCode

FORMER_NAMES = {
    ("passes",): ("dev", "passes"),
    ("cache",): ("dev", "cache"),
    ("zoo", "table"): ("dev", "table"),
    ("slide", "view"): ("serve", "--output", "viewer"),
}
"""Former names of commands, and the words that replace them."""
WIDTH = 100
"""Largest number of columns of an entry."""
MAX_NEAR_CODES = 3
"""Number of codes that are suggested for an unknown one."""

TopicArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CODE | KIND | COMMAND]",
        show_default=False,
        help="An error code (E0607 or 607), a kind of warning (unused-name), or a command.",
    ),
]


def show_help(
    context: typer.Context,
    topic: TopicArgument = None,
    *,
    report: ReportOptions,
) -> None:
    """Explain an error code, a kind of warning or a command."""
    root = context.find_root()
    present_name = find_present_name(topic or ())
    name_parts = takewhile(lambda argument: not argument.startswith("-"), present_name)
    command = _find_command(root, list(name_parts))
    if command is not None:
        report.print_text(command.get_help())
        report.print_document({"command": command.command_path, "help": command.get_help()})
        return

    from tcc.compiler.frontend.warnings.warning_kinds import WARNING_KINDS
    from tcc.compiler.support.error_codes import load_error_codes

    kinds = {kind.code: kind.name for kind in WARNING_KINDS}
    error_code = _find_entry(
        topic or (), load_error_codes(), kinds, list(getattr(root.command, "commands", ()))
    )
    report.print_text(_format_entry(error_code, kinds.get(error_code.code, "")))
    report.print_document({**asdict(error_code), "kind": kinds.get(error_code.code)})


def find_present_name(command_line: Sequence[str]) -> list[str]:
    """Return a command line with the current name of its command."""
    for former, present in FORMER_NAMES.items():
        if tuple(command_line[: len(former)]) == former:
            return [*present, *command_line[len(former) :]]
    return list(command_line)


def _find_command(root: Any, name_parts: Collection[str]) -> Any:
    """Return the context of the command with this name, of `tcc` for no word; None if unknown."""
    context = root
    for name_part in name_parts:
        command = getattr(context.command, "commands", {}).get(name_part)
        if command is None:
            return None
        # Create it here, because a command's help belongs to a parsed command line. Copy the
        # settings too.
        context = typer.Context(command, info_name=name_part, parent=context, **_get_settings(root))
    return context


def _get_settings(root: Any) -> dict[str, Any]:
    """Return the help settings that Typer passes on when it parses."""
    return {"max_content_width": root.max_content_width, "help_option_names": ["-h", "--help"]}


def _find_entry(
    topic: Collection[str],
    codes: "Mapping[str, ErrorCode]",
    kinds: Mapping[str, str],
    commands: Collection[str],
) -> "ErrorCode":
    """Return the entry for a topic.

    Raises:
        UserError: There is none (E0619).
    """
    from tcc.compiler.support.error_codes import find_code

    text = " ".join(topic)
    by_name = {name: code for code, name in kinds.items()}
    code = by_name.get(text.strip("[]").lower()) or find_code(text, codes)
    if code is None:
        raise _create_unknown_error(text, codes, [*by_name, *commands])
    return codes[code]


def _create_unknown_error(text: str, codes: Collection[str], names: Collection[str]) -> UserError:
    """Return the error for an unknown topic, with similar ones."""
    code_match = re.fullmatch(r"\[?([EW]?)(\d{1,9})\]?", text.upper(), re.ASCII)
    if code_match:
        same_kind = [code for code in codes if code.startswith(code_match[1])]
        # By number: codes of one area have adjacent numbers.
        by_distance = sorted(same_kind, key=lambda code: abs(int(code[1:]) - int(code_match[2])))
        suggestion = f"similar codes: {', '.join(sorted(by_distance[:MAX_NEAR_CODES]))}"
    else:
        name = find_nearest_name(text, names)
        suggestion = f"did you mean `{name}`?" if name else "`tcc help` lists the commands"
    message = f"there is no error code, kind of warning or command `{text[:80]}`"
    return fail("E0619", message, make_command_span(f"help {text}"), help=suggestion)


def _format_entry(error_code: "ErrorCode", kind: str) -> str:
    """Return an entry as lines that fit a screen; indented lines stay as they are."""
    text = str(error_code)
    if kind:
        text += f"\n\nTo silence it, add `allow: [{kind}]` to the spec."
    return "\n\n".join(
        # Examples are indented and keep their lines.
        part if part.startswith(" ") else textwrap.fill(part, WIDTH)
        for part in text.split("\n\n")
    )
