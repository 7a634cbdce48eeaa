"""Floats beside integers: weights, outputs, and what each layer loses."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.plots.drawing import COLOURS, MARKERS, PATH, figure, short
from tcc.compiler.quant.program.float_comparison import LayerLoss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = NDArray[np.float32]
BINS = 101
MOST_LAYERS = 120
"""Most layers of a picture; of more, those that lose the most."""
LEAST = 1e-4
"""The least relative error that is drawn."""
MOST_POINTS = 20_000
"""Most points of a scatter."""


def histograms(
    layers: Sequence[tuple[str, Values, Values | None]], title: str, notice: str | None = None
) -> "Figure":
    """Return the distribution of each layer's weights (name, float, int8), log counts.

    Args:
        layers: Name, float weights and the integers' real numbers; None where the layer stays
            in float.
        title: Above the panels.
        notice: What must not be missed, such as random weights.
    """
    made = figure(4.6 * len(layers), 3.6, notice)
    made.suptitle(title, fontsize=10)
    for place, (name, floats, integers) in enumerate(layers):
        axes: Any = made.add_subplot(1, len(layers), place + 1)
        reach = float(np.abs(floats).max()) or 1.0
        edges = np.linspace(-reach, reach, BINS)
        axes.hist(floats.ravel(), edges, color=COLOURS[5], label="float")
        if integers is not None:
            axes.hist(
                integers.ravel(), edges, histtype="step", color=COLOURS[1], label="int8",
                linewidth=1.2,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_title(f"{short(name, PATH)}:\n{floats.size:,} weights", fontsize=8)
        axes.set_xlabel("weight" if integers is not None else "weight (stays in float)")
        axes.set_ylabel("how many")
        axes.legend(loc="upper right")
    return made


def scatter(
    floats: Values, forms: Mapping[str, Values], title: str, notice: str | None = None
) -> "Figure":
    """Return outputs (images, values) of artifacts against those in floats, a panel each.

    Args:
        floats: Outputs in floats.
        forms: The same of each artifact, by its name.
        title: Above the panels.
        notice: What must not be missed, such as random weights.
    """
    columns = min(3, len(forms))
    rows = (len(forms) + columns - 1) // columns
    made = figure(3.6 * columns, 3.6 * rows + 0.5, notice)
    made.suptitle(title, fontsize=10)
    low, high = (f(f(floats), *(f(each) for each in forms.values())) for f in (_least, _most))
    step = max(1, floats.size // MOST_POINTS)
    for place, (name, values) in enumerate(forms.items()):
        axes: Any = made.add_subplot(rows, columns, place + 1)
        axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
        style = {"s": 9, "alpha": 0.5, "linewidths": 0, "color": COLOURS[place % len(COLOURS)]}
        axes.scatter(
            floats.ravel()[::step], values.ravel()[::step],
            marker=MARKERS[place % len(MARKERS)], **style,
        )  # fmt: skip
        apart = float(np.abs(values - floats).max())
        axes.set_title(f"{short(name, 40)}\noff by {apart:.3g} at most", fontsize=8)
        axes.set_xlabel("float")
        axes.set_ylabel("artifact")
        axes.set_aspect("equal")
    return made


def _least(*values: Any) -> float:
    return float(min(np.min(each) for each in values))


def _most(*values: Any) -> float:
    return float(max(np.max(each) for each in values))


def errors(layers: Sequence[LayerLoss], title: str, notice: str | None = None) -> "Figure":
    """Return a bar for each layer: the integers' error relative to its floats, root mean square.

    Args:
        layers: What each layer loses.
        title: Above the bars.
        notice: What must not be missed, such as random weights.
    """
    if len(layers) > MOST_LAYERS:
        kept = {layer.name for layer in sorted(layers, key=lambda each: each.snr)[:MOST_LAYERS]}
        title = f"{title} (the {MOST_LAYERS} of {len(layers)} that lose the most)"
        layers = [layer for layer in layers if layer.name in kept]
    names = [short(layer.name, PATH) for layer in layers]
    made = figure(4.5 + 0.065 * max(map(len, names), default=0), 1.1 + 0.17 * len(layers), notice)
    axes = made.add_subplot()
    shares = [max(10 ** (-layer.snr / 20), LEAST) for layer in layers]
    axes.barh(range(len(layers)), shares, color=COLOURS[0], height=0.7)
    axes.set_xscale("log")
    axes.set_xlim(left=LEAST)
    axes.set_yticks(range(len(layers)), names, fontsize=7)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlabel("error of the integers, relative to the layer's floats")
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)
    return made
