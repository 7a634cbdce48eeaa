"""Images with maps of classes over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.plots.drawing import figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 64
"""Most images of a picture."""
ROW = 4
"""Images in a row; each has its overlay beside it."""
HEAT = "inferno"


@dataclass(frozen=True)
class Overlay:
    """An image (height, width, 3) from 0 to 1, a map of any size, and what is said of both."""

    image: NDArray[np.float32]
    heat: NDArray[np.float32]
    name: str
    said: str


def draw(overlays: Sequence[Overlay], title: str, notice: str | None = None) -> "Figure":
    """Return each image beside itself with its map over it, bright where the class is seen.

    Args:
        overlays: The images, each with its map.
        title: Above the picture.
        notice: What must not be missed, such as random weights.
    """
    columns = min(ROW, len(overlays))
    rows = (len(overlays) + columns - 1) // columns
    made = figure(max(4.2, 3.6 * columns), 2.1 * rows + 0.6, notice)
    made.suptitle(title, fontsize=10)
    grid = made.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for place, each in enumerate(overlays):
        row, column = divmod(place, columns)
        plain, over = grid[row, 2 * column], grid[row, 2 * column + 1]
        height, width = each.image.shape[:2]
        edges = (-0.5, width - 0.5, height - 0.5, -0.5)
        plain.imshow(each.image, interpolation="nearest")
        plain.set_title(short(each.name), fontsize=7)
        # In grey, or the image's own colours would be read as heat.
        over.imshow(each.image.mean(axis=2), cmap="gray", vmin=0, vmax=1)
        low, high = float(each.heat.min()), float(each.heat.max())
        shares = (each.heat - low) / (high - low) if high > low else np.zeros_like(each.heat)
        # Stretched to the image's edges: pixel centres of a 7x7 map lie elsewhere than those of
        # 224x224.
        over.imshow(shares, cmap=HEAT, alpha=0.55, extent=edges, interpolation="bilinear")
        over.set_title(short(each.said), fontsize=7)
    return made
