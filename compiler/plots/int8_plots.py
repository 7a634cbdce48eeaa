"""Plots that compare the int8 model with the fp32 model."""

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
"""Maximum feature maps or filters drawn per layer."""
_COLUMNS = 8


@dataclass(frozen=True)
class LayerMaps:
    """Maps (count, height, width) of a layer in fp32, and in int8 if the layer is quantized."""

    name: str
    float_maps: FloatArray
    int8_maps: FloatArray | None


def _average_channels(
    name: str, float_weights: FloatArray, int8_weights: FloatArray | None
) -> LayerMaps:
    """Return filters (filters, channels, height, width) as maps: the mean over the channels."""
    if float_weights.shape[2:] == (
        1,
        1,
    ):  # pointwise filters: one row of channel weights per filter
        float_weights = float_weights[:, :, 0, 0][None]
        int8_weights = None if int8_weights is None else int8_weights[:, :, 0, 0][None]
        return LayerMaps(f"{name}, filters x channels", float_weights, int8_weights)
    means = [
        None if filters is None else filters.mean(axis=1)
        for filters in (float_weights, int8_weights)
    ]
    assert means[0] is not None
    return LayerMaps(name, means[0], means[1])


def _draw_maps(
    layers: Sequence[LayerMaps], title: str, unit: str, notice: str | None = None
) -> "Figure":
    """Return the first maps of each layer; fp32 and int8 share a colour scale, named `unit`."""
    map_counts = [min(MAX_MAPS, len(layer.float_maps)) for layer in layers]
    columns = min(_COLUMNS, max(map_counts))
    cell = 0.95 if columns > 4 else 1.3
    heights = []
    for layer, count in zip(layers, map_counts, strict=True):
        height = cell * ((count + _COLUMNS - 1) // _COLUMNS) + 0.3
        heights += [height, 0.3 if layer.int8_maps is None else height]
    fig = create_figure(max(5.5, cell * columns + 1.2), sum(heights) + 0.5, notice)
    fig.suptitle(title, fontsize=10)
    subfigures = fig.subfigures(2 * len(layers), 1, squeeze=False, height_ratios=heights)[:, 0]
    for index, layer in enumerate(layers):
        _draw_map_grid(
            subfigures[2 * index],
            f"{_build_title(layer)}, fp32",
            layer.float_maps,
            layer,
            unit,
        )
        name = f"{_build_title(layer)}, int8"
        if layer.int8_maps is None:
            subfigures[2 * index + 1].suptitle(f"{name}: not quantized", fontsize=9)
        else:
            _draw_map_grid(subfigures[2 * index + 1], name, layer.int8_maps, layer, unit)
    return fig


def _build_title(layer: LayerMaps) -> str:
    count = len(layer.float_maps)
    return trim_label(layer.name, MAX_PATH_LENGTH) + (
        f" (first {MAX_MAPS} of {count})" if count > MAX_MAPS else ""
    )


def _draw_map_grid(
    subfigure: Any, title: str, maps: FloatArray, layer: LayerMaps, unit: str
) -> None:
    """Draw the first maps of a layer in a grid; `layer` gives the range of the colours."""
    subfigure.suptitle(title, fontsize=9)
    count = min(MAX_MAPS, len(layer.float_maps))
    columns = min(_COLUMNS, count)
    grid = subfigure.subplots((count + columns - 1) // columns, columns, squeeze=False)
    # Both rows use the fp32 range: with separate scales, the quantization error would be invisible.
    low, high = float(layer.float_maps.min()), float(layer.float_maps.max())
    for axes in grid.ravel():
        axes.set_axis_off()
    for axes, channel_map in zip(grid.ravel(), maps[:MAX_MAPS], strict=False):
        shown_map = axes.imshow(
            channel_map, cmap=COLORMAP, vmin=low, vmax=high, interpolation="nearest"
        )
    subfigure.colorbar(shown_map, ax=list(grid.ravel()), label=unit, shrink=0.9, aspect=12)


BINS = 101
MAX_LAYERS = 120
"""Maximum layers per plot; if there are more, those with the largest error."""
MIN_ERROR = 1e-4
"""Lower end of the relative error axis."""
MAX_POINTS = 20_000
"""Maximum points of a scatter plot."""


def _draw_histograms(
    layers: Sequence[tuple[str, FloatArray, FloatArray | None]],
    title: str,
    notice: str | None = None,
) -> "Figure":
    """Return a histogram of each layer's weights (name, fp32, int8), with log counts.

    The int8 weights are dequantized; None if the layer is not quantized.
    """
    fig = create_figure(4.6 * len(layers), 3.6, notice)
    fig.suptitle(title, fontsize=10)
    for index, (name, float_weights, int8_weights) in enumerate(layers):
        axes: Any = fig.add_subplot(1, len(layers), index + 1)
        limit = float(np.abs(float_weights).max()) or 1.0
        edges = np.linspace(-limit, limit, BINS)
        axes.hist(float_weights.ravel(), edges, color=COLORS[5], label="fp32")
        if int8_weights is not None:
            axes.hist(
                int8_weights.ravel(), edges, histtype="step", color=COLORS[1],
                label="int8, dequantized", linewidth=1.2,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_title(
            f"{trim_label(name, MAX_PATH_LENGTH)}\n{float_weights.size:,} weights", fontsize=9
        )
        axes.set_xlabel("weight" if int8_weights is not None else "weight (layer not quantized)")
        axes.set_ylabel("number of weights")
        axes.legend(loc="upper right")
    return fig


def draw_scatter(
    float_outputs: FloatArray,
    outputs_by_artifact: Mapping[str, FloatArray],
    title: str,
    notice: str | None = None,
) -> "Figure":
    """Return a scatter plot of each artifact's outputs against the fp32 outputs.

    Args:
        float_outputs: Outputs of the fp32 model, (images, values).
        outputs_by_artifact: Outputs of each artifact, by its name.
        title: Title of the plot.
        notice: A warning shown below the plot, such as random weights.
    """
    columns = min(3, len(outputs_by_artifact))
    rows = (len(outputs_by_artifact) + columns - 1) // columns
    fig = create_figure(max(4.2, 3.0 * columns), 3.2 * rows + 0.5, notice)
    fig.suptitle(title, fontsize=10)
    all_outputs = (float_outputs, *outputs_by_artifact.values())
    low, high = float(min(map(np.min, all_outputs))), float(max(map(np.max, all_outputs)))
    step = max(1, float_outputs.size // MAX_POINTS)
    for index, (name, outputs) in enumerate(outputs_by_artifact.items()):
        axes: Any = fig.add_subplot(rows, columns, index + 1)
        axes.plot([low, high], [low, high], color="grey", linewidth=0.8, label="equal outputs")
        style = {"s": 9, "alpha": 0.5, "linewidths": 0, "color": COLORS[index % len(COLORS)]}
        axes.scatter(
            float_outputs.ravel()[::step], outputs.ravel()[::step],
            marker=MARKERS[index % len(MARKERS)], **style,
        )  # fmt: skip
        max_error = float(np.abs(outputs - float_outputs).max())
        axes.set_title(f"{trim_label(name, 36)}\nmax. difference {max_error:.3g}", fontsize=9)
        axes.set_xlabel("fp32 output")
        axes.set_ylabel("artifact output")
        axes.set_aspect("equal")
        axes.legend(loc="upper left")
    return fig


def draw_errors(layers: Sequence[LayerLoss], title: str, notice: str | None = None) -> "Figure":
    """Return a bar chart of each layer's relative RMS error, int8 against fp32.

    Args:
        layers: The quantization error of each layer.
        title: Title of the plot.
        notice: A warning shown below the plot, such as random weights.
    """
    if len(layers) > MAX_LAYERS:
        kept_names = {
            layer.name for layer in sorted(layers, key=lambda loss: loss.snr)[:MAX_LAYERS]
        }
        title = f"{title} (the {MAX_LAYERS} of {len(layers)} layers with the largest error)"
        layers = [layer for layer in layers if layer.name in kept_names]
    names = [trim_label(layer.name, MAX_PATH_LENGTH) for layer in layers]
    fig = create_figure(
        5.0 + 0.07 * max(map(len, names), default=0), 1.2 + 0.19 * len(layers), notice
    )
    axes = fig.add_subplot()
    relative_errors = [max(10 ** (-layer.snr / 20), MIN_ERROR) for layer in layers]
    axes.barh(range(len(layers)), relative_errors, color=COLORS[0], height=0.7)
    axes.set_xscale("log")
    axes.set_xlim(left=MIN_ERROR)
    axes.set_yticks(range(len(layers)), names, fontsize=8)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlabel("relative RMS error, int8 against fp32")
    axes.set_ylabel("layer")
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)
    return fig


def quantize_network(
    net: PlottedNetwork, images: DataSet | None, file: Path | None, progress: Progress = silent
) -> tuple[QuantizedNetwork, "int8_program.CalibrationSource"]:
    """Return the quantized network, from a calibration file or by calibrating on images.

    Raises:
        UserError: The calibration is of another network, or there is no calibration (E0616).
    """
    if file is not None:
        source = int8_program.from_file(file, net.spec, net.weight_source, images)
    elif images is not None:
        request = pipeline.CalibrationRequest(
            int8_program.ANY_TARGET, DEFAULT, RunOptions(progress=progress)
        )
        source = int8_program.from_images(net.spec, net.weight_source, images, request)
    else:
        help = "give calibration images with --data, or a calibration file with --calibration"
        message = "this plot needs the int8 model, and int8 needs a calibration"
        raise fail("E0616", message, make_file_span(net.spec.name), help=help)
    lowered_model = pipeline.lower_for_int8(net.spec, net.weight_source)
    calibration = calibration_file.decode_calibration(source.document, lowered_model, source.name)
    return QuantizedNetwork(
        lowered_model, quantize(lowered_model, calibration), calibration
    ), source


def plot_features(
    net: PlottedNetwork, quantized: QuantizedNetwork, images: DataSet, path: str | None
) -> FigureBuilder:
    """Return feature maps of the first image: of the first and last convolution, or of one layer.

    Raises:
        UserError: There is no such layer, or it has no feature maps (E1281).
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
            shape = "x".join(map(str, float_maps.shape))
            message = f"layer `{name[:120]}` has no feature maps: its shape is {shape}"
            help = "choose a layer before the global pooling; `tcc show` lists the layers"
            raise fail("E1281", message, make_file_span(network_name), help=help)
        layer_maps.append(LayerMaps(name, float_maps, int8_maps.get(name)))
    title = (
        f"Feature maps of {drawing.trim_label(item.path.name)}, {drawing.trim_label(network_name)}"
    )
    return lambda: _draw_maps(layer_maps, title, "activation", net.notice)


def plot_filters(net: PlottedNetwork, quantized: QuantizedNetwork) -> FigureBuilder:
    """Return the filters of the first and last convolution, with batch norms folded in.

    Raises:
        UserError: There is no convolution (E1281).
    """
    layer_maps = [
        _average_channels(*layer_weights) for layer_weights in _collect_weights(net, quantized)
    ]
    title = f"Convolution filters of {drawing.trim_label(net.spec.name)}"
    return lambda: _draw_maps(layer_maps, title, "weight", net.notice)


def plot_weights(net: PlottedNetwork, quantized: QuantizedNetwork) -> FigureBuilder:
    """Return weight histograms of the first and last convolution, with batch norms folded in.

    Raises:
        UserError: There is no convolution (E1281).
    """
    layer_weights = _collect_weights(net, quantized)
    title = f"Weight distribution of {drawing.trim_label(net.spec.name)}"
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
    """Return the quantization error of each layer, measured on held-out calibration images.

    Raises:
        UserError: There are no images (E0616).
    """
    images = source.held_out_images
    if images is None:
        help = "give images with --data"
        message = "the quantization error of layers is measured on images, and there are none"
        raise fail("E0616", message, make_file_span(net.spec.name), help=help)
    return int8_program.compare_with_floats(
        net.spec, net.weight_source, source.document, images, progress
    ).layers


def plot_layer_errors(net: PlottedNetwork, layer_errors: Sequence[LayerLoss]) -> FigureBuilder:
    """Return the bar chart of the errors that `measure_layer_errors` returns."""
    title = f"Quantization error by layer, {drawing.trim_label(net.spec.name)}"
    return lambda: draw_errors(layer_errors, title, net.notice)


def plot_scatter(
    net: PlottedNetwork, float_evaluation: Evaluated, evaluations: Mapping[str, Evaluated]
) -> FigureBuilder:
    """Return the scatter plot of artifact outputs against fp32 outputs.

    Args:
        net: The network.
        float_evaluation: The evaluation of the fp32 model.
        evaluations: The evaluation of each artifact on the same images, by name.
    """
    float_outputs = _get_raw(float_evaluation)
    title = (
        f"Output `{float_evaluation.images.output.name}` of {drawing.trim_label(net.spec.name)}, "
        f"{len(float_outputs):,} images"
    )
    outputs_by_artifact = {name: _get_raw(evaluation) for name, evaluation in evaluations.items()}
    return lambda: draw_scatter(float_outputs, outputs_by_artifact, title, net.notice)


def _get_raw(evaluation: Evaluated) -> FloatArray:
    assert evaluation.raw is not None  # kept, since plots use few images
    return evaluation.raw
