"""A scene as SVG text: shapes of plain colours, without styles."""

from collections.abc import Iterator
from html import escape

from tcc.compiler.figures.scene import Colour, Label, Rect, Scene

FONTS = "Helvetica,Arial,'DejaVu Sans',sans-serif"


def render(scene: Scene, heading: str) -> str:
    """Return the text of an SVG file; lines with corners have them sharp."""
    width, height = scene.width, scene.height
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="{FONTS}">',
        f"<title>{escape(heading)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *map(_rect, scene.rects),
        *_lines(scene),
        *map(_label, scene.labels),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _rect(rect: Rect) -> str:
    place = f'x="{rect.x}" y="{rect.y}" width="{rect.width}" height="{rect.height}"'
    paint = f'fill="{_code(rect.fill)}" stroke="{_code(rect.stroke)}"'
    return f'<rect {place} rx="{rect.radius}" {paint}/>'


def _lines(scene: Scene) -> Iterator[str]:
    paint = f'stroke="{_code(scene.line)}" stroke-width="1.2"'
    for line in scene.lines:
        points = " ".join(f"{x},{y}" for x, y in line)
        yield f'<polyline points="{points}" fill="none" {paint}/>'
    for head in scene.heads:
        points = " ".join(f"{x},{y}" for x, y in head)
        yield f'<polygon points="{points}" fill="{_code(scene.line)}"/>'


def _label(label: Label) -> str:
    text, font = label.text, label.text.font
    weight = ' font-weight="bold"' if font.bold else ""
    anchor = ' text-anchor="middle"' if text.centred else ""
    place = f'x="{text.x}" y="{text.y}" font-size="{font.size}" fill="{_code(label.colour)}"'
    return f"<text {place}{weight}{anchor}>{escape(text.text)}</text>"


def _code(colour: Colour) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
