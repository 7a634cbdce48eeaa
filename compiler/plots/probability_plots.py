"""Plots of probabilities: reliability diagrams, and decision curves with both alternatives."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tcc.compiler.data.probability_quality import DecisionCurve, Reliability
from tcc.compiler.driver import probability_curves
from tcc.compiler.driver.evaluation import Evaluated
from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.plots.drawing import COLORS, create_figure, trim_label
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PANELS = probability_curves.MAX_CURVES
"""Most decisions or classes in one figure, each in a panel."""
PANELS_PER_ROW = 3
GREY = "#8C959F"


def measure_reliability(
    evaluation: Evaluated, point: OperatingPoint | None
) -> tuple[Reliability, ...]:
    """Return the reliability of a network's classes, or of each decision.

    Raises:
        UserError: It has no probabilities, or too many decisions for a figure (E1284).
    """
    _check_probabilities(evaluation)
    temperature = point.temperature if point else 1.0
    measured = probability_curves.measure_reliability(evaluation, temperature, 0)
    if len(measured) > MAX_PANELS:
        message = f"{len(measured)} decisions are too many for one figure"
        help = "`tcc eval --json` has the bins of each decision"
        raise fail("E1284", message, make_file_span(str(evaluation.images.path)), help=help)
    return measured


def compute_curves(
    evaluation: Evaluated, point: OperatingPoint | None, class_name: str | None
) -> tuple[DecisionCurve, ...]:
    """Return the decision curves of the target classes.

    Args:
        evaluation: The network's evaluation on labelled images.
        point: Its operating point, if any.
        class_name: The target classes, joined with `+`; None for the positive class or each class.

    Raises:
        UserError: It has no probabilities, or too many classes for a figure (E1284); or no such
            class (E1262).
    """
    _check_probabilities(evaluation)
    targets = probability_curves.choose_targets(evaluation.images, point, class_name)
    if not targets:
        message = f"{len(evaluation.images.labels)} classes are too many for one figure"
        help = "name the target class, or several joined with `+`, with `--class`"
        raise fail("E1284", message, make_file_span(str(evaluation.images.path)), help=help)
    temperature = point.temperature if point else 1.0
    return probability_curves.compute_curves(evaluation, temperature, targets)


def _check_probabilities(evaluation: Evaluated) -> None:
    if probability_curves.has_probabilities(evaluation):
        return
    raise _create_probability_error(evaluation)


def _create_probability_error(evaluation: Evaluated) -> UserError:
    message = f"`{evaluation.images.output.name}` has no probabilities to plot"
    help = "set the `activation` of the output in the spec"
    return fail("E1284", message, make_file_span(str(evaluation.images.path)), help=help)


def draw_reliability(
    reliability: Sequence[Reliability], title: str, notice: str | None = None
) -> "Figure":
    """Return a reliability diagram: the accuracy of each bin of confidence, with its interval.

    Args:
        reliability: Of the classes, or of each decision in a panel of its own.
        title: Title of the plot.
        notice: A warning shown below the plot.
    """
    fig = _create_panels(len(reliability), title, notice, _draw_bins, reliability)
    fig.supylabel("accuracy (95 % confidence interval)", fontsize=9)
    return fig


def draw_curves(curves: Sequence[DecisionCurve], title: str, notice: str | None = None) -> "Figure":
    """Return decision curves: net benefit by threshold, with those of acting on all and on none.

    Args:
        curves: The curves, each in a panel of its own.
        title: Title of the plot.
        notice: A warning shown below the plot.
    """
    fig = _create_panels(len(curves), title, notice, _draw_curve, curves)
    fig.supylabel("net benefit per image (95 % confidence interval)", fontsize=9)
    return fig


def _create_panels(
    count: int,
    title: str,
    notice: str | None,
    draw: Callable[[Any, Any], None],
    subjects: Sequence[Any],
) -> "Figure":
    columns = min(PANELS_PER_ROW, count)
    rows = (count + columns - 1) // columns
    fig = create_figure(max(4.6, 3.4 * columns), 3.7 * rows + 0.5, notice)
    fig.suptitle(title, fontsize=10)
    for index, subject in enumerate(subjects):
        draw(fig.add_subplot(rows, columns, index + 1), subject)
    return fig


def _draw_bins(axes: Any, reliability: Reliability) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    confidences = [b.confidence for b in reliability.bins]
    accuracies = [b.accuracy for b in reliability.bins]
    errors = [
        [b.accuracy - b.low for b in reliability.bins],
        [b.high - b.accuracy for b in reliability.bins],
    ]
    axes.errorbar(
        confidences, accuracies, errors, fmt="o", markersize=4, capsize=2, color=COLORS[0]
    )
    # Bars along the bottom: the share of the images in each bin.
    shares = [b.images / reliability.images for b in reliability.bins]
    axes.bar(confidences, shares, width=0.02, color=GREY, alpha=0.45, label="share of images")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("mean confidence in the predicted class")
    name = f"{trim_label(reliability.label)}: " if reliability.label else ""
    verdict = "miscalibrated" if reliability.is_miscalibrated else "within chance"
    axes.set_title(
        f"{name}ECE {reliability.error:.4f}\nlimit by chance {reliability.limit:.4f}: {verdict}",
        fontsize=8,
    )
    axes.legend(loc="upper left")
    axes.grid(alpha=0.25)


def _draw_curve(axes: Any, curve: DecisionCurve) -> None:
    axes.fill_between(curve.thresholds, curve.low, curve.high, color=COLORS[0], alpha=0.15)
    axes.plot(curve.thresholds, curve.net_benefit, color=COLORS[0], linewidth=1.8, label="network")
    axes.plot(curve.thresholds, curve.treat_all, color=COLORS[1], linestyle="--", label="all")
    axes.plot([0, 1], [0, 0], color=COLORS[6], linestyle=":", label="none")
    # Acting on all, and the intervals, fall without limit towards a threshold of 1.
    top = max(*curve.net_benefit, curve.positives / curve.images, 0.01)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.2 * top, 1.15 * top)
    axes.set_xlabel("threshold probability")
    share = f"{curve.positives / curve.images:.1%} of {curve.images:,} images"
    axes.set_title(f"{trim_label(curve.name)}\n{share}", fontsize=8)
    axes.legend(loc="best")
    axes.grid(alpha=0.25)
