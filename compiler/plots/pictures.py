"""Each kind of picture of a network: from spec, weights and images to a figure.

What is computed is computed before the figure is made; matplotlib draws in the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet, Item, check
from tcc.compiler.driver.evaluation import Evaluated
from tcc.compiler.driver.labelled_images import LabelledImages
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.graph import Input, Model, Output
from tcc.compiler.ir.image_inputs import build_image_error
from tcc.compiler.plots import drawing, layers
from tcc.compiler.plots.drawing import COLOURS, MARKERS, SHADES, figure, short
from tcc.compiler.plots.layers import Values
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import fail, nearest, whole_file
from tcc.compiler.support.external_tools import MissingTool, Tool

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IMAGES = 64
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


def draw_overlays(overlays: Sequence[Overlay], title: str, notice: str | None = None) -> "Figure":
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


NUMBERED = 40
"""Most classes whose cells have their number in them."""


def draw_confusion(
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


def _numbers(axes: Any, counts: np.ndarray, shares: np.ndarray, size: float) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            # Cividis is dark below and light above the middle.
            shade = "black" if shares[row, column] > 0.55 else "white"
            fit = size if count < 1000 else size * 0.8
            text = f"{count}" if count < 100_000 else f"{count // 1000}k"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=fit)


MOST_POINTS = 5000
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


def draw_embedding(
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


Make = Callable[[], "Figure"]


@dataclass(frozen=True)
class PlottedNetwork:
    """A spec with weights; random ones are said on every picture."""

    spec: Spec
    given: WeightSource

    @property
    def model(self) -> Model:
        """The network in floats, as written."""
        return Model(self.spec.graph, self.given.tensors)

    @property
    def source(self) -> Input:
        """Its input."""
        (found,) = self.spec.graph.inputs
        return found

    @property
    def notice(self) -> str | None:
        """What must not be missed about the weights."""
        return self.given.origin.notice

    def row(self) -> Output:
        """Return the first output that is a row of classes, decisions or numbers.

        Raises:
            UserError: There is none (E0716).
        """
        graph = self.spec.graph
        for output in graph.outputs:
            if not output.train_only and len(graph.types[output.value].shape) == 1:
                return output
        message = "this network has no output that is a row of classes"
        raise fail("E0716", message, whole_file(self.spec.name))


def confusion(found: Evaluated, name: str, notice: str | None) -> Make:
    """Return the confusion matrix of what a network gave.

    Args:
        found: What the network gave for labelled images.
        name: What the network is called.
        notice: What must not be missed, such as random weights.

    Raises:
        UserError: Its decisions do not exclude each other (E1284).
    """
    scores = found.scores
    if not scores.confusion:
        message = "decisions that do not exclude each other have no confusion matrix"
        raise fail("E1284", message, whole_file(str(found.given.path)))
    title = f"{drawing.short(name)}: {scores.correct:,} of {scores.images:,} right"
    labels = found.given.labels
    return lambda: draw_confusion(scores.confusion, labels, title, notice)


def tsne_of_outputs(found: Evaluated, name: str, seed: int, notice: str | None) -> Make:
    """Return t-SNE of what a network gave.

    Raises:
        UserError: There are too few images (E1284).
    """
    assert found.raw is not None
    title = f"t-SNE of `{found.given.output.name}`, {drawing.short(name)}"
    return _tsne(found.given, found.raw, title, seed, notice)


def tsne_of_layer(net: PlottedNetwork, given: LabelledImages, layer: str, seed: int) -> Make:
    """Return t-SNE of a layer's features: of maps, the mean of each channel.

    Args:
        net: The network.
        given: Labelled images.
        layer: The path of a step of the spec.
        seed: What the picture's random numbers follow from.

    Raises:
        UserError: There is no such layer (E1281), or too few images (E1284).
    """
    value = layers.find(net.spec.graph, layer, net.spec.name)
    data = check(given.data, net.source)
    run = layers.floats(net.model, value)
    # One image at a time: of maps only means of channels are kept.
    found = (run(data.tensor(i, net.source)) for i in range(len(data)))
    rows = np.stack([v.mean(axis=(1, 2)) if v.ndim == 3 else v.reshape(-1) for v in found])
    title = f"t-SNE of `{drawing.short(value, drawing.PATH)}`, {drawing.short(net.spec.name)}"
    return _tsne(given, rows, title, seed, net.notice)


def _tsne(
    given: LabelledImages, rows: NDArray[np.floating], title: str, seed: int, notice: str | None
) -> Make:
    if len(rows) < FEWEST:
        message = f"t-SNE takes {FEWEST} images or more, and these are {len(rows)}"
        raise fail("E1284", message, whole_file(str(given.path)))
    points = places(rows, seed)
    text = f"{title}, {len(rows):,} images"
    return lambda: draw_embedding(points, given.classes, given.labels, text, notice)


def gradcam(net: PlottedNetwork, images: DataSet, layer: str | None, shown: str | None) -> Make:
    """Return Grad-CAM overlays of images for a layer, the last of feature maps without one.

    Args:
        net: The network.
        images: At most `MOST_IMAGES`.
        layer: The path of a step of the spec.
        shown: The class; None for the one that is predicted.

    Raises:
        UserError: There is no such layer (E1281) or class (E1262), or an image is wrong.
        MissingTool: torch is not here.
    """
    try:
        from tcc.compiler.plots import class_maps
    except ImportError:
        raise MissingTool(Tool("torch", "take gradients", None)) from None
    graph, output = net.spec.graph, net.row()
    where = net.spec.name
    value = layers.find(graph, layer, where) if layer else layers.last_map(graph, where)
    wanted = _class(net, output, shown)
    made = []
    for item, tensor in tensors(net, images):
        found = class_maps.gradcam(net.model, output.name, value, tensor, wanted)
        said = _said(output, found.raw, found.shown)
        made.append(Overlay(layers.pixels(net.source, tensor), found.heat, item.path.name, said))
    title = f"Grad-CAM of `{drawing.short(value, drawing.PATH)}`, {drawing.short(where)}"
    return lambda: draw_overlays(made, title, net.notice)


def class_activation(net: PlottedNetwork, images: DataSet, shown: str | None) -> Make:
    """Return class-activation maps of images, for a network that ends in a mean of its maps.

    Args:
        net: The network.
        images: At most `MOST_IMAGES`.
        shown: The class; None for the one that is predicted.

    Raises:
        UserError: It does not (E1283), there is no such class (E1262), or an image is wrong.
        MissingTool: torch is not here.
    """
    try:
        from tcc.compiler.plots import class_maps
    except ImportError:
        raise MissingTool(Tool("torch", "take gradients", None)) from None
    output = net.row()
    value, linear = class_maps.head(net.model, output.name)
    wanted = _class(net, output, shown)
    run, answer = layers.floats(net.model, value), float_program.prepared(net.model)
    made = []
    for item, tensor in tensors(net, images):
        raw = answer(tensor)[output.name]
        found = class_maps.activation_map(net.model, run(tensor), linear, raw, wanted)
        said = _said(output, raw, found.shown)
        made.append(Overlay(layers.pixels(net.source, tensor), found.heat, item.path.name, said))
    title = f"class activation of `{drawing.short(value)}`, {drawing.short(net.spec.name)}"
    return lambda: draw_overlays(made, title, net.notice)


def tensors(net: PlottedNetwork, images: DataSet) -> Sequence[tuple[Item, Values]]:
    """Return the input of each image.

    Raises:
        UserError: There are too many (E1284), or the network takes no images.
    """
    if net.source.preprocess is None or len(net.source.type.shape) != 3:
        raise build_image_error(net.source.name, net.source.type.shape, whole_file(net.spec.name))
    if len(images) > MOST_IMAGES:
        message = f"{len(images):,} images are too many for one picture"
        help = f"name {MOST_IMAGES} of them, or fewer"
        raise fail("E1284", message, whole_file(str(images.items[0].path)), help=help)
    data = check(images, net.source)
    return [(item, data.tensor(i, net.source)) for i, item in enumerate(data.items)]


def _class(net: PlottedNetwork, output: Output, name: str | None) -> int | None:
    """Return the class that is asked for."""
    if name is None:
        return None
    count = net.spec.graph.types[output.value].shape[0]
    # Without labels a class is its number.
    labels = output.labels or tuple(map(str, range(count)))
    # Names of classes are typed by people: case does not count.
    by_name = {label.casefold(): index for index, label in enumerate(labels)}
    if name.casefold() in by_name:
        return by_name[name.casefold()]
    close = nearest(name, set(labels))
    help = f"its classes are {', '.join(labels[:20])}"
    help = f"did you mean `{close}`? {help}" if close else help
    where = whole_file(net.spec.name)
    raise fail("E1262", f"the network has no class `{name[:80]}`", where, help=help)


def _said(output: Output, raw: Values, shown: int) -> str:
    """Return what is said of an image: the class that is shown, and how likely it is."""
    from tcc.compiler.reference.output_activations import applied

    value = float(applied(output.activation, raw)[shown])
    label = output.labels[shown] if output.labels else f"class {shown}"
    return f"{label} {value:.3f}"
