"""Slips that a parser of YAML calls by other names, or sees lines too late.

Tabs that indent, options below a bare word, a dash without its space, and characters that look like
those of YAML and are text to it: other spaces, dashes and colons, as word processors write them.
"""

import re
from collections.abc import Iterable

from tcc.compiler.frontend.yaml.source_text import SourceText
from tcc.compiler.support.diagnostics import Diagnostic

_LEADING = re.compile(r"[ \t]*(?:-[ \t]+)*")
_BARE = re.compile(r"( *)- (\w+)\s*(?:#.*)?")
_KEY = re.compile(r"( *)([\w.-]+):(?:\s|$)")
_SPACE = re.compile(r"\s*(?:-\s+)*")
# Copied from web pages and word processors, and shown as nothing by every editor.
_ZERO = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
"""Characters without width."""
_AFTER_COLON = re.compile(rf"\s*(?:- +)*[\w.-]+:([^\S \t]|[{_ZERO}])")
_DASH = re.compile(r"\s*([\u2010-\u2015\u2022\u2212\uff0d])(?=\s|$)")
_COLON = re.compile(r"\s*(?:- +)*[\w.-]+([\uff1a\ufe55\u2236])")
_HOLDER = re.compile(r"\s*(?:- +)*([\w.-]+): *([\[{])")
_BEHIND = re.compile(r"\s*([\w.-]+):(?!\S)")
_CLOSING = {"[": "]", "{": "}"}
_GLUED = re.compile(r"\s*-(?=[A-Za-z_{\[])")
_BESIDE = ("as", "from", "id", "doc")
"""Keys that stand beside a step's word, not below it."""


def slip(source: SourceText, at: int) -> Diagnostic | None:
    """Return what was likely meant where a text in lines cannot be read on, None for the rest."""
    row = source.line(at)
    return _tab(source, row) or _bare_word(source, row)


def look(source: SourceText, rows: Iterable[int]) -> Diagnostic | None:
    """Return what the first of some lines has that only looks like a space, a dash or a colon."""
    return next(filter(None, (_look(source, row) for row in rows)), None)


def _look(source: SourceText, row: int) -> Diagnostic | None:
    text = source.lines[row]
    blank = _SPACE.match(text)
    odd = [i for i, c in enumerate(blank.group() if blank else "") if c not in " \t-"]
    if zero := re.match(rf"\s*(?:-\s*)?([{_ZERO}])", text):
        odd.append(zero.start(1))
    if colon := _AFTER_COLON.match(text):
        odd.append(colon.start(1))
    if odd:
        return _wrong(source, row, min(odd), "this is no plain space")
    for pattern, plain in ((_DASH, "-"), (_COLON, ":")):
        if found := pattern.match(text):
            shown = f"`{found[1]}` (U+{ord(found[1]):04X}) is no `{plain}`"
            return _wrong(source, row, found.start(1), shown, f"write `{plain}` and a space")
    if glued := _GLUED.match(text):
        message = "a space is missing after this `-`"
        return _wrong(source, row, glued.end() - 1, message, "a list item starts with `- `")
    return None


def _wrong(source: SourceText, row: int, column: int, message: str, help: str = "") -> Diagnostic:
    start = source.starts[row] + column
    return Diagnostic("E0102", message, source.span(start, start + 1), help=help)


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
    # The line above that says anything: comments and empty lines may stand between.
    while above >= 0 and (not source.lines[above].strip() or _comment(source.lines[above])):
        above -= 1
    bare = _BARE.fullmatch(source.lines[above]) if above >= 0 else None
    # Indented no further than the dash, it is a key of what is around the list.
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


def beside(before: str, rest: str) -> str:
    """Return the help where a key follows a whole value, `- relu: {} as: x`, empty elsewhere."""
    holder, key = _HOLDER.match(before), _BEHIND.match(rest)
    if not holder or not key or before[-1] != _CLOSING[holder[2]]:
        return ""
    if holder[2] == "{" and key[1] not in _BESIDE:
        return f"write `{key[1]}: ...` inside the {{ }} of `{holder[1]}`"
    return f"write `{key[1]}:` on the next line, below the first letter of `{holder[1]}`"
