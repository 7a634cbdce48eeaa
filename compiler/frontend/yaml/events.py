"""Parse events of the pure Python parser of ruamel.yaml.

Its constructors build values without locations, or objects for tags. The tree needs the location of
each key and value, and it enforces limits while it is built.
"""

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scanner import Scanner, ScannerError


class _LocatedScanner(Scanner):
    """Adds a location to exceptions that the library does not handle."""

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
