"""Figures as PNG and PDF: content, text sizes and reproducible bytes."""

import re
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import matplotlib
import pytest
from PIL import Image, ImageFont

from tcc.compiler.figures import Direction, Level, export
from tcc.compiler.figures.graph_image import FigureOptions, draw, draw_scene
from tcc.compiler.figures.page_layout import EDGE_DESCRIPTION, KIND_DESCRIPTIONS
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Output
from tcc.compiler.ops import Conv, Relu
from tcc.compiler.zoo import shipped
from tcc.testing.nets import NetBuilder, build_dense

LOOKS = [FigureOptions(level, direction, True) for level in Level for direction in Direction]
looks = pytest.mark.parametrize("look", LOOKS, ids=lambda k: f"{k.level}-{k.direction}")


def list_texts(look: FigureOptions, graph=None) -> list[str]:
    return [label.text.text for label in draw_scene(graph or build_dense(), look).labels]


@looks
def test_png_is_an_image_of_the_page(look: FigureOptions) -> None:
    scene = draw_scene(build_dense(), look)
    data = export.render_png(scene, "dense")
    image = Image.open(BytesIO(data)).convert("RGB")
    assert image.size == (2 * scene.width, 2 * scene.height)
    colours = {colour for _, colour in image.getcolors(1 << 20)}
    assert {rect.fill for rect in scene.rects} <= colours
    assert data == export.render_png(draw_scene(build_dense(), look), "dense")
    assert b"tIME" not in data


@looks
def test_boxes_are_drawn_at_their_position_in_their_color(look: FigureOptions) -> None:
    """No box is hidden, moved or cut: its fill color is just inside each side."""
    scene = draw_scene(build_dense(), look)
    image = Image.open(BytesIO(export.render_png(scene, "dense"))).convert("RGB")
    for rect in scene.rects:
        x, y = 2 * rect.x + 2 * rect.radius, 2 * rect.y + 4
        assert image.getpixel((x, y)) == rect.fill, rect


@looks
def test_pdf_contains_every_text(look: FigureOptions) -> None:
    scene = draw_scene(build_dense(), look)
    data = export.render_pdf(scene, "dense")
    ascii_texts = [label.text.text for label in scene.labels if label.text.text.isascii()]
    runs = iter(extract_pdf_texts(data))
    # each, in order; the font has ligatures for "fi" and "fl"
    assert all(re.sub("f[il]", "\0", text) in runs for text in ascii_texts)
    assert data == export.render_pdf(scene, "dense")
    assert b"CreationDate" not in data
    assert b"ModDate" not in data


def extract_pdf_texts(data: bytes) -> list[str]:
    """Return the text runs of a page. Its fonts number Latin characters as in Unicode."""
    (page,) = (
        stream
        for deflated in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL)
        if b"\nBT\n" in (stream := decode_stream(deflated))
    )
    runs = []
    for block in re.findall(rb"\nBT\n(.*?)\nET\n", page, re.DOTALL):
        parts = re.findall(rb"\(((?:[^\\)]|\\.)*)\)", block, re.DOTALL)
        run_bytes = b"".join(re.sub(rb"\\(.)", rb"\1", part) for part in parts)
        runs.append(run_bytes.decode("utf-16-be"))
    return runs


def decode_stream(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:  # such as a font
        return b""


def test_a_drawing_too_long_for_pdf_readers_is_scaled_down() -> None:
    scene = replace(draw_scene(build_dense(), FigureOptions()), height=40_000)
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", export.render_pdf(scene, "long"))
    width, height = map(float, box.groups())
    assert height == 14_400
    assert width == pytest.approx(scene.width * 14_400 / 40_000, abs=0.01)


def test_files_ignore_matplotlib_settings() -> None:
    scene = draw_scene(build_dense(), FigureOptions())
    previous_files = export.render_png(scene, "dense"), export.render_pdf(scene, "dense")
    with matplotlib.rc_context({"font.size": 30, "savefig.transparent": True, "savefig.dpi": 10}):
        assert previous_files == (
            export.render_png(scene, "dense"),
            export.render_pdf(scene, "dense"),
        )


@pytest.mark.parametrize("name", ["ddsnet", "fastnet", "googlenet"])
@looks
def test_texts_fit_their_layout_space(name: str, look: FigureOptions) -> None:
    """In the font of PNG and PDF files, which is the widest that an SVG names."""
    fonts = Path(matplotlib.get_data_path(), "fonts/ttf")
    for label in draw_scene(load(shipped.list_specs()[name]).graph, look).labels:
        text, font = label.text.text, label.text.font
        face = fonts / f"DejaVuSans{'-Bold' if font.bold else ''}.ttf"
        left_edge, _, right_edge, _ = ImageFont.truetype(face, font.size * 4).getbbox(text)
        assert (right_edge - left_edge) / 4 <= font.measure_width(text)


def test_characters_missing_in_the_font_become_question_marks() -> None:
    add = NetBuilder(3, 8, 8, name="odd")
    add("a(b)\\c", Conv(2, (1, 1)))
    add("$last$", Relu())
    labels = ("肿瘤", "\u00e9\u00d7\u00b7\u2026")
    scene = draw_scene(add.build(Output("logits", "$last$", labels=labels)), FigureOptions())
    runs = extract_pdf_texts(export.render_pdf(scene, "odd"))
    assert {"a(b)\\c: conv", "$last$: relu"} <= set(runs)
    assert any(run.startswith("??, \u00e9\u00d7\u00b7") for run in runs)


def test_a_legend_lists_only_visible_kinds() -> None:
    add = NetBuilder(3, 8, 8)
    add("a", Conv(2, (1, 1)))
    add("b", Relu())
    graph = add.build()
    plain_texts, explained = (
        list_texts(FigureOptions(), graph),
        list_texts(FigureOptions(legend=True), graph),
    )
    legend_texts = [text for text in explained if text not in plain_texts]
    assert "convolution, linear" in legend_texts
    assert legend_texts[-1] == EDGE_DESCRIPTION
    assert "data layout, dropout" not in legend_texts
    assert set(legend_texts) <= {*KIND_DESCRIPTIONS.values(), EDGE_DESCRIPTION}
    svg = draw(graph, FigureOptions(legend=True))
    assert all(f">{text}<" in svg for text in legend_texts)


@pytest.mark.parametrize("name", ["ddsnet", "fastnet", "googlenet"])
@pytest.mark.parametrize("direction", list(Direction))
def test_a_legend_is_on_the_page_below_the_drawing(name: str, direction: Direction) -> None:
    scene = draw_scene(
        load(shipped.list_specs()[name]).graph, FigureOptions(Level.BLOCK, direction, True)
    )
    boxes = [rect.y + rect.height for rect in scene.rects if rect.radius != 3]
    legend = [rect for rect in scene.rects if rect.radius == 3]
    assert min(rect.y for rect in legend) >= max(boxes)
    for label in scene.labels:
        wide = label.text.font.measure_width(label.text.text)
        left_edge = label.text.x - wide // 2 if label.text.centred else label.text.x
        assert left_edge >= 0
        assert left_edge + wide <= scene.width
        assert label.text.y + 4 <= scene.height


def test_a_drawing_too_large_for_png_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_PIXELS", 1000)
    with pytest.raises(Exception, match="the figure of dense is too large for PNG"):
        export.render_png(draw_scene(build_dense(), FigureOptions()), "dense")
