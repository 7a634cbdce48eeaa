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
    nearest,
    whole_file,
)

HOLE = re.compile(r"\{([0-9]{1,3})([+-][0-9]{1,6})?\}")
KEYS = ("from", "to", "ignore")
FORM = "write `{from: pattern, to: path}` or `{ignore: pattern}`"


@dataclass(frozen=True, slots=True)
class MatchRule:
    """What fits `pattern` is the layer `to`, or no layer at all."""

    pattern: str
    to: str | None
    at: Span
    """The place of the target, or of the pattern of what is ignored."""


def read(path: Path) -> tuple[MatchRule, ...]:
    """Return the rules of a file.

    Raises:
        UserError: It cannot be read or is not YAML (E01xx), or not a list of rules (E0513).
    """
    try:
        with regular_files.opened(path) as file:
            # One byte more than is allowed, so that a file that is too large is seen to be.
            text = file.read((1 << 20) + 1)
    except OSError as error:
        message = "cannot read the rule file"
        raise fail("E0513", message, whole_file(str(path)), label=error.strerror or "") from None
    tree = parse(text, str(path))
    match tree:
        case Mapping(keys=("rules",), items=((_, List(items=items)),)):
            return tuple(map(_rule, items))
    raise fail("E0513", "a rule file holds `rules:` and a list", tree.span, help=FORM)


def capture(pattern: str, name: str) -> tuple[str, ...] | None:
    """Return what the stars of a pattern stand for in a name; None where it does not fit."""
    parts, names = pattern.split("."), name.split(".")
    if "**" in parts:
        place = parts.index("**")
        extra = len(names) - len(parts) + 1
        if extra < 1:
            return None
        names[place : place + extra] = [".".join(names[place : place + extra])]
    if len(parts) != len(names):
        return None
    found = [_part(part, text) for part, text in zip(parts, names, strict=True)]
    return None if None in found else tuple(text for texts in found for text in texts or ())


def _part(part: str, text: str) -> tuple[str, ...] | None:
    before, star, after = part.replace("**", "*").partition("*")
    if not star:
        return () if part == text else None
    fits = len(text) >= len(before) + len(after)
    if fits and text.startswith(before) and text.endswith(after):
        return (text[len(before) : len(text) - len(after)],)
    return None


def target(rule: MatchRule, captured: Sequence[str]) -> str:
    """Return the path that a rule gives a module.

    Raises:
        UserError: A hole has no star, or adds to what is no number (E0513).
    """

    def fill(hole: re.Match[str]) -> str:
        number, add = int(hole[1]), hole[2]
        if not 1 <= number <= len(captured):
            message = f"{hole[0]} has no star to stand for"
            label = f"`{rule.pattern}` has {len(captured)}"
            raise fail("E0513", message, rule.at, label=label)
        text = captured[number - 1]
        if not add:
            return text
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise fail("E0513", f"{hole[0]} needs a number", rule.at, label=f"the star is `{text}`")
        return str(int(text) + int(add))

    return HOLE.sub(fill, rule.to or "")


def _rule(tree: Tree) -> MatchRule:
    match tree:
        case Mapping(keys=("from", "to") | ("to", "from")):
            to = _text(tree, "to")
            return MatchRule(_pattern(_text(tree, "from")), str(to.value), to.span)
        case Mapping(keys=("ignore",)):
            ignored = _text(tree, "ignore")
            return MatchRule(_pattern(ignored), None, ignored.span)
        case Mapping(items=items):
            for key, _ in items:
                if key.value not in KEYS:
                    close = nearest(str(key.value), KEYS)
                    help = f"did you mean `{close}`?" if close else FORM
                    raise fail("E0513", f"a rule has no key `{key.value}`", key.span, help=help)
    raise fail("E0513", "this is not a rule", tree.span, help=FORM)


def _text(tree: Mapping, key: str) -> Scalar:
    match tree.get(key):
        case Scalar(value=str() | int()) as found:
            return found
    place = tree.key(key)
    raise fail("E0513", f"`{key}` takes a name", place.span if place else tree.span)


def _pattern(written: Scalar) -> str:
    pattern = str(written.value)
    parts = pattern.split(".")
    if parts.count("**") > 1 or any(p.count("*") > 1 and p != "**" for p in parts):
        raise fail(
            "E0513",
            "a pattern has one `*` in a part and one `**` at most",
            written.span,
            help="use several rules",
        )
    return pattern
