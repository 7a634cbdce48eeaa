"""The kinds of pictures that set integers beside floats."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.driver import int8_program, pipeline
from tcc.compiler.driver.evaluation import Evaluated
from tcc.compiler.plots import drawing, feature_pictures, layers, precision_plots
from tcc.compiler.plots.layers import Quantised, Values
from tcc.compiler.plots.pictures import Make, PlottedNetwork, tensors
from tcc.compiler.quant import calibration_file
from tcc.compiler.quant.methods import DEFAULT
from tcc.compiler.quant.methods.method import RunOptions
from tcc.compiler.quant.program.float_comparison import LayerLoss
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress, silent


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
        pictures.append(feature_pictures.LayerPicture(name, values, own.get(name)))
    title = f"feature maps of {drawing.short(item.path.name)}, {drawing.short(where)}"
    return lambda: feature_pictures.draw(pictures, title, net.notice)


def filters(net: PlottedNetwork, made: Quantised) -> Make:
    """Return the filters of the first and last convolution, batch norms folded in.

    Raises:
        UserError: There is no convolution (E1281).
    """
    pictures = [feature_pictures.of_filters(*each) for each in _weights(net, made)]
    title = f"filters, {drawing.short(net.spec.name)}"
    return lambda: feature_pictures.draw(pictures, title, net.notice)


def weights(net: PlottedNetwork, made: Quantised) -> Make:
    """Return histograms of the weights of the first and last convolution, batch norms folded in.

    Raises:
        UserError: There is no convolution (E1281).
    """
    found = _weights(net, made)
    title = f"weights, {drawing.short(net.spec.name)}"
    return lambda: precision_plots.histograms(found, title, net.notice)


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
    return lambda: precision_plots.errors(found, title, net.notice)


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
    return lambda: precision_plots.scatter(floats, values, title, net.notice)


def _raw(found: Evaluated) -> Values:
    assert found.raw is not None  # images are few
    return found.raw
