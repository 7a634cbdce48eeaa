"""Validation of plain data against a JSON Schema, for the keywords that our schemas use.

The meaning of each keyword is that of draft 2020-12. The general `jsonschema` library takes ten
times as long, which is noticeable for a text of a megabyte with errors everywhere.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class SchemaViolation:
    """A value that violates a keyword of a schema; `rules` is the schema with the keyword.

    `missing` is the key that `required` expects; `of_key` is set if the value is a mapping's key.
    """

    path: Path
    keyword: str
    value: Any
    rules: Schema
    missing: str = ""
    of_key: bool = False


class _SchemaValidator:
    """One walk over the data; `violations` are in the order of the keywords of the schema."""

    def __init__(self, shared: Schema) -> None:
        self.shared = shared
        self.violations: list[SchemaViolation] = []

    def validate(self, value: Any, rules: Schema, path: Path) -> None:
        for keyword, rule in rules.items():
            check_keyword = _KEYWORDS.get(keyword)
            if check_keyword is not None:
                check_keyword(self, rule, value, rules, path)

    def report_violation(
        self, keyword: str, value: Any, rules: Schema, path: Path, name: str = ""
    ) -> None:
        self.violations.append(SchemaViolation(path, keyword, value, rules, name))


def find_violations(value: object, rules: Schema, shared: Schema) -> list[SchemaViolation]:
    """Return all violations of a schema; `shared` contains the definitions it refers to."""
    validator = _SchemaValidator(shared)
    validator.validate(value, rules, ())
    return validator.violations


def _check_ref(validator: _SchemaValidator, rule: str, value: Any, _: Schema, path: Path) -> None:
    validator.validate(value, validator.shared[rule.removeprefix("#/$defs/")], path)


def _check_type(
    validator: _SchemaValidator, rule: str | list[str], value: Any, rules: Schema, path: Path
) -> None:
    kinds = _KINDS[type(value)]
    # In JSON Schema, 1.0 is an integer.
    is_whole_float = type(value) is float and value.is_integer()
    for kind in (rule,) if isinstance(rule, str) else rule:
        if kind in kinds or (is_whole_float and kind == "integer"):
            return
    validator.report_violation("type", value, rules, path)


def _check_properties(
    validator: _SchemaValidator, rule: Schema, value: Any, _: Schema, path: Path
) -> None:
    if isinstance(value, dict):
        for key in rule:
            if key in value:
                validator.validate(value[key], rule[key], (*path, key))


def _check_additional_properties(
    validator: _SchemaValidator, rule: Any, value: Any, rules: Schema, path: Path
) -> None:
    if not isinstance(value, dict):
        return
    # Only the `properties` of the same schema count, as in JSON Schema.
    declared_keys = rules.get("properties", {})
    extra = [key for key in value if key not in declared_keys]
    if rule is False and extra:
        validator.report_violation("additionalProperties", value, rules, path)
    elif rule is not False:
        for key in extra:
            validator.validate(value[key], rule, (*path, key))


def _check_property_names(
    validator: _SchemaValidator, rule: Schema, value: Any, _: Schema, path: Path
) -> None:
    if isinstance(value, dict):
        # A key has no path; its errors are at its mapping and marked with `of_key`.
        key_validator = _SchemaValidator(validator.shared)
        for key in value:
            key_validator.validate(key, rule, path)
        validator.violations += [
            SchemaViolation(b.path, b.keyword, b.value, b.rules, of_key=True)
            for b in key_validator.violations
        ]


def _check_required(
    validator: _SchemaValidator, rule: list[str], value: Any, rules: Schema, path: Path
) -> None:
    if isinstance(value, dict):
        for key in rule:
            if key not in value:
                validator.report_violation("required", value, rules, path, key)


def _check_items(
    validator: _SchemaValidator, rule: Schema, value: Any, _: Schema, path: Path
) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            validator.validate(item, rule, (*path, index))


def _check_pattern(
    validator: _SchemaValidator, rule: str, value: Any, rules: Schema, path: Path
) -> None:
    # Patterns of JSON Schema match anywhere in a text.
    if isinstance(value, str) and not re.search(rule, value):
        validator.report_violation("pattern", value, rules, path)


def _check_enum(
    validator: _SchemaValidator, rule: list[Any], value: Any, rules: Schema, path: Path
) -> None:
    if not any(_is_same_scalar(value, choice) for choice in rule):
        validator.report_violation("enum", value, rules, path)


def _check_const(
    validator: _SchemaValidator, rule: Any, value: Any, rules: Schema, path: Path
) -> None:
    if not _is_same_scalar(value, rule):
        validator.report_violation("const", value, rules, path)


def _is_same_scalar(actual: Any, expected: Any) -> bool:
    """Return whether two scalars are equal in JSON, where true is not 1."""
    return isinstance(actual, bool) is isinstance(expected, bool) and bool(actual == expected)


def _create_length_check(keyword: str, kind: type, is_maximum: bool) -> "_Keyword":
    def check_length(
        validator: _SchemaValidator, rule: int, value: Any, rules: Schema, path: Path
    ) -> None:
        if isinstance(value, kind) and (len(value) > rule if is_maximum else len(value) < rule):  # type: ignore[arg-type]
            validator.report_violation(keyword, value, rules, path)

    return check_length


def _create_bound_check(keyword: str, is_met: Callable[[Any, Any], bool]) -> "_Keyword":
    """Return the check of a keyword that limits numbers; `is_met` compares value and bound."""

    def check_bound(
        validator: _SchemaValidator, bound: float, value: Any, rules: Schema, path: Path
    ) -> None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and not is_met(value, bound):
            validator.report_violation(keyword, value, rules, path)

    return check_bound


_Keyword = Callable[[_SchemaValidator, Any, Any, Schema, Path], None]
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
    "$ref": _check_ref,
    "type": _check_type,
    "properties": _check_properties,
    "additionalProperties": _check_additional_properties,
    "propertyNames": _check_property_names,
    "required": _check_required,
    "items": _check_items,
    "pattern": _check_pattern,
    "enum": _check_enum,
    "const": _check_const,
    "minItems": _create_length_check("minItems", list, is_maximum=False),
    "maxItems": _create_length_check("maxItems", list, is_maximum=True),
    "minProperties": _create_length_check("minProperties", dict, is_maximum=False),
    "maxProperties": _create_length_check("maxProperties", dict, is_maximum=True),
    "minimum": _create_bound_check("minimum", operator.ge),
    "maximum": _create_bound_check("maximum", operator.le),
    "exclusiveMinimum": _create_bound_check("exclusiveMinimum", operator.gt),
    "exclusiveMaximum": _create_bound_check("exclusiveMaximum", operator.lt),
}
"""The check of each keyword; `description`, `default` and `examples` check nothing."""
