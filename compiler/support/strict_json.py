"""JSON that means one thing: no key twice, no NaN or infinity, no number that overflows."""

import json
from typing import Any, NoReturn

from tcc.compiler.support.decimal_numbers import parse_float


def parse(text: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
        ValueError: It is no such text, or is nested too deeply.
    """
    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=_build_object,
            parse_float=parse_float,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise ValueError("it has too many lists or objects within each other") from None


def _build_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(members)
    if len(built) < len(members):
        keys = [key for key, _ in members]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key `{twice[:40]}` is there twice")
    return built


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")
