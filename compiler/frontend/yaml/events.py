"""ruamel.yaml's pure Python parser, asked for events alone."""

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.parser import Parser
from ruamel.yaml.scanner import Scanner, ScannerError

_MAX_TAG = 200


class _Scanner(Scanner):
    """Looks for further tokens once for each that is taken, not for every look at the next one."""

    reader: Any = None

    def __init__(self, loader: Any) -> None:
        self.reader = loader.reader
        self.ready = False
        super().__init__(loader)

    def check_token(self, *kinds: type) -> bool:
        """Return whether the next token is of one of some kinds."""
        token = self.peek_token()
        return token is not None and (not kinds or isinstance(token, kinds))

    def peek_token(self) -> Any:
        """Return the next token, None after the last."""
        while not self.ready:
            self.ready = not self.need_more_tokens()
            if not self.ready:
                self._fetch()
        return self.tokens[0] if self.tokens else None

    def scan_tag(self) -> Any:
        """Read a tag, which the library takes long for where it is long."""
        token = super().scan_tag()
        if len(token.value[1]) > _MAX_TAG:
            raise ScannerError("while scanning a tag", token.start_mark, "too long")
        return token

    def _fetch(self) -> None:
        """Read on; what the library itself slips on becomes an error with a place."""
        try:
            self.fetch_more_tokens()
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise ScannerError(None, None, str(error), self.reader.get_mark()) from None

    def get_token(self) -> Any:
        """Take the next token."""
        if self.peek_token() is None:
            return None
        self.ready = False
        self.tokens_taken += 1
        return self.tokens.pop(0)


class _Parser(Parser):
    """Finds its scanner once."""

    scanner: Any = None

    def __init__(self, loader: Any) -> None:
        self.scanner = loader.scanner
        super().__init__(loader)


def events(text: str) -> Iterator[Any]:
    """Yield the events of a YAML text, with marks but without comments."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _Scanner
    yaml.Parser = _Parser
    yield from yaml.parse(text)
