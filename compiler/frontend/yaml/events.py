"""ruamel.yaml's pure Python parser, asked for events alone."""

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.parser import Parser

from tcc.compiler.frontend.yaml.scanner import QuickReader, QuickScanner


class _Parser(Parser):
    """Finds its scanner once."""

    scanner: Any = None

    def __init__(self, loader: Any) -> None:
        self.scanner = loader.scanner
        super().__init__(loader)


def events(text: str) -> Iterator[Any]:
    """Yield the events of a YAML text, with marks but without comments."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Reader = QuickReader
    yaml.Scanner = QuickScanner
    yaml.Parser = _Parser
    yield from yaml.parse(text)
