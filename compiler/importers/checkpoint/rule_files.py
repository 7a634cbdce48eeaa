r"""Rule files: which module of a checkpoint becomes which layer.

    rules:
      - {from: layer1.*.conv1, to: "stage_1/block_{1+1}/conv_1"}
      - {from: fc, to: linear}
      - {ignore: aux.**}

A pattern is matched against a module's name, one dotted part at a time. `*` matches any text in a
part, at most once per part. `**` matches one or more parts, at most once per pattern. `{1}` is
the text of the first star. `{1+1}` and `{1-1}` add to or subtract from that number, because many
projects count from 0 and paths here count from 1. The first rule that matches a module decides.
Modules without a rule are matched by name or order. YAML or JSON.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.frontend.yaml import Mapping, Scalar, Tree, parse
from tcc.compiler.frontend.yaml import Sequence as List
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import (
    Span,
    fail,
    find_nearest_name,
    make_file_span,
)

PLACEHOLDER = re.compile(r"\{([0-9]{1,3})([+-][0-9]{1,6})?\}")
RULE_KEYS = ("from", "to", "ignore")
RULE_HELP = "write `{from: pattern, to: path}` or `{ignore: pattern}`"


@dataclass(frozen=True, slots=True)
class MatchRule:
    """Modules that match `pattern` become the layer `to`; `to` is None for ignored modules."""

    pattern: str
    to: str | None
    at: Span
    """Source span of the target, or of the pattern if modules are ignored."""


def read_rules(path: Path) -> tuple[MatchRule, ...]:
    """Return the rules of a file.

    Raises:
        UserError: It cannot be read or is not YAML (E01xx), or it is not a list of rules (E0513).
    """
    try:
        with regular_files.open_file(path) as file:
            # One byte more than allowed, so that a file that is too large is detected.
            text = file.read((1 << 20) + 1)
    except OSError as error:
        message = "cannot read the rule file"
        label = error.strerror or ""
        raise fail("E0513", message, make_file_span(str(path)), label=label) from None
    tree = parse(text, str(path))
    match tree:
        case Mapping(keys=("rules",), items=((_, List(items=items)),)):
            return tuple(map(_parse_rule, items))
    raise fail("E0513", "a rule file must contain `rules:` with a list", tree.span, help=RULE_HELP)


def match_pattern(pattern: str, name: str) -> tuple[str, ...] | None:
    """Return the text that each star of a pattern matches in a name; None if it does not match."""
    parts, names = pattern.split("."), name.split(".")
    if "**" in parts:
        index = parts.index("**")
        extra = len(names) - len(parts) + 1
        if extra < 1:
            return None
        names[index : index + extra] = [".".join(names[index : index + extra])]
    if len(parts) != len(names):
        return None
    captures = [_match_part(part, text) for part, text in zip(parts, names, strict=True)]
    return None if None in captures else tuple(text for texts in captures for text in texts or ())


def _match_part(part: str, text: str) -> tuple[str, ...] | None:
    prefix, star, suffix = part.replace("**", "*").partition("*")
    if not star:
        return () if part == text else None
    is_long_enough = len(text) >= len(prefix) + len(suffix)
    if is_long_enough and text.startswith(prefix) and text.endswith(suffix):
        return (text[len(prefix) : len(text) - len(suffix)],)
    return None


def format_target(rule: MatchRule, captured: Sequence[str]) -> str:
    """Return the layer path that a rule gives a module.

    Raises:
        UserError: A placeholder has no star, or adds to text that is not a number (E0513).
    """

    def fill(placeholder: re.Match[str]) -> str:
        number, increment = int(placeholder[1]), placeholder[2]
        if not 1 <= number <= len(captured):
            message = f"{placeholder[0]} has no matching star in the pattern"
            label = f"number of stars in `{rule.pattern}`: {len(captured)}"
            raise fail("E0513", message, rule.at, label=label)
        text = captured[number - 1]
        if not increment:
            return text
        if not re.fullmatch(r"[0-9]{1,9}", text):
            message = f"{placeholder[0]} needs a star that matches a number"
            raise fail("E0513", message, rule.at, label=f"the star matched `{text}`")
        return str(int(text) + int(increment))

    return PLACEHOLDER.sub(fill, rule.to or "")


def _parse_rule(tree: Tree) -> MatchRule:
    match tree:
        case Mapping(keys=("from", "to") | ("to", "from")):
            to = _get_text(tree, "to")
            return MatchRule(_parse_pattern(_get_text(tree, "from")), str(to.value), to.span)
        case Mapping(keys=("ignore",)):
            ignored = _get_text(tree, "ignore")
            return MatchRule(_parse_pattern(ignored), None, ignored.span)
        case Mapping(items=items):
            for key, _ in items:
                if key.value not in RULE_KEYS:
                    suggestion = find_nearest_name(str(key.value), RULE_KEYS)
                    help = f"did you mean `{suggestion}`?" if suggestion else RULE_HELP
                    raise fail("E0513", f"a rule has no key `{key.value}`", key.span, help=help)
    raise fail("E0513", "not a valid rule", tree.span, help=RULE_HELP)


def _get_text(tree: Mapping, key: str) -> Scalar:
    match tree.get(key):
        case Scalar(value=str() | int()) as scalar:
            return scalar
    key_node = tree.get_key(key)
    raise fail(
        "E0513", f"`{key}` needs a name as its value", key_node.span if key_node else tree.span
    )


def _parse_pattern(scalar: Scalar) -> str:
    pattern = str(scalar.value)
    parts = pattern.split(".")
    if parts.count("**") > 1 or any(p.count("*") > 1 and p != "**" for p in parts):
        raise fail(
            "E0513",
            "a pattern can have one `*` per part and one `**` in total",
            scalar.span,
            help="split it into several rules",
        )
    return pattern
