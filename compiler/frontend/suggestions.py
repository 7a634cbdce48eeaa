"""Help texts for common forms that the language does not have."""

import json
import re
from collections.abc import Mapping
from typing import Any

from tcc.compiler.frontend.argument_values import OPTIONS
from tcc.compiler.frontend.block_library import CONTROL_KEYWORDS, JOIN_NAMES, OPS_BY_NAME, Block
from tcc.compiler.ir.argument_declarations import Parameter, Required, list_parameters
from tcc.compiler.support.diagnostics import Span

_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_CALL = re.compile(r"(\w+)\((.*)", re.DOTALL)
Path = tuple[str | int, ...]


def explain_type_error(path: Path, instance: object, rules: Mapping[str, Any], at: Span) -> str:
    """Return the help for a value with the wrong type, by its path in a file."""
    key = str(path[-1]) if path else ""
    if path[:1] == ("input",) and len(path) == 2 and key in ("shape", "preprocess"):
        return "an input has a name: `input: {image: {shape: [...]}}`"
    if path == ("output",):
        return "an output has a name: `output: {logits: {}}`"
    if isinstance(instance, dict) and "items" in rules and "array" in rules["type"]:
        # In the notation of the file: brackets in flow style, dashes in block style.
        flow = at.text[at.column - 1 : at.column] == "{"
        return "put it in brackets: [...]" if flow else "start each entry with `- `"
    if isinstance(instance, int | float) and (help := _explain_missing_list(key, instance)):
        return help
    if isinstance(instance, float) and not abs(instance) < float("inf"):
        return "write a finite number"
    return _explain_step_error(key, instance, rules) if "object" in rules["type"] else ""


def is_count(of: object) -> bool:
    """Return whether the `of` of an `each` is a number, as for `repeat`."""
    return isinstance(of, int) and not isinstance(of, bool)


def _explain_missing_list(key: str, number: float) -> str:
    """Return the help for a number in place of a list."""
    if key in ("mean", "std") and abs(number) < float("inf"):
        text = json.dumps(number)
        return f"write [{text}] for all channels, or one number for each: [{text}, {text}, {text}]"
    if key == "of" and is_count(number):
        repeated = f"`repeat: {{times: {number}, body: [...]}}`"
        return f"write `of: range({number})` with `as: i`, or {repeated}"
    return ""


def _explain_step_error(keyword: str, instance: object, rules: Mapping[str, Any]) -> str:
    if keyword in JOIN_NAMES:
        return _explain_join(keyword, instance)
    if keyword in OPS_BY_NAME:
        return explain_arguments(keyword, list_parameters(OPS_BY_NAME[keyword]), instance)
    needed = rules.get("required") or list(rules.get("properties", {}))[:1]
    pairs = ", ".join(f"{name}: ..." for name in needed)
    return f"write `{keyword}: {{{pairs}}}`" if needed and keyword in CONTROL_KEYWORDS else ""


def _explain_join(join_name: str, instance: object) -> str:
    name = instance if isinstance(instance, str) and instance.isidentifier() else "earlier"
    return f"write `{join_name}: [[], {name}]`, a list of branches; `[]` is the current value"


def explain_join_key(join_name: str, key: str) -> str:
    """Return the help for a join with its branches under a key; empty if the key is unrelated."""
    if key == "from":
        return (
            f"write `{join_name}: [[], earlier]`, where `[]` is the current value; "
            f"or write `{join_name}:` and next to it `from: [a, b]`"
        )
    if key in ("branches", "inputs", "values", "of_branches"):
        return f"`{join_name}` takes the branches directly: write `{join_name}: [[], earlier]`"
    return ""


def explain_arguments(keyword: str, params: tuple[Parameter, ...], args: object = None) -> str:
    """Return the help for arguments that are not in a mapping."""
    if not params:
        return f"it takes no arguments: write `{keyword}`"
    positional = args if isinstance(args, list) else [] if args is None else [args]
    # `conv: 8, 3` is one text in YAML.
    if isinstance(args, str) and "," in args:
        positional = [part.strip() for part in args.split(",")]
    needed = [p for p in params if isinstance(p.default, Required)] or list(params[:1])
    texts = ["..."] * len(needed)
    # With exactly the number of required arguments, their order is clear.
    if len(positional) == len(needed):
        texts = [_format_argument(v) for v in positional]
    pairs = (f"{p.name}: {text}" for p, text in zip(needed, texts, strict=True))
    return f"write `{keyword}: {{{', '.join(pairs)}}}`"


