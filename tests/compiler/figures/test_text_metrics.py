"""Texts of figures."""

import pytest
from PIL import ImageFont

from tcc.compiler.figures.drawing import DETAIL, MAX_TEXT_LENGTH, clip_text, format_rounded


def test_estimated_widths_fit_a_wide_font():
    """The estimate is at least the width in Pillow's sans-serif font."""
    font = ImageFont.load_default(size=DETAIL.size)
    for text in ("depthwise 3x3 · batch_norm · relu", "WWWW@@mm", "1,255,654 params, 187.9 M MACs"):
        assert font.getlength(text) <= DETAIL.measure_width(text)


@pytest.mark.parametrize(
    ("text", "clipped"),
    [
        ("a\n  b", "a b"),
        ("\x07\u202e", "\ufffd\ufffd"),
        ("x" * MAX_TEXT_LENGTH, "x" * MAX_TEXT_LENGTH),
        ("x" * 99, "x" * (MAX_TEXT_LENGTH - 1) + "…"),
    ],
)
def test_texts_are_shortened_to_one_line(text, clipped):
    assert clip_text(text) == clipped


def test_large_numbers_have_four_figures():
    numbers = (999, 1000, 283_742_064, 5_716_000_000)
    assert [format_rounded(n, "MACs") for n in numbers] == [
        "999 MACs", "1 k MACs", "283.7 M MACs", "5.716 G MACs",
    ]  # fmt: skip
