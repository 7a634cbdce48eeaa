"""Draw figures of training and of networks, as `tcc plot` does.

    from tcc import plot

    plot.gradcam("ddsnet-lung", ["zoo/samples/TUM/1.png"], "gradcam.svg")

Each function returns a matplotlib figure. All need the extra `plot`. `out` is a .png or .svg file
to write as well.

`spec` is a value that `tcc.load` returned, or anything that `tcc.load` accepts. Without `weights`,
a trained network has its own weights and any other network random ones, which the figure states.

If the dataset or the run of the weights has a test split, only its images are used. `split` names
the run of `tcc train`; "none" means that the network was not trained on any of the images.
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
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.labelled_images import LabelledImages
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.plots.network_plots import PlottedNetwork

    File = str | PathLike[str]

__all__ = [
    "cam",
    "confusion",
    "curves",
    "decision_curve",
    "errors",
    "features",
    "filters",
    "gradcam",
    "reliability",
    "tsne",
    "weights",
]


def curves(runs: "Sequence[File]", out: "File | None" = None) -> "Figure":
    """Draw the training curves of folders that `tcc train` wrote.

    Args:
        runs: The folders.
        out: The file to write, if any.
    """
    from tcc.compiler.plots import training_curves

    logs = [training_curves.read_log(Path(run)) for run in runs]
    return _draw_figure(lambda: training_curves.draw(logs), out)


def confusion(
    spec: "Spec | File",
    data: "File",
    out: "File | None" = None,
    *,
    weights: "File | None" = None,
    split: "File | None" = None,
) -> "Figure":
    """Draw the confusion matrix of a spec on labelled images.

    Args:
        spec: The network.
        data: Labelled images: a folder of class folders, or an `.npz` file with `labels`.
        out: The file to write, if any.
        weights: A safetensors file.
        split: The run of `tcc train` that the weights come from, or "none".
    """
    from tcc.compiler.plots import network_plots

    net, evaluated_network = _evaluate(spec, data, weights, split)
    return _draw_figure(
        network_plots.plot_confusion(evaluated_network, net.spec.name, net.notice), out
    )


def reliability(
    spec: "Spec | File",
    data: "File",
    out: "File | None" = None,
    *,
    weights: "File | None" = None,
    split: "File | None" = None,
) -> "Figure":
    """Draw the accuracy of a spec by confidence, with its calibration error.

    Args:
        spec: The network.
        data: Labelled images: a folder of class folders, or an `.npz` file with `labels`.
        out: The file to write, if any.
        weights: A safetensors file.
        split: The run of `tcc train` that the weights come from, or "none".
    """
    from tcc.compiler.plots import probability_plots

    net, evaluated_network = _evaluate(spec, data, weights, split)
    measured = probability_plots.measure_reliability(evaluated_network, None)

    def build_figure() -> "Figure":
        title = _build_title("Reliability", net)
        return probability_plots.draw_reliability(measured, title, net.notice)

    return _draw_figure(build_figure, out)


def decision_curve(
    spec: "Spec | File",
    data: "File",
    out: "File | None" = None,
    *,
    shown: str | None = None,
    weights: "File | None" = None,
    split: "File | None" = None,
) -> "Figure":
    """Draw the net benefit of acting on a class, by probability threshold.

    Args:
        spec: The network.
        data: Labelled images: a folder of class folders, or an `.npz` file with `labels`.
        out: The file to write, if any.
        shown: The target class, or several joined by `+`; by default each class.
        weights: A safetensors file.
        split: The run of `tcc train` that the weights come from, or "none".
    """
    from tcc.compiler.plots import probability_plots

    net, evaluated_network = _evaluate(spec, data, weights, split)
    curves = probability_plots.compute_curves(evaluated_network, None, shown)

    def build_figure() -> "Figure":
        title = _build_title("Decision curve", net)
        return probability_plots.draw_curves(curves, title, net.notice)

    return _draw_figure(build_figure, out)


def _build_title(subject: str, net: "PlottedNetwork") -> str:
    from tcc.compiler.plots import drawing

    return f"{subject}\n{drawing.trim_label(net.spec.name, 44)}"


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
    """Draw a t-SNE plot of the outputs for labelled images, or of the features of one layer.

    Args:
        spec: The network.
        data: Labelled images: a folder of class folders, or an `.npz` file with `labels`.
        out: The file to write, if any.
        layer: The path of a layer in the spec. Without it, the outputs are drawn.
        weights: A safetensors file.
        split: The run of `tcc train` that the weights come from, or "none".
        seed: Seed of t-SNE.
    """
    from tcc.compiler.driver import evaluation
    from tcc.compiler.plots import network_plots

    net = _load_network(spec, weights)
    labelled_images = _load_labelled_images(net, _load_images(data, weights, split), data)
    if layer is not None:
        return _draw_figure(network_plots.plot_layer_tsne(net, labelled_images, layer, seed), out)
    evaluated_network = evaluation.evaluate_reference(net.model, labelled_images)
    return _draw_figure(
        network_plots.plot_output_tsne(evaluated_network, net.spec.name, seed, net.notice), out
    )


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
    """Draw Grad-CAM heat maps over images, for one layer and one class.

    Args:
        spec: The network.
        images: Image files. Give either these or `data`.
        out: The file to write, if any.
        layer: The path of a layer in the spec; by default the last one with feature maps.
        shown: The class; by default the predicted one.
        weights: A safetensors file.
        data: A dataset, instead of `images`.
        split: The run of `tcc train` that the weights come from, or "none".
        most: The largest number of images to draw, from the first one on.
    """
    from tcc.compiler.plots import network_plots

    net = _load_network(spec, weights)
    drawn_images = _load_drawn_images(images, data, weights, split).select_first(most)
    return _draw_figure(network_plots.plot_gradcam(net, drawn_images, layer, shown), out)


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
    """Draw class activation maps over images.

    The network must end in a mean of its feature maps.

    Args:
        spec: The network.
        images: Image files. Give either these or `data`.
        out: The file to write, if any.
        shown: The class; by default the predicted one.
        weights: A safetensors file.
        data: A dataset, instead of `images`.
        split: The run of `tcc train` that the weights come from, or "none".
        most: The largest number of images to draw, from the first one on.
    """
    from tcc.compiler.plots import network_plots

    net = _load_network(spec, weights)
    drawn_images = _load_drawn_images(images, data, weights, split).select_first(most)
    return _draw_figure(network_plots.plot_class_activation(net, drawn_images, shown), out)


def features(
    spec: "Spec | File",
    calibration: "File",
    image: "File",
    out: "File | None" = None,
    *,
    layer: str | None = None,
    weights: "File | None" = None,
) -> "Figure":
    """Draw the feature maps of a network for one image, at fp32 and int8.

    Args:
        spec: The network.
        calibration: A file that `tcc.calibrate` wrote.
        image: The image file.
        out: The file to write, if any.
        layer: The path of a layer in the spec; by default the first and last convolution.
        weights: A safetensors file.
    """
    from tcc.compiler.plots import int8_plots
    from tcc.compiler.plots.plot_inputs import read_image_paths

    net = _load_network(spec, weights)
    quantized, _ = int8_plots.quantize_network(net, None, Path(calibration))
    return _draw_figure(
        int8_plots.plot_features(net, quantized, read_image_paths([Path(image)]), layer), out
    )


def filters(
    spec: "Spec | File",
    calibration: "File",
    out: "File | None" = None,
    *,
    weights: "File | None" = None,
) -> "Figure":
    """Draw the filters of the first and last convolution, at fp32 and int8.

    Args:
        spec: The network.
        calibration: A file that `tcc.calibrate` wrote.
        out: The file to write, if any.
        weights: A safetensors file.
    """
    from tcc.compiler.plots import int8_plots

    net = _load_network(spec, weights)
    return _draw_figure(
        int8_plots.plot_filters(net, int8_plots.quantize_network(net, None, Path(calibration))[0]),
        out,
    )


def weights(
    spec: "Spec | File",
    calibration: "File",
    out: "File | None" = None,
    *,
    weights: "File | None" = None,
) -> "Figure":
    """Draw weight histograms of the first and last convolution, at fp32 and int8.

    Args:
        spec: The network.
        calibration: A file that `tcc.calibrate` wrote.
        out: The file to write, if any.
        weights: A safetensors file.
    """
    from tcc.compiler.plots import int8_plots

    net = _load_network(spec, weights)
    return _draw_figure(
        int8_plots.plot_weights(net, int8_plots.quantize_network(net, None, Path(calibration))[0]),
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
    """Draw the quantization error of each layer, measured over images.

    Args:
        spec: The network.
        calibration: A file that `tcc.calibrate` wrote.
        data: Images: a folder, a folder of class folders, or an `.npz` file.
        out: The file to write, if any.
        weights: A safetensors file.
        split: The run of `tcc train` that the weights come from, or "none".
    """
    from tcc.compiler.plots import int8_plots

    net = _load_network(spec, weights)
    images = _load_images(data, weights, split)
    _, source = int8_plots.quantize_network(net, images, Path(calibration))
    return _draw_figure(
        int8_plots.plot_layer_errors(net, int8_plots.measure_layer_errors(net, source)),
        out,
    )


def _load_network(spec: "Spec | File", weights: "File | None") -> "PlottedNetwork":
    from tcc.compiler.driver import pipeline
    from tcc.compiler.plots.network_plots import PlottedNetwork

    resolved_spec = tcc.load(spec) if isinstance(spec, str | PathLike) else spec
    return PlottedNetwork(resolved_spec, pipeline.load_weights(resolved_spec, weights, None))


def _load_images(data_path: "File", weights: "File | None", split: "File | None") -> "DataSet":
    """Return the images of the test split, as `tcc plot` does, with its warnings."""
    from tcc.compiler.data import run_split_images
    from tcc.compiler.data.dataset import read_dataset
    from tcc.compiler.driver import run_splits

    images_path, option = Path(data_path), None if split is None else str(split)
    run = run_splits.find_weights_split(option, None if weights is None else Path(weights))
    split_folder = run_splits.find_side_folder(images_path, "test")
    if run is not None:
        split_images = run_split_images.find(run, images_path, split_folder, "test")
        messages, image_set = split_images.warnings, split_images.images
    else:
        image_set = read_dataset(split_folder)
        # A folder of one split was chosen on purpose: no warning.
        is_unsplit = split_folder == images_path and images_path.name not in run_splits.SIDES
        unknown = weights is not None and option != run_splits.NO_SPLIT and is_unsplit
        messages = (
            *image_set.warnings,
            *([run_splits.create_unknown_warning(images_path)] if unknown else []),
        )
    for message in messages:
        python_warnings.warn(str(message), stacklevel=3)
    return image_set


def _load_drawn_images(
    images: "Sequence[File]", data_path: "File | None", weights: "File | None", split: "File | None"
) -> "DataSet":
    """Return the named images, or those of a dataset's test split."""
    from tcc.compiler.plots.plot_inputs import read_image_paths
    from tcc.compiler.support.diagnostics import fail, make_file_span

    if bool(images) == (data_path is not None):
        message = "no images, or both `images` and `data`, are given"
        raise fail(
            "E0616", message, make_file_span("tcc.plot"), help="give either `images` or `data`"
        )
    return (
        read_image_paths([Path(i) for i in images])
        if data_path is None
        else _load_images(data_path, weights, split)
    )


def _load_labelled_images(
    net: "PlottedNetwork", images: "DataSet", data_path: "File"
) -> "LabelledImages":
    from tcc.compiler.bundle import manifest
    from tcc.compiler.driver import labelled_images

    outputs = manifest.build_output_contracts(net.spec.graph)
    return labelled_images.label_images(images, outputs, Path(data_path))


def _evaluate(
    spec: "Spec | File", data: "File", weights: "File | None", split: "File | None"
) -> "tuple[PlottedNetwork, Evaluated]":
    """Return a network, and its evaluation on labelled images."""
    from tcc.compiler.driver import evaluation

    net = _load_network(spec, weights)
    labelled_images = _load_labelled_images(net, _load_images(data, weights, split), data)
    return net, evaluation.evaluate_reference(net.model, labelled_images)


def _draw_figure(build_figure: "Callable[[], Figure]", out: "File | None") -> "Figure":
    from tcc.compiler.plots import drawing

    if out is not None:
        drawing.write(build_figure, Path(out))
    return drawing.draw_styled(build_figure)
