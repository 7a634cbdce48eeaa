"""Plots of a network: from spec, weights and images to a figure.

All computation happens first. The returned function only draws, with matplotlib.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet, Item, check_dataset
from tcc.compiler.driver.evaluation import Evaluated
from tcc.compiler.driver.labelled_images import LabelledImages
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.graph import Input, Model, Output
from tcc.compiler.ir.image_inputs import build_image_error
from tcc.compiler.plots import drawing, layers
from tcc.compiler.plots.drawing import COLORMAP, COLORS, MARKERS, create_figure, trim_label
from tcc.compiler.plots.layers import FloatArray
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import fail, find_nearest_name, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_IMAGES = 64
"""Maximum images per plot."""
IMAGES_PER_ROW = 3
"""Images per row; each is drawn next to its overlay."""
MAX_CAPTION_LENGTH = 18
"""Maximum characters above an image."""
HEAT_COLORMAP = "inferno"


@dataclass(frozen=True)
class Overlay:
    """An image (height, width, 3) from 0 to 1, a heat map of any size, and their captions."""

    image: NDArray[np.float32]
    heat: NDArray[np.float32]
    name: str
    caption: str


def draw_overlays(overlays: Sequence[Overlay], title: str, notice: str | None = None) -> "Figure":
    """Return each image next to a grey copy with its heat map, bright where the evidence is.

    Args:
        overlays: The images, each with its heat map.
        title: Title of the plot.
        notice: A warning shown below the plot, such as random weights.
    """
    from matplotlib.cm import ScalarMappable

    columns = min(IMAGES_PER_ROW, len(overlays))
    rows = (len(overlays) + columns - 1) // columns
    fig = create_figure(max(5.2, 2.75 * columns + 0.8), 1.75 * rows + 0.7, notice)
    fig.suptitle(title, fontsize=10)
    grid = fig.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for index, overlay in enumerate(overlays):
        row, column = divmod(index, columns)
        image_axes, overlay_axes = grid[row, 2 * column], grid[row, 2 * column + 1]
        height, width = overlay.image.shape[:2]
        edges = (-0.5, width - 0.5, height - 0.5, -0.5)
        image_axes.imshow(overlay.image, interpolation="nearest")
        image_axes.set_title(trim_label(overlay.name, MAX_CAPTION_LENGTH), fontsize=8)
        # In grey: the image's own colours would look like heat.
        overlay_axes.imshow(overlay.image.mean(axis=2), cmap="gray", vmin=0, vmax=1)
        low, high = float(overlay.heat.min()), float(overlay.heat.max())
        shares = (overlay.heat - low) / (high - low) if high > low else np.zeros_like(overlay.heat)
        # Stretched to the image's edges: a 7x7 map has other pixel centres than a 224x224 image.
        overlay_axes.imshow(
            shares, cmap=HEAT_COLORMAP, alpha=0.55, extent=edges, interpolation="bilinear"
        )
        overlay_axes.set_title(trim_label(overlay.caption, MAX_CAPTION_LENGTH), fontsize=8)
    # `shares` is scaled per image, so that the bar has no numbers.
    bar = fig.colorbar(ScalarMappable(cmap=HEAT_COLORMAP), ax=grid, shrink=0.8, aspect=25)
    bar.set_ticks([0, 1], labels=["min.", "max."])
    bar.set_label("class evidence\n(scaled per image)")
    return fig


MAX_NUMBERED_CLASSES = 40
"""Maximum classes for which cells show their number of images."""


def draw_confusion(
    confusion: Sequence[Sequence[int]], labels: Sequence[str], title: str, notice: str | None = None
) -> "Figure":
    """Return the confusion matrix, with counts, shaded by the share of each true class's images.

    Args:
        confusion: Number of images by true class (row) and predicted class (column).
        labels: The class names.
        title: Title of the plot.
        notice: A warning shown below the plot.
    """
    counts = np.array(confusion)
    support = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(support, 1)
    classes = len(labels)
    cell = 0.55 if classes <= 12 else 0.36 if classes <= MAX_NUMBERED_CLASSES else 0.2
    cell = 0.85 if classes <= 6 else cell
    label_length = max(len(trim_label(label)) for label in labels)
    margin = 1.0 + 0.075 * label_length
    fig = create_figure(
        max(4.4, classes * cell + margin + 0.9), max(3.0, classes * cell + margin), notice
    )
    axes = fig.add_subplot()
    heatmap = axes.imshow(shares, cmap=COLORMAP, vmin=0, vmax=1)
    names = [trim_label(label) for label in labels]
    size = 8 if classes <= MAX_NUMBERED_CLASSES else 6.5
    is_rotated = classes > 12 or 0.075 * label_length > cell
    axes.set_xticks(range(classes), names, rotation=90 if is_rotated else 0, fontsize=size)
    axes.set_yticks(range(classes), names, fontsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title)
    fig.colorbar(heatmap, ax=axes, label="fraction of true class", shrink=0.8)
    if classes <= MAX_NUMBERED_CLASSES:
        _draw_counts(axes, counts, shares, 8 if classes <= 12 else 6)
    return fig


def _draw_counts(axes: Any, counts: np.ndarray, shares: np.ndarray, size: float) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            # Cividis is dark below its middle and light above.
            shade = "black" if shares[row, column] > 0.55 else "white"
            fit = size if count < 1000 else size * 0.8
            text = f"{count}" if count < 100_000 else f"{count // 1000}k"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=fit)


MAX_POINTS = 5000
"""Maximum images per plot: t-SNE of more is slow, and the points overlap."""
MIN_TSNE_IMAGES = 4
LEGEND_ROWS = 26
"""Names in one column of the legend."""


def compute_tsne(features: NDArray[np.floating], seed: int) -> NDArray[np.float64]:
    """Return t-SNE coordinates (images, 2) of features (images, values).

    The method is van der Maaten and Hinton's (2008), initialised with PCA, in one thread: the same
    features and seed give the same points on one machine.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    normalized = features.astype(np.float64)
    spread = normalized.std(axis=0)
    normalized = np.where(
        spread > 0, (normalized - normalized.mean(axis=0)) / np.maximum(spread, 1e-300), 0.0
    )
    if normalized.shape[1] < 2:
        normalized = np.hstack([normalized, np.zeros_like(normalized)])
    # 30 is scikit-learn's default. It must be less than the number of images; a third of them
    # leaves each image a few neighbours.
    perplexity = min(30.0, (len(normalized) - 1) / 3)
    # PCA of constant features divides by 0.
    initialization = "pca" if (normalized.std(axis=0) > 0).any() else "random"
    tsne = TSNE(perplexity=perplexity, init=initialization, random_state=seed, n_jobs=1)
    # Several threads sum in any order, and t-SNE amplifies differences in the last bit.
    with threadpool_limits(1):
        return np.asarray(tsne.fit_transform(normalized), np.float64)


