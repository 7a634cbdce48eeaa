"""Bars of cosines: as long as their numbers, and red below the threshold."""

import pytest

from tcc.compiler.figures.scene import (
    AXIS_LENGTH,
    FAIL_PAINT,
    PASS_PAINT,
    Bar,
    build_bar_chart,
    parse_rgb,
)


def test_bars_are_as_long_as_their_numbers():
    drawn = build_bar_chart(
        "cosines", [Bar("one, blood", 1.0), Bar("two, skin", 0.95), Bar("x" * 90, 0.98)], 0.98
    )
    widths = [rect.width for rect in drawn.rects]
    assert widths == [
        AXIS_LENGTH,
        pytest.approx(AXIS_LENGTH / 2, abs=1),
        pytest.approx(AXIS_LENGTH * 0.8, abs=1),
    ]
    assert [rect.fill for rect in drawn.rects] == [
        parse_rgb(PASS_PAINT.fill),
        parse_rgb(FAIL_PAINT.fill),
        parse_rgb(PASS_PAINT.fill),
    ]
    (threshold, whole) = (line[0][0] for line in drawn.lines)
    assert whole - threshold == pytest.approx(AXIS_LENGTH * 0.2, abs=1)
    assert threshold == drawn.rects[2].x + drawn.rects[2].width
    texts = [label.text.text for label in drawn.labels]
    assert {"one, blood", "1.000000", "0.950000", "0.90", "0.98", "1.00"} <= set(texts)
    assert all(
        rect.x + rect.width < drawn.width and rect.y + rect.height < drawn.height
        for rect in drawn.rects
    )


def test_the_axis_begins_below_the_least():
    drawn = build_bar_chart("cosines", [Bar("far", 0.2), Bar("near", 1.0)], 0.98)
    far, near = drawn.rects
    assert 0 < far.width < near.width / 10
    assert build_bar_chart("cosines", [Bar("less than nothing", -1.0)], 0.98).rects[0].width > 0
