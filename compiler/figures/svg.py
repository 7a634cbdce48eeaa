"""Export of drawings and scenes as self-contained SVG text."""

from collections.abc import Iterator
from html import escape

from tcc.compiler.figures.drawing import (
    MAX_TOOLTIP_LENGTH,
    Drawing,
    Frame,
    Point,
    TextLine,
    Wire,
    clip_text,
)
from tcc.compiler.figures.page_layout import (
    CORNER_RADIUS,
    PATCH_SIZE,
    LegendEntry,
    Sheet,
    compute_arrow_head,
    expand_corners,
)
from tcc.compiler.figures.scene import (
    DARK_KINDS,
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


def render_sheet(sheet: Sheet, heading: str, description: str) -> str:
    """Return the text of an SVG file; `description` becomes its `desc` element."""
    width, height = sheet.width, sheet.height
    lines = [
        "<!-- tcc show -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">',
        f"<title>{_escape_xml(heading)}</title>",
        *([f"<desc>{_escape_xml(description)}</desc>"] if description else []),
        f"<style>\n{_render_style()}\n</style>",
        f'<rect width="{width}" height="{height}" style="stroke:none"/>',
        _render_text(sheet.title, "h"),
        f'<g transform="translate({sheet.drawing_x},{sheet.drawing_y})">',
        *_render_body(sheet.drawing),
        "</g>",
        *(line for entry in sheet.legend for line in _render_entry(entry)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _render_style() -> str:
    """Return the style sheet, in short lines."""
    kinds = {kind: _render_rules(paint) for kind, paint in PAINTS.items()}
    *rules, dark = [
        f".{kind}{{{rules}}}" for kind, rules in kinds.items() if kind not in DARK_KINDS[:1]
    ]
    dark = f".{',.'.join(DARK_KINDS)}{{{kinds[DARK_KINDS[0]]}}}"
    # Two rules per line, so that diffs of figures stay readable.
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


def _render_rules(paint: Paint) -> str:
    stroke = f"stroke:{paint.stroke}" if paint.stroke != Paint().stroke else ""
    opacity = f"fill-opacity:{paint.opacity}" if paint.opacity else ""
    return ";".join(filter(None, (f"fill:{paint.fill}", opacity, stroke)))


def _render_entry(entry: LegendEntry) -> Iterator[str]:
    if entry.kind:
        geometry = f'x="{entry.x}" y="{entry.y}" width="{PATCH_SIZE}" height="{PATCH_SIZE}" rx="3"'
        yield f'<rect class="{entry.kind}" {geometry}/>'
    yield _render_text(entry.text, "")


def _render_body(drawing: Drawing) -> Iterator[str]:
    for frame in drawing.frames:
        yield from _render_frame(frame)
    # Equal lines are drawn once: a value with several readers gives some.
    yield from dict.fromkeys(_render_path(wire) for wire in drawing.wires)
    yield from dict.fromkeys(_render_head(wire) for wire in drawing.wires if wire.arrow)
    yield from (_render_text(text, "s") for text in drawing.shapes)


def _render_frame(frame: Frame) -> Iterator[str]:
    box = frame.box
    # Browsers show a title as a tooltip: the full path.
    yield f"<g><title>{_escape_xml(box.path)}</title>"
    yield (
        f'<rect class="{box.shown_kind}" x="{frame.x}" y="{frame.y}"'
        f' width="{frame.width}" height="{frame.height}" rx="{CORNER_RADIUS}"/>'
    )
    for index, text in enumerate(frame.texts):
        yield _render_text(
            text, f"{'' if index else 't'}{' w' if box.kind in DARK_KINDS else ''}".strip()
        )
    yield "</g>"


def _render_text(text: TextLine, style: str) -> str:
    classes = " ".join(filter(None, (style, "m" if text.centred else "")))
    attribute = f' class="{classes}"' if classes else ""
    return f'<text{attribute} x="{text.x}" y="{text.y}">{_escape_xml(text.text)}</text>'


def _render_path(wire: Wire) -> str:
    """Return a polyline with quadratic curves at its corners."""
    start, *corners, end = expand_corners(wire.points)
    steps = [f"M{_format_point(start)}"]
    for n in range(0, len(corners), 3):
        curve_start, corner, curve_end = corners[n : n + 3]
        steps.append(
            f"L{_format_point(curve_start)}Q{_format_point(corner)} {_format_point(curve_end)}"
        )
    steps.append(f"L{_format_point(end)}")
    return f'<path d="{"".join(steps)}"/>'


def _format_point(point: Point) -> str:
    return f"{point[0]} {point[1]}"


def _render_head(wire: Wire) -> str:
    tip, side_1, side_2 = compute_arrow_head(wire.points)
    edge = (side_1[0] - tip[0], side_1[1] - tip[1])
    base = (side_2[0] - side_1[0], side_2[1] - side_1[1])
    step = f"h{base[0]}" if base[0] else f"v{base[1]}"
    return f'<path class="a" d="M{_format_point(tip)}l{_format_point(edge)}{step}z"/>'


def _escape_xml(text: str) -> str:
    return escape(clip_text(text, MAX_TOOLTIP_LENGTH))


FONTS = "Helvetica,Arial,'DejaVu Sans',sans-serif"


def render_scene(scene: Scene, heading: str) -> str:
    """Return the text of an SVG file; corners of lines are sharp."""
    width, height = scene.width, scene.height
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="{FONTS}">',
        f"<title>{escape(heading)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *map(_render_rect, scene.rects),
        *_render_lines(scene),
        *map(_render_label, scene.labels),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _render_rect(rect: Rect) -> str:
    geometry = f'x="{rect.x}" y="{rect.y}" width="{rect.width}" height="{rect.height}"'
    paint = f'fill="{_to_hex(rect.fill)}" stroke="{_to_hex(rect.stroke)}"'
    return f'<rect {geometry} rx="{rect.radius}" {paint}/>'


def _render_lines(scene: Scene) -> Iterator[str]:
    paint = f'stroke="{_to_hex(scene.line)}" stroke-width="1.2"'
    for line in scene.lines:
        points = " ".join(f"{x},{y}" for x, y in line)
        yield f'<polyline points="{points}" fill="none" {paint}/>'
    for corners in scene.heads:
        points = " ".join(f"{x},{y}" for x, y in corners)
        yield f'<polygon points="{points}" fill="{_to_hex(scene.line)}"/>'


def _render_label(label: Label) -> str:
    text, font = label.text, label.text.font
    weight = ' font-weight="bold"' if font.bold else ""
    anchor = ' text-anchor="middle"' if text.centred else ""
    geometry = f'x="{text.x}" y="{text.y}" font-size="{font.size}" fill="{_to_hex(label.colour)}"'
    return f"<text {geometry}{weight}{anchor}>{escape(text.text)}</text>"


def _to_hex(colour: Colour) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
