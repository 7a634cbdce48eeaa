"""Parse decimal numbers in untrusted files, in one strict spelling.

Python's `float` and `int` also accept underscores, spaces, digits of other scripts, `nan` and
`inf`. A file with those was not written by the program that it names, and a coordinate of `1_0`
more likely means 1.0 than 10.
"""

import re
from math import isfinite

MAX_CHARS = 64
"""Characters that a number may have; more add no precision and cost time."""
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[-+]?[0-9]+")


def parse_float(text: str) -> float:
    """Return a decimal number: a sign, digits with at most one point, and an exponent.

    Raises:
        ValueError: The text is not a number, is longer than `MAX_CHARS`, or overflows a double.
    """
    if len(text) <= MAX_CHARS and _NUMBER.fullmatch(text):
        number = float(text)
        if isfinite(number):
            return number
    raise _make_error(text, "a decimal number such as 12.5")


def parse_int(text: str) -> int:
    """Return an integer: a sign and digits.

    Raises:
        ValueError: The text is not an integer, or is longer than `MAX_CHARS`.
    """
    if len(text) <= MAX_CHARS and _INTEGER.fullmatch(text):
        return int(text)
    raise _make_error(text, "a whole number such as 12")


def _make_error(text: str, kind: str) -> ValueError:
    clipped_text = text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}..."
    return ValueError(f"`{clipped_text}` is not {kind}")
