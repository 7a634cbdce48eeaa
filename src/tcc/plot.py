"""Pictures of training and of networks, as `tcc plot` draws them; each returns the figure.

    from tcc import plot

    plot.gradcam("ddsnet", ["tile.png"], "tile-seen.svg", weights="weights.safetensors")

A spec is what `tcc.load` returned or takes; without `weights` they are a trained network's own, or
random, and the picture says so. `out` is a .png or .svg file, which need not be. Labelled images
are those of `test` where a folder or the run that weights lie in has such; `split` names the run,
or is "none" if the network has seen none of the images. They need the extra `plot`.
"""

import warnings as python_warnings
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import tcc

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.labelled_images import LabelledImages
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.plots.pictures import PlottedNetwork

    File = str | PathLike[str]

__all__ = [
    "cam",
    "confusion",
    "curves",
    "errors",
    "features",
    "filters",
    "gradcam",
    "tsne",
    "weights",
]


def curves(runs: "Sequence[File]", out: "File | None" = None) -> "Figure":
    """Draw the training curves of folders that `tcc train` wrote."""
    from tcc.compiler.plots import training_curves

    found = [training_curves.read(Path(run)) for run in runs]
    return _drawn(lambda: training_curves.draw(found), out)


def confusion(
    spec: "Spec | File",
    data: "File",
    out: "File | None" = None,
    *,
    weights: "File | None" = None,
    split: "File | None" = None,
) -> "Figure":
    """Draw the confusion matrix of a spec on labelled images."""
    from tcc.compiler.driver import evaluation
    from tcc.compiler.plots import pictures

    net = _network(spec, weights)
    given = _labelled(net, _images(data, weights, split), data)
    found = evaluation.by_reference(net.model, given)
    return _drawn(pictures.confusion(found, net.spec.name, net.notice), out)


def tsne(
    spec: "Spec | File",
    data: "File",
    out: "File | None" = None,
    *,
    layer: str | None = None,
    weights: "File | None" = None,
    split: "File | None" = None,
    seed: int = 0,
) -> "Figure":
    """Draw t-SNE of the outputs for labelled images, or of a layer's features."""
    from tcc.compiler.driver import evaluation
    from tcc.compiler.plots import pictures

    net = _network(spec, weights)
    given = _labelled(net, _images(data, weights, split), data)
    if layer is not None:
        return _drawn(pictures.tsne_of_layer(net, given, layer, seed), out)
    found = evaluation.by_reference(net.model, given)
    return _drawn(pictures.tsne_of_outputs(found, net.spec.name, seed, net.notice), out)


def gradcam(
    spec: "Spec | File",
    images: "Sequence[File]" = (),
    out: "File | None" = None,
    *,
    layer: str | None = None,
    shown: str | None = None,
    weights: "File | None" = None,
    data: "File | None" = None,
    split: "File | None" = None,
    most: int | None = None,
) -> "Figure":
    """Draw Grad-CAM of images for a layer and a class: the last maps', the predicted, without.

    In place of `images`, `data` is a data set, of which the first `most` are drawn.
    """
    from tcc.compiler.plots import pictures

    net = _network(spec, weights)
    given = _drawn_images(images, data, weights, split).first(most)
    return _drawn(pictures.gradcam(net, given, layer, shown), out)


def cam(
    spec: "Spec | File",
    images: "Sequence[File]" = (),
    out: "File | None" = None,
    *,
    shown: str | None = None,
    weights: "File | None" = None,
    data: "File | None" = None,
    split: "File | None" = None,
    most: int | None = None,
) -> "Figure":
    """Draw class-activation maps of images, of a network that ends in a mean of its maps.

    In place of `images`, `data` is a data set, of which the first `most` are drawn.
    """
    from tcc.compiler.plots import pictures

    net = _network(spec, weights)
    given = _drawn_images(images, data, weights, split).first(most)
    return _drawn(pictures.class_activation(net, given, shown), out)


