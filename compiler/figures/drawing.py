"""A drawing, and how what is laid out along a flow and across it becomes one in its direction.

Layout knows two axes: along the flow, and across it. Down, the flow is y and across it is x; to
the right, the other way round, and texts, which lie always, take their width along the flow.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from tcc.compiler.figures import Direction
from tcc.compiler.figures.box_tree import Box

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


PAD = 12
"""Pixels between a block's border and what it holds, or a box's and its text."""
LINE = 16
"""Height of a line of text."""
STUB = 18
"""Height of the space below a row for shapes."""
NARROW = 36
"""Half the width of the narrowest box."""

Point = tuple[int, int]
Shapes = Mapping[str, str]
"""What is said of each value on its edges."""


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text; `x` is its middle if `centred`, else its left end, `y` its base line."""

    x: int
    y: int
    text: str
    font: Font
    centred: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """A box's rectangle and its texts; `inside` is the index of the frame that holds it."""

    box: Box
    inside: int
    x: int
    y: int
    width: int
    height: int
    texts: tuple[TextLine, ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """A line through points in the frame `inside`; an `arrow` has a head at its end."""

    inside: int
    points: tuple[Point, ...]
    arrow: bool = True


@dataclass
class Drawing:
    """Everything that is drawn, frames before those that they hold."""

    width: int = 0
    height: int = 0
    frames: list[Frame] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    shapes: list[TextLine] = field(default_factory=list)


@dataclass(frozen=True)
class DrawingStyle:
    """What is said of values, and the direction in which they flow."""

    shapes: Shapes
    direction: Direction = Direction.DOWN

    @property
    def down(self) -> bool:
        """Whether values flow down."""
        match self.direction:
            case Direction.DOWN:
                return True
            case Direction.RIGHT:
                return False
            case _:
                assert_never(self.direction)

    @property
    def inset(self) -> int:
        """The space along the flow before lines may turn in a block; down, that is its header's."""
        return 0 if self.down else PAD

    def label(self, value: str) -> int:
        """Return the space that a value's shape takes across the flow, beside its line."""
        return SHAPE.width(self.shapes[value]) + 8 if self.down else LINE

    def stub(self, value: str) -> int:
        """Return the space that a value's shape takes along the flow, behind a box."""
        return STUB if self.down else SHAPE.width(self.shapes[value]) + 10

    def closed(self, header: Sequence[str]) -> tuple[int, int]:
        """Return half of what a box of texts takes across the flow, and all it takes along."""
        width, height = max(2 * NARROW, _widest(header) + 2 * PAD), _height(header)
        return ((width + 1) // 2, height) if self.down else ((height + 1) // 2, width)

    def opened(self, header: Sequence[str], left: int, right: int) -> tuple[int, int, int, int]:
        """Return what a block takes to both sides of its axis, and how its header moves the inside.

        `left` and `right` are what it holds; the last two numbers are the header's extent along
        the flow, before what it holds, and the least extent of that.
        """
        left, right, widest = left + PAD, right + PAD, _widest(header) + 2 * PAD
        if not self.down:
            return left + _height(header) - PAD // 2, right, 0, widest
        spare = max(0, widest - left - right)
        return left + spare // 2, right + spare - spare // 2, _height(header), 0

    def frame(
        self, box: Box, inside: int, corner: Point, size: tuple[int, int], header: Sequence[str]
    ) -> Frame:
        """Return the frame of a box whose corner and size are given across and along the flow."""
        (x, y), (width, height) = self.point(corner), self.point(size)
        spare = 0 if box.children else (height - _height(header)) // 2
        texts = tuple(
            TextLine(x + PAD, y + LINE * n + 16, text, font)
            if box.children
            else TextLine(x + width // 2, y + spare + LINE * n + 16, text, font, centred=True)
            for n, (text, font) in enumerate(fonts(header))
        )
        return Frame(box, inside, x, y, width, height, texts)

    def shape(self, value: str, at: Point) -> TextLine:
        """Return the text beside a line that leaves a box at a point."""
        x, y = self.point(at)
        return TextLine(x + 5, y + 12, self.shapes[value], SHAPE)

    def point(self, at: Point) -> Point:
        """Return a point that is given across and along the flow as x and y."""
        return at if self.down else (at[1], at[0])


def header_of(box: Box) -> Iterator[str]:
    """Yield the lines that a box bears."""
    turns = f" \u00d7 {box.turns}" if box.turns > 1 else ""
    yield clip(box.name, 48) + turns
    yield from (clip(text) for text in box.details)
    if box.is_block:
        cost = [counted(box.params, "params")] * bool(box.params)
        cost += [rounded(box.macs, "MACs")] * bool(box.macs)
        if cost:
            yield ", ".join(cost) + (" in all" if box.turns > 1 else "")
        if box.turns > 1 and box.children:
            yield "the last one is drawn"


def fonts(header: Sequence[str]) -> list[tuple[str, Font]]:
    """Return the lines of a box with their fonts."""
    return [(text, DETAIL if index else TITLE) for index, text in enumerate(header)]


def _widest(header: Sequence[str]) -> int:
    return max(font.width(text) for text, font in fonts(header))


def _height(header: Sequence[str]) -> int:
    return LINE * len(header) + 8
