"""The confusion matrix: what the images of each class were taken for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.plots.drawing import SHADES, figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERED = 40
"""Most classes whose cells have their number in them."""


def draw(
    confusion: Sequence[Sequence[int]], labels: Sequence[str], title: str, notice: str | None = None
) -> "Figure":
    """Return the matrix: shaded by the share of a class's images, with their number.

    Args:
        confusion: Images by their class, a row, and the one taken, a column.
        labels: The classes' names.
        title: What stands above it.
        notice: What must not be missed.
    """
    counts = np.array(confusion)
    support = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(support, 1)
    classes = len(labels)
    cell = 0.55 if classes <= 12 else 0.36 if classes <= NUMBERED else 0.2
    longest = max(len(short(label)) for label in labels)
    margin = 1.0 + 0.075 * longest
    made = figure(
        max(3.6, classes * cell + margin + 0.7), max(3.0, classes * cell + margin), notice
    )
    axes = made.add_subplot()
    shown = axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    names = [short(label) for label in labels]
    size = 8 if classes <= NUMBERED else 6.5
    steep = classes > 12 or longest > 6
    axes.set_xticks(range(classes), names, rotation=90 if steep else 0, fontsize=size)
    axes.set_yticks(range(classes), names, fontsize=size)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    axes.set_title(title)
    made.colorbar(shown, ax=axes, label="share of the class", shrink=0.7)
    if classes <= NUMBERED:
        _numbers(axes, counts, shares, 8 if classes <= 12 else 6)
    return made


def _numbers(axes: Any, counts: "np.ndarray", shares: "np.ndarray", size: float) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            # Cividis is dark below and light above the middle.
            shade = "black" if shares[row, column] > 0.55 else "white"
            fit = size if count < 1000 else size * 0.8
            text = f"{count}" if count < 100_000 else f"{count // 1000}k"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=fit)
