"""ruamel.yaml's scanner with its inner loops by regular expressions, several times as quick.

What it reads is the same but for tabs: YAML 1.2 allows them wherever white space only separates,
where the library knows spaces alone. As indentation they stay an error.
"""

import re
from typing import Any

from ruamel.yaml.reader import Reader
from ruamel.yaml.scanner import Scanner, ScannerError
from ruamel.yaml.tokens import (
    FlowEntryToken,
    FlowMappingEndToken,
    FlowMappingStartToken,
    FlowSequenceEndToken,
    FlowSequenceStartToken,
    ScalarToken,
)

_MAX_TAG = 200
_LONGEST_KEY = 1024
"""Characters after which the library takes a value for no key any more."""
_ENDS = " \t\r\n\0"
_SPACES = re.compile(" *+")
_WHITE = re.compile(r"[ \t]*+")
_COMMENT = re.compile("[^\r\n\0]*+")
_DOCUMENT = re.compile(rf"(?:---|\.\.\.)[{_ENDS}]")
_BREAK = re.compile("\r\n|\r|\n")
# No possessive groups: Python before 3.11.5 matches them wrongly (gh-106052).
_BLOCK = re.compile(rf"[^:{_ENDS}]*+(?::(?![{_ENDS}])[^:{_ENDS}]*+)*")
_FLOW = re.compile(rf"[^:,\[\]{{}}{_ENDS}]*+(?::(?![{_ENDS}])[^:,\[\]{{}}{_ENDS}]*+)*")
_BETWEEN = frozenset(" \t#\r\n")
_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789(/+$")
_OPENING = {"[": FlowSequenceStartToken, "{": FlowMappingStartToken}
_CLOSING = {"]": FlowSequenceEndToken, "}": FlowMappingEndToken, ",": FlowEntryToken}


class Mark:
    """A place in a text."""

    __slots__ = ("column", "index", "line")
    name = ""

    def __init__(self, index: int, line: int, column: int) -> None:
        self.index, self.line, self.column = index, line, column


class QuickReader(Reader):
    """The library's reader of a whole text; its marks do not hold the text."""

    def get_mark(self) -> Any:
        """Return the place that is reached."""
        return Mark(self.index, self.line, self.column)

    def forward(self, length: int = 1) -> None:
        """Go on by some characters."""
        end = self.pointer + length
        passed = self.buffer[self.pointer : end]
        # Lines are counted where there are any; all other steps are an addition.
        if "\n" in passed or "\r" in passed or "\ufeff" in passed:
            super().forward(length)
        else:
            self.jump(end)

    def past(self, pattern: re.Pattern[str], start: int) -> int:
        """Return the index after what a pattern matches at another one, which may be nothing."""
        found = pattern.match(self.buffer, start)
        return found.end() if found else start

    def jump(self, end: int) -> None:
        """Go on to an index on the same line."""
        length = end - self.pointer
        self.pointer = end
        self.index += length
        self.column += length

    def next_line(self, end: int) -> None:
        """Go on to an index at which a line starts."""
        self.index += end - self.pointer
        self.pointer = end
        self.line += 1
        self.column = 0


class QuickScanner(Scanner):
    """Looks for further tokens once for each that is taken, not for every look at the next one."""

    reader: Any = None
    scanner_processing_version = (1, 2)

    def __init__(self, loader: Any) -> None:
        self.reader = loader.reader
        self.ready = False
        super().__init__(loader)

    def check_token(self, *kinds: type) -> bool:
        """Return whether the next token is of one of some kinds."""
        if not self.ready:
            self.peek_token()
        return bool(self.tokens) and (not kinds or type(self.tokens[0]) in kinds)

    def peek_token(self) -> Any:
        """Return the next token, None after the last."""
        while not self.ready:
            if self.tokens and not self.possible_simple_keys:
                self.ready = True  # what may be a key alone needs a look at what follows
            else:
                self.ready = not self.need_more_tokens()
            if not self.ready:
                self._fetch()
        return self.tokens[0] if self.tokens else None

    def get_token(self) -> Any:
        """Take the next token."""
        if self.peek_token() is None:
            return None
        self.ready = False
        self.tokens_taken += 1
        return self.tokens.pop(0)

    def _fetch(self) -> None:
        """Read on; what the library itself slips on becomes an error with a place."""
        try:
            self.fetch_more_tokens()
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise ScannerError(None, None, str(error), self.reader.get_mark()) from None

    def fetch_more_tokens(self) -> Any:
        """Read the next token; the most frequent ones, words and brackets, without asking further.

        Brackets outside of flow lists and mappings, where they end some block or begin a key, are
        the library's.
        """
        self.scan_to_next_token()
        letter = self.reader.buffer[self.reader.pointer]
        if self.flow_context and (letter in _OPENING or letter in _CLOSING):
            self.stale_possible_simple_keys()
            return self._bracket(letter)
        if letter not in _WORD:
            return super().fetch_more_tokens()
        self.stale_possible_simple_keys()
        if not self.flow_context:
            self.unwind_indent(self.reader.column)
        return self.fetch_plain()

    def _bracket(self, letter: str) -> None:
        """Read a bracket or comma inside of a flow list or mapping."""
        reader = self.reader
        start = reader.get_mark()
        if letter in _OPENING:
            self.save_possible_simple_key()
            self.flow_context.append(letter)
            kind = _OPENING[letter]
        else:
            self.remove_possible_simple_key()
            if letter != ",":
                self.flow_context.pop()
            kind = _CLOSING[letter]
        self.allow_simple_key = letter in "[{,"
        reader.jump(reader.pointer + 1)
        self.tokens.append(kind(start, reader.get_mark()))

    def stale_possible_simple_keys(self) -> None:
        """Forget keys that can be none, as the library does, where there are any."""
        line, index = self.reader.line, self.reader.index
        # Asked at every token; mostly there is nothing to forget.
        for key in self.possible_simple_keys.values():
            if key.line != line or index - key.index > _LONGEST_KEY:
                super().stale_possible_simple_keys()
                return

    def need_more_tokens(self) -> bool:
        """Return whether the next token is not read yet, or may turn out to follow a key's mark."""
        if self.done or not self.tokens:
            return not self.done
        self.stale_possible_simple_keys()
        keys = self.possible_simple_keys
        # A token that may turn out to be a key has to wait for the `:` behind it.
        return bool(keys) and min(k.token_number for k in keys.values()) == self.tokens_taken

    def scan_to_next_token(self) -> Any:
        """Skip white space, comments and line ends.

        A tab before the first word of a line cannot indent, so that no list or mapping may start
        after it: what follows a tab is a value, or is refused.
        """
        reader, flow = self.reader, bool(self.flow_context)
        buffer = reader.buffer
        while buffer[reader.pointer] in _BETWEEN:
            start, fresh = reader.pointer, not reader.column
            reader.jump(reader.past(_SPACES, start))
            if buffer[reader.pointer] == "\t":
                end = reader.past(_WHITE, reader.pointer)
                content = buffer[end] not in "#\r\n\0"
                if content and fresh and not flow and reader.column <= max(self.indent, 0):
                    return
                if content and not flow:
                    self.allow_simple_key = False
                reader.jump(end)
            if buffer[reader.pointer] == "#":
                reader.jump(reader.past(_COMMENT, reader.pointer))
            ended = _BREAK.match(buffer, reader.pointer)
            if ended is None:
                return
            reader.next_line(ended.end())
            if not flow:
                self.allow_simple_key = True

    def scan_plain(self) -> Any:
        """Read a value without quotes."""
        reader, flow = self.reader, bool(self.flow_context)
        start = end = reader.get_mark()
        pattern, indent = _FLOW if flow else _BLOCK, self.indent + 1
        chunks: list[str] = []
        spaces: list[str] | None = []
        while reader.buffer[reader.pointer] != "#":
            piece = reader.buffer[reader.pointer : reader.past(pattern, reader.pointer)]
            if not piece:
                break
            self.allow_simple_key = False
            chunks += [*(spaces or ()), piece]
            reader.jump(reader.pointer + len(piece))
            end = reader.get_mark()
            spaces = self.scan_plain_spaces(indent, start)
            if not spaces or (not flow and reader.column < indent):
                break
        return ScalarToken("".join(chunks), True, start, end)

    def scan_plain_spaces(self, indent: Any, start_mark: Any) -> Any:  # noqa: ARG002 - the library's
        """Skip white space after a piece of a value; return what of it the value would hold."""
        reader = self.reader
        buffer = reader.buffer
        if buffer[reader.pointer] not in " \t\r\n":
            return []
        end = reader.past(_WHITE, reader.pointer)
        if buffer[end] not in "\r\n":
            white = buffer[reader.pointer : end]
            reader.jump(end)
            return [white] if white else []
        reader.jump(end)
        self.allow_simple_key = True
        breaks = 0
        # YAML folds one line break into a space and keeps the others.
        while ended := _BREAK.match(buffer, reader.pointer):
            reader.next_line(ended.end())
            breaks += 1
            if _DOCUMENT.match(buffer, reader.pointer):
                return None
            reader.jump(reader.past(_SPACES, reader.pointer))
            if buffer[reader.pointer] == "\t" and reader.column >= indent:
                reader.jump(reader.past(_WHITE, reader.pointer))
        return [" "] if breaks == 1 else ["\n"] * (breaks - 1)

    def scan_tag(self) -> Any:
        """Read a tag, which the library takes long for where it is long."""
        token = super().scan_tag()
        if len(token.value[1]) > _MAX_TAG:
            raise ScannerError("while scanning a tag", token.start_mark, "too long")
        return token
