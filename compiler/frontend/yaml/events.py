"""ruamel.yaml's pure Python parser, asked for events alone."""

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.events import ScalarEvent
from ruamel.yaml.parser import Parser
from ruamel.yaml.tokens import ScalarToken

from tcc.compiler.frontend.yaml.scanner import QuickReader, QuickScanner


class _Parser(Parser):
    """Finds its scanner once."""

    scanner: Any = None

    def __init__(self, loader: Any) -> None:
        self.scanner = loader.scanner
        super().__init__(loader)

    def parse_node(self, block: bool = False, indentless_sequence: bool = False) -> Any:
        """Return the event of the next value; of a bare scalar, the most frequent, at once."""
        token = self.scanner.peek_token()
        if type(token) is not ScalarToken:
            return super().parse_node(block, indentless_sequence)
        self.scanner.get_token()
        self.state = self.states.pop()
        start, end = token.start_mark, token.end_mark
        return ScalarEvent(None, None, (True, False), token.value, start, end, style=token.style)


def events(text: str) -> Iterator[Any]:
    """Yield the events of a YAML text, with marks but without comments."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Reader = QuickReader
    yaml.Scanner = QuickScanner
    yaml.Parser = _Parser
    yield from yaml.parse(text)
