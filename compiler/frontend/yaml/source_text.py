"""Text of a file: decoded, checked for forbidden characters, and split into lines."""

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from tcc.compiler.support.diagnostics import Span, UserError, fail, make_file_span

MAX_YAML_BYTES = 1 << 16
"""Largest YAML text, in bytes. ruamel.yaml takes up to 0.8 s of CPU for the worst one. The largest
shipped spec has 4,300 bytes; a thousand steps have about 50,000."""
MAX_JSON_BYTES = 1 << 20
"""Largest JSON text, in bytes."""

_BREAK = re.compile(r"\r\n|\r|\n")
# Printable characters of YAML (5.1), without byte order marks and the line breaks that only some
# editors count.
_FORBIDDEN = (
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_FORBIDDEN_ASCII = re.compile("[^\t\n\r\x20-\x7e]")
"""The same for ASCII. Most texts are ASCII, and the full pattern takes milliseconds to compile."""
_KINDS = {
    "\0": "a NUL character",
    "\ufeff": "a byte order mark",
    "\u2028": "a line separator",
    "\u2029": "a paragraph separator",
}


@dataclass(frozen=True)
class SourceText:
    """A decoded text and the starts of its lines."""

    file: str
    text: str
    lines: tuple[str, ...] = field(init=False, repr=False)
    starts: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Split the text into lines at LF, CR LF and CR, as editors do."""
        starts = (0, *(line_break.end() for line_break in _BREAK.finditer(self.text)))
        object.__setattr__(self, "starts", starts)
        object.__setattr__(self, "lines", tuple(_BREAK.split(self.text)))

    def find_row(self, index: int) -> int:
        """Return the line number, from 0, of the character at `index`."""
        return bisect_right(self.starts, index) - 1

    def get_span(self, start: int, end: int) -> Span:
        """Return the span of text[start:end], cut at the end of its first line."""
        return self.get_span_in_row(self.find_row(start), start, end)

    def get_span_in_row(self, row: int, start: int, end: int) -> Span:
        """Return the span of text[start:end], which is in line `row`, counted from 0."""
        text = self.lines[row]
        column = min(start - self.starts[row], len(text))
        # At least one character, so that there is a caret even if something is missing.
        width = max(1, min(end - start, len(text) - column))
        return Span(self.file, row + 1, column + 1, text, width)

    def get_end_span(self) -> Span:
        """Return the span after the last character that is not white space."""
        text_end = len(self.text.rstrip())
        return self.get_span(text_end, text_end)


def get_max_bytes(file: str) -> int:
    """Return the largest size of a file in bytes, depending on whether it is JSON."""
    return MAX_JSON_BYTES if file.endswith(".json") else MAX_YAML_BYTES


def decode(raw: str | bytes, file: str) -> SourceText:
    """Return the text of a file, which must be UTF-8 without control characters.

    Raises:
        UserError: The text is too long (E0104) or not text (E0101).
    """
    size, limit = len(raw), get_max_bytes(file)
    if size > limit:
        help = "use `repeat`, `each` and blocks for parts that repeat"
        if limit < MAX_JSON_BYTES:
            help += f"; a spec in JSON, named `*.json`, may have {MAX_JSON_BYTES:,} bytes"
        message = f"the file is too large: {size:,} of at most {limit:,} bytes"
        raise fail("E0104", message, make_file_span(file), help=help)
    text = raw if isinstance(raw, str) else _decode_utf8(raw, file)
    # A byte order mark at the start is allowed, as some editors write it; elsewhere it is an
    # invisible character.
    source = SourceText(file, text.removeprefix("\ufeff"))
    if forbidden_match := (_FORBIDDEN_ASCII if text.isascii() else re.compile(_FORBIDDEN)).search(
        source.text
    ):
        raise fail(
            "E0101",
            f"the file contains {_describe_character(forbidden_match.group())}",
            source.get_span(forbidden_match.start(), forbidden_match.end()),
            label="not allowed in text",
            help="remove it",
        )
    return source


def _decode_utf8(raw: bytes, file: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _create_decode_error(raw, error.start, file) from None


def _create_decode_error(raw: bytes, index: int, file: str) -> UserError:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        message, hint = "the file is UTF-16, not UTF-8", "save it as UTF-8"
        return fail("E0101", message, make_file_span(file), help=hint)
    prefix = raw[:index].decode("utf-8")
    # Enough of the line to show; the rest may not be text.
    tail = raw[index : index + 200].decode("utf-8", "replace")
    source = SourceText(file, prefix + _BREAK.split(tail)[0])
    return fail(
        "E0101",
        f"the file is not UTF-8 text: byte 0x{raw[index]:02x} at offset {index}",
        source.get_span(len(prefix), len(prefix) + 1),
        label="cannot be decoded",
        help="save the file as UTF-8",
    )


def _describe_character(character: str) -> str:
    return f"{_KINDS.get(character, 'a control character')} (U+{ord(character):04X})"
