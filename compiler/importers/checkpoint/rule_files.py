r"""Rule files, which say which foreign module is which layer.

    rules:
      - {from: layer1.*.conv1, to: "stage_1/block_{1+1}/conv_1"}
      - {from: fc, to: linear}
      - {ignore: aux.**}

A pattern is matched against a module's name, part by dotted part: `*` stands for any text in a
part, at most once there, and `**` for one part or more, at most once in a pattern. `{1}` is what
the first star stood for; `{1+1}` and `{1-1}` are that number plus or minus another, since
projects count from 0 where paths here count from 1. The first rule that fits a module decides;
modules that no rule names are matched by name or order. YAML or JSON.
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
    """What fits `pattern` is the layer `to`, or no layer at all."""

    pattern: str
    to: str | None
    at: Span
    """The place of the target, or of the pattern of what is ignored."""


def read_rules(path: Path) -> tuple[MatchRule, ...]:
    """Return the rules of a file.

    Raises:
        UserError: It cannot be read or is not YAML (E01xx), or not a list of rules (E0513).
    """
    try:
        with regular_files.open_file(path) as file:
            # One byte more than is allowed, so that a file that is too large is seen to be.
            text = file.read((1 << 20) + 1)
    except OSError as error:
        message = "cannot read the rule file"
        raise fail(
            "E0513", message, make_file_span(str(path)), label=error.strerror or ""
        ) from None
    tree = parse(text, str(path))
    match tree:
        case Mapping(keys=("rules",), items=((_, List(items=items)),)):
            return tuple(map(_parse_rule, items))
    raise fail("E0513", "a rule file holds `rules:` and a list", tree.span, help=RULE_HELP)


def match_pattern(pattern: str, name: str) -> tuple[str, ...] | None:
    """Return what the stars of a pattern stand for in a name; None where it does not fit."""
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
    """Return the path that a rule gives a module.

    Raises:
        UserError: A hole has no star, or adds to what is no number (E0513).
    """

    def fill(placeholder: re.Match[str]) -> str:
        number, increment = int(placeholder[1]), placeholder[2]
        if not 1 <= number <= len(captured):
            message = f"{placeholder[0]} has no star to stand for"
            label = f"`{rule.pattern}` has {len(captured)}"
            raise fail("E0513", message, rule.at, label=label)
        text = captured[number - 1]
        if not increment:
            return text
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise fail(
                "E0513", f"{placeholder[0]} needs a number", rule.at, label=f"the star is `{text}`"
            )
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
    raise fail("E0513", "this is not a rule", tree.span, help=RULE_HELP)


def _get_text(tree: Mapping, key: str) -> Scalar:
    match tree.get(key):
        case Scalar(value=str() | int()) as scalar:
            return scalar
    key_node = tree.get_key(key)
    raise fail("E0513", f"`{key}` takes a name", key_node.span if key_node else tree.span)


def _parse_pattern(scalar: Scalar) -> str:
    pattern = str(scalar.value)
    parts = pattern.split(".")
    if parts.count("**") > 1 or any(p.count("*") > 1 and p != "**" for p in parts):
        raise fail(
            "E0513",
            "a pattern has one `*` in a part and one `**` at most",
            scalar.span,
            help="use several rules",
        )
    return pattern
