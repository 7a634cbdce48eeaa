"""The schema validation agrees with the jsonschema library."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import jsonschema

from tcc.compiler.frontend.language_schema import build_schema
from tcc.compiler.frontend.schema_validation import find_violations
from tcc.compiler.frontend.yaml import parse, to_plain

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -3, 1.0, 2.5, "", "relu", "a b", "xs[1:]", [], [1], [[]], {}, {"a": 1},
    {"relu": None}, {"conv": {"filters": 3}}, {"add": []}, {"if": 1, "then": []},
)  # fmt: skip
TEXTS = sorted(Path(__file__).parents[3].glob("spec/*.yaml"))[:6]


def list_expected(data: object, part: str) -> list[tuple[object, ...]]:
    full_schema = {**build_schema(), "$ref": f"#/$defs/{part}"}
    for key in ("if", "then", "else"):
        del full_schema[key]
    return [
        (tuple(e.absolute_path), e.validator, repr(e.instance), "propertyNames" in e.schema_path)
        for e in jsonschema.Draft202012Validator(full_schema).iter_errors(data)
    ]


def list_found(data: object, part: str) -> list[tuple[object, ...]]:
    shared = build_schema()["$defs"]
    return [
        (b.path, b.keyword, repr(b.value), b.of_key)
        for b in find_violations(data, shared[part], shared)
    ]


def iterate_entries(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every entry of nested data: its container and its key."""
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from iterate_entries(data[key])


def test_schema_validation_agrees_with_jsonschema() -> None:
    numbers, error_count = Random(3), 0
    specs = [to_plain(parse(path.read_text(), path.name)) for path in TEXTS]
    for iteration in range(120):
        data = deepcopy(specs[iteration % len(specs)])
        for _ in range(numbers.choice((0, 1, 3))):
            holder, key = numbers.choice(list(iterate_entries(data)))
            if isinstance(holder, dict) and numbers.random() < 0.3:
                holder[numbers.choice(("1a", "zz", "conv", "as"))] = holder.pop(key)
            else:
                holder[key] = numbers.choice(ODD)
        for part in ("spec", "library"):
            actual = list_found(data, part)
            assert sorted(actual, key=repr) == sorted(list_expected(data, part), key=repr)
            error_count += len(actual)
    assert error_count > 200
