"""A scene as PNG or PDF, by matplotlib and the fonts that come with it.

The same scene gives the same bytes with one version of matplotlib, whatever fonts and settings
the machine has.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.figures.drawing import Point
from tcc.compiler.figures.scene import Colour, Label, Scene
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool, installed_version

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.path import Path as Outline
    from matplotlib.transforms import Transform

PIXELS_PER_INCH = 96
"""The SVG pixel."""
SCALE = 2
"""Pixels of a PNG file for one of the drawing, so that texts are sharp when enlarged."""
MAX_PIXELS = 1 << 26
"""Pixels that are drawn at most; each takes some 9 bytes of memory."""
MAX_PAGE_INCHES = 200
"""Inches of a page that PDF readers take; a larger drawing is scaled down to it."""
CREATOR = "tcc show"
"""What a file names as its creator."""


def render_png(scene: Scene, name: str) -> bytes:
    """Return the bytes of a PNG file; `name` is that of the network.

    Raises:
        UserError: The picture would take too many pixels (E0660).
        MissingTool: matplotlib is not installed.
    """
    width, height = scene.width * SCALE, scene.height * SCALE
    if width * height > MAX_PIXELS:
        message = f"the picture of {name} is too large for PNG: {width} x {height} pixels"
        help = "say `--format svg` or `--format pdf`, or `--level block`"
        raise fail("E0660", message, make_file_span("command line"), help=help)
    return _render(scene, "png", {"Software": CREATOR}, 1 / PIXELS_PER_INCH)


def render_pdf(scene: Scene, title: str) -> bytes:
    """Return the bytes of a PDF file of one page.

    Raises:
        MissingTool: matplotlib is not installed.
    """
    metadata = {"Title": title, "Creator": CREATOR, "Producer": "tcc", "CreationDate": None}
    longest = max(scene.width, scene.height)
    return _render(scene, "pdf", metadata, min(1 / PIXELS_PER_INCH, MAX_PAGE_INCHES / longest))


def _render(scene: Scene, format: str, metadata: Mapping[str, str | None], inches: float) -> bytes:
    """Return the file of a scene of which each pixel takes so many inches."""
    if installed_version("matplotlib") is None:
        purpose = f"draw {format.upper()} files (`--format svg` needs nothing)"
        raise MissingTool(Tool("matplotlib", purpose, None))
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType: texts can be searched and edited
        figure = _draw(scene, inches)
        figure.savefig(stream, format=format, dpi=SCALE * PIXELS_PER_INCH, metadata=metadata)
    return stream.getvalue()


def _draw(scene: Scene, inches: float) -> "Figure":
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import BoxStyle
    from matplotlib.path import Path as Outline
    from matplotlib.transforms import Affine2D

    # Not by pyplot, which keeps every figure and looks for a screen.
    figure = Figure(figsize=(scene.width * inches, scene.height * inches))
    # matplotlib counts y from the bottom.
    flipped = Affine2D().translate(0, -scene.height).scale(inches, -inches)
    page = flipped + figure.dpi_scale_trans
    line, points = _to_unit_color(scene.line), 72 * inches

    def add(outlines: "Sequence[Outline]", **look: Any) -> None:
        figure.add_artist(PathCollection(outlines, transform=page, **look))

    add(
        [
            BoxStyle.Round(pad=0, rounding_size=r.radius)(r.x, r.y, r.width, r.height, 1)
            for r in scene.rects
        ],
        facecolors=[_to_unit_color(rect.fill) for rect in scene.rects],
        edgecolors=[_to_unit_color(rect.stroke) for rect in scene.rects],
        linewidths=points,
    )
    add(
        [_build_outline(corners) for corners in scene.lines],
        facecolors="none",
        edgecolors=[line],
        linewidths=1.2 * points,
    )
    add([Outline([*head, head[0]], closed=True) for head in scene.heads], facecolors=[line])
    for label in scene.labels:
        _write(figure, label, points, page)
    return figure


def _build_outline(line: Sequence[Point]) -> "Outline":
    """Return a line; its corners become quadratic curves."""
    from matplotlib.path import Path as Outline

    corner = [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    codes = [Outline.MOVETO, *corner * ((len(line) - 2) // 3), Outline.LINETO]
    return Outline(line, codes)


def _write(figure: "Figure", label: Label, points: float, page: "Transform") -> None:
    """Write a text; characters that the font lacks become question marks."""
    import matplotlib
    from matplotlib.font_manager import FontProperties, get_font

    text, font = label.text, label.text.font
    # By its file: another DejaVu Sans that the machine has would give other bytes.
    name = f"DejaVuSans{'-Bold' if font.bold else ''}.ttf"
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", name)
    has = get_font(file).get_char_index
    figure.text(
        text.x,
        text.y,
        "".join(c if has(ord(c)) else "?" for c in text.text),
        transform=page,
        fontproperties=FontProperties(fname=file, size=font.size * points),
        color=_to_unit_color(label.colour),
        ha="center" if text.centred else "left",
        va="baseline",
        parse_math=False,
    )


def _to_unit_color(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
