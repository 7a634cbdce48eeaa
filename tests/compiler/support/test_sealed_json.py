"""What a sealed document refuses: any key changed, or left out, its seal included."""

import json
from dataclasses import dataclass

import pytest

from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.sealed_json import DocumentKind


@dataclass(frozen=True)
class _Note:
    note: int
    text: str = ""
    seal: str = ""


KIND = DocumentKind(_Note, "note", 1, "E0651", "a note", "write it again")


def test_read_as_written() -> None:
    found = KIND.decode(KIND.encode(_Note(1, "abc")), "n.json")
    assert (found.note, found.text) == (1, "abc")


@pytest.mark.parametrize("key", ["seal", "text"])
def test_a_key_is_missing(key: str) -> None:
    plain = json.loads(KIND.encode(_Note(1, "abc")))
    del plain[key]
    with pytest.raises(UserError, match="the note is damaged") as found:
        KIND.decode(json.dumps(plain).encode(), "n.json")
    assert "does not match its seal" in str(found.value.diagnostics[0].label)
