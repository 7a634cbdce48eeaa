"""Write the JSON Schema of recipes, and the list of their keys in docs/training.md.

    python tools/make_recipes.py [--check]

With `--check`, write nothing and fail if a file is out of date.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generated import write_or_check

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


def update_page(page_text: str) -> str:
    """Return the page with current lists."""
    for name, lines in (("keys", _format_keys(build_schema())), ("recipes", _format_recipes())):
        begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
        head, text_below = page_text.split(begin)
        text = "\n".join(lines)
        page_text = f"{head}{begin}\n{text}\n{end}{text_below.split(end)[1]}"
    return page_text


def _format_recipes() -> Iterator[str]:
    from tcc.compiler.train import recipe

    yield "| recipe | purpose |\n|---|---|"
    for name, path in shipped.list_recipes().items():
        yield f"| `{name}` | {recipe.read_recipe(path).doc} |"


def _format_keys(rules: dict[str, Any]) -> Iterator[str]:
    yield "| key | value | meaning |\n|---|---|---|"
    yield from _format_rows(rules, "")


def _format_rows(rules: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, rule in rules["properties"].items():
        yield f"| `{prefix}{name}` | {_format_rule(rule)} | {rule.get('description', '')} |"
        if "properties" in rule:
            yield from _format_rows(rule, f"{prefix}{name}.")


def _format_rule(rule: dict[str, Any]) -> str:
    if "const" in rule:
        return str(rule["const"])
    if "enum" in rule:
        return ", ".join(f"`{option}`" for option in rule["enum"])
    kinds = {"array": "list", "object": "section" if "properties" in rule else "mapping"}
    limits = [f"{limit_name} {rule[key]:g}" for key, limit_name in LIMITS.items() if key in rule]
    return ", ".join([kinds.get(rule["type"], rule["type"]), *limits])


def main() -> int:
    """Write or check both files; return the exit code."""
    return write_or_check(
        {SCHEMA: json.dumps(build_schema(), indent=1) + "\n", PAGE: update_page(PAGE.read_text())}
    )


if __name__ == "__main__":
    sys.exit(main())
