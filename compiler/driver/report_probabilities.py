"""Sections of the report page about probabilities: reliability diagrams and decision curves."""

import base64
from collections.abc import Sequence

from tcc.compiler.data.probability_quality import DecisionCurve, Reliability
from tcc.compiler.driver.report_html import escape_text, render_table
from tcc.compiler.figures.line_chart import BLUE, GREY, ORANGE, LineChart, Series, render_chart

MAX_CHARTS = 12
"""Most charts in a section."""
LISTED_THRESHOLDS = (0.1, 0.2, 0.5)
"""Thresholds of the table, where a curve has them."""


def render_reliability(reliability: Sequence[Reliability]) -> str:
    """Return the calibration errors, what follows from them, and a diagram of each."""
    sentences = "".join(f"<li>{escape_text(m.describe())}</li>\n" for m in reliability)
    charts = "".join(map(_render_bins, reliability[:MAX_CHARTS]))
    return (
        "<p>On the test images of the training, in float32. The confidence is the probability of"
        " the predicted class; 15 bins of equal width. A point far from the line, with an interval"
        f" that does not reach it, is a bin of wrong probabilities.</p>\n<ul>\n{sentences}</ul>\n"
        f"{charts}"
    )


def render_curves(curves: Sequence[DecisionCurve]) -> str:
    """Return the decision curves, as charts and as a table."""
    rows = [
        (
            curve.name,
            f"{threshold:.0%}",
            f"{curve.net_benefit[i]:.4f}",
            f"{curve.low[i]:.4f} to {curve.high[i]:.4f}",
            f"{curve.treat_all[i]:.4f}",
            "0",
        )
        for curve in curves
        for i, threshold in enumerate(curve.thresholds)
        if threshold in LISTED_THRESHOLDS
    ]
    head = ("class", "threshold", "net benefit", "95 % confidence interval", "all", "none")
    table = render_table(head, rows, "net benefit per image", numbers=range(1, 6))
    return (
        "<p>On the test images of the training, in float32: the net benefit of acting on each image"
        " in which the class has at least the threshold probability, and of acting on all images or"
        " on none. It holds for images with the same share of the class.</p>\n"
        f"{''.join(map(_render_curve, curves[:MAX_CHARTS]))}{table}"
    )


def _render_bins(reliability: Reliability) -> str:
    bins = reliability.bins
    title = f"ECE {reliability.error:.4f}"
    title = f"{reliability.label}: {title}" if reliability.label else title
    accuracies = Series(
        "accuracy",
        BLUE,
        tuple((b.confidence, b.accuracy) for b in bins),
        has_marks=True,
        ranges=tuple((b.low, b.high) for b in bins),
    )
    calibrated = Series("calibrated", GREY, ((0.0, 0.0), (1.0, 1.0)), "4 3")
    chart = LineChart(title, "mean confidence", "accuracy", 0.0, 1.0, (accuracies, calibrated))
    points = ", ".join(f"{b.confidence:.2f}: {b.accuracy:.2f}" for b in bins)
    return _render_image(chart, f"reliability diagram, {title}. Accuracy by confidence: {points}")


def _render_curve(curve: DecisionCurve) -> str:
    def build(name: str, colour: str, numbers: Sequence[float], dashes: str = "") -> Series:
        points = tuple(zip(curve.thresholds, numbers, strict=True))
        return Series(name, colour, points, dashes)

    # Acting on all falls without limit towards a threshold of 1.
    top = max(*curve.net_benefit, curve.positives / curve.images, 0.01)
    series = (
        build("network", BLUE, curve.net_benefit),
        build("all", ORANGE, curve.treat_all, "6 3"),
        Series("none", GREY, ((0.0, 0.0), (1.0, 0.0)), "2 3"),
    )
    chart = LineChart(
        curve.name, "threshold probability", "net benefit", -0.25 * top, 1.1 * top, series
    )
    return _render_image(chart, f"decision curve of {curve.name}; the table has its numbers")


def _render_image(chart: LineChart, alt_text: str) -> str:
    encoded = base64.b64encode(render_chart(chart).encode()).decode()
    label = escape_text(chart.title)
    return (
        f'<div class="box drawn" tabindex="0" role="region" aria-label="{label}">'
        f'<img alt="{escape_text(alt_text)}" src="data:image/svg+xml;base64,{encoded}"></div>\n'
    )
