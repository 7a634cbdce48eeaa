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
from tcc.compiler.plots.drawing import (
    COLORMAP,
    COLORS,
    MARKERS,
    MAX_PATH_LENGTH,
    create_figure,
    trim_label,
)
from tcc.compiler.plots.layers import FloatArray, QuantizedNetwork
from tcc.compiler.plots.network_plots import FigureBuilder, PlottedNetwork, load_tensors
from tcc.compiler.quant import calibration_file
from tcc.compiler.quant.methods import DEFAULT
from tcc.compiler.quant.program.float_comparison import LayerLoss
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_MAPS = 16
"""Most maps or filters of a layer that are drawn."""
_COLUMNS = 8


@dataclass(frozen=True)
class LayerMaps:
    """Maps (count, height, width) of a layer in float and in int8, where it has integers."""

    name: str
    float_maps: FloatArray
    int8_maps: FloatArray | None


def _average_channels(
    name: str, float_weights: FloatArray, int8_weights: FloatArray | None
) -> LayerMaps:
    """Return filters (filters, channels, height, width) as maps: the mean over their channels."""
    if float_weights.shape[2:] == (
        1,
        1,
    ):  # of one number a channel: those of all channels, as a row
        float_weights = float_weights[:, :, 0, 0][None]
        int8_weights = None if int8_weights is None else int8_weights[:, :, 0, 0][None]
        return LayerMaps(f"{name}, by channels", float_weights, int8_weights)
    means = [
        None if filters is None else filters.mean(axis=1)
        for filters in (float_weights, int8_weights)
    ]
    assert means[0] is not None
    return LayerMaps(name, means[0], means[1])


