"""t-SNE: images as points of a plane, near each other where a network's values are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.plots.drawing import COLOURS, MARKERS, figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 5000
"""Most images of a picture: more are slow to place and cover each other."""
FEWEST = 4
LEGEND = 30
"""Names in a column of the legend."""


def places(features: NDArray[np.floating], seed: int) -> NDArray[np.float64]:
    """Return a point (x, y) of each row of values (images, values).

    By van der Maaten and Hinton's method (2008), from the principal components on, in one thread:
    the same values and seed give the same points on one machine.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    values = features.astype(np.float64)
    spread = values.std(axis=0)
    values = np.where(spread > 0, (values - values.mean(axis=0)) / np.maximum(spread, 1e-300), 0.0)
    if values.shape[1] < 2:
        values = np.hstack([values, np.zeros_like(values)])
    # 30 is scikit-learn's; it must stay below the number of images, of which each is to have a few
    # neighbours.
    perplexity = min(30.0, (len(values) - 1) / 3)
    # Principal components of values that are all alike are a division by 0.
    start = "pca" if (values.std(axis=0) > 0).any() else "random"
    how = TSNE(perplexity=perplexity, init=start, random_state=seed, n_jobs=1)
    # Sums of several threads come in any order, and t-SNE makes other pictures of other last bits.
    with threadpool_limits(1):
        return np.asarray(how.fit_transform(values), np.float64)


def draw(
    points: NDArray[np.float64],
    classes: Sequence[int],
    labels: Sequence[str],
    title: str,
    notice: str | None = None,
) -> "Figure":
    """Return the points (images, 2), with a colour and a mark for each class.

    Args:
        points: Where each image lies.
        classes: The class of each, as an index of `labels`.
        labels: The classes' names.
        title: Above the picture.
        notice: What must not be missed, such as random weights.
    """
    met = sorted(set(classes))
    columns = (len(met) + LEGEND - 1) // LEGEND
    longest = max(len(short(labels[index])) for index in met)
    made = figure(5.4 + columns * (0.4 + 0.068 * longest), 5.6, notice)
    axes = made.add_subplot()
    own = np.asarray(classes)
    for index in met:
        chosen = points[own == index]
        axes.scatter(
            chosen[:, 0], chosen[:, 1], label=short(labels[index]), s=16, alpha=0.75, linewidths=0,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index // len(COLOURS) % len(MARKERS) if len(labels) > 8 else index],
        )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title)
    made.legend(loc="outside right upper", ncols=columns)
    return made
