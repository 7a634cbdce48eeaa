"""Where plain data does not conform to a JSON Schema: the keywords that our schemas have.

Each keyword means what JSON Schema says (draft 2020-12). The library that checks any schema takes
ten times as long, which tells where a text of a megabyte is wrong at every word.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Breach:
    """A value that a keyword of a schema refuses; `rules` is the schema around the keyword.

    `missing` is the key that `required` misses; `of_key` where the value is a mapping's key.
    """

    path: Path
    keyword: str
    value: Any
    rules: Schema
    missing: str = ""
    of_key: bool = False


class _Check:
    """One walk over data; `found` are the breaches, in the order of the keywords of a schema."""

    def __init__(self, shared: Schema) -> None:
        self.shared = shared
        self.found: list[Breach] = []

    def value(self, value: Any, rules: Schema, path: Path) -> None:
        for keyword, rule in rules.items():
            check = _KEYWORDS.get(keyword)
            if check is not None:
                check(self, rule, value, rules, path)

    def refused(self, keyword: str, value: Any, rules: Schema, path: Path, name: str = "") -> None:
        self.found.append(Breach(path, keyword, value, rules, name))


def breaches(value: object, rules: Schema, shared: Schema) -> list[Breach]:
    """Return every breach of a schema; `shared` are the definitions that it refers to."""
    check = _Check(shared)
    check.value(value, rules, ())
    return check.found


def _ref(check: _Check, rule: str, value: Any, _: Schema, path: Path) -> None:
    check.value(value, check.shared[rule.removeprefix("#/$defs/")], path)


def _type(check: _Check, rule: str | list[str], value: Any, rules: Schema, path: Path) -> None:
    kinds = _KINDS[type(value)]
    # JSON Schema counts 1.0 among the integers.
    whole = type(value) is float and value.is_integer()
    for kind in (rule,) if isinstance(rule, str) else rule:
        if kind in kinds or (whole and kind == "integer"):
            return
    check.refused("type", value, rules, path)


def _properties(check: _Check, rule: Schema, value: Any, _: Schema, path: Path) -> None:
    if isinstance(value, dict):
        for key in rule:
            if key in value:
                check.value(value[key], rule[key], (*path, key))


def _additional(check: _Check, rule: Any, value: Any, rules: Schema, path: Path) -> None:
    if not isinstance(value, dict):
        return
    # Of `properties` beside it alone, as JSON Schema has it.
    known = rules.get("properties", {})
    extra = [key for key in value if key not in known]
    if rule is False and extra:
        check.refused("additionalProperties", value, rules, path)
    elif rule is not False:
        for key in extra:
            check.value(value[key], rule, (*path, key))


def _names(check: _Check, rule: Schema, value: Any, _: Schema, path: Path) -> None:
    if isinstance(value, dict):
        # A key has no path of its own: what is wrong with it is placed at its mapping, and marked.
        of_keys = _Check(check.shared)
        for key in value:
            of_keys.value(key, rule, path)
        check.found += [
            Breach(b.path, b.keyword, b.value, b.rules, of_key=True) for b in of_keys.found
        ]


def _required(check: _Check, rule: list[str], value: Any, rules: Schema, path: Path) -> None:
    if isinstance(value, dict):
        for key in rule:
            if key not in value:
                check.refused("required", value, rules, path, key)


def _items(check: _Check, rule: Schema, value: Any, _: Schema, path: Path) -> None:
    if isinstance(value, list):
        for place, item in enumerate(value):
            check.value(item, rule, (*path, place))


def _pattern(check: _Check, rule: str, value: Any, rules: Schema, path: Path) -> None:
    # JSON Schema's patterns may fit anywhere in a text.
    if isinstance(value, str) and not re.search(rule, value):
        check.refused("pattern", value, rules, path)


def _enum(check: _Check, rule: list[Any], value: Any, rules: Schema, path: Path) -> None:
    if not any(_same(value, one) for one in rule):
        check.refused("enum", value, rules, path)


def _const(check: _Check, rule: Any, value: Any, rules: Schema, path: Path) -> None:
    if not _same(value, rule):
        check.refused("const", value, rules, path)


def _same(value: Any, other: Any) -> bool:
    """Whether two scalars are one to JSON, where true is not 1."""
    return isinstance(value, bool) is isinstance(other, bool) and bool(value == other)


def _length(keyword: str, kind: type, most: bool) -> "_Keyword":
    def check(check: _Check, rule: int, value: Any, rules: Schema, path: Path) -> None:
        if isinstance(value, kind) and (len(value) > rule if most else len(value) < rule):  # type: ignore[arg-type]
            check.refused(keyword, value, rules, path)

    return check


def _bound(keyword: str, holds: Callable[[Any, Any], bool]) -> "_Keyword":
    def check(check: _Check, rule: float, value: Any, rules: Schema, path: Path) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not holds(value, rule):
            check.refused(keyword, value, rules, path)

    return check


_Keyword = Callable[[_Check, Any, Any, Schema, Path], None]
_KINDS: dict[type, tuple[str, ...]] = {
    type(None): ("null",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    str: ("string",),
    list: ("array",),
    dict: ("object",),
}
_KEYWORDS: dict[str, _Keyword] = {
    "$ref": _ref,
    "type": _type,
    "properties": _properties,
    "additionalProperties": _additional,
    "propertyNames": _names,
    "required": _required,
    "items": _items,
    "pattern": _pattern,
    "enum": _enum,
    "const": _const,
    "minItems": _length("minItems", list, most=False),
    "maxItems": _length("maxItems", list, most=True),
    "minProperties": _length("minProperties", dict, most=False),
    "maxProperties": _length("maxProperties", dict, most=True),
    "minimum": _bound("minimum", operator.ge),
    "maximum": _bound("maximum", operator.le),
    "exclusiveMinimum": _bound("exclusiveMinimum", operator.gt),
    "exclusiveMaximum": _bound("exclusiveMaximum", operator.lt),
}
"""What each keyword checks; `description`, `default` and `examples` check nothing."""
