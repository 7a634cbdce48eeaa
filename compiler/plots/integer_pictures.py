"""The kinds of pictures that set integers beside floats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.driver import int8_program, pipeline
from tcc.compiler.driver.evaluation import Evaluated
from tcc.compiler.plots import drawing, layers
from tcc.compiler.plots.drawing import COLOURS, MARKERS, PATH, SHADES, figure, short
from tcc.compiler.plots.layers import Quantised, Values
from tcc.compiler.plots.pictures import Make, PlottedNetwork, tensors
from tcc.compiler.quant import calibration_file
from tcc.compiler.quant.methods import DEFAULT
from tcc.compiler.quant.program.float_comparison import LayerLoss
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 16
"""Most maps or filters of a layer that are drawn."""
_COLUMNS = 8


@dataclass(frozen=True)
class LayerPicture:
    """Maps (count, height, width) of a layer in float and in int8, where it has integers."""

    name: str
    floats: Values
    integers: Values | None


def _average_channels(name: str, floats: Values, integers: Values | None) -> LayerPicture:
    """Return filters (filters, channels, height, width) as maps: the mean over their channels."""
    if floats.shape[2:] == (1, 1):  # of one number a channel: those of all channels, as a row
        floats = floats[:, :, 0, 0][None]
        integers = None if integers is None else integers[:, :, 0, 0][None]
        return LayerPicture(f"{name}, by channels", floats, integers)
    both = [None if each is None else each.mean(axis=1) for each in (floats, integers)]
    assert both[0] is not None
    return LayerPicture(name, both[0], both[1])


def _draw_maps(layers: Sequence[LayerPicture], title: str, notice: str | None = None) -> "Figure":
    """Return the first maps of each layer, with one scale of shades for float and int8."""
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


BINS = 101
MOST_LAYERS = 120
"""Most layers of a picture; of more, those that lose the most."""
LEAST = 1e-4
"""The least relative error that is drawn."""
MOST_POINTS = 20_000
"""Most points of a scatter."""


def _draw_histograms(
    layers: Sequence[tuple[str, Values, Values | None]], title: str, notice: str | None = None
) -> "Figure":
    """Return the distribution of each layer's weights (name, float, int8), log counts.

    The last is the integers' real numbers, or None where the layer stays in float.
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


def draw_scatter(
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
    every = (floats, *forms.values())
    low, high = float(min(map(np.min, every))), float(max(map(np.max, every)))
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


def draw_errors(layers: Sequence[LayerLoss], title: str, notice: str | None = None) -> "Figure":
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


def quantised(
    net: PlottedNetwork, images: DataSet | None, file: Path | None, progress: Progress = silent
) -> tuple[Quantised, "int8_program.CalibrationSource"]:
    """Return a network as integers, by the calibration of a file or a fresh one of images.

    Raises:
        UserError: The calibration is another network's, or neither is given (E0616).
    """
    if file is not None:
        source = int8_program.from_file(file, net.spec, net.given, images)
    elif images is not None:
        wanted = pipeline.CalibrationRequest(
            int8_program.ANY, DEFAULT, RunOptions(progress=progress)
        )
        source = int8_program.from_images(net.spec, net.given, images, wanted)
    else:
        help = "give images with --data, or a calibration with --calibration"
        message = "integers need a calibration"
        raise fail("E0616", message, whole_file(net.spec.name), help=help)
    ready = pipeline.ready(net.spec, net.given)
    calibration = calibration_file.calibration(source.document, ready, source.name)
    return Quantised(ready, quantize(ready, calibration), calibration), source


def features(net: PlottedNetwork, made: Quantised, images: DataSet, path: str | None) -> Make:
    """Return the maps of the first and last convolution for the first image, or those of a layer.

    Raises:
        UserError: There is no such layer (E1281), or it has no maps.
    """
    graph, where = net.spec.graph, net.spec.name
    item, tensor = tensors(net, images.first(1))[0]
    (ready,) = made.ready.graph.inputs
    own = layers.integers(made, images.first(1).tensor(0, ready))
    if path:
        names = [layers.find(graph, path, where)]
    else:
        found = layers.convolutions(graph, where)
        names = [layers.compared(graph, made, node) for node in found]
    pictures = []
    for name in dict.fromkeys(names):
        values = layers.floats(net.model, name)(tensor)
        if values.ndim != 3:
            message = f"`{name[:120]}` is a row of numbers, and no feature maps"
            raise fail("E1281", message, whole_file(where))
        pictures.append(LayerPicture(name, values, own.get(name)))
    title = f"feature maps of {drawing.short(item.path.name)}, {drawing.short(where)}"
    return lambda: _draw_maps(pictures, title, net.notice)


def filters(net: PlottedNetwork, made: Quantised) -> Make:
    """Return the filters of the first and last convolution, batch norms folded in.

    Raises:
        UserError: There is no convolution (E1281).
    """
    pictures = [_average_channels(*each) for each in _weights(net, made)]
    title = f"filters, {drawing.short(net.spec.name)}"
    return lambda: _draw_maps(pictures, title, net.notice)


def weights(net: PlottedNetwork, made: Quantised) -> Make:
    """Return histograms of the weights of the first and last convolution, batch norms folded in.

    Raises:
        UserError: There is no convolution (E1281).
    """
    found = _weights(net, made)
    title = f"weights, {drawing.short(net.spec.name)}"
    return lambda: _draw_histograms(found, title, net.notice)


def _weights(net: PlottedNetwork, made: Quantised) -> list[tuple[str, Values, Values | None]]:
    graph = net.spec.graph
    nodes = layers.convolutions(graph, net.spec.name)
    return [(node.name, *layers.filters(made, layers.folded(graph, made, node))) for node in nodes]


def losses(
    net: PlottedNetwork, source: "int8_program.CalibrationSource", progress: Progress = silent
) -> tuple[LayerLoss, ...]:
    """Return what each layer loses as integers, over the images held out of the calibration.

    Raises:
        UserError: There are no images (E0616).
    """
    images = source.judge
    if images is None:
        help = "give them with --data"
        message = "what layers lose is measured over images"
        raise fail("E0616", message, whole_file(net.spec.name), help=help)
    return int8_program.compared(net.spec, net.given, source.document, images, progress).layers


def errors(net: PlottedNetwork, found: Sequence[LayerLoss]) -> Make:
    """Return a bar for what each layer loses, as `losses` has it."""
    title = f"{drawing.short(net.spec.name)} in int8"
    return lambda: draw_errors(found, title, net.notice)


def scatter(net: PlottedNetwork, given: Evaluated, forms: Mapping[str, Evaluated]) -> Make:
    """Return the outputs of artifacts against those of the network in floats.

    Args:
        net: The network.
        given: What it gave in floats.
        forms: What artifacts gave for the same images, by name.
    """
    floats = _raw(given)
    title = f"`{given.given.output.name}` of {drawing.short(net.spec.name)}, {len(floats):,} images"
    values = {name: _raw(each) for name, each in forms.items()}
    return lambda: draw_scatter(floats, values, title, net.notice)


def _raw(found: Evaluated) -> Values:
    assert found.raw is not None  # images are few
    return found.raw