def _draw_maps(layers: Sequence[LayerMaps], title: str, notice: str | None = None) -> "Figure":
    """Return the first maps of each layer, with one scale of shades for float and int8."""
    map_counts = [min(MAX_MAPS, len(layer.float_maps)) for layer in layers]
    line_counts = [(n + _COLUMNS - 1) // _COLUMNS for n in map_counts]
    rows = sum(2 * line_count for line_count in line_counts)
    columns = min(_COLUMNS, max(map_counts))
    fig = create_figure(
        max(5.5, 1.05 * columns + 0.6), 1.08 * rows + 0.55 * 2 * len(layers) + 0.6, notice
    )
    fig.suptitle(title, fontsize=10)
    subfigures = fig.subfigures(
        2 * len(layers), 1, squeeze=False, height_ratios=[n for n in line_counts for _ in range(2)]
    )[:, 0]
    for index, layer in enumerate(layers):
        _draw_rows(
            subfigures[2 * index],
            f"{_build_title(layer)}, float",
            layer.float_maps,
            layer,
            line_counts[index],
        )
        name = f"{_build_title(layer)}, int8"
        if layer.int8_maps is None:
            subfigures[2 * index + 1].suptitle(f"{name}: stays in float", fontsize=9)
        else:
            _draw_rows(subfigures[2 * index + 1], name, layer.int8_maps, layer, line_counts[index])
    return fig


def _build_title(layer: LayerMaps) -> str:
    count = len(layer.float_maps)
    return trim_label(layer.name, MAX_PATH_LENGTH) + (
        f" (first {MAX_MAPS} of {count})" if count > MAX_MAPS else ""
    )


def _draw_rows(subfigure: Any, title: str, maps: FloatArray, layer: LayerMaps, lines: int) -> None:
    subfigure.suptitle(title, fontsize=9)
    columns = min(_COLUMNS, MAX_MAPS, len(layer.float_maps))
    grid = subfigure.subplots(lines, columns, squeeze=False)
    # Those of the floats for both rows: with scales of their own, what integers lose would not be
    # seen.
    low, high = float(layer.float_maps.min()), float(layer.float_maps.max())
    for axes in grid.ravel():
        axes.set_axis_off()
    for axes, channel_map in zip(grid.ravel(), maps[:MAX_MAPS], strict=False):
        axes.imshow(channel_map, cmap=COLORMAP, vmin=low, vmax=high, interpolation="nearest")


BINS = 101
MAX_LAYERS = 120
"""Most layers of a picture; of more, those that lose the most."""
MIN_ERROR = 1e-4
"""The least relative error that is drawn."""
MAX_POINTS = 20_000
"""Most points of a scatter."""


def _draw_histograms(
    layers: Sequence[tuple[str, FloatArray, FloatArray | None]],
    title: str,
    notice: str | None = None,
) -> "Figure":
    """Return the distribution of each layer's weights (name, float, int8), log counts.

    The last is the integers' real numbers, or None where the layer stays in float.
    """
    fig = create_figure(4.6 * len(layers), 3.6, notice)
    fig.suptitle(title, fontsize=10)
    for index, (name, float_weights, int8_weights) in enumerate(layers):
        axes: Any = fig.add_subplot(1, len(layers), index + 1)
        limit = float(np.abs(float_weights).max()) or 1.0
        edges = np.linspace(-limit, limit, BINS)
        axes.hist(float_weights.ravel(), edges, color=COLORS[5], label="float")
        if int8_weights is not None:
            axes.hist(
                int8_weights.ravel(), edges, histtype="step", color=COLORS[1], label="int8",
                linewidth=1.2,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_title(
            f"{trim_label(name, MAX_PATH_LENGTH)}:\n{float_weights.size:,} weights", fontsize=8
        )
        axes.set_xlabel("weight" if int8_weights is not None else "weight (stays in float)")
        axes.set_ylabel("how many")
        axes.legend(loc="upper right")
    return fig


def draw_scatter(
    float_outputs: FloatArray,
    outputs_by_artifact: Mapping[str, FloatArray],
    title: str,
    notice: str | None = None,
) -> "Figure":
    """Return outputs (images, values) of artifacts against those in floats, a panel each.

    Args:
        float_outputs: Outputs in floats.
        outputs_by_artifact: The same of each artifact, by its name.
        title: Above the panels.
        notice: What must not be missed, such as random weights.
    """
    columns = min(3, len(outputs_by_artifact))
    rows = (len(outputs_by_artifact) + columns - 1) // columns
    fig = create_figure(3.6 * columns, 3.6 * rows + 0.5, notice)
    fig.suptitle(title, fontsize=10)
    all_outputs = (float_outputs, *outputs_by_artifact.values())
    low, high = float(min(map(np.min, all_outputs))), float(max(map(np.max, all_outputs)))
    step = max(1, float_outputs.size // MAX_POINTS)
    for index, (name, outputs) in enumerate(outputs_by_artifact.items()):
        axes: Any = fig.add_subplot(rows, columns, index + 1)
        axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
        style = {"s": 9, "alpha": 0.5, "linewidths": 0, "color": COLORS[index % len(COLORS)]}
        axes.scatter(
            float_outputs.ravel()[::step], outputs.ravel()[::step],
            marker=MARKERS[index % len(MARKERS)], **style,
        )  # fmt: skip
        max_error = float(np.abs(outputs - float_outputs).max())
        axes.set_title(f"{trim_label(name, 40)}\noff by {max_error:.3g} at most", fontsize=8)
        axes.set_xlabel("float")
        axes.set_ylabel("artifact")
        axes.set_aspect("equal")
    return fig


def draw_errors(layers: Sequence[LayerLoss], title: str, notice: str | None = None) -> "Figure":
    """Return a bar for each layer: the integers' error relative to its floats, root mean square.

    Args:
        layers: What each layer loses.
        title: Above the bars.
        notice: What must not be missed, such as random weights.
    """
    if len(layers) > MAX_LAYERS:
        kept_names = {
            layer.name for layer in sorted(layers, key=lambda loss: loss.snr)[:MAX_LAYERS]
        }
        title = f"{title} (the {MAX_LAYERS} of {len(layers)} that lose the most)"
        layers = [layer for layer in layers if layer.name in kept_names]
    names = [trim_label(layer.name, MAX_PATH_LENGTH) for layer in layers]
    fig = create_figure(
        4.5 + 0.065 * max(map(len, names), default=0), 1.1 + 0.17 * len(layers), notice
    )
    axes = fig.add_subplot()
    relative_errors = [max(10 ** (-layer.snr / 20), MIN_ERROR) for layer in layers]
    axes.barh(range(len(layers)), relative_errors, color=COLORS[0], height=0.7)
    axes.set_xscale("log")
    axes.set_xlim(left=MIN_ERROR)
    axes.set_yticks(range(len(layers)), names, fontsize=7)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlabel("error of the integers, relative to the layer's floats")
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)
    return fig


def quantize_network(
    net: PlottedNetwork, images: DataSet | None, file: Path | None, progress: Progress = silent
) -> tuple[QuantizedNetwork, "int8_program.CalibrationSource"]:
    """Return a network as integers, by the calibration of a file or a fresh one of images.

    Raises:
        UserError: The calibration is another network's, or neither is given (E0616).
    """
    if file is not None:
        source = int8_program.from_file(file, net.spec, net.weight_source, images)
    elif images is not None:
        request = pipeline.CalibrationRequest(
            int8_program.ANY_TARGET, DEFAULT, RunOptions(progress=progress)
        )
        source = int8_program.from_images(net.spec, net.weight_source, images, request)
    else:
        help = "give images with --data, or a calibration with --calibration"
        message = "integers need a calibration"
        raise fail("E0616", message, make_file_span(net.spec.name), help=help)
    lowered_model = pipeline.lower_for_int8(net.spec, net.weight_source)
    calibration = calibration_file.decode_calibration(source.document, lowered_model, source.name)
    return QuantizedNetwork(
        lowered_model, quantize(lowered_model, calibration), calibration
    ), source


def plot_features(
    net: PlottedNetwork, quantized: QuantizedNetwork, images: DataSet, path: str | None
) -> FigureBuilder:
    """Return the maps of the first and last convolution for the first image, or those of a layer.

    Raises:
        UserError: There is no such layer (E1281), or it has no maps.
    """
    graph, network_name = net.spec.graph, net.spec.name
    item, tensor = load_tensors(net, images.select_first(1))[0]
    (lowered_input,) = quantized.lowered_model.graph.inputs
    int8_maps = layers.compute_int8_values(
        quantized, images.select_first(1).read_tensor(0, lowered_input)
    )
    if path:
        names = [layers.find_value(graph, path, network_name)]
    else:
        nodes = layers.select_convolutions(graph, network_name)
        names = [layers.find_compared_value(graph, quantized, node) for node in nodes]
    layer_maps = []
    for name in dict.fromkeys(names):
        float_maps = layers.create_float_runner(net.model, name)(tensor)
        if float_maps.ndim != 3:
            message = f"`{name[:120]}` is a row of numbers, and no feature maps"
            raise fail("E1281", message, make_file_span(network_name))
        layer_maps.append(LayerMaps(name, float_maps, int8_maps.get(name)))
    title = (
        f"feature maps of {drawing.trim_label(item.path.name)}, {drawing.trim_label(network_name)}"
    )
    return lambda: _draw_maps(layer_maps, title, net.notice)


def plot_filters(net: PlottedNetwork, quantized: QuantizedNetwork) -> FigureBuilder:
    """Return the filters of the first and last convolution, batch norms folded in.

    Raises:
        UserError: There is no convolution (E1281).
    """
    layer_maps = [
        _average_channels(*layer_weights) for layer_weights in _collect_weights(net, quantized)
    ]
    title = f"filters, {drawing.trim_label(net.spec.name)}"
    return lambda: _draw_maps(layer_maps, title, net.notice)


def plot_weights(net: PlottedNetwork, quantized: QuantizedNetwork) -> FigureBuilder:
    """Return histograms of the weights of the first and last convolution, batch norms folded in.

    Raises:
        UserError: There is no convolution (E1281).
    """
    layer_weights = _collect_weights(net, quantized)
    title = f"weights, {drawing.trim_label(net.spec.name)}"
    return lambda: _draw_histograms(layer_weights, title, net.notice)


def _collect_weights(
    net: PlottedNetwork, quantized: QuantizedNetwork
) -> list[tuple[str, FloatArray, FloatArray | None]]:
    graph = net.spec.graph
    nodes = layers.select_convolutions(graph, net.spec.name)
    return [
        (node.name, *layers.get_filters(quantized, layers.find_folded_conv(graph, quantized, node)))
        for node in nodes
    ]


def measure_layer_errors(
    net: PlottedNetwork, source: "int8_program.CalibrationSource", progress: Progress = silent
) -> tuple[LayerLoss, ...]:
    """Return what each layer loses as integers, over the images held out of the calibration.

    Raises:
        UserError: There are no images (E0616).
    """
    images = source.held_out_images
    if images is None:
        help = "give them with --data"
        message = "what layers lose is measured over images"
        raise fail("E0616", message, make_file_span(net.spec.name), help=help)
    return int8_program.compare_with_floats(
        net.spec, net.weight_source, source.document, images, progress
    ).layers


def plot_layer_errors(net: PlottedNetwork, layer_errors: Sequence[LayerLoss]) -> FigureBuilder:
    """Return a bar for what each layer loses, as `measure_layer_errors` has it."""
    title = f"{drawing.trim_label(net.spec.name)} in int8"
    return lambda: draw_errors(layer_errors, title, net.notice)


def plot_scatter(
    net: PlottedNetwork, float_evaluation: Evaluated, evaluations: Mapping[str, Evaluated]
) -> FigureBuilder:
    """Return the outputs of artifacts against those of the network in floats.

    Args:
        net: The network.
        float_evaluation: What it gave in floats.
        evaluations: What artifacts gave for the same images, by name.
    """
    float_outputs = _get_raw(float_evaluation)
    title = (
        f"`{float_evaluation.images.output.name}` of {drawing.trim_label(net.spec.name)}, "
        f"{len(float_outputs):,} images"
    )
    outputs_by_artifact = {name: _get_raw(evaluation) for name, evaluation in evaluations.items()}
    return lambda: draw_scatter(float_outputs, outputs_by_artifact, title, net.notice)


def _get_raw(evaluation: Evaluated) -> FloatArray:
    assert evaluation.raw is not None  # images are few
    return evaluation.raw
