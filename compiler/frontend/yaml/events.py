"""The parse events of ruamel.yaml's pure Python parser.

Its constructors build plain values, which have no locations, or objects that tags name. The tree
needs the location of every key and value, and enforces its limits while it grows.
"""

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scanner import Scanner, ScannerError


class _LocatedScanner(Scanner):
    """Gives a location to the exceptions that the library itself does not expect."""

    def fetch_more_tokens(self) -> Any:
        """Scan the next token."""
        try:
            return super().fetch_more_tokens()
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise ScannerError(None, None, str(error), self.reader.get_mark()) from None


def parse_events(text: str) -> Iterator[Any]:
    """Yield the events of a YAML text, with marks but without comments."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _LocatedScanner
    yield from yaml.parse(text)
