"""Write what is generated of recipes: their JSON Schema, and the list of keys in docs/training.md.

    python tools/make_recipes.py [--check]

`--check` writes nothing and fails when a file is out of date.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generated import settle

from tcc.compiler.train.recipe import build_schema
from tcc.compiler.zoo import shipped

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "training.md"
SCHEMA = ROOT / "spec" / "schema" / "recipe.schema.json"
LIMITS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}


def page(before: str) -> str:
    """Return the page with its lists brought up to date."""
    for name, lines in (("keys", _table(build_schema())), ("recipes", _recipes())):
        begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
        head, rest = before.split(begin)
        text = "\n".join(lines)
        before = f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}"
    return before


def _recipes() -> Iterator[str]:
    from tcc.compiler.train import recipe

    yield "| recipe | for |\n|---|---|"
    for name, path in shipped.list_recipes().items():
        yield f"| `{name}` | {recipe.read_recipe(path).doc} |"


def _table(rules: dict[str, Any]) -> Iterator[str]:
    yield "| key | value | meaning |\n|---|---|---|"
    yield from _rows(rules, "")


def _rows(rules: dict[str, Any], above: str) -> Iterator[str]:
    for name, one in rules["properties"].items():
        yield f"| `{above}{name}` | {_value(one)} | {one.get('description', '')} |"
        if "properties" in one:
            yield from _rows(one, f"{above}{name}.")


def _value(one: dict[str, Any]) -> str:
    if "const" in one:
        return str(one["const"])
    if "enum" in one:
        return ", ".join(f"`{word}`" for word in one["enum"])
    kinds = {"array": "list", "object": "section" if "properties" in one else "mapping"}
    limits = [f"{words} {one[key]:g}" for key, words in LIMITS.items() if key in one]
    return ", ".join([kinds.get(one["type"], one["type"]), *limits])


def main() -> int:
    """Write or check both files; return the exit code."""
    return settle(
        {SCHEMA: json.dumps(build_schema(), indent=1) + "\n", PAGE: page(PAGE.read_text())}
    )


if __name__ == "__main__":
    sys.exit(main())