def _format_argument(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if (percentage := _PERCENTAGE.fullmatch(text)) is not None:
        # There is no percent in expressions; they divide.
        text = f"{percentage[1]} / 100"
    return text if len(text) <= 40 else "..."


def explain_call_syntax(text: str, blocks: Mapping[str, Block]) -> str:
    """Return the help for a step that is written as a call, `conv(8, 3)`; empty for others."""
    call_match = _CALL.fullmatch(text)
    keyword = call_match[1] if call_match else ""
    if call_match is None or (keyword not in blocks and keyword not in OPS_BY_NAME):
        part = call_match is None and text.endswith(")")
        return "arguments are a mapping, `word: {name: value}`, not a list in ( )" if part else ""
    params = _get_parameters(keyword, blocks)
    if keyword in JOIN_NAMES:
        return _explain_join(keyword, None)
    is_closed = call_match[2].endswith(")")
    parts = (
        [part.strip() for part in call_match[2].removesuffix(")").split(",")] if is_closed else []
    )
    assignments = [part.partition("=") for part in parts if part]
    if assignments and all(
        equals and key.strip() in {p.name for p in params} for key, equals, _ in assignments
    ):
        pairs = ", ".join(f"{key.strip()}: {value.strip()}" for key, _, value in assignments)
        return f"arguments are a mapping: write `{keyword}: {{{pairs}}}`"
    positional = parts if all(parts) and not any(equals for _, equals, _ in assignments) else []
    return f"arguments are a mapping: {explain_arguments(keyword, params, positional)}"


def explain_missing_colon(text: str, blocks: Mapping[str, Block]) -> str:
    """Return the help for a keyword without its colon, `relu as`; empty for others."""
    keyword, _, tail = text.partition(" ")
    tail = tail.strip()
    if keyword not in (*blocks, *OPS_BY_NAME, *CONTROL_KEYWORDS) or not tail:
        return ""
    key = tail.split()[0].rstrip(":")
    if key in OPTIONS:
        location = f"on the next line, below the first letter of `{keyword}`"
        return f"write `- {keyword}:`, and `{key}:` {location}"
    if key in blocks or key in OPS_BY_NAME:
        return f"each step is a separate entry: start another with `- {key}`"
    if key in {p.name for p in _get_parameters(keyword, blocks)}:
        return f"write `- {keyword}:`, and `{key}:` below it, indented further"
    return f"a `:` is missing: write `{keyword}: ...`"


def _get_parameters(keyword: str, blocks: Mapping[str, Block]) -> tuple[Parameter, ...]:
    if keyword in blocks:
        return blocks[keyword].params
    return list_parameters(OPS_BY_NAME[keyword]) if keyword in OPS_BY_NAME else ()


def explain_shape(dimensions: list[object]) -> str:
    """Return the help for an input shape that does not have three entries."""
    sizes = [n for n in dimensions if isinstance(n, int) and not isinstance(n, bool)]
    if len(dimensions) == 4:
        image_shape = (
            dimensions[1:] if len(sizes) < 4 else to_channels_first(sizes[1:]) or sizes[1:]
        )
        return f"the batch is implied: write {json.dumps(image_shape)}"
    if len(dimensions) == 2 and len(sizes) == 2:
        return f"channels come first: write [1, {sizes[0]}, {sizes[1]}] for one channel"
    return "write [channels, height, width]"


def to_channels_first(shape: "tuple[int, ...] | list[int]") -> list[int]:
    """Return [channels, height, width] for a shape that looks like channels last, or []."""
    height, width, channels = shape
    # Images have 1 or 3 channels. A shape such as [8, 8, 3] is treated as channels last, smaller
    # ones are not.
    likely = channels in (1, 3) and height > channels and min(height, width) >= 8
    return [channels, height, width] if likely else []
