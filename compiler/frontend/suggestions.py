"""How to write what was meant, where something was written in a form that the language lacks."""

import json
import re
from collections.abc import Mapping
from typing import Any

from tcc.compiler.frontend.argument_values import OPTIONS
from tcc.compiler.frontend.block_library import CONTROL, JOIN_WORDS, WORDS, Block
from tcc.compiler.ir.argument_declarations import Parameter, Required, signature
from tcc.compiler.support.diagnostics import Span

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_CALL = re.compile(r"(\w+)\((.*)", re.DOTALL)
Path = tuple[str | int, ...]


def of_type(path: Path, instance: object, rules: Mapping[str, Any], at: Span) -> str:
    """Return the help for a value of a wrong type at a path of a file."""
    word = str(path[-1]) if path else ""
    if path[:1] == ("input",) and len(path) == 2 and word in ("shape", "preprocess"):
        return "an input has a name: `input: {image: {shape: [...]}}`"
    if path == ("output",):
        return "an output has a name: `output: {logits: {}}`"
    if isinstance(instance, dict) and "items" in rules and "array" in rules["type"]:
        # In the notation that is there: brackets inside brackets, dashes among lines.
        flow = at.text[at.column - 1 : at.column] == "{"
        return "put it in brackets: [...]" if flow else "begin each entry with `- `"
    if isinstance(instance, int | float) and (help := _in_place_of_list(word, instance)):
        return help
    if isinstance(instance, float) and not abs(instance) < float("inf"):
        return "write a number; nothing here is infinite or undefined"
    return _of_step(word, instance, rules) if "object" in rules["type"] else ""


def counts(of: object) -> bool:
    """Whether what `each` goes through is a number, which is `repeat`'s to take."""
    return isinstance(of, int) and not isinstance(of, bool)


def _in_place_of_list(word: str, number: float) -> str:
    """Return the help for one number where a list stands."""
    if word in ("mean", "std") and abs(number) < float("inf"):
        text = json.dumps(number)
        return f"write [{text}] for all channels, or one number for each: [{text}, {text}, {text}]"
    if word == "of" and counts(number):
        repeated = f"`repeat: {{times: {number}, body: [...]}}`"
        return f"write `of: range({number})` with `as: i`, or {repeated}"
    return ""


def _of_step(word: str, instance: object, rules: Mapping[str, Any]) -> str:
    if word in JOIN_WORDS:
        return _joined(word, instance)
    if word in WORDS:
        return called(word, signature(WORDS[word]), instance)
    needed = rules.get("required") or list(rules.get("properties", {}))[:1]
    pairs = ", ".join(f"{name}: ..." for name in needed)
    return f"write `{word}: {{{pairs}}}`" if needed and word in CONTROL else ""


def _joined(word: str, instance: object) -> str:
    name = instance if isinstance(instance, str) and instance.isidentifier() else "earlier"
    return f"write `{word}: [[], {name}]`: a list of branches, `[]` is the current value"


def in_join(word: str, key: str) -> str:
    """Return the help for a key in a join's mapping that means its branches, empty for others."""
    if key == "from":
        return (
            f"write `{word}: [[], earlier]`, where `[]` is the current value; or `{word}:` and "
            "beside it `from: [a, b]`"
        )
    if key in ("branches", "inputs", "values", "of_branches"):
        return f"the branches are `{word}`'s own list: write `{word}: [[], earlier]`"
    return ""


def called(word: str, params: tuple[Parameter, ...], given: object = None) -> str:
    """Return the help for arguments that stand in no mapping."""
    if not params:
        return f"it takes no arguments: write `{word}`"
    values = given if isinstance(given, list) else [] if given is None else [given]
    # `conv: 8, 3` is one text to YAML.
    if isinstance(given, str) and "," in given:
        values = [part.strip() for part in given.split(",")]
    needed = [p for p in params if isinstance(p.default, Required)] or list(params[:1])
    texts = ["..."] * len(needed)
    # As many as are needed: then it is clear which is which, and they are put in.
    if len(values) == len(needed):
        texts = [_written(v) for v in values]
    pairs = (f"{p.name}: {text}" for p, text in zip(needed, texts, strict=True))
    return f"write `{word}: {{{', '.join(pairs)}}}`"


def _written(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if (share := _SHARE.fullmatch(text)) is not None:
        # The language has no percent; its expressions divide.
        text = f"{share[1]} / 100"
    return text if len(text) <= 40 else "..."


def as_call(text: str, blocks: Mapping[str, Block]) -> str:
    """Return the help for a step written as a call, `conv(8, 3)`, empty for others."""
    found = _CALL.fullmatch(text)
    word = found[1] if found else ""
    if found is None or (word not in blocks and word not in WORDS):
        part = found is None and text.endswith(")")
        return "arguments stand in a mapping, `word: {name: value}`, not in ( )" if part else ""
    params = _parameters(word, blocks)
    if word in JOIN_WORDS:
        return _joined(word, None)
    whole = found[2].endswith(")")
    parts = [part.strip() for part in found[2].removesuffix(")").split(",")] if whole else []
    named = [part.partition("=") for part in parts if part]
    if named and all(
        equals and key.strip() in {p.name for p in params} for key, equals, _ in named
    ):
        pairs = ", ".join(f"{key.strip()}: {value.strip()}" for key, _, value in named)
        return f"arguments stand in a mapping: write `{word}: {{{pairs}}}`"
    plain = parts if all(parts) and not any(equals for _, equals, _ in named) else []
    return f"arguments stand in a mapping: {called(word, params, plain)}"


def without_colon(text: str, blocks: Mapping[str, Block]) -> str:
    """Return the help for a step's word that lacks its colon, `relu as`, empty for others."""
    word, _, rest = text.partition(" ")
    rest = rest.strip()
    if word not in (*blocks, *WORDS, *CONTROL) or not rest:
        return ""
    key = rest.split()[0].rstrip(":")
    if key in OPTIONS:
        where = f"on the next line, below the first letter of `{word}`"
        return f"write `- {word}:`, and `{key}:` {where}"
    if key in blocks or key in WORDS:
        return f"one step is one entry: begin another with `- {key}`"
    if key in {p.name for p in _parameters(word, blocks)}:
        return f"write `- {word}:`, and `{key}:` below it, indented further"
    return f"a `:` is missing: write `{word}: ...`"


def _parameters(word: str, blocks: Mapping[str, Block]) -> tuple[Parameter, ...]:
    if word in blocks:
        return blocks[word].params
    return signature(WORDS[word]) if word in WORDS else ()


def of_shape(entries: list[object]) -> str:
    """Return the help for an input's shape that has not three entries."""
    sizes = [n for n in entries if isinstance(n, int) and not isinstance(n, bool)]
    if len(entries) == 4:
        last = entries[1:] if len(sizes) < 4 else channels_first(sizes[1:]) or sizes[1:]
        return f"the batch is implied: write {json.dumps(last)}"
    if len(entries) == 2 and len(sizes) == 2:
        return f"channels come first: write [1, {sizes[0]}, {sizes[1]}] for one channel"
    return "write [channels, height, width]"


def channels_first(shape: "tuple[int, ...] | list[int]") -> list[int]:
    """Return the shape that [height, width, channels] means; empty where it is not likely one."""
    height, width, channels = shape
    # A map of 3 or 1 channels is what is fed to networks as an image; a shape such as [8, 8, 3] is
    # guessed at, smaller ones are not.
    likely = channels in (1, 3) and height > channels and min(height, width) >= 8
    return [channels, height, width] if likely else []
