"""Line charts as self-contained SVG text, without matplotlib: for pages that a bundle contains."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tcc.compiler.figures.drawing import clip_text
from tcc.compiler.figures.svg import FONTS

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#6e7781"
"""Distinct with any kind of colour blindness (Okabe and Ito)."""
WIDTH, HEIGHT = 380, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 34, 62
"""Pixels of the margins around the axes."""
STEPS = 5
"""Number of intervals between the ticks of an axis."""

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """A named line, or points with `ranges` (low and high of each) if `has_marks`."""

    name: str
    colour: str
    points: Points
    dashes: str = ""
    has_marks: bool = False
    ranges: Points = ()


@dataclass(frozen=True, slots=True)
class LineChart:
    """Series over a horizontal axis from 0 to 1; the vertical axis is from `low` to `high`."""

    title: str
    x_name: str
    y_name: str
    low: float
    high: float
    series: tuple[Series, ...]


def render_chart(chart: LineChart) -> str:
    """Return the text of an SVG file. Parts of lines outside the axes are cut."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" font-family="{FONTS}" font-size="11">',
        f"<title>{escape(clip_text(chart.title))}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        '<clipPath id="axes">'
        f'<rect x="{LEFT}" y="{TOP - 3}" width="{_X_LENGTH}" height="{_Y_LENGTH + 6}"/></clipPath>',
        *_render_axes(chart),
        '<g clip-path="url(#axes)" fill="none">',
        *(text for series in chart.series for text in _render_series(chart, series)),
        "</g>",
        *_render_legend(chart.series),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


_X_LENGTH, _Y_LENGTH = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


def _place_x(x: float) -> str:
    return f"{LEFT + _X_LENGTH * x:.1f}"


def _place_y(chart: LineChart, y: float) -> str:
    share = (y - chart.low) / (chart.high - chart.low)
    # Numbers far outside the axes would need many digits.
    return f"{TOP + _Y_LENGTH * (1 - min(max(share, -2.0), 3.0)):.1f}"


def _render_axes(chart: LineChart) -> Iterator[str]:
    title = escape(clip_text(chart.title, 48))
    yield f'<text x="{LEFT}" y="18" font-size="12" font-weight="bold">{title}</text>'
    bottom, right = TOP + _Y_LENGTH, LEFT + _X_LENGTH
    for n in range(STEPS + 1):
        x, y = n / STEPS, chart.low + (chart.high - chart.low) * n / STEPS
        row = _place_y(chart, y)
        yield f'<path d="M{LEFT} {row}H{right}" stroke="#d0d7de" stroke-width="0.7"/>'
        yield f'<text x="{LEFT - 5}" y="{row}" dy="4" text-anchor="end">{y:.2f}</text>'
        yield f'<text x="{_place_x(x)}" y="{bottom + 14}" text-anchor="middle">{x:.1f}</text>'
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{right}" stroke="{GREY}" fill="none"/>'
    middle = LEFT + _X_LENGTH // 2
    yield f'<text x="{middle}" y="{bottom + 30}" text-anchor="middle">{escape(chart.x_name)}</text>'
    yield (
        f'<text transform="translate(13,{TOP + _Y_LENGTH // 2}) rotate(-90)"'
        f' text-anchor="middle">{escape(chart.y_name)}</text>'
    )


def _render_series(chart: LineChart, series: Series) -> Iterator[str]:
    points = [(_place_x(x), _place_y(chart, y)) for x, y in series.points]
    for (x, _), (low, high) in zip(points, series.ranges, strict=False):
        bottom, top = _place_y(chart, low), _place_y(chart, high)
        yield f'<path d="M{x} {bottom}V{top}" stroke="{series.colour}"/>'
    if series.has_marks:
        yield from (f'<circle cx="{x}" cy="{y}" r="3" fill="{series.colour}"/>' for x, y in points)
        return
    dashes = f' stroke-dasharray="{series.dashes}"' if series.dashes else ""
    path = " ".join(f"{x},{y}" for x, y in points)
    yield f'<polyline points="{path}" stroke="{series.colour}" stroke-width="1.6"{dashes}/>'


def _render_legend(series: Sequence[Series]) -> Iterator[str]:
    step = _X_LENGTH // max(len(series), 1)
    y = HEIGHT - 10
    for index, entry in enumerate(series):
        x = LEFT + index * step
        if entry.has_marks:
            yield f'<circle cx="{x + 9}" cy="{y - 4}" r="3" fill="{entry.colour}"/>'
        else:
            dashes = f' stroke-dasharray="{entry.dashes}"' if entry.dashes else ""
            yield f'<path d="M{x} {y - 4}h18" stroke="{entry.colour}" stroke-width="1.6"{dashes}/>'
        yield f'<text x="{x + 23}" y="{y}">{escape(entry.name)}</text>'
