"""Bar charts of cosines: proportional bars, red below the threshold."""

import pytest

from tcc.compiler.figures.scene import (
    AXIS_LENGTH,
    FAIL_PAINT,
    PASS_PAINT,
    Bar,
    build_bar_chart,
    parse_rgb,
)


def test_bar_lengths_are_proportional():
    chart = build_bar_chart(
        "cosines", [Bar("one, blood", 1.0), Bar("two, skin", 0.95), Bar("x" * 90, 0.98)], 0.98
    )
    widths = [rect.width for rect in chart.rects]
    assert widths == [
        AXIS_LENGTH,
        pytest.approx(AXIS_LENGTH / 2, abs=1),
        pytest.approx(AXIS_LENGTH * 0.8, abs=1),
    ]
    assert [rect.fill for rect in chart.rects] == [
        parse_rgb(PASS_PAINT.fill),
        parse_rgb(FAIL_PAINT.fill),
        parse_rgb(PASS_PAINT.fill),
    ]
    (threshold, full_scale) = (line[0][0] for line in chart.lines)
    assert full_scale - threshold == pytest.approx(AXIS_LENGTH * 0.2, abs=1)
    assert threshold == chart.rects[2].x + chart.rects[2].width
    texts = [label.text.text for label in chart.labels]
    assert {"one, blood", "1.000000", "0.950000", "0.90", "0.98", "1.00"} <= set(texts)
    assert all(
        rect.x + rect.width < chart.width and rect.y + rect.height < chart.height
        for rect in chart.rects
    )


def test_the_axis_starts_below_the_minimum():
    chart = build_bar_chart("cosines", [Bar("far", 0.2), Bar("near", 1.0)], 0.98)
    short_bar, long_bar = chart.rects
    assert 0 < short_bar.width < long_bar.width / 10
    assert build_bar_chart("cosines", [Bar("less than nothing", -1.0)], 0.98).rects[0].width > 0
