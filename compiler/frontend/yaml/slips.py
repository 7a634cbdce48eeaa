"""Slips that a parser of YAML calls by other names: tabs that indent, options below a bare word."""

import re

from tcc.compiler.frontend.yaml.text import SourceText
from tcc.compiler.source import Diagnostic

_LEADING = re.compile(r"[ \t]*(?:-[ \t]+)*")
_BARE = re.compile(r"( *)- (\w+)\s*(?:#.*)?")
_KEY = re.compile(r"( *)([\w.-]+):(?:\s|$)")
_BESIDE = ("as", "from", "id", "doc")
"""Keys that stand beside a step's word, not below it."""


def slip(source: SourceText, at: int) -> Diagnostic | None:
    """Return what was likely meant where a text in lines cannot be read on, None for the rest."""
    row = source.line(at)
    return _tab(source, row) or _bare_word(source, row)


def _tab(source: SourceText, row: int) -> Diagnostic | None:
    leading = _LEADING.match(source.lines[row])
    column = leading.group().find("\t") if leading else -1
    if column < 0:
        return None
    span = source.span(source.starts[row] + column, source.starts[row] + column + 1)
    return Diagnostic("E0102", "a tab cannot stand here", span, help="indent with spaces")


def _bare_word(source: SourceText, row: int) -> Diagnostic | None:
    """Return the slip of `- relu` with `as: x` on a line of its own below it."""
    key = _KEY.match(source.lines[row])
    above = row - 1
    while above >= 0 and (not source.lines[above].strip() or _comment(source.lines[above])):
        above -= 1
    bare = _BARE.fullmatch(source.lines[above]) if above >= 0 else None
    if key is None or bare is None or len(key[1]) <= len(bare[1]):
        return None
    word, option = bare[2], key[2]
    start = source.starts[above] + bare.start(2)
    below = f"`{option}:` on the next line, below the first letter of `{word}`"
    if option not in _BESIDE:
        below = f"`{option}:` below it, indented further"
    return Diagnostic(
        "E0102",
        f"`{word}` needs a `:` where `{option}:` follows on a line of its own",
        source.span(start, start + len(word)),
        help=f"write `- {word}:`, and {below}",
    )


def _comment(line: str) -> bool:
    return line.lstrip().startswith("#")
