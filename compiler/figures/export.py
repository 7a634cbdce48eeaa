"""Export of a scene as PNG or PDF, with matplotlib and its bundled fonts.

The same scene gives the same bytes with one version of matplotlib, independent of the machine's
fonts and settings.
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
"""Resolution of SVG pixels."""
SCALE = 2
"""PNG pixels per drawing pixel (192 dots per inch), for sharp text."""
MAX_PIXELS = 1 << 26
"""Maximum pixels of a PNG file; each takes about 9 bytes of memory."""
MAX_PAGE_INCHES = 200
"""Maximum page size of PDF readers; larger drawings are scaled down."""
CREATOR = "tcc show"
"""Creator in the file's metadata."""


def render_png(scene: Scene, name: str) -> bytes:
    """Return the bytes of a PNG file; `name` is the network's name in errors.

    Raises:
        UserError: The figure has too many pixels (E0660).
        MissingTool: matplotlib is not installed.
    """
    width, height = scene.width * SCALE, scene.height * SCALE
    if width * height > MAX_PIXELS:
        message = f"the figure of {name} is too large for PNG: {width} x {height} pixels"
        help = "use `--format svg`, `--format pdf` or `--level block`"
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
    """Return the bytes of a scene's file, with a size of `inches` per drawing pixel."""
    if installed_version("matplotlib") is None:
        purpose = f"write {format.upper()} figures (`--format svg` works without it)"
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

    # Not by pyplot, which keeps every figure and looks for a display.
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
    """Return a polyline with quadratic curves at its corners."""
    from matplotlib.path import Path as Outline

    corner = [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    codes = [Outline.MOVETO, *corner * ((len(line) - 2) // 3), Outline.LINETO]
    return Outline(line, codes)


def _write(figure: "Figure", label: Label, points: float, page: "Transform") -> None:
    """Add a text; characters that the font lacks become question marks."""
    import matplotlib
    from matplotlib.font_manager import FontProperties, get_font

    text, font = label.text, label.text.font
    # By file: another DejaVu Sans on the machine could give other bytes.
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
