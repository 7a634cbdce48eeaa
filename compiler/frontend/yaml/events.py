"""ruamel.yaml's pure Python parser, asked for events alone.

Its constructors make plain values, which have no places, or objects that tags name; the tree needs
the place of every key and value, and its limits hold while it grows, so that it is built of events.
"""

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.parser import Parser
from ruamel.yaml.tokens import (
    BlockEndToken,
    BlockEntryToken,
    FlowEntryToken,
    FlowMappingEndToken,
    FlowMappingStartToken,
    FlowSequenceEndToken,
    FlowSequenceStartToken,
    KeyToken,
    ScalarToken,
    ValueToken,
)

from tcc.compiler.frontend.yaml.scanner import QuickReader, QuickScanner

_ENTRIES = (ScalarToken, FlowSequenceStartToken, FlowMappingStartToken)


class _Parser(Parser):
    """Looks once at the next token where the library asks for each kind that it may be of.

    What is not frequent, or wrong, is left to the library, with nothing taken that it would ask of.
    """

    scanner: Any = None

    def __init__(self, loader: Any) -> None:
        self.scanner = loader.scanner
        super().__init__(loader)

    def parse_node(self, block: bool = False, indentless_sequence: bool = False) -> Any:
        """Return the event of the next value; of bare scalars and flow collections, at once."""
        token = self.scanner.peek_token()
        start, end = token.start_mark, token.end_mark
        match token:
            case ScalarToken():
                self.scanner.get_token()
                self.state = self.states.pop()
                plain = (True, False)
                return ScalarEvent(None, None, plain, token.value, start, end, style=token.style)
            case FlowSequenceStartToken():
                self.state = self.parse_flow_sequence_first_entry
                return SequenceStartEvent(None, None, True, start, end, flow_style=True)
            case FlowMappingStartToken():
                self.state = self.parse_flow_mapping_first_key
                return MappingStartEvent(None, None, True, start, end, flow_style=True)
        return super().parse_node(block, indentless_sequence)

    def parse_block_sequence_entry(self) -> Any:
        """Return the event of the next entry of a list, or of the list's end."""
        scanner = self.scanner
        if type(scanner.peek_token()) is not BlockEntryToken:
            return super().parse_block_sequence_entry()
        token = scanner.get_token()
        if type(scanner.peek_token()) in (BlockEntryToken, BlockEndToken):
            self.state = self.parse_block_sequence_entry
            return self.process_empty_scalar(token.end_mark)
        self.states.append(self.parse_block_sequence_entry)
        return self.parse_node(block=True)

    def parse_flow_sequence_entry(self, first: bool = False) -> Any:
        """Return the event of the next entry of a flow list, or of the list's end."""
        if not self._separated(FlowSequenceEndToken, first=first):
            return super().parse_flow_sequence_entry()
        token = self.scanner.peek_token()
        if type(token) is FlowSequenceEndToken:
            self.scanner.get_token()
            self.state = self.states.pop()
            self.marks.pop()
            return SequenceEndEvent(token.start_mark, token.end_mark)
        if type(token) in _ENTRIES:
            self.states.append(self.parse_flow_sequence_entry)
            return self.parse_node()
        return super().parse_flow_sequence_entry(first=True)

    def parse_flow_mapping_key(self, first: Any = False) -> Any:
        """Return the event of the next key of a flow mapping, or of the mapping's end."""
        if not self._separated(FlowMappingEndToken, first=first):
            return super().parse_flow_mapping_key()
        if type(self.scanner.peek_token()) is not KeyToken:
            return super().parse_flow_mapping_key(first=True)
        return self._key_or_value(self.parse_flow_mapping_value, ValueToken)

    def parse_flow_mapping_value(self) -> Any:
        """Return the event of the value after a key of a flow mapping."""
        if type(self.scanner.peek_token()) is not ValueToken:
            return super().parse_flow_mapping_value()
        return self._key_or_value(self.parse_flow_mapping_key, FlowEntryToken)

    def _separated(self, end: type, *, first: bool) -> bool:
        """Take the comma before an entry of a flow collection; return whether what follows may."""
        if first or type(self.scanner.peek_token()) is end:
            return True
        separated = type(self.scanner.peek_token()) is FlowEntryToken
        if separated:
            self.scanner.get_token()
        return separated

    def _key_or_value(self, after: Any, other: type) -> Any:
        """Take the mark of a key or value; return the event of what it marks, which may lack."""
        token = self.scanner.get_token()
        if type(self.scanner.peek_token()) in (other, FlowEntryToken, FlowMappingEndToken):
            self.state = after
            return self.process_empty_scalar(token.end_mark)
        self.states.append(after)
        return self.parse_node()


def events(text: str) -> Iterator[Any]:
    """Yield the events of a YAML text, with marks but without comments."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Reader = QuickReader
    yaml.Scanner = QuickScanner
    yaml.Parser = _Parser
    yield from yaml.parse(text)
