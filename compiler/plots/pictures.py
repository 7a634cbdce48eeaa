"""Each kind of picture of a network: from spec, weights and images to a figure.

What is computed is computed before the figure is made; matplotlib draws in the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet, Item, check
from tcc.compiler.driver import evaluation
from tcc.compiler.driver.evaluation import Evaluated
from tcc.compiler.driver.labelled_images import LabelledImages
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.graph import Input, Model, Output
from tcc.compiler.ir.image_inputs import build_image_error
from tcc.compiler.plots import (
    confusion_matrix,
    drawing,
    embedding,
    layers,
    overlays,
)
from tcc.compiler.plots.layers import Values
from tcc.compiler.plots.overlays import Overlay
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import fail, nearest, whole_file
from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    return lambda: confusion_matrix.draw(scores.confusion, labels, title, notice)


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
    if len(rows) < embedding.FEWEST:
        message = f"t-SNE takes {embedding.FEWEST} images or more, and these are {len(rows)}"
        raise fail("E1284", message, whole_file(str(given.path)))
    points = embedding.places(rows, seed)
    text = f"{title}, {len(rows):,} images"
    return lambda: embedding.draw(points, given.classes, given.labels, text, notice)


def gradcam(net: PlottedNetwork, images: DataSet, layer: str | None, shown: str | None) -> Make:
    """Return Grad-CAM overlays of images for a layer, the last of feature maps without one.

    Args:
        net: The network.
        images: At most `overlays.MOST`.
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
    return lambda: overlays.draw(made, title, net.notice)


def class_activation(net: PlottedNetwork, images: DataSet, shown: str | None) -> Make:
    """Return class-activation maps of images, for a network that ends in a mean of its maps.

    Args:
        net: The network.
        images: At most `overlays.MOST`.
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
    return lambda: overlays.draw(made, title, net.notice)


def tensors(net: PlottedNetwork, images: DataSet) -> Sequence[tuple[Item, Values]]:
    """Return the input of each image.

    Raises:
        UserError: There are too many (E1284), or the network takes no images.
    """
    if net.source.preprocess is None or len(net.source.type.shape) != 3:
        raise build_image_error(net.source.name, net.source.type.shape, whole_file(net.spec.name))
    if len(images) > overlays.MOST:
        message = f"{len(images):,} images are too many for one picture"
        help = f"name {overlays.MOST} of them, or fewer"
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


def evaluated(net: PlottedNetwork, given: LabelledImages, progress: Progress = silent) -> Evaluated:
    """Return what a network gives in floats."""
    return evaluation.by_reference(net.model, given, progress)
