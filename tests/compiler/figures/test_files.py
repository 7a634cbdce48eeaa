"""Pictures as PNG and PDF: what they show, that texts fit, and that bytes are the same."""

import re
from io import BytesIO

import pytest
from PIL import Image, ImageFont

from tcc.compiler.figures import Direction, Level, pdf, png
from tcc.compiler.figures.graph_picture import PictureOptions, draw, shapes
from tcc.compiler.figures.legend import EDGES, MEANINGS
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Output
from tcc.compiler.ops import Conv, Relu
from tcc.compiler.zoo import shipped
from tcc.testing.nets import Steps, dense

LOOKS = [PictureOptions(level, direction, True) for level in Level for direction in Direction]
looks = pytest.mark.parametrize("look", LOOKS, ids=lambda k: f"{k.level}-{k.direction}")


def texts(look: PictureOptions, graph=None) -> list[str]:
    return [label.text.text for label in shapes(graph or dense(), look).labels]


@looks
def test_png_is_an_image_of_the_page(look: PictureOptions) -> None:
    scene = shapes(dense(), look)
    data = png.render(scene, "dense")
    image = Image.open(BytesIO(data))
    assert image.size == (2 * scene.width, 2 * scene.height)
    colours = {colour for _, colour in image.getcolors(1 << 20)}
    assert {rect.fill for rect in scene.rects} <= colours
    assert data == png.render(shapes(dense(), look), "dense")
    assert b"tIME" not in data


@looks
def test_a_box_has_its_colours_where_it_stands(look: PictureOptions) -> None:
    """No box is hidden, moved or cut: just inside of each side is its own fill."""
    scene = shapes(dense(), look)
    image = Image.open(BytesIO(png.render(scene, "dense")))
    for rect in scene.rects:
        x, y = 2 * rect.x + 2 * rect.radius, 2 * rect.y + 4
        assert image.getpixel((x, y)) == rect.fill, rect


@looks
def test_pdf_says_every_text_once_for_each_place(look: PictureOptions) -> None:
    scene = shapes(dense(), look)
    data = pdf.render(scene, "dense")
    shown = re.findall(rb"Td \(((?:[^\\)]|\\.)*)\) Tj", data)
    plain = [re.sub(rb"\\(.)", rb"\1", text).decode("cp1252") for text in shown]
    assert plain == [label.text.text for label in scene.labels]
    assert data.count(b" b\n") == len(scene.rects)
    assert data == pdf.render(scene, "dense")
    assert b"CreationDate" not in data
    assert b"ModDate" not in data


def test_the_table_of_a_pdf_leads_to_its_objects() -> None:
    data = pdf.render(shapes(dense(), PictureOptions()), "dense")
    places = [int(n) for n in re.findall(rb"(\d{10}) 00000 n ", data)]
    for number, place in enumerate(places, 1):
        assert data[place:].startswith(b"%d 0 obj\n" % number)
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", data)[1])
    assert data[start:].startswith(b"xref\n")
    length, stream = re.search(
        rb"/Length (\d+) >>\nstream\n(.*)\nendstream", data, re.DOTALL
    ).groups()
    assert int(length) == len(stream)


@pytest.mark.parametrize("name", ["ddsnet", "fastnet", "googlenet"])
@looks
def test_texts_fit_the_space_that_layout_gives_them(name: str, look: PictureOptions) -> None:
    """In Helvetica, and in the font of PNG files, whose outline stands for bold."""
    fonts = {size: ImageFont.load_default(size * 4) for size in (10, 11, 12, 16)}
    for label in shapes(load(shipped.specs()[name]).graph, look).labels:
        text, font = label.text.text, label.text.font
        most = font.width(text)
        assert pdf.width(text, font) <= most
        left, _, right, _ = fonts[font.size].getbbox(
            text.replace("\u00d7", "x"), stroke_width=int(font.bold)
        )
        assert (right - left) / 4 <= most


def test_what_helvetica_does_not_have_becomes_a_question_mark() -> None:
    add = Steps(3, 8, 8, name="odd")
    add("a(b)\\c", Conv(2, (1, 1)))
    add("last", Relu())
    scene = shapes(
        add.graph(Output("logits", "last", labels=("肿瘤", "\u00e9\u00d7\u00b7\u2026"))),
        PictureOptions(),
    )
    data = pdf.render(scene, "odd")
    assert b"(??, \xe9\xd7\xb7\x85)" in data
    assert b"(a\\(b\\)\\\\c: conv)" in data


def test_a_legend_explains_what_is_shown_alone() -> None:
    add = Steps(3, 8, 8)
    add("a", Conv(2, (1, 1)))
    add("b", Relu())
    graph = add.graph()
    plain, explained = texts(PictureOptions(), graph), texts(PictureOptions(legend=True), graph)
    more = [text for text in explained if text not in plain]
    assert "convolution, linear" in more
    assert more[-1] == EDGES
    assert "moves or drops values" not in more
    assert set(more) <= {*MEANINGS.values(), EDGES}
    svg = draw(graph, PictureOptions(legend=True))
    assert all(f">{text}<" in svg for text in more)


@pytest.mark.parametrize("name", ["ddsnet", "fastnet", "googlenet"])
@pytest.mark.parametrize("direction", list(Direction))
def test_a_legend_lies_on_the_page_below_the_drawing(name: str, direction: Direction) -> None:
    scene = shapes(load(shipped.specs()[name]).graph, PictureOptions(Level.BLOCK, direction, True))
    boxes = [rect.y + rect.height for rect in scene.rects if rect.radius != 3]
    legend = [rect for rect in scene.rects if rect.radius == 3]
    assert min(rect.y for rect in legend) >= max(boxes)
    for label in scene.labels:
        wide = label.text.font.width(label.text.text)
        left = label.text.x - wide // 2 if label.text.centred else label.text.x
        assert left >= 0
        assert left + wide <= scene.width
        assert label.text.y + 4 <= scene.height


def test_what_is_too_large_for_png_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "MOST", 1000)
    with pytest.raises(Exception, match="the picture of dense is too large for PNG"):
        png.render(shapes(dense(), PictureOptions()), "dense")
