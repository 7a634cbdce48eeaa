"""A scene as PNG, by Pillow and the font that comes with it: the same bytes wherever it is."""

from functools import cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from tcc.compiler.figures.drawing import Point
from tcc.compiler.figures.scene import Label, Rect, Scene
from tcc.compiler.figures.text_metrics import Font
from tcc.compiler.support.diagnostics import fail, whole_file

SCALE = 2
"""Pixels of the file for one of the drawing, so that texts are sharp when enlarged."""
FINE = 2
"""Drawn so many times larger at first: Pillow's own lines have no soft edges."""
MOST = 1 << 28
"""Pixels that are drawn at most, of three bytes each."""
SOFTWARE = "tcc show"
"""What a file says of who wrote it."""


def render(scene: Scene, name: str) -> bytes:
    """Return the bytes of a PNG file; `name` is that of the network.

    Raises:
        UserError: The picture would take too many pixels (E0660).
    """
    width, height = scene.width * SCALE, scene.height * SCALE
    if width * height * FINE**2 > MOST:
        message = f"the picture of {name} is too large for PNG: {width} x {height} pixels"
        help = "say `--format svg` or `--format pdf`, or `--level block`"
        raise fail("E0660", message, whole_file("command line"), help=help)
    image = Image.new("RGB", (width * FINE, height * FINE), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    for rect in scene.rects:
        _rect(pen, rect)
    for line in scene.lines:
        pen.line(_bent(line), fill=scene.line, width=round(1.2 * SCALE * FINE), joint="curve")
    for head in scene.heads:
        pen.polygon([_fine(point) for point in head], fill=scene.line)
    for label in scene.labels:
        _label(pen, label)
    info, out = PngInfo(), BytesIO()
    info.add_text("Software", SOFTWARE)
    # The mean of each pixel's four: other filters would ring beside the sharp edges of boxes.
    small = image.resize((width, height), Image.Resampling.BOX)
    small.save(out, "PNG", pnginfo=info, compress_level=9)
    return out.getvalue()


def _rect(pen: ImageDraw.ImageDraw, rect: Rect) -> None:
    corners = (_fine((rect.x, rect.y)), _fine((rect.x + rect.width, rect.y + rect.height)))
    radius = rect.radius * SCALE * FINE
    pen.rounded_rectangle(corners, radius, rect.fill, rect.stroke, SCALE * FINE)


def _label(pen: ImageDraw.ImageDraw, label: Label) -> None:
    """Draw a text; the font has one weight, and a thin outline stands for bold."""
    text = label.text
    shown = text.text.replace("\u00d7", "x")  # the font has no sign for times
    anchor, bold = "ms" if text.centred else "ls", SCALE * FINE // 4 * int(text.font.bold)
    at = _fine((text.x, text.y))
    pen.text(at, shown, label.colour, _font(text.font), anchor, stroke_width=bold)


@cache
def _font(font: Font) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(font.size * SCALE * FINE)


def _bent(line: tuple[Point, ...]) -> list[Point]:
    """Return a line whose corners are runs of short straight ones."""
    first, *corners, last = line
    points = [_fine(first)]
    for n in range(0, len(corners), 3):
        points += _curve(*corners[n : n + 3])
    return [*points, _fine(last)]


def _curve(into: Point, corner: Point, out: Point) -> list[Point]:
    steps = 8
    found = []
    for step in range(steps + 1):
        t = step / steps
        weights = ((1 - t) ** 2, 2 * t * (1 - t), t * t)
        x, y = (
            sum(w * p[axis] for w, p in zip(weights, (into, corner, out), strict=True))
            for axis in (0, 1)
        )
        found.append((round(x * SCALE * FINE), round(y * SCALE * FINE)))
    return found


def _fine(point: Point) -> Point:
    return point[0] * SCALE * FINE, point[1] * SCALE * FINE