def draw_embedding(
    points: NDArray[np.float64],
    classes: Sequence[int],
    labels: Sequence[str],
    title: str,
    notice: str | None = None,
) -> "Figure":
    """Return a scatter plot of an embedding, with a colour and a marker for each class.

    Args:
        points: Coordinates of each image, (images, 2).
        classes: The class of each image, as an index into `labels`.
        labels: The class names.
        title: Title of the plot.
        notice: A warning shown below the plot, such as random weights.
    """
    present_classes = sorted(set(classes))
    columns = (len(present_classes) + LEGEND_ROWS - 1) // LEGEND_ROWS
    label_length = max(len(trim_label(labels[index])) for index in present_classes)
    fig = create_figure(5.4 + columns * (0.4 + 0.068 * label_length), 5.6, notice)
    axes = fig.add_subplot()
    class_array = np.asarray(classes)
    for index in present_classes:
        class_points = points[class_array == index]
        axes.scatter(
            class_points[:, 0],
            class_points[:, 1],
            label=trim_label(labels[index]),
            s=16,
            alpha=0.75,
            linewidths=0,
            color=COLORS[index % len(COLORS)],
            marker=MARKERS[index // len(COLORS) % len(MARKERS) if len(labels) > 8 else index],
        )
    axes.set_aspect("equal", adjustable="datalim")
    # t-SNE coordinates have no unit.
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("t-SNE dimension 1")
    axes.set_ylabel("t-SNE dimension 2")
    axes.set_title(title)
    fig.legend(loc="outside right upper", ncols=columns, title="true class")
    return fig


FigureBuilder = Callable[[], "Figure"]


@dataclass(frozen=True)
class PlottedNetwork:
    """A spec with weights. Every plot shows a notice if they are random."""

    spec: Spec
    weight_source: WeightSource

    @property
    def model(self) -> Model:
        """The fp32 model, as written in the spec."""
        return Model(self.spec.graph, self.weight_source.tensors)

    @property
    def source(self) -> Input:
        """The network's only input."""
        (graph_input,) = self.spec.graph.inputs
        return graph_input

    @property
    def notice(self) -> str | None:
        """A warning about the weights, shown on the plot; None if there is none."""
        return self.weight_source.origin.notice

    def find_row_output(self) -> Output:
        """Return the first output that is a vector: of classes, decisions or numbers.

        Raises:
            UserError: There is none (E0716).
        """
        graph = self.spec.graph
        for output in graph.outputs:
            if not output.train_only and len(graph.types[output.value].shape) == 1:
                return output
        message = "this plot needs an output with one value per class, and the network has none"
        raise fail("E0716", message, make_file_span(self.spec.name))


def plot_confusion(evaluation: Evaluated, name: str, notice: str | None) -> FigureBuilder:
    """Return the plot of a network's confusion matrix.

    Args:
        evaluation: The network's evaluation on labelled images.
        name: The network's name.
        notice: A warning shown below the plot, such as random weights.

    Raises:
        UserError: The output is multi-label (E1284).
    """
    scores = evaluation.scores
    if not scores.confusion:
        message = "a multi-label output has no confusion matrix, since an image has several labels"
        help = "`tcc eval` reports sensitivity and specificity of each label"
        raise fail("E1284", message, make_file_span(str(evaluation.images.path)), help=help)
    title = (
        f"Confusion matrix\n{drawing.trim_label(name, 44)}\n"
        f"accuracy {scores.accuracy:.2%} ({scores.correct:,} of {scores.images:,} images)"
    )
    labels = evaluation.images.labels
    return lambda: draw_confusion(scores.confusion, labels, title, notice)


def plot_output_tsne(
    evaluation: Evaluated, name: str, seed: int, notice: str | None
) -> FigureBuilder:
    """Return the t-SNE plot of a network's outputs.

    Raises:
        UserError: There are too few images (E1284).
    """
    assert evaluation.raw is not None
    title = f"t-SNE of `{evaluation.images.output.name}`, {drawing.trim_label(name)}"
    return _plot_tsne(evaluation.images, evaluation.raw, title, seed, notice)


def plot_layer_tsne(
    net: PlottedNetwork, labelled_images: LabelledImages, layer: str, seed: int
) -> FigureBuilder:
    """Return the t-SNE plot of a layer's features; feature maps are averaged per channel.

    Args:
        net: The network.
        labelled_images: Labelled images.
        layer: The layer's path in the spec.
        seed: The seed of t-SNE.

    Raises:
        UserError: There is no such layer (E1281), or too few images (E1284).
    """
    value_name = layers.find_value(net.spec.graph, layer, net.spec.name)
    checked_images = check_dataset(labelled_images.dataset, net.source)
    run = layers.create_float_runner(net.model, value_name)
    # One image at a time: only the channel means of feature maps are kept.
    features = (run(checked_images.read_tensor(i, net.source)) for i in range(len(checked_images)))
    rows = np.stack([v.mean(axis=(1, 2)) if v.ndim == 3 else v.reshape(-1) for v in features])
    title = (
        f"t-SNE of `{drawing.trim_label(value_name, drawing.MAX_PATH_LENGTH)}`, "
        f"{drawing.trim_label(net.spec.name)}"
    )
    return _plot_tsne(labelled_images, rows, title, seed, net.notice)


def _plot_tsne(
    labelled_images: LabelledImages,
    features: NDArray[np.floating],
    title: str,
    seed: int,
    notice: str | None,
) -> FigureBuilder:
    """Return the t-SNE plot of features (images, features), with the images' classes."""
    if len(features) < MIN_TSNE_IMAGES:
        message = f"t-SNE needs at least {MIN_TSNE_IMAGES} images, and got {len(features)}"
        help = "choose a folder with more images, or raise --images"
        raise fail("E1284", message, make_file_span(str(labelled_images.path)), help=help)
    points = compute_tsne(features, seed)
    text = f"{title}, {len(features):,} images"
    return lambda: draw_embedding(
        points, labelled_images.classes, labelled_images.labels, text, notice
    )


def plot_gradcam(
    net: PlottedNetwork, images: DataSet, layer: str | None, class_name: str | None
) -> FigureBuilder:
    """Return Grad-CAM overlays of images.

    Args:
        net: The network.
        images: At most `MAX_IMAGES` images.
        layer: The layer's path in the spec; None for the last layer with feature maps.
        class_name: The class; None for the predicted class.

    Raises:
        UserError: There is no such layer (E1281) or class (E1262), or an image cannot be read.
        MissingTool: torch is not installed.
    """
    try:
        from tcc.compiler.plots import class_maps
    except ImportError:
        raise MissingTool(Tool("torch", "compute gradients", None)) from None
    graph, output = net.spec.graph, net.find_row_output()
    network_name = net.spec.name
    value_name = (
        layers.find_value(graph, layer, network_name)
        if layer
        else layers.find_last_map(graph, network_name)
    )
    class_index = _find_class(net, output, class_name)
    overlays = []
    for item, tensor in load_tensors(net, images):
        class_map = class_maps.compute_gradcam(
            net.model, output.name, value_name, tensor, class_index
        )
        caption = _describe_class(output, class_map.logits, class_map.class_index)
        overlays.append(
            Overlay(layers.to_image(net.source, tensor), class_map.heat, item.path.name, caption)
        )
    title = (
        f"Grad-CAM of `{drawing.trim_label(value_name, drawing.MAX_PATH_LENGTH)}`, "
        f"{drawing.trim_label(network_name)}"
    )
    return lambda: draw_overlays(overlays, title, net.notice)


def plot_class_activation(
    net: PlottedNetwork, images: DataSet, class_name: str | None
) -> FigureBuilder:
    """Return class-activation maps of images, for a network with global average pooling.

    Args:
        net: The network.
        images: At most `MAX_IMAGES` images.
        class_name: The class; None for the predicted class.

    Raises:
        UserError: The network does not end in global average pooling (E1283), there is no such
            class (E1262), or an image cannot be read.
        MissingTool: torch is not installed.
    """
    try:
        from tcc.compiler.plots import class_maps
    except ImportError:
        raise MissingTool(Tool("torch", "compute gradients", None)) from None
    output = net.find_row_output()
    value_name, linear = class_maps.find_head(net.model, output.name)
    class_index = _find_class(net, output, class_name)
    run, run_network = (
        layers.create_float_runner(net.model, value_name),
        float_program.create_runner(net.model),
    )
    overlays = []
    for item, tensor in load_tensors(net, images):
        raw = run_network(tensor)[output.name]
        class_map = class_maps.compute_activation_map(
            net.model, run(tensor), linear, raw, class_index
        )
        caption = _describe_class(output, raw, class_map.class_index)
        overlays.append(
            Overlay(layers.to_image(net.source, tensor), class_map.heat, item.path.name, caption)
        )
    title = (
        f"Class-activation map of `{drawing.trim_label(value_name)}`, "
        f"{drawing.trim_label(net.spec.name)}"
    )
    return lambda: draw_overlays(overlays, title, net.notice)


def load_tensors(net: PlottedNetwork, images: DataSet) -> Sequence[tuple[Item, FloatArray]]:
    """Return the input tensor of each image.

    Raises:
        UserError: There are too many images (E1284), or the network has no image input.
    """
    if net.source.preprocess is None or len(net.source.type.shape) != 3:
        raise build_image_error(
            net.source.name, net.source.type.shape, make_file_span(net.spec.name)
        )
    if len(images) > MAX_IMAGES:
        message = f"{len(images):,} images are too many for one plot; the maximum is {MAX_IMAGES}"
        help = f"name at most {MAX_IMAGES} images"
        raise fail("E1284", message, make_file_span(str(images.items[0].path)), help=help)
    checked_images = check_dataset(images, net.source)
    return [
        (item, checked_images.read_tensor(i, net.source))
        for i, item in enumerate(checked_images.items)
    ]


def _find_class(net: PlottedNetwork, output: Output, name: str | None) -> int | None:
    """Return the index of a class; None for no name."""
    if name is None:
        return None
    count = net.spec.graph.types[output.value].shape[0]
    # Without labels, classes are named by number.
    labels = output.labels or tuple(map(str, range(count)))
    # Class names are compared without case, since people type them.
    by_name = {label.casefold(): index for index, label in enumerate(labels)}
    if name.casefold() in by_name:
        return by_name[name.casefold()]
    suggestion = find_nearest_name(name, set(labels))
    help = f"the classes are {', '.join(labels[:20])}{', ...' if len(labels) > 20 else ''}"
    help = f"did you mean `{suggestion}`? {help}" if suggestion else help
    at = make_file_span(net.spec.name)
    raise fail("E1262", f"the network has no class `{name[:80]}`", at, help=help)


def _describe_class(output: Output, logits: FloatArray, class_index: int) -> str:
    """Return an image's caption: the class and its probability."""
    from tcc.compiler.reference.output_activations import apply_activation

    probability = float(apply_activation(output.activation, logits)[class_index])
    label = output.labels[class_index] if output.labels else f"class {class_index}"
    return f"{label} {probability:.3f}"
