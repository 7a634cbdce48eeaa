"""Syntax errors of ruamel.yaml in plain words, with help."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tcc.compiler.frontend.yaml.source_text import SourceText
from tcc.compiler.support.diagnostics import Diagnostic, UserError

_LEADING = re.compile(r"[ \t]*(?:-[ \t]+)*")
_BARE = re.compile(r"( *)- (\w+)\s*(?:#.*)?")
_KEY = re.compile(r"( *)([\w.-]+):(?:\s|$)")
_SPACE = re.compile(r"\s*(?:-\s+)*")
# Copied from web pages and word processors; invisible in every editor.
_ZERO = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
"""Characters without width."""
_AFTER_COLON = re.compile(rf"\s*(?:- +)*[\w.-]+:([^\S \t]|[{_ZERO}])")
_DASH = re.compile(r"\s*([\u2010-\u2015\u2022\u2212\uff0d])(?=\s|$)")
_COLON = re.compile(r"\s*(?:- +)*[\w.-]+([\uff1a\ufe55\u2236])")
_HOLDER = re.compile(r"\s*(?:- +)*([\w.-]+): *([\[{])")
_BEHIND = re.compile(r"\s*([\w.-]+):(?!\S)")
_GLUED_DASH = re.compile(r"\s*-(?=[A-Za-z_{\[])")
_STEP_OPTIONS = ("as", "from", "id", "doc")
"""Keys next to the keyword of a step, not below it."""


def find_line_mistake(source: SourceText, at: int) -> Diagnostic | None:
    """Return the diagnostic for a common error in block style, or None."""
    row = source.find_row(at)
    return _find_tab(source, row) or _find_bare_keyword(source, row)


def find_lookalike(source: SourceText, rows: Iterable[int]) -> Diagnostic | None:
    """Return the diagnostic for the first character that only looks like a space, `-` or `:`."""
    return next(filter(None, (_find_lookalike_in_row(source, row) for row in rows)), None)


def _find_lookalike_in_row(source: SourceText, row: int) -> Diagnostic | None:
    text = source.lines[row]
    blank = _SPACE.match(text)
    odd_columns = [i for i, c in enumerate(blank.group() if blank else "") if c not in " \t-"]
    if zero := re.match(rf"\s*(?:-\s*)?([{_ZERO}])", text):
        odd_columns.append(zero.start(1))
    if colon := _AFTER_COLON.match(text):
        odd_columns.append(colon.start(1))
    if odd_columns:
        return _create_diagnostic(
            source,
            row,
            min(odd_columns),
            "this is not a plain space",
            "replace it with a plain space, or delete it",
        )
    for pattern, replacement in ((_DASH, "-"), (_COLON, ":")):
        if lookalike := pattern.match(text):
            description = f"`{lookalike[1]}` (U+{ord(lookalike[1]):04X}) is not `{replacement}`"
            return _create_diagnostic(
                source, row, lookalike.start(1), description, f"write `{replacement}` and a space"
            )
    if glued := _GLUED_DASH.match(text):
        message = "a space is missing after this `-`"
        return _create_diagnostic(
            source, row, glued.end() - 1, message, "a list item starts with `- `"
        )
    return None


def _create_diagnostic(
    source: SourceText, row: int, column: int, message: str, help: str = ""
) -> Diagnostic:
    start = source.starts[row] + column
    return Diagnostic("E0102", message, source.get_span(start, start + 1), help=help)


def _find_tab(source: SourceText, row: int) -> Diagnostic | None:
    leading = _LEADING.match(source.lines[row])
    column = leading.group().find("\t") if leading else -1
    if column < 0:
        return None
    span = source.get_span(source.starts[row] + column, source.starts[row] + column + 1)
    return Diagnostic("E0102", "a tab is not allowed here", span, help="indent with spaces")


def _find_bare_keyword(source: SourceText, row: int) -> Diagnostic | None:
    """Return the diagnostic for `- relu` with `as: x` on a separate line below it."""
    key = _KEY.match(source.lines[row])
    above = row - 1
    # Skip comments and empty lines above.
    while above >= 0 and (not source.lines[above].strip() or _is_comment(source.lines[above])):
        above -= 1
    bare = _BARE.fullmatch(source.lines[above]) if above >= 0 else None
    # A key indented no further than the dash belongs to the mapping around the list.
    if key is None or bare is None or len(key[1]) <= len(bare[1]):
        return None
    keyword, option = bare[2], key[2]
    start = source.starts[above] + bare.start(2)
    below = f"`{option}:` on the next line, below the first letter of `{keyword}`"
    if option not in _STEP_OPTIONS:
        below = f"`{option}:` below it, indented further"
    return Diagnostic(
        "E0102",
        f"`{keyword}` needs a `:` if `{option}:` follows on a separate line",
        source.get_span(start, start + len(keyword)),
        help=f"write `- {keyword}:`, and {below}",
    )


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def explain_key_after_value(prefix: str, suffix: str) -> str:
    """Return the help for a key after a complete value, `- relu: {} as: x`; empty for others."""
    holder, key = _HOLDER.match(prefix), _BEHIND.match(suffix)
    if not holder or not key or prefix[-1] != _CLOSING[holder[2]]:
        return ""
    if holder[2] == "{" and key[1] not in _STEP_OPTIONS:
        return f"write `{key[1]}: ...` inside the {{ }} of `{holder[1]}`"
    return f"write `{key[1]}:` on the next line, below the first letter of `{holder[1]}`"


_NAMES = {
    "<stream end>": "the end of the file",
    "<scalar>": "text",
    "<block mapping start>": "a key with more indentation",
    "<block sequence start>": "a list with more indentation",
    "<block end>": "less indentation",
    "<document start>": "`---`",
    "<document end>": "`...`",
    "<alias>": "an alias (`*name`)",
    "<anchor>": "an anchor (`&name`)",
    "<tag>": "a tag (`!name`)",
    "?": "a key",
    "-": "a list item (`- `)",
}
_CLOSING = {"[": "]", "{": "}"}
_GLUED = re.compile(r"\s*(?:- +)*[\w.-]+:(?=[^\s:/])")
_BARE_BRACE = re.compile(r"\s*(?:- +)*([\w.-]+)(:?)( *)\{")
_FOUND_TOKEN = re.compile(r"(?:found|got) \(?'(.*?)'(?:,\))?$")
_QUOTE = "put it in quotes if it is text"


@dataclass(frozen=True)
class _BrokenText:
    """A text and the error of the library: the problem, its index, and that of its context."""

    source: SourceText
    problem: str
    at: int
    since: int
    reached: int
    bracket: int | None

    @property
    def char(self) -> str:
        """The character at the problem; empty at the end of the file."""
        return self.source.text[self.at : self.at + 1]

    @property
    def first_char(self) -> str:
        """The character at the start of the context."""
        return self.source.text[self.since : self.since + 1]

    @property
    def found_text(self) -> str:
        """Description of the token at the problem."""
        token = _FOUND_TOKEN.search(self.problem)
        token_text = token[1] if token else self.char
        return _NAMES.get(token_text, f"`{token_text}`")

    def create_diagnostic(
        self, message: str, at: int, *notes: str, width: int = 1, help: str = ""
    ) -> Diagnostic:
        """Return a diagnostic for a syntax error."""
        span = self.source.get_span(at, at + width)
        return Diagnostic("E0102", message, span, notes=notes, help=help)

    def get_row(self, index: int) -> tuple[int, str]:
        """Return the start and the text of the line of a character."""
        number = self.source.find_row(index)
        return self.source.starts[number], self.source.lines[number]

    def get_indent(self, index: int) -> int:
        """Return the indentation of the line of a character."""
        text = self.get_row(index)[1]
        return len(text) - len(text.lstrip())


def explain_error(
    error: Exception,
    source: SourceText,
    reached: int,
    last_scalar: tuple[int, int],
    bracket: int | None,
) -> UserError:
    """Return the located error for an exception of ruamel.yaml.

    `reached` is the index of the last event, used for an exception without location.
    `last_scalar` is the range of the last scalar, empty for a quoted one. `bracket` is the index
    of the innermost open bracket.
    """
    problem = str(getattr(error, "problem", None) or "")
    at = _get_index(getattr(error, "problem_mark", None), source, reached)
    since = _get_index(getattr(error, "context_mark", None), source, at)
    broken = _BrokenText(source, problem, at, since, reached, bracket)
    rule = next((rule for phrase, rule in _RULES if phrase in problem), _explain_other)
    # A scalar that extends to the error contains lines that were meant to be something else.
    read_end = last_scalar[0] if not source.text[last_scalar[1] : at].strip() else last_scalar[1]
    rows = {source.find_row(since), *range(source.find_row(read_end), source.find_row(at) + 1)}
    mistake = find_lookalike(source, sorted(rows))
    if mistake is None and bracket is None and broken.char:
        mistake = find_line_mistake(source, at)
    return UserError((mistake or rule(broken),))


def _get_index(mark: Any, source: SourceText, default: int) -> int:
    return min(mark.index if mark is not None else default, len(source.text))


def _explain_character(b: _BrokenText) -> Diagnostic:
    if b.char == "\t":
        start, line = b.get_row(b.at)
        is_indentation = not line[: b.at - start].strip(" -")
        help = "indent with spaces" if is_indentation else "replace the tab with a space"
        return b.create_diagnostic("a tab is not allowed here", b.at, help=help)
    display_text = "a backtick" if b.char == "`" else f"`{b.char}`"
    return b.create_diagnostic(f"{display_text} cannot start a value", b.at, help=_QUOTE)


def _explain_no_colon(b: _BrokenText) -> Diagnostic:
    return _explain_missing_space(b, b.since) or _explain_missing_key(b, b.since)


def _explain_missing_key(b: _BrokenText, index: int) -> Diagnostic:
    start, row = b.get_row(index)
    dash = row.lstrip().startswith("-")
    hint = "a list item starts with `- `" if dash else "a key ends in `:` and a space"
    width = len(row.rstrip()) - (index - start)
    return b.create_diagnostic("expected `key: value`, found no `:`", index, width=width, help=hint)


def _explain_second_colon(b: _BrokenText) -> Diagnostic:
    start, row = b.get_row(b.at)
    above = max(0, len(b.source.text[:start].rstrip()) - 1)
    # `a:b` is text that continues on the next line, so the error is only found there.
    if glued := _explain_missing_space(b, above):
        return glued
    prefix = row[: b.at - start]
    if brace := _BARE_BRACE.match(prefix):
        brace_start = start + brace.end() - 1
        missing = "a space is missing after the `:`" if brace[2] else "a `:` is missing here"
        return b.create_diagnostic(missing, brace_start, help=f"write `{brace[1]}: {{key: value}}`")
    if ": " in prefix:
        hint = "put text that contains `: ` in quotes, or write {key: value} for a nested mapping"
        return b.create_diagnostic("a second `: ` on one line", b.at, help=hint)
    if b.get_indent(b.at) <= b.get_indent(above):
        return _explain_missing_key(b, b.get_row(above)[0] + b.get_indent(above))
    key = start + len(prefix) - len(prefix.lstrip(" -"))
    hint = "align it with the lines around it, or put text that contains `: ` in quotes"
    message = "this key is indented below a line that already has a value"
    return b.create_diagnostic(message, key, width=b.at - key, help=hint)


def _explain_missing_space(b: _BrokenText, index: int) -> Diagnostic | None:
    start, row = b.get_row(index)
    glued = _GLUED.match(row)
    if not glued:
        return None
    colon = start + glued.end() - 1
    return b.create_diagnostic(
        "a space is missing after this `:`", colon, help="write `key: value`"
    )


def _explain_dash(b: _BrokenText) -> Diagnostic:
    hint = "start the list on the next line, or write it as [a, b]"
    return b.create_diagnostic(
        "a list with `- ` cannot start in the middle of a line", b.at, help=hint
    )


def _explain_brackets(b: _BrokenText) -> Diagnostic:
    closing = _CLOSING.get(b.first_char, "]")
    opened = f"`{b.first_char}` opened at {b.source.get_span(b.since, b.since + 1)}"
    later = b.source.find_row(b.at) > b.source.find_row(b.since)
    # Lines that are not indented below the bracket are not part of it.
    if not b.char or (later and b.get_indent(b.at) <= b.get_indent(b.since)):
        return _explain_unclosed(b, b.since)
    if b.char in "]}":
        message = f"expected `{closing}`, found `{b.char}`"
        return b.create_diagnostic(
            message, b.at, opened, help="close the last opened bracket first"
        )
    hint = "separate entries with commas" if b.char != "," else ""
    if b.char in "[{" and b.source.text[b.at - 1 : b.at].strip(" ,:[{\n"):
        hint = 'put an expression with brackets in quotes: "widths[0]"'
    message = f"expected `,` or `{closing}`, found {b.found_text}"
    return b.create_diagnostic(message, b.at, opened, help=hint)


def _explain_unclosed(b: _BrokenText, bracket: int) -> Diagnostic:
    opening = b.source.text[bracket]
    if b.char:
        reached = f"the text continues to {b.source.get_span(b.at, b.at + 1)} without it"
    else:
        reached = "the file ends before it"
    hint = f"add `{_CLOSING.get(opening, ']')}`: {reached}"
    return b.create_diagnostic(f"this `{opening}` is never closed", bracket, help=hint)


def _explain_missing_value(b: _BrokenText) -> Diagnostic:
    if b.bracket is not None and not b.char:
        return _explain_unclosed(b, b.bracket)
    if b.char == ",":
        return b.create_diagnostic(
            "a value is missing before this `,`", b.at, help="remove one comma"
        )
    return b.create_diagnostic(f"expected a value, found {b.found_text}", b.at, help=_QUOTE)


def _explain_block_end(b: _BrokenText) -> Diagnostic:
    if b.char in ("]", "}"):
        return b.create_diagnostic(
            f"this `{b.char}` closes nothing", b.at, help="remove it, or add the opening bracket"
        )
    if b.char == ",":
        hint = "put a list in [ ], and text that contains commas in quotes"
        return b.create_diagnostic("a comma outside of brackets", b.at, help=hint)
    start, row = b.get_row(b.at)
    prefix = row[: b.at - start].rstrip()
    if prefix.endswith(("'", '"')):
        return _explain_after_quote(b)
    if prefix.strip(" -"):
        hint = explain_key_after_value(prefix, row[len(prefix) :])
        hint = hint or "put the whole text in quotes, or start a new line"
        return b.create_diagnostic(
            f"expected the end of the line, found {b.found_text}", b.at, help=hint
        )
    inside = "list" if b.first_char == "-" else "mapping"
    note = f"the {inside} above starts at {b.source.get_span(b.since, b.since + 1)}"
    message = f"expected another {'item' if inside == 'list' else 'key'} or the end of the {inside}"
    if "start>" in b.problem:
        message = "the indentation of this line matches no line above it"
    elif b.found_text:
        message += f", found {b.found_text}"
    return b.create_diagnostic(message, b.at, note, help="indent it like the lines around it")


def _explain_after_quote(b: _BrokenText) -> Diagnostic:
    quote = b.source.text[b.reached : b.reached + 1]
    # The text extends to the next quote in the file, which was meant to open another text.
    if b.source.find_row(b.reached) < b.source.find_row(b.at):
        note = f"it closes just before {b.source.get_span(b.at, b.at + 1)}"
        hint = f"add a {quote} after the text"
        return b.create_diagnostic(
            "this quote is not closed on its line", b.reached, note, help=hint
        )
    double = "''" if quote == "'" else '\\"'
    hint = f"write a {quote} inside the quotes as {double}"
    return b.create_diagnostic("there is more text after the closing quote", b.at, help=hint)


def _explain_after_end(b: _BrokenText) -> Diagnostic:
    if "mapping" in b.problem or "sequence" in b.problem:
        message = "this line has less indentation than the first one"
        return b.create_diagnostic(message, b.at, help="start all top-level keys in column 1")
    if not b.char:
        return b.create_diagnostic(_INDICATORS["%"], 0, help=_QUOTE)
    hint = "a file contains one mapping of `key: value` lines"
    return b.create_diagnostic(
        f"expected the end of the file, found {b.found_text}", b.at, help=hint
    )


def _explain_quote(b: _BrokenText) -> Diagnostic:
    return b.create_diagnostic(
        "this quote is never closed", b.since, help=f"add a {b.first_char} after the text"
    )


def _explain_escape(b: _BrokenText) -> Diagnostic:
    start = b.source.text.rfind("\\", 0, b.at + 1)
    if start < 0 or b.first_char == "!":
        return _explain_other(b)
    display_text = b.source.text[start : start + 2]
    hint = "write the backslash twice, or use single quotes"
    return b.create_diagnostic(
        f"`{display_text}` is not a complete escape", start, width=2, help=hint
    )


def _explain_block_text(b: _BrokenText) -> Diagnostic:
    message = f"the text after `{b.first_char}` must start on the next line"
    return b.create_diagnostic(message, b.at, help=_QUOTE)


def _explain_other(b: _BrokenText) -> Diagnostic:
    message = _INDICATORS.get(b.first_char, "this is not valid YAML")
    return b.create_diagnostic(message, b.since, help=_HINTS.get(b.first_char, _QUOTE))


_INDICATORS = {
    "*": "the name of an anchor must follow `*`",
    "&": "the name of the anchor must follow `&`",
    "!": "`!` starts a YAML tag, and this is not one",
    "%": "a line that starts with `%` is a YAML directive, which specs do not support",
}
_HINTS = {"!": "write `not x` for `!x`; put text that starts with `!` in quotes"}
_RULES: tuple[tuple[str, Callable[[_BrokenText], Diagnostic]], ...] = (
    ("cannot start any token", _explain_character),
    ("could not find expected ':'", _explain_no_colon),
    ("mapping values are not allowed", _explain_second_colon),
    ("sequence entries are not allowed", _explain_dash),
    ("expected ',' or", _explain_brackets),
    ("expected the node content", _explain_missing_value),
    ("expected <block end>", _explain_block_end),
    ("expected '<document start>'", _explain_after_end),
    ("unexpected end of stream", _explain_quote),
    ("unexpected document separator", _explain_quote),
    ("escape character", _explain_escape),
    ("escape sequence of", _explain_escape),
    ("not in range", _explain_escape),
    ("chomping or indentation", _explain_block_text),
    ("comment or a line break", _explain_block_text),
)
