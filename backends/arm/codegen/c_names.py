"""C identifiers, strings and comments from a user's words."""

import re
from collections.abc import Sequence

MAX_NAME = 64


def identifier(name: str) -> str:
    """Return a C identifier like a model's name, which begins all that is exported."""
    clean = re.sub(r"\W", "_", name, flags=re.ASCII)[:MAX_NAME]
    return clean if re.match(r"[A-Za-z]", clean) else f"net_{clean.lstrip('_')}"


def literal(text: str) -> str:
    """Return text as a C string literal, in UTF-8, with nothing left to interpret."""
    # Three octal digits end an escape for certain, and `?` may begin a trigraph.
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    escaped = (chr(b) if b in plain else f"\\{b:03o}" for b in text.encode())
    return f'"{"".join(escaped)}"'


def comment(text: str) -> str:
    """Return text as it may stand in a C comment."""
    # What could end a comment, or begin another, is left out whatever the user's word.
    return re.sub(r"[^\w ,.:;/+()=-]", "_", text[:200], flags=re.ASCII).replace("*/", "* /")


def floats(values: Sequence[float], count: int) -> str:
    """Return the float32 of `count` values, exactly, as C; a single value stands for all."""
    from numpy import float32

    # Hexadecimal digits are not rounded by any compiler.
    exact = [float(float32(v)).hex() for v in values]
    return ", ".join(f"{v}f" for v in (exact * count if len(exact) == 1 else exact))
