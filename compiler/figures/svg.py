"""A drawing as SVG text, which needs nothing else."""

from collections.abc import Iterator
from html import escape

from tcc.compiler.figures.drawing import WHOLE, Drawing, Frame, Point, TextLine, Wire, clip
from tcc.compiler.figures.page_layout import ROUND, SIZE, LegendEntry, Sheet, head, path
from tcc.compiler.figures.scene import (
    DARK,
    FAINT,
    LINE,
    PAINTS,
    TEXT,
    WHITE,
    Colour,
    Label,
    Paint,
    Rect,
    Scene,
)


def render_sheet(sheet: Sheet, heading: str, about: str) -> str:
    """Return the text of an SVG file; `about` is what it says of itself to those who ask."""
    width, height = sheet.width, sheet.height
    lines = [
        "<!-- tcc show -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">',
        f"<title>{_xml(heading)}</title>",
        *([f"<desc>{_xml(about)}</desc>"] if about else []),
        f"<style>\n{_style()}\n</style>",
        f'<rect width="{width}" height="{height}" style="stroke:none"/>',
        _text(sheet.title, "h"),
        f'<g transform="translate({sheet.left},{sheet.top})">',
        *_body(sheet.drawing),
        "</g>",
        *(line for entry in sheet.legend for line in _entry(entry)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _style() -> str:
    """Return the style sheet; its lines are short enough to read."""
    kinds = {kind: _rules(paint) for kind, paint in PAINTS.items()}
    *rules, dark = [f".{kind}{{{rules}}}" for kind, rules in kinds.items() if kind not in DARK[:1]]
    dark = f".{',.'.join(DARK)}{{{kinds[DARK[0]]}}}"
    # Two rules a line: diffs of pictures in a repository stay readable.
    pairs = ["".join(rules[n : n + 2]) for n in range(0, len(rules), 2)]
    return "\n".join(
        [
            "text{font-family:Helvetica,Arial,'DejaVu Sans',sans-serif;font-size:11px;"
            f"fill:{TEXT}}}",
            ".t{font-size:12px;font-weight:bold}.h{font-size:16px;font-weight:bold}",
            f".s{{font-size:10px;fill:{FAINT}}}.m{{text-anchor:middle}}",
            f"rect{{stroke:{Paint().stroke};fill:{WHITE}}}",
            f"path{{stroke:{LINE};fill:none;stroke-width:1.2}}path.a{{fill:{LINE};stroke:none}}",
            *pairs,
            f"{dark}.w{{fill:{WHITE}}}",
        ]
    )


def _rules(paint: Paint) -> str:
    stroke = f"stroke:{paint.stroke}" if paint.stroke != Paint().stroke else ""
    opacity = f"fill-opacity:{paint.opacity}" if paint.opacity else ""
    return ";".join(filter(None, (f"fill:{paint.fill}", opacity, stroke)))


def _entry(entry: LegendEntry) -> Iterator[str]:
    if entry.kind:
        place = f'x="{entry.x}" y="{entry.y}" width="{SIZE}" height="{SIZE}" rx="3"'
        yield f'<rect class="{entry.kind}" {place}/>'
    yield _text(entry.text, "")


def _body(drawing: Drawing) -> Iterator[str]:
    for frame in drawing.frames:
        yield from _frame(frame)
    # Lines to several readers share their beginnings: equal ones are drawn once.
    yield from dict.fromkeys(_path(wire) for wire in drawing.wires)
    yield from dict.fromkeys(_head(wire) for wire in drawing.wires if wire.arrow)
    yield from (_text(text, "s") for text in drawing.shapes)


def _frame(frame: Frame) -> Iterator[str]:
    box = frame.box
    # Browsers show a title as a tooltip: the whole path, where the box has room for a word.
    yield f"<g><title>{_xml(box.path)}</title>"
    yield (
        f'<rect class="{box.kind_shown}" x="{frame.x}" y="{frame.y}"'
        f' width="{frame.width}" height="{frame.height}" rx="{ROUND}"/>'
    )
    for index, text in enumerate(frame.texts):
        yield _text(text, f"{'' if index else 't'}{' w' if box.kind in DARK else ''}".strip())
    yield "</g>"


def _text(text: TextLine, style: str) -> str:
    classes = " ".join(filter(None, (style, "m" if text.centred else "")))
    attribute = f' class="{classes}"' if classes else ""
    return f'<text{attribute} x="{text.x}" y="{text.y}">{_xml(text.text)}</text>'


def _path(wire: Wire) -> str:
    """Return a line; its corners are quadratic curves."""
    first, *corners, last = path(wire.points)
    steps = [f"M{_at(first)}"]
    for n in range(0, len(corners), 3):
        into, corner, out = corners[n : n + 3]
        steps.append(f"L{_at(into)}Q{_at(corner)} {_at(out)}")
    steps.append(f"L{_at(last)}")
    return f'<path d="{"".join(steps)}"/>'


def _at(point: Point) -> str:
    return f"{point[0]} {point[1]}"


def _head(wire: Wire) -> str:
    tip, one, other = head(wire.points)
    first = (one[0] - tip[0], one[1] - tip[1])
    across = (other[0] - one[0], other[1] - one[1])
    step = f"h{across[0]}" if across[0] else f"v{across[1]}"
    return f'<path class="a" d="M{_at(tip)}l{_at(first)}{step}z"/>'


def _xml(text: str) -> str:
    return escape(clip(text, WHOLE))


FONTS = "Helvetica,Arial,'DejaVu Sans',sans-serif"


def render_scene(scene: Scene, heading: str) -> str:
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
    for corners in scene.heads:
        points = " ".join(f"{x},{y}" for x, y in corners)
        yield f'<polygon points="{points}" fill="{_code(scene.line)}"/>'


def _label(label: Label) -> str:
    text, font = label.text, label.text.font
    weight = ' font-weight="bold"' if font.bold else ""
    anchor = ' text-anchor="middle"' if text.centred else ""
    place = f'x="{text.x}" y="{text.y}" font-size="{font.size}" fill="{_code(label.colour)}"'
    return f"<text {place}{weight}{anchor}>{escape(text.text)}</text>"


def _code(colour: Colour) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
