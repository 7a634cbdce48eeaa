"""How a scalar is written: in quotes only where it needs them, its lines kept."""

import json
import re

from tcc.compiler.frontend.formatter.layout import LayoutLeaf
from tcc.compiler.frontend.yaml.reader import resolve

# Narrower than YAML's plain scalars: what no version of YAML and no eye takes for something else.
_ANYWHERE = re.compile(r"[A-Za-z_](?:[\w./+*%()=<>!?'\"$@^~;|&-]| (?=[^ #]))*")
_IN_BLOCKS = re.compile(r"[A-Za-z_](?:[\w./+*%()=<>!?'\"$@^~;|&,\[\]{}-]| (?=[^ #]))*")
# Words that YAML 1.1 reads as true or false: other tools still read specs by it.
_YAML_1_1 = re.compile("y|n|yes|no|on|off", re.IGNORECASE)
_SPECIAL = re.compile("[\x7f-\xa0\u2028\u2029\ufeff]")
_HEADER = re.compile(r"([|>])([-+0-9]*)[^\r\n]*(?:\r\n|\r|\n)?")
_BREAK = re.compile(r"\r\n|\r|\n")


def on_one_line(leaf: LayoutLeaf, *, block: bool = False) -> str:
    """Return a scalar as one line; `block` where no bracket surrounds it."""
    if leaf.style == "*":
        return leaf.raw
    if leaf.style is None and not _BREAK.search(leaf.raw):
        text = leaf.raw
    else:
        text = _quoted(leaf.value, block=block)
    return f"{leaf.mark} {text}".strip()


def lines(leaf: LayoutLeaf) -> list[str]:
    """Return a scalar's lines outside of brackets; all but the first are yet to be indented."""
    if leaf.style in ("|", ">"):
        return _block(leaf)
    raw = _BREAK.split(leaf.raw)
    if len(raw) == 1:
        return [on_one_line(leaf, block=True)]
    first = f"{leaf.mark} {raw[0].strip()}".strip()
    keep = leaf.style == '"'
    return [first, *(line.lstrip(" \t") if keep else line.strip(" \t") for line in raw[1:])]


def _quoted(value: str, *, block: bool) -> str:
    plain = (_IN_BLOCKS if block else _ANYWHERE).fullmatch(value)
    if plain and resolve(value) == value and not _YAML_1_1.fullmatch(value):
        return value
    # Single quotes where they spare escapes.
    if ('"' in value or "\\" in value) and value.isprintable() and "'" not in value:
        return f"'{value}'"
    text = json.dumps(value, ensure_ascii=False)
    # JSON leaves these as they are; they are line breaks to YAML, or not to be seen.
    return _SPECIAL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _block(leaf: LayoutLeaf) -> list[str]:
    """Return the lines of a `|` or `>` scalar, without the indentation they have in the text.

    One that is empty, or keeps empty lines at its end, goes into quotes.
    """
    header = _HEADER.match(leaf.raw)
    breaks = len(leaf.value) - len(leaf.value.rstrip("\n"))
    if header is None or breaks > 1 or not leaf.value.strip(" \n"):
        return [f"{leaf.mark} {_quoted(leaf.value, block=True)}".strip()]
    rows = _BREAK.split(leaf.raw[header.end() :])
    digits = header[2].strip("+-")
    start = next(row for row in rows if row.strip(" "))
    indent = leaf.column + int(digits) if digits else len(start) - len(start.lstrip(" "))
    # The lines as they are: indentation within a block is part of its text.
    rows = [row[indent:] for row in rows]
    # Empty lines at the end say nothing, as a block that keeps them was put into quotes above.
    while not rows[-1]:
        rows.pop()
    # A first line that begins with spaces would itself be taken for the indentation.
    explicit = "2" if start[indent:].startswith(" ") else ""
    chomp = "" if breaks else "-"
    return [f"{leaf.mark} {header[1]}{explicit}{chomp}".strip(), *rows]
