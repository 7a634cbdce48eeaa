"""Texts of a drawing: what may stand in XML, and how wide it may become in any usual font."""

import unicodedata
from dataclasses import dataclass

LONGEST = 56
"""Characters of a text before it is cut short; tooltips hold it whole."""
WHOLE = 2000
"""Characters of a tooltip before even that is cut short."""

_WIDE = frozenset("mwMW@%&")
# Upper bounds of widths in em, by which no usual sans-serif font overflows a box: which one a
# viewer has is not known.
_EM = {"narrow": 0.62, "bold": 0.7, "wide": 1.0, "full": 1.4}


@dataclass(frozen=True, slots=True)
class Font:
    """A size in pixels, and a weight."""

    size: int
    bold: bool = False

    def width(self, text: str) -> int:
        """Return pixels that a text does not exceed in a sans-serif font."""
        return round(self.size * sum(self._em(character) for character in text)) + 1

    def _em(self, character: str) -> float:
        if character in _WIDE:
            return _EM["wide"]
        if ord(character) < 0x250:
            return _EM["bold"] if self.bold else _EM["narrow"]
        return _EM["full"]


TITLE = Font(12, bold=True)
DETAIL = Font(11)
SHAPE = Font(10)
HEADING = Font(16, bold=True)


def clean(text: str) -> str:
    """Return a text in one line, without characters that XML forbids or that steer terminals."""
    flat = " ".join(text.split())
    # Category C of Unicode: control characters, and those that change the direction of text.
    return "".join("\ufffd" if unicodedata.category(c)[0] == "C" else c for c in flat)


def clip(text: str, most: int = LONGEST) -> str:
    """Return a cleaned text of at most so many characters, the last one an ellipsis if cut."""
    whole = clean(text)
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def counted(number: int, unit: str) -> str:
    """Return a number with thousands apart and its unit: `9,408 params`."""
    return f"{number:,} {unit}"


def rounded(number: int, unit: str) -> str:
    """Return a large number to four figures with its unit: `118.0 M MACs`."""
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= factor:
            return f"{number / factor:.4g} {letter} {unit}"
    return f"{number} {unit}"
