"""`tcc plot KIND`: figures of training, of predictions and features, and of quantization error."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.options import ReportOptions, Settings, Split, Trust, WeightOptions
from tcc.compiler.plots import plot_inputs
from tcc.compiler.plots.plot_inputs import PlotRequest
from tcc.compiler.support import option_requirements
from tcc.compiler.support.diagnostics import fail, find_nearest_name, make_command_span
from tcc.compiler.support.option_requirements import UNNAMED_IMAGES

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.calibration import StoredCosine
    from tcc.compiler.driver.int8_program import CalibrationSource
    from tcc.compiler.figures.scene import Bar
    from tcc.compiler.plots.layers import QuantizedNetwork
    from tcc.compiler.plots.network_plots import FigureBuilder, PlottedNetwork


@dataclass(frozen=True)
class Plot:
    """A function that computes a figure, and its JSON document."""

    prepare: Callable[[], "FigureBuilder"]
    document: Mapping[str, Any]


@dataclass(frozen=True)
class PlotKind:
    """A kind of figure: usage, summary, drawing function, and whether it takes one argument."""

    usage: str
    summary: str
    draw: Callable[[PlotRequest, Path], None]
    takes_one: bool = False


def _plot_curves(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import training_curves

    if not request.arguments:
        help = "name one or more folders that `tcc train` wrote"
        raise fail(
            "E0601", "no runs to draw are named", make_command_span("plot curves"), help=help
        )
    if len(request.arguments) > training_curves.MAX_RUNS:
        message = f"{len(request.arguments)} runs are too many to distinguish"
        help = f"name at most {training_curves.MAX_RUNS} runs"
        raise fail("E0601", message, make_command_span("plot curves"), help=help)
    runs = [training_curves.read_log(Path(folder)) for folder in request.arguments]
    document = {"runs": [{"name": run.name, "epochs": len(run.epochs)} for run in runs]}
    return Plot(lambda: partial(training_curves.draw, runs), document)


def _plot_confusion(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import network_plots

    judged_network = plot_inputs.evaluate_network(request, request.max_images)
    prepare = partial(
        network_plots.plot_confusion,
        judged_network.evaluated,
        judged_network.name,
        judged_network.notice,
    )
    scores = judged_network.evaluated.scores
    return Plot(prepare, {"network": judged_network.name, "images": scores.images})


def _plot_reliability(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import drawing, probability_plots
    from tcc.compiler.support import json_records

    network = plot_inputs.evaluate_network(request, request.max_images)
    reliability = probability_plots.measure_reliability(network.evaluated, network.point)
    title = f"Reliability\n{drawing.trim_label(network.name, 44)}"
    figure = partial(probability_plots.draw_reliability, reliability, title, network.notice)
    document = {"network": network.name, "calibration_errors": json_records.encode(reliability)}
    return Plot(lambda: figure, document)


def _plot_decision_curve(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import drawing, probability_plots
    from tcc.compiler.support import json_records

    network = plot_inputs.evaluate_network(request, request.max_images)
    curves = probability_plots.compute_curves(network.evaluated, network.point, request.class_name)
    title = f"Decision curve\n{drawing.trim_label(network.name, 44)}"
    figure = partial(probability_plots.draw_curves, curves, title, network.notice)
    document = {"network": network.name, "decision_curves": json_records.encode(curves)}
    return Plot(lambda: figure, document)


def _plot_tsne(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import network_plots

    layer, seed, max_images = request.layer, request.tsne_seed, request.max_images or 2000
    document = {"layer": layer, "seed": seed}
    if layer is None:
        judged_network = plot_inputs.evaluate_network(request, max_images)
        tsne_inputs = (judged_network.evaluated, judged_network.name, seed, judged_network.notice)
        return Plot(partial(network_plots.plot_output_tsne, *tsne_inputs), document)
    network = plot_inputs.load_network(request, "--layer")
    labelled = plot_inputs.load_labelled_images(request, network, max_images)
    return Plot(partial(network_plots.plot_layer_tsne, network, labelled, layer, seed), document)


def _plot_gradcam(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import network_plots

    network = plot_inputs.load_network(request, "gradcam")
    images = plot_inputs.load_drawn_images(request)
    prepare = partial(
        network_plots.plot_gradcam, network, images, request.layer, request.class_name
    )
    return Plot(prepare, {"images": len(images)})


def _plot_cam(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import network_plots

    network = plot_inputs.load_network(request, "cam")
    images = plot_inputs.load_drawn_images(request)
    prepare = partial(network_plots.plot_class_activation, network, images, request.class_name)
    return Plot(prepare, {"images": len(images)})


def _plot_features(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import int8_plots

    if len(request.extra_paths) > 1:
        message = f"feature maps show one image, but {len(request.extra_paths)} images are named"
        raise fail("E0601", message, make_command_span("plot features"), help="name one image")
    network, int8, _, read_images = _quantize(request, use_test_images=not request.extra_paths)
    images = (
        plot_inputs.read_image_paths(request.extra_paths) if request.extra_paths else read_images
    )
    assert images is not None
    prepare = partial(int8_plots.plot_features, network, int8, images, request.layer)
    return Plot(prepare, {"layer": request.layer})


def _plot_filters(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import int8_plots

    network, int8, *_ = _quantize(request)
    return Plot(partial(int8_plots.plot_filters, network, int8), {})


def _plot_weights(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import int8_plots

    network, int8, *_ = _quantize(request)
    return Plot(partial(int8_plots.plot_weights, network, int8), {})


def _plot_errors(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import int8_plots

    network, _, source, _ = _quantize(request, use_test_images=True)
    losses = int8_plots.measure_layer_errors(network, source)
    prepare = partial(int8_plots.plot_layer_errors, network, losses)
    return Plot(prepare, {"layers": [asdict(loss) for loss in losses]})


def _plot_scatter(request: PlotRequest) -> Plot:
    from tcc.compiler.driver import evaluation
    from tcc.compiler.plots import int8_plots

    bundles = request.extra_paths
    if not bundles:
        help = "name one or more bundles of the network after its spec"
        raise fail(
            "E0601", "no bundles to draw are named", make_command_span("plot scatter"), help=help
        )
    network = plot_inputs.load_network(request, "scatter", bundles)
    labelled = plot_inputs.load_labelled_images(request, network, request.max_images or 500)
    forms = {
        str(path): plot_inputs.evaluate_bundle(request, network, path, labelled) for path in bundles
    }

    def prepare() -> "FigureBuilder":
        floats = evaluation.evaluate_reference(network.model, labelled)
        return int8_plots.plot_scatter(network, floats, forms)

    return Plot(prepare, {"images": len(labelled.dataset)})


def _quantize(
    request: PlotRequest, *, use_test_images: bool = False
) -> "tuple[PlottedNetwork, QuantizedNetwork, CalibrationSource, DataSet | None]":
    """Return the network at fp32 and int8, and the images that were read.

    Without a calibration file, the images of `train` calibrate. With one, the images of `test` are
    read if `use_test_images` is set.
    """
    from tcc.compiler.plots import int8_plots

    network = plot_inputs.load_network(request, "int8 plot")
    images: DataSet | None = None
    if request.calibration is None:
        images = plot_inputs.load_images(request, "train")
    elif use_test_images:
        images = plot_inputs.load_images(request, "test")
    with request.report.track_stages() as stages:
        int8, source = int8_plots.quantize_network(network, images, request.calibration, stages)
        stages.finish_stage()
    return network, int8, source, images


def _create_drawer(make: Callable[[PlotRequest], Plot]) -> Callable[[PlotRequest, Path], None]:
    """Return a function that draws a kind of figure with matplotlib and reports its path."""

    def draw(request: PlotRequest, out: Path) -> None:
        from tcc.compiler.plots import drawing

        # Check the path before the work, which can take minutes.
        drawing.check(out)
        plot = make(request)
        with request.report.track_stages() as stages:
            stages("figure", 0, 1)
            drawing.write(plot.prepare(), out)
            stages.finish_stage()
        request.report.print_text(str(out))
        request.report.print_document({**plot.document, "output": str(out)})

    return draw


def _draw_cosines(request: PlotRequest, out: Path) -> None:
    """Draw the cosines of int8 and fp32 outputs that `tcc calibrate` and `tcc build` measured."""
    from tcc.compiler.driver import calibration
    from tcc.compiler.ir.target import MIN_COSINE
    from tcc.compiler.report import calibration_report
    from tcc.compiler.support import atomic_files
    from tcc.compiler.targets import devices

    if not request.arguments:
        help = "name files that `tcc calibrate` wrote, or bundles"
        raise fail(
            "E0601",
            "no calibrations to draw are named",
            make_command_span("plot cosines"),
            help=help,
        )
    if out.suffix not in (".png", ".svg"):
        at, help = make_command_span(f"--output {out}"), "such as `-o cosines.png`"
        raise fail("E0601", "a figure is a .png or .svg file", at, help=help)
    # Any existing figure may be replaced.
    atomic_files.check_target(out, atomic_files.allow_replacing)
    named_paths, policy = (
        [_split_name(argument) for argument in request.arguments],
        devices.create_signature_policy(),
    )
    cosines = [
        (dataset_name, cosine)
        for dataset_name, path in named_paths
        for cosine in calibration.read_cosines(Path(path), devices.find_precision, policy)
    ]
    bars = _name_bars(cosines)
    picture = calibration.draw_bars(out, "cosine of int8 and fp32 outputs", bars)
    atomic_files.write_file(out, picture)
    report = request.report
    report.print_text(str(out))
    if not report.quiet:
        calibration_report.print_bars(report, bars)
    bar_list = [{"name": bar.name, "cosine": bar.value} for bar in bars]
    report.print_document({"picture": str(out), "threshold": MIN_COSINE, "cosines": bar_list})


def _split_name(argument: str) -> tuple[str, str]:
    """Return the name of the dataset and the path; a path that exists needs no name."""
    name, mark, path = argument.partition("=")
    # The name of a file can contain `=`.
    return ("", argument) if not mark or Path(argument).exists() else (name, path)


def _name_bars(cosines: "Sequence[tuple[str, StoredCosine]]") -> "tuple[Bar, ...]":
    """Return one bar per cosine, with only what distinguishes it from the others as its name."""
    from tcc.compiler.figures.scene import Bar

    # A bar of one network on one dataset needs only the network's name.
    sets = Counter(
        network
        for network, _ in {
            (stored_cosine.network, stored_cosine.data) for _, stored_cosine in cosines
        }
    )
    outputs = Counter(
        network
        for network, _ in {
            (stored_cosine.network, stored_cosine.output) for _, stored_cosine in cosines
        }
    )
    targets = Counter(
        network
        for network, _ in {
            (stored_cosine.network, stored_cosine.target) for _, stored_cosine in cosines
        }
    )
    bars = []
    for dataset_name, stored_cosine in cosines:
        parts = [
            stored_cosine.network,
            dataset_name or (stored_cosine.data[:8] if sets[stored_cosine.network] > 1 else ""),
        ]
        parts += [stored_cosine.target] if targets[stored_cosine.network] > 1 else []
        parts += [stored_cosine.output] if outputs[stored_cosine.network] > 1 else []
        bars.append(Bar(", ".join(filter(None, parts)), stored_cosine.cosine))
    return tuple(bars)


KINDS = {
    "curves": PlotKind(
        "RUN...", "loss, accuracy and learning rate of `tcc train`", _create_drawer(_plot_curves)
    ),
    "confusion": PlotKind(
        "NETWORK", "the confusion matrix", _create_drawer(_plot_confusion), takes_one=True
    ),
    "reliability": PlotKind(
        "NETWORK",
        "accuracy by confidence, and the calibration error",
        _create_drawer(_plot_reliability),
        takes_one=True,
    ),
    "decision-curve": PlotKind(
        "NETWORK",
        "net benefit of acting on a class, by threshold",
        _create_drawer(_plot_decision_curve),
        takes_one=True,
    ),
    "tsne": PlotKind(
        "NETWORK",
        "t-SNE of outputs or of a layer's features",
        _create_drawer(_plot_tsne),
        takes_one=True,
    ),
    "gradcam": PlotKind(
        "SPEC IMAGE...",
        "Grad-CAM: image regions that a layer uses for a class",
        _create_drawer(_plot_gradcam),
    ),
    "cam": PlotKind(
        "SPEC IMAGE...",
        "class activation map of a network that ends in a mean of its last maps",
        _create_drawer(_plot_cam),
    ),
    "features": PlotKind(
        "SPEC IMAGE", "feature maps in float and int8", _create_drawer(_plot_features)
    ),
    "filters": PlotKind(
        "SPEC", "filters in float and int8", _create_drawer(_plot_filters), takes_one=True
    ),
    "weights": PlotKind(
        "SPEC",
        "histograms of weights in float and int8",
        _create_drawer(_plot_weights),
        takes_one=True,
    ),
    "scatter": PlotKind(
        "SPEC BUNDLE...",
        "outputs of bundles against the spec's outputs",
        _create_drawer(_plot_scatter),
    ),
    "errors": PlotKind(
        "SPEC", "quantization noise of each layer", _create_drawer(_plot_errors), takes_one=True
    ),
    "cosines": PlotKind(
        "[DATA=]FILE...", "cosines of calibration files and bundles", _draw_cosines
    ),
}
"""The kinds, in the order of the help."""
DATA_KINDS = ("confusion", "reliability", "decision-curve", "tsne", "filters", "weights", "errors")
"""Kinds that take one network, and images only by `--data`."""
OVERLAY_KINDS = ("gradcam", "cam")
"""Kinds that draw over images."""
WIDTH = max(len(f"{name} {kind.usage}") for name, kind in KINDS.items()) + 2
EPILOG = "\n".join(
    [
        "\b",
        "Kinds:",
        *(f"  {f'{name} {kind.usage}':<{WIDTH}}{kind.summary}" for name, kind in KINDS.items()),
    ]
)
"""The kinds, one per line, at the end of the help; \\b keeps the line breaks."""


def _check_kind(name: str) -> str:
    """Return the name of a kind; refuse an unknown one before anything else (E0601)."""
    if name in KINDS:
        return name
    nearest_name = find_nearest_name(name, KINDS)
    kind_list = f"kinds: {', '.join(KINDS)}"
    help = f"did you mean `{nearest_name}`? {kind_list}" if nearest_name else kind_list
    raise fail(
        "E0601",
        f"there is no kind of plot `{name[:40]}`",
        make_command_span(f"plot {name}"),
        help=help,
    )


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


Kind = Annotated[
    str,
    typer.Argument(
        metavar="KIND",
        show_default=False,
        callback=_check_kind,
        autocompletion=_complete_kind,
        help="Kind of figure, as listed below.",
    ),
]
InputArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NETWORK|IMAGE",
        show_default=False,
        help="Networks first: specs, names of known specs, bundles, runs or calibrations. "
        "Default: the spec of the project file. Then images: files, or folders of them.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Data set instead of named images: a folder of class folders, or an .npz file. "
        "Default: the project file's.",
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="Calibration file. Default: calibrate with the images.",
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        show_default=False,
        help="Path of a layer in the spec. Default: the last feature maps, the first and "
        "last convolution, or the outputs.",
    ),
]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="NAME",
        show_default=False,
        help="Class to explain. Default: the predicted class. For decision-curve, the target "
        "class, or several joined by `+`; default: the positive class, or else each class.",
    ),
]
MaxImages = Annotated[
    int | None,
    # As many as t-SNE can embed in reasonable time: `MAX_POINTS` of `plots/network_plots.py`.
    typer.Option(
        "--images",
        metavar="N",
        min=1,
        max=5000,
        show_default=False,
        help="Use at most the first N images. Default: 16 of a dataset for overlays, 2000 "
        "for tsne, 500 for scatter, otherwise all.",
    ),
]
ImageOption = Annotated[
    Path | None, typer.Option("--image", metavar="FILE", hidden=True, help="The image.")
]
PointSeed = Annotated[int, typer.Option("--tsne-seed", metavar="N", min=0, help="Seed of t-SNE.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        help="Figure to write, a .png or .svg file. Default: KIND.png.",
    ),
]


def plot(
    kind: Kind,
    inputs: InputArgument = None,
    data: DataOption = None,
    split: Split = None,
    images: MaxImages = None,
    layer: Layer = None,
    class_name: ClassOption = None,
    calibration: CalibrationOption = None,
    settings: Settings = None,
    output: Out = None,
    image: ImageOption = None,
    tsne_seed: PointSeed = 0,
    trust: Trust = False,
    *,
    weights: WeightOptions,
    report: ReportOptions,
) -> None:
    """Draw training curves, predictions, features or quantization error as PNG or SVG.

    A program that was not built on this machine runs only with --trust.
    """
    plot_kind = KINDS[kind]
    request = PlotRequest(
        report, tuple(inputs or ()), data, weights.weights, weights.seed, settings, split, trust,
        images, layer, class_name, calibration, tsne_seed, image,
    )  # fmt: skip
    if plot_kind.takes_one and len(request.arguments) > 1:
        message = f"`tcc plot {kind}` takes one network, and images only with --data"
        help = "name a dataset with --data" if kind in DATA_KINDS else "remove the other arguments"
        raise fail(
            "E0601",
            message,
            make_command_span(f"plot {kind} ... {request.arguments[1]}"),
            help=help,
        )
    if kind in OVERLAY_KINDS:
        option_requirements.report_facts({UNNAMED_IMAGES: not request.extra_paths})
    elif kind == "features":
        option_requirements.report_facts(
            {UNNAMED_IMAGES: not (request.extra_paths and calibration)}
        )
    plot_kind.draw(request, output or Path(f"{kind}.png"))