def features(
    spec: "Spec | File",
    calibration: "File",
    image: "File",
    out: "File | None" = None,
    *,
    layer: str | None = None,
    weights: "File | None" = None,
) -> "Figure":
    """Draw feature maps of the first and last convolution, or of a layer, in float and int8."""
    from tcc.compiler.plots import integer_pictures
    from tcc.compiler.plots.plot_inputs import pictures_of

    net = _network(spec, weights)
    made, _ = integer_pictures.quantised(net, None, Path(calibration))
    return _drawn(integer_pictures.features(net, made, pictures_of([Path(image)]), layer), out)


def filters(
    spec: "Spec | File",
    calibration: "File",
    out: "File | None" = None,
    *,
    weights: "File | None" = None,
) -> "Figure":
    """Draw the filters of the first and last convolution, in float and int8."""
    from tcc.compiler.plots import integer_pictures

    net = _network(spec, weights)
    return _drawn(
        integer_pictures.filters(net, integer_pictures.quantised(net, None, Path(calibration))[0]),
        out,
    )


def weights(
    spec: "Spec | File",
    calibration: "File",
    out: "File | None" = None,
    *,
    weights: "File | None" = None,
) -> "Figure":
    """Draw histograms of the weights of the first and last convolution, in float and int8."""
    from tcc.compiler.plots import integer_pictures

    net = _network(spec, weights)
    return _drawn(
        integer_pictures.weights(net, integer_pictures.quantised(net, None, Path(calibration))[0]),
        out,
    )


def errors(
    spec: "Spec | File",
    calibration: "File",
    data: "File",
    out: "File | None" = None,
    *,
    weights: "File | None" = None,
    split: "File | None" = None,
) -> "Figure":
    """Draw what each layer loses as integers, over images."""
    from tcc.compiler.plots import integer_pictures

    net = _network(spec, weights)
    images = _images(data, weights, split)
    _, source = integer_pictures.quantised(net, images, Path(calibration))
    return _drawn(integer_pictures.errors(net, integer_pictures.losses(net, source)), out)


def _network(spec: "Spec | File", weights: "File | None") -> "PlottedNetwork":
    from tcc.compiler.driver import pipeline
    from tcc.compiler.plots.pictures import PlottedNetwork

    chosen = tcc.load(spec) if isinstance(spec, str | PathLike) else spec
    return PlottedNetwork(chosen, pipeline.weights_of(chosen, weights, None))


def _images(data: "File", weights: "File | None", split: "File | None") -> "DataSet":
    """Return the images that judge, as `tcc plot` takes them, and warn of what it warns of."""
    from tcc.compiler.data import side_images
    from tcc.compiler.data.dataset import read
    from tcc.compiler.driver import run_splits

    where, option = Path(data), None if split is None else str(split)
    run = run_splits.of_weights(option, None if weights is None else Path(weights))
    place = run_splits.folder(where, "test")
    if run is not None:
        side = side_images.find(run, where, place, "test")
        doubts, found = side.warnings, side.data
    else:
        found = read(place)
        # Who names a side's folder knows what it is.
        plain = place == where and where.name not in run_splits.SIDES
        unknown = weights is not None and option != run_splits.NO_SPLIT and plain
        doubts = (*found.warnings, *([run_splits.unknown(where)] if unknown else []))
    for doubt in doubts:
        python_warnings.warn(str(doubt), stacklevel=3)
    return found


def _drawn_images(
    images: "Sequence[File]", data: "File | None", weights: "File | None", split: "File | None"
) -> "DataSet":
    """Return the images that are named, or those of a data set that judge."""
    from tcc.compiler.plots.plot_inputs import pictures_of
    from tcc.compiler.support.diagnostics import fail, whole_file

    if bool(images) == (data is not None):
        message = "say which images are drawn: either `images` or `data`"
        raise fail("E0616", message, whole_file("tcc.plot"), help="give one of the two")
    return pictures_of([Path(i) for i in images]) if data is None else _images(data, weights, split)


def _labelled(net: "PlottedNetwork", images: "DataSet", data: "File") -> "LabelledImages":
    from tcc.compiler.bundle import manifest
    from tcc.compiler.driver import labelled_images

    outputs = manifest.results(net.spec.graph)
    return labelled_images.labelled(images, outputs, Path(data))


def _drawn(make: "Callable[[], Figure]", out: "File | None") -> "Figure":
    from tcc.compiler.plots import drawing

    if out is not None:
        drawing.write(make, Path(out))
    return drawing.drawn(make)
