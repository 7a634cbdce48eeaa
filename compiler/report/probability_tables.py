"""Tables of `tcc eval` about probabilities: calibration error, and decision curves."""

from collections.abc import Sequence
from typing import Any

from tcc.compiler.data.probability_quality import DecisionCurve, Reliability
from tcc.compiler.support import json_records
from tcc.compiler.support.console import Report

DEFINITION = "calibration error: 15 bins of equal width of the predicted class's probability"
CURVE_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Thresholds of a decision curve in the text."""
COMPARED_THRESHOLDS = (0.1, 0.2, 0.5)
"""Those if several curves share a table."""


def print_reliability(report: Report, reliability: Sequence[Reliability]) -> None:
    """Print the calibration error, its limit by chance, and the bins of exclusive classes."""
    if not reliability:
        return
    report.print_text("")
    report.print_text(DEFINITION)
    for measured in reliability:
        report.print_text(measured.describe())
    if len(reliability) > 1:
        return
    rows = [
        (
            f"{confidence_bin.confidence:.4f}",
            f"{confidence_bin.accuracy:.4f} ({confidence_bin.low:.4f}-{confidence_bin.high:.4f})",
            confidence_bin.images,
        )
        for confidence_bin in reliability[0].bins
    ]
    report.print_table(("mean confidence", "accuracy", "images"), rows)


def print_curves(report: Report, curves: Sequence[DecisionCurve]) -> None:
    """Print the net benefit at some thresholds: one curve with intervals, or several."""
    if not curves:
        return
    report.print_text("")
    if len(curves) == 1:
        (curve,) = curves
        report.print_text(f"decision curve: {curve.describe()}")
        lines = [
            (
                f"{curve.thresholds[i]:.0%}",
                f"{curve.net_benefit[i]:.4f} ({curve.low[i]:.4f}-{curve.high[i]:.4f})",
                f"{curve.treat_all[i]:.4f}",
                "0",
            )
            for i in map(curve.thresholds.index, CURVE_THRESHOLDS)
        ]
        report.print_table(("threshold", "net benefit", "all", "none"), lines)
        return
    report.print_text(
        "decision curves: net benefit of acting on a class from a probability on, and of acting on"
        " every image; `--class` prints intervals"
    )
    heads = [f"{threshold:.0%}" for threshold in COMPARED_THRESHOLDS]
    rows = [
        (curve.name, *(f"{curve.net_benefit[i]:.4f} (all {curve.treat_all[i]:.4f})"
                       for i in map(curve.thresholds.index, COMPARED_THRESHOLDS)))
        for curve in curves
        if curve.positives
    ]  # fmt: skip
    report.print_table(("class", *heads), rows)


def print_errors(report: Report, errors: Sequence[tuple[str, Reliability]]) -> None:
    """Print the calibration error of several networks, each with its name."""
    if not errors:
        return
    report.print_text("")
    report.print_text(DEFINITION)
    for name, measured in errors:
        report.print_text(f"{name}: {measured.describe()}")


def encode_quality(
    reliability: Sequence[Reliability], curves: Sequence[DecisionCurve]
) -> dict[str, Any]:
    """Return the JSON document of calibration errors and decision curves."""
    return {
        "calibration_errors": [
            {**json_records.encode(measured), "miscalibrated": measured.is_miscalibrated}
            for measured in reliability
        ],
        "decision_curves": [{**json_records.encode(curve), "treat_none": 0.0} for curve in curves],
    }
