"""Drawings, and the mapping from layout coordinates to pixels for both directions.

The layout has two axes: along the flow, and across it. With flow down, these are y and x; with flow
to the right, x and y. Texts are always horizontal.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from tcc.compiler.figures import Direction
from tcc.compiler.figures.box_tree import Box

MAX_TEXT_LENGTH = 56
"""Maximum characters of a text; tooltips have the full text."""
MAX_TOOLTIP_LENGTH = 2000
"""Maximum characters of a tooltip."""

_WIDE = frozenset("mwMW@%&")
# Upper bounds of character widths in em, for any usual sans-serif font: the viewer's font is
# unknown.
_EM = {"narrow": 0.62, "bold": 0.7, "wide": 1.0, "full": 1.4}


@dataclass(frozen=True, slots=True)
class Font:
    """A size in pixels, and a weight."""

    size: int
    bold: bool = False

    def measure_width(self, text: str) -> int:
        """Return an upper bound of a text's width in pixels, in any usual sans-serif font."""
        return round(self.size * sum(self._get_em_width(character) for character in text)) + 1

    def _get_em_width(self, character: str) -> float:
        if character in _WIDE:
            return _EM["wide"]
        if ord(character) < 0x250:
            return _EM["bold"] if self.bold else _EM["narrow"]
        return _EM["full"]


TITLE = Font(12, bold=True)
DETAIL = Font(11)
SHAPE = Font(10)
HEADING = Font(16, bold=True)


def normalize_text(text: str) -> str:
    """Return a text in one line, without characters that XML forbids or that control terminals."""
    flat = " ".join(text.split())
    # Category C of Unicode: control characters, and those that change the direction of text.
    return "".join("\ufffd" if unicodedata.category(c)[0] == "C" else c for c in flat)


def clip_text(text: str, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Return a normalized text of at most `max_length` characters, with an ellipsis if cut."""
    cleaned = normalize_text(text)
    return cleaned if len(cleaned) <= max_length else cleaned[: max_length - 1] + "…"


def format_count(number: int, unit: str) -> str:
    """Return a number with thousands separators and its unit: `9,408 params`."""
    return f"{number:,} {unit}"


def format_rounded(number: int, unit: str) -> str:
    """Return a number to four digits with its unit: `118 M MACs`."""
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= factor:
            return f"{number / factor:.4g} {letter} {unit}"
    return f"{number} {unit}"


PAD = 12
"""Padding in pixels between a border and the content or text."""
LINE = 16
"""Height of a line of text."""
STUB = 18
"""Height of the space below a row for shapes."""
NARROW = 36
"""Half of the minimum width of a box."""

Point = tuple[int, int]
Shapes = Mapping[str, str]
"""Edge label of each value."""


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text; `x` is its centre if `centred`, else its left end; `y` is its baseline."""

    x: int
    y: int
    text: str
    font: Font
    centred: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """A box's rectangle and its texts; `parent` is the index of the enclosing frame."""

    box: Box
    parent: int
    x: int
    y: int
    width: int
    height: int
    texts: tuple[TextLine, ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """A polyline in the frame `parent`, with an arrow head at its end if `arrow`."""

    parent: int
    points: tuple[Point, ...]
    arrow: bool = True


@dataclass
class Drawing:
    """All elements of a drawing; a frame comes before the frames in it."""

    width: int = 0
    height: int = 0
    frames: list[Frame] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    shapes: list[TextLine] = field(default_factory=list)


@dataclass(frozen=True)
class DrawingStyle:
    """Edge labels and direction of flow."""

    shapes: Shapes
    direction: Direction = Direction.DOWN

    @property
    def is_vertical(self) -> bool:
        """Whether the flow is down."""
        match self.direction:
            case Direction.DOWN:
                return True
            case Direction.RIGHT:
                return False
            case _:
                assert_never(self.direction)

    @property
    def inset(self) -> int:
        """The space along the flow before the first line in a block; 0 below a header."""
        return 0 if self.is_vertical else PAD

    def measure_label(self, value: str) -> int:
        """Return the size of a value's shape label across the flow."""
        return SHAPE.measure_width(self.shapes[value]) + 8 if self.is_vertical else LINE

    def measure_stub(self, value: str) -> int:
        """Return the size of a value's shape label along the flow."""
        return STUB if self.is_vertical else SHAPE.measure_width(self.shapes[value]) + 10

    def measure_closed_box(self, header: Sequence[str]) -> tuple[int, int]:
        """Return half of a closed box's size across the flow, and its size along the flow."""
        width, height = max(2 * NARROW, _measure_width(header) + 2 * PAD), _measure_height(header)
        return ((width + 1) // 2, height) if self.is_vertical else ((height + 1) // 2, width)

    def measure_open_box(
        self, header: Sequence[str], left_extent: int, right_extent: int
    ) -> tuple[int, int, int, int]:
        """Return an open box's extents on both sides, its header's length, and a minimum length.

        `left_extent` and `right_extent` are the extents of its content. The last two results are
        the header's size along the flow, before the content, and the content's minimum length.
        """
        left_extent, right_extent, widest = (
            left_extent + PAD,
            right_extent + PAD,
            _measure_width(header) + 2 * PAD,
        )
        if not self.is_vertical:
            return left_extent + _measure_height(header) - PAD // 2, right_extent, 0, widest
        spare = max(0, widest - left_extent - right_extent)
        return (
            left_extent + spare // 2,
            right_extent + spare - spare // 2,
            _measure_height(header),
            0,
        )

    def create_frame(
        self, box: Box, parent: int, corner: Point, size: tuple[int, int], header: Sequence[str]
    ) -> Frame:
        """Return the frame of a box from its corner and size, across and along the flow."""
        (x, y), (width, height) = self.to_point(corner), self.to_point(size)
        spare = 0 if box.children else (height - _measure_height(header)) // 2
        texts = tuple(
            TextLine(x + PAD, y + LINE * n + 16, text, font)
            if box.children
            else TextLine(x + width // 2, y + spare + LINE * n + 16, text, font, centred=True)
            for n, (text, font) in enumerate(assign_fonts(header))
        )
        return Frame(box, parent, x, y, width, height, texts)

    def create_shape_text(self, value: str, at: Point) -> TextLine:
        """Return the shape label of a line that leaves a box at a point."""
        x, y = self.to_point(at)
        return TextLine(x + 5, y + 12, self.shapes[value], SHAPE)

    def to_point(self, at: Point) -> Point:
        """Return a point (across, along the flow) as (x, y)."""
        return at if self.is_vertical else (at[1], at[0])


def build_header(box: Box) -> Iterator[str]:
    """Yield the text lines of a box."""
    repeat_suffix = f" \u00d7 {box.repeats}" if box.repeats > 1 else ""
    yield clip_text(box.name, 48) + repeat_suffix
    yield from (clip_text(text) for text in box.details)
    if box.is_block:
        cost = [format_count(box.params, "params")] * bool(box.params)
        cost += [format_rounded(box.macs, "MACs")] * bool(box.macs)
        if cost:
            yield ", ".join(cost) + (" in total" if box.repeats > 1 else "")
        if box.repeats > 1 and box.children:
            yield "shown: the last one"


def assign_fonts(header: Sequence[str]) -> list[tuple[str, Font]]:
    """Return the lines of a box with their fonts."""
    return [(text, DETAIL if index else TITLE) for index, text in enumerate(header)]


def _measure_width(header: Sequence[str]) -> int:
    return max(font.measure_width(text) for text, font in assign_fonts(header))


def _measure_height(header: Sequence[str]) -> int:
    return LINE * len(header) + 8
