"""Feature maps and filters as the quantisation study shows them: in float above, in int8 below."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.plots.drawing import PATH, SHADES, figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 16
"""Most maps or filters of a layer that are drawn."""
_COLUMNS = 8
Values = NDArray[np.float32]


@dataclass(frozen=True)
class LayerPicture:
    """Maps (count, height, width) of a layer in float and in int8, where it has integers."""

    name: str
    floats: Values
    integers: Values | None


def of_filters(name: str, floats: Values, integers: Values | None) -> LayerPicture:
    """Return filters (filters, channels, height, width) as maps: the mean over their channels."""
    if floats.shape[2:] == (1, 1):  # of one number a channel: those of all channels, as a row
        floats = floats[:, :, 0, 0][None]
        integers = None if integers is None else integers[:, :, 0, 0][None]
        return LayerPicture(f"{name}, by channels", floats, integers)
    both = [None if each is None else each.mean(axis=1) for each in (floats, integers)]
    assert both[0] is not None
    return LayerPicture(name, both[0], both[1])


def draw(layers: Sequence[LayerPicture], title: str, notice: str | None = None) -> "Figure":
    """Return the first maps of each layer, with one scale of shades for float and int8.

    Args:
        layers: The maps of each layer, in floats and in integers.
        title: Above the picture.
        notice: What must not be missed, such as random weights.
    """
    shapes = [min(MOST, len(layer.floats)) for layer in layers]
    lines = [(n + _COLUMNS - 1) // _COLUMNS for n in shapes]
    rows = sum(2 * each for each in lines)
    wide = min(_COLUMNS, max(shapes))
    made = figure(max(5.5, 1.05 * wide + 0.6), 1.08 * rows + 0.55 * 2 * len(layers) + 0.6, notice)
    made.suptitle(title, fontsize=10)
    parts = made.subfigures(
        2 * len(layers), 1, squeeze=False, height_ratios=[n for n in lines for _ in range(2)]
    )[:, 0]
    for place, layer in enumerate(layers):
        _rows(parts[2 * place], f"{_title(layer)}, float", layer.floats, layer, lines[place])
        name = f"{_title(layer)}, int8"
        if layer.integers is None:
            parts[2 * place + 1].suptitle(f"{name}: stays in float", fontsize=9)
        else:
            _rows(parts[2 * place + 1], name, layer.integers, layer, lines[place])
    return made


def _title(layer: LayerPicture) -> str:
    count = len(layer.floats)
    return short(layer.name, PATH) + (f" (first {MOST} of {count})" if count > MOST else "")


def _rows(part: Any, title: str, maps: Values, layer: LayerPicture, lines: int) -> None:
    part.suptitle(title, fontsize=9)
    columns = min(_COLUMNS, MOST, len(layer.floats))
    grid = part.subplots(lines, columns, squeeze=False)
    # Those of the floats for both rows: with scales of their own, what integers lose would not be
    # seen.
    low, high = float(layer.floats.min()), float(layer.floats.max())
    for axes in grid.ravel():
        axes.set_axis_off()
    for axes, values in zip(grid.ravel(), maps[:MOST], strict=False):
        axes.imshow(values, cmap=SHADES, vmin=low, vmax=high, interpolation="nearest")
