"""JSON documents: what is written, what is refused, and how errors name the location."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Literal

import msgspec
import pytest
from msgspec import field

from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.manifest import Manifest
from tcc.compiler.bundle.program_check import LayerAgreement
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.slides.saved_result import SlideSummary
from tcc.compiler.support import json_records
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.json_records import DocumentKind, OmitDefault, Record, RecordError
from tcc.compiler.support.trust_list import TrustList
from tcc.compiler.zoo.tables import NetworkDescription, PaperTable
from tcc.compiler.zoo.trained import Training


class _Note(Record, frozen=True):
    note: int
    text: str = ""
    seal: str = ""


KIND = DocumentKind(_Note, "note", 1, "E0651", "a note", "write it again")


def test_document_survives_writing_and_reading() -> None:
    decoded = KIND.decode(KIND.encode(_Note(1, "abc")), "n.json")
    assert (decoded.note, decoded.text) == (1, "abc")


@pytest.mark.parametrize("key", ["seal", "text"])
def test_missing_key_is_refused(key: str) -> None:
    document = json.loads(KIND.encode(_Note(1, "abc")))
    del document[key]
    with pytest.raises(UserError, match="the note is damaged") as caught:
        KIND.decode(json.dumps(document).encode(), "n.json")
    assert "does not match its seal" in str(caught.value.diagnostics[0].label)


class _Part(Record, frozen=True):
    share: float = field(name="moved")
    kind: Literal["a", "b"] = "a"
    later: OmitDefault[tuple[int, ...]] = ()


class _Document(Record, frozen=True):
    parts: Mapping[str, _Part]
    extra_parts: tuple[_Part, ...] = ()


def test_fields_may_be_renamed_and_defaults_omitted():
    record = _Document({"x": _Part(0.5), "y": _Part(1.0, "b", (1,))})
    document = {
        "parts": {
            "x": {"moved": 0.5, "kind": "a"},
            "y": {"moved": 1.0, "kind": "b", "later": (1,)},
        },
        "extra_parts": (),
    }
    assert json_records.encode(record) == document
    assert list(json_records.encode(record)["parts"]["y"]) == ["moved", "kind", "later"]
    assert json_records.decode(_Document, json.loads(json.dumps(document))) == record
    assert replace(record.parts["x"], share=2.0) == _Part(2.0)
    assert asdict(record)["parts"]["x"] == {"share": 0.5, "kind": "a", "later": ()}


@pytest.mark.parametrize(
    ("key", "part", "message"),
    [
        ("k7", {"moved": "x"}, "parts/k7/moved: expected `float`, got `str`"),
        ("k0", {"moved": 1, "share": 1}, "parts/k0: object contains unknown field `share`"),
        ("k12", {}, "parts/k12: object missing required field `moved`"),
        ("k3", {"moved": 1, "kind": "c"}, "parts/k3/kind: invalid enum value 'c'"),
        ("k5", {"moved": 1, "later": [1, True]}, "parts/k5/later/1: expected `int`, got `bool`"),
        ("k5", {"moved": 10**400}, "parts/k5/moved: number out of range"),
    ],
)
def test_errors_in_a_mapping_name_the_key(key, part, message):
    document = {"parts": {f"k{n}": {"moved": n} for n in range(13)} | {key: part}}
    with pytest.raises(RecordError) as error:
        json_records.decode(_Document, document)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "the key `c` appears twice"),
        (b"[NaN]", "it contains NaN, which is not a finite number"),
        (b"[-1e999]", "it contains -1e999, which is not a finite number"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{", "Expecting property name"),
        (b"\xff", "invalid start byte"),
    ],
)
def test_invalid_or_ambiguous_json_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        json_records.parse(text)


@pytest.mark.parametrize(
    "document",
    [
        Manifest, CalibrationDocument, SlideSummary, TrustList, Agreement,
        LayerAgreement, PaperTable, Training, NetworkDescription,
    ],
)  # fmt: skip
def test_every_object_refuses_unknown_keys(document):
    """Nested objects too: msgspec also accepts other classes and ignores their unknown keys."""
    components = msgspec.json.schema_components([document])[1]
    assert components
    for name, schema in components.items():
        assert schema["additionalProperties"] is False, name
