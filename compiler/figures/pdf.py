"""A scene as PDF of one page: lines and texts, in fonts that every reader has."""

from collections.abc import Iterator, Sequence

from tcc.compiler.figures.drawing import Point
from tcc.compiler.figures.scene import Colour, Label, Rect, Scene
from tcc.compiler.figures.text_metrics import Font

POINTS = 0.75
"""Points of a pixel."""
ARC = 0.5523
"""How far a circle's control points are from its quarter's ends, in radii."""
LONGEST_SIDE = 14_400
"""Units of a page's side that readers take; larger pages have larger units."""
MARK = b"% tcc show\n"
"""What a file says of who wrote it."""

REGULAR = (
    "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 "
    "556 556 556 556 278 278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 "
    "556 833 722 778 667 778 722 667 611 722 667 944 667 667 611 278 278 278 469 556 333 556 "
    "556 500 556 556 278 556 556 222 222 500 222 833 556 556 556 556 333 500 278 556 500 722 "
    "500 500 500 334 260 334 584 "
)
BOLD = (
    "278 333 474 556 556 889 722 238 333 333 389 584 278 333 278 278 556 556 556 556 556 556 "
    "556 556 556 556 333 333 584 584 584 611 975 722 722 722 722 667 611 778 722 278 556 722 "
    "611 833 722 778 667 778 722 667 611 722 667 944 667 667 611 333 278 333 584 556 333 556 "
    "611 556 611 556 333 611 611 278 278 556 278 889 611 611 611 611 389 556 333 611 556 778 "
    "556 556 500 389 280 389 584 "
)
"""Widths of the characters from the space to the tilde in Helvetica, in thousandths of its size,
from Adobe's font metrics."""
OTHER = {"\u00b7": 278, "\u2026": 1000, "\u00d7": 584}
"""Widths of others that pictures have; all else is taken for a letter."""
WIDTHS = {
    bold: {chr(32 + n): int(width) for n, width in enumerate(table.split())} | OTHER
    for bold, table in ((False, REGULAR), (True, BOLD))
}


def render(scene: Scene, title: str) -> bytes:
    """Return the bytes of a PDF file.

    Its fonts have the characters of western languages; others become question marks.
    """
    width, height = scene.width * POINTS, scene.height * POINTS
    unit = max(1.0, max(width, height) / LONGEST_SIDE)
    page = f"[0 0 {_number(width / unit)} {_number(height / unit)}]"
    scale = _number(POINTS / unit)
    body = [f"{scale} 0 0 {scale} 0 0 cm", *_body(scene)]
    content = "\n".join(body).encode("cp1252", "replace")
    fonts = " ".join(f"/{_name(bold)} {5 + bold} 0 R" for bold in (False, True))
    more = f" /UserUnit {_number(unit)}" if unit > 1 else ""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox {page}{more} /Contents 4 0 R"
        f" /Resources << /Font << {fonts} >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content.decode('cp1252')}\nendstream",
        _face("Helvetica"),
        _face("Helvetica-Bold"),
        f"<< /Title ({_escaped(title)}) /Producer (tcc) >>",
    ]
    return _file([text.encode("cp1252", "replace") for text in objects])


def _file(objects: Sequence[bytes]) -> bytes:
    """Return a file of objects, the first of which is the catalogue and the last the title."""
    # 1.6, as `UserUnit` came with it; the four bytes above 127 tell programs that move files that
    # this is no text (ISO 32000-1, 7.5.2).
    data = b"%PDF-1.6\n%\xe2\xe3\xcf\xd3\n" + MARK
    places = []
    for number, text in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, text)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    return data + (
        b"xref\n0 %d\n0000000000 65535 f \n%btrailer\n"
        b"<< /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    ) % (count, table, count, len(objects), len(data))


def _face(name: str) -> str:
    return f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>"


def _body(scene: Scene) -> Iterator[str]:
    """Yield the page's drawing; PDF counts from the bottom."""
    for rect in scene.rects:
        yield f"{_colour(rect.fill)} rg {_colour(rect.stroke)} RG 1 w"
        yield f"{_outline(rect, scene.height)} b"
    yield f"{_colour(scene.line)} rg {_colour(scene.line)} RG 1.2 w"
    for line in scene.lines:
        yield f"{_path(line, scene.height)} S"
    for one, *others in scene.heads:
        corners = " ".join(f"{_at(point, scene.height)} l" for point in others)
        yield f"{_at(one, scene.height)} m {corners} f"
    for label in scene.labels:
        yield _text(label, scene.height)


def _outline(rect: Rect, page: int) -> str:
    """Return a rectangle with round corners."""
    left, top, right, bottom = rect.x, rect.y, rect.x + rect.width, rect.y + rect.height
    r, near = rect.radius, rect.radius * (1 - ARC)
    curves = (
        ((right - r, top), (right - near, top), (right, top + near), (right, top + r)),
        ((right, bottom - r), (right, bottom - near), (right - near, bottom), (right - r, bottom)),
        ((left + r, bottom), (left + near, bottom), (left, bottom - near), (left, bottom - r)),
        ((left, top + r), (left, top + near), (left + near, top), (left + r, top)),
    )
    steps = [f"{_at((left + r, top), page)} m"]
    for start, *controls in curves:
        steps.append(f"{_at(start, page)} l")
        steps.append(" ".join(_at(point, page) for point in controls) + " c")
    return " ".join(steps)


def _path(line: Sequence[Point], page: int) -> str:
    """Return a line; its corners become cubic curves."""
    first, *corners, last = line
    steps = [f"{_at(first, page)} m"]
    for n in range(0, len(corners), 3):
        into, corner, out = corners[n : n + 3]
        controls = [
            tuple((end[axis] + 2 * corner[axis]) / 3 for axis in (0, 1)) for end in (into, out)
        ]
        # PDF has cubic curves alone; a quadratic one's control points lie two thirds of the way to
        # its corner.
        points = (*((x, y) for x, y in controls), out)
        steps.append(f"{_at(into, page)} l")
        steps.append(" ".join(_at(point, page) for point in points) + " c")
    steps.append(f"{_at(last, page)} l")
    return " ".join(steps)


def _text(label: Label, page: int) -> str:
    text = label.text
    left = text.x - width(text.text, text.font) / 2 if text.centred else text.x
    place = _at((left, text.y), page)
    font = f"/{_name(text.font.bold)} {text.font.size} Tf"
    return f"BT {_colour(label.colour)} rg {font} {place} Td ({_escaped(text.text)}) Tj ET"


def width(text: str, font: Font) -> float:
    """Return the pixels that a text takes in Helvetica."""
    return sum(WIDTHS[font.bold].get(c, 611 if font.bold else 556) for c in text) * font.size / 1000


def _name(bold: bool) -> str:
    return "B" if bold else "R"


def _escaped(text: str) -> str:
    known = text.encode("cp1252", "replace").decode("cp1252")
    return known.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _at(point: tuple[float, float], page: int) -> str:
    return f"{_number(point[0])} {_number(page - point[1])}"


def _colour(colour: Colour) -> str:
    return " ".join(_number(part / 255) for part in colour)


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
