"""A drawing as SVG text, which needs nothing else."""

from collections.abc import Iterator
from html import escape

from tcc.compiler.draw.layout import Drawing, Frame, Point, Text, Wire
from tcc.compiler.draw.words import HEADING, WHOLE, clip

MARGIN = 24
"""Pixels around the drawing."""
TOP = 48
"""Pixels for its heading."""
ROUND = 6
"""Radius of corners."""

_DARK = ("input", "output")

STYLE = """\
text{font-family:Helvetica,Arial,'DejaVu Sans',sans-serif;font-size:11px;fill:#24292f}
.t{font-size:12px;font-weight:bold}.h{font-size:16px;font-weight:bold}
.s{font-size:10px;fill:#57606a}.m{text-anchor:middle}
rect{stroke:#8c959f;fill:#fff}
path{stroke:#6e7781;fill:none;stroke-width:1.2}path.a{fill:#6e7781;stroke:none}
.block{fill:#8c959f;fill-opacity:.1}.conv{fill:#ddf4ff;stroke:#54aeff}
.norm{fill:#fff8c5;stroke:#d4a72c}.activation{fill:#ffebe9;stroke:#ff8182}
.pool{fill:#dafbe1;stroke:#4ac26b}.join{fill:#fbefff;stroke:#c297ff}
.layout{fill:#eaeef2}.closed{fill:#f6f8fa;stroke:#57606a}
.input,.output{fill:#24292f;stroke:#24292f}.w{fill:#fff}"""


def render(drawing: Drawing, heading: str, about: str) -> str:
    """Return the text of an SVG file; `about` is what it says of itself to those who ask."""
    title = Text(MARGIN, 30, clip(heading, 96), HEADING)
    width = max(drawing.width, HEADING.width(title.text)) + 2 * MARGIN
    height = drawing.height + TOP + MARGIN
    dx = (width - drawing.width) // 2
    lines = [
        "<!-- tcc show -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">',
        f"<title>{_xml(heading)}</title>",
        *([f"<desc>{_xml(about)}</desc>"] if about else []),
        f"<style>\n{STYLE}\n</style>",
        f'<rect width="{width}" height="{height}" style="stroke:none"/>',
        _text(title, "h"),
        f'<g transform="translate({dx},{TOP})">',
        *_body(drawing),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _body(drawing: Drawing) -> Iterator[str]:
    for frame in drawing.frames:
        yield from _frame(frame)
    yield from dict.fromkeys(_path(wire) for wire in drawing.wires)
    yield from dict.fromkeys(_head(wire.points[-1]) for wire in drawing.wires if wire.arrow)
    yield from (_text(text, "s") for text in drawing.shapes)


def _frame(frame: Frame) -> Iterator[str]:
    box = frame.box
    kind = "closed" if box.is_block and not box.children else box.kind
    yield f"<g><title>{_xml(box.path)}</title>"
    yield (
        f'<rect class="{kind}" x="{frame.x}" y="{frame.y}"'
        f' width="{frame.width}" height="{frame.height}" rx="{ROUND}"/>'
    )
    for index, text in enumerate(frame.texts):
        yield _text(text, f"{'' if index else 't'}{' w' if box.kind in _DARK else ''}".strip())
    yield "</g>"


def _text(text: Text, style: str) -> str:
    classes = " ".join(filter(None, (style, "m" if text.centred else "")))
    attribute = f' class="{classes}"' if classes else ""
    return f'<text{attribute} x="{text.x}" y="{text.y}">{_xml(text.text)}</text>'


def _path(wire: Wire) -> str:
    points = [p for p, after in zip(wire.points, wire.points[1:], strict=False) if p != after]
    points.append(wire.points[-1])
    steps = [f"M{points[0][0]} {points[0][1]}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        into, out = _towards(corner, before), _towards(corner, after)
        steps.append(f"L{into[0]} {into[1]}Q{corner[0]} {corner[1]} {out[0]} {out[1]}")
    steps.append(f"L{points[-1][0]} {points[-1][1]}")
    return f'<path d="{"".join(steps)}"/>'


def _towards(corner: Point, other: Point) -> Point:
    """Return the point where a rounded corner begins."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    by = min(ROUND, (abs(dx) + abs(dy)) // 2)
    return corner[0] + _sign(dx) * by, corner[1] + _sign(dy) * by


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


def _head(at: Point) -> str:
    return f'<path class="a" d="M{at[0]} {at[1]}l-3 -6h6z"/>'


def _xml(text: str) -> str:
    return escape(clip(text, WHOLE))
