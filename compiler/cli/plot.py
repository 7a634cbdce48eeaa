"""`tcc plot KIND`: pictures of training, of what networks tell apart, and of what integers lose."""

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
from tcc.compiler.support import option_needs
from tcc.compiler.support.diagnostics import fail, nearest, typed
from tcc.compiler.support.option_needs import UNNAMED_IMAGES

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.calibration import StoredCosine
    from tcc.compiler.driver.int8_program import CalibrationSource
    from tcc.compiler.figures.scene import Bar
    from tcc.compiler.plots.layers import Quantised
    from tcc.compiler.plots.pictures import Make, PlottedNetwork


@dataclass(frozen=True)
class Plot:
    """What draws a picture, once `prepare` has computed what it shows, and its JSON document."""

    prepare: Callable[[], "Make"]
    document: Mapping[str, Any]


@dataclass(frozen=True)
class PlotKind:
    """A kind of picture: its words, what it shows, what makes it, and whether it takes one word."""

    words: str
    summary: str
    draw: Callable[[PlotRequest, Path], None]
    takes_one: bool = False


def _curves(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import training_curves

    if not request.words:
        help = "name folders that `tcc train` wrote"
        raise fail("E0601", "draw which runs?", typed("plot curves"), help=help)
    if len(request.words) > training_curves.MAX_RUNS:
        count = f"{len(request.words)} runs are more than {training_curves.MAX_RUNS}"
        raise fail("E0601", f"{count}, which lines tell apart", typed("plot curves"))
    runs = [training_curves.read(Path(word)) for word in request.words]
    document = {"runs": [{"name": run.name, "epochs": len(run.epochs)} for run in runs]}
    return Plot(lambda: partial(training_curves.draw, runs), document)


def _confusion(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import pictures

    judged = plot_inputs.judged(request, request.most)
    prepare = partial(pictures.confusion, judged.evaluated, judged.name, judged.notice)
    scores = judged.evaluated.scores
    return Plot(prepare, {"network": judged.name, "images": scores.images})


def _tsne(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import pictures

    layer, seed, most = request.layer, request.tsne_seed, request.most or 2000
    document = {"layer": layer, "seed": seed}
    if layer is None:
        judged = plot_inputs.judged(request, most)
        shown = (judged.evaluated, judged.name, seed, judged.notice)
        return Plot(partial(pictures.tsne_of_outputs, *shown), document)
    network = plot_inputs.network(request, "--layer")
    labelled = plot_inputs.labelled(request, network, most)
    return Plot(partial(pictures.tsne_of_layer, network, labelled, layer, seed), document)


def _gradcam(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import pictures

    network = plot_inputs.network(request, "gradcam")
    images = plot_inputs.drawn_images(request)
    prepare = partial(pictures.gradcam, network, images, request.layer, request.shown)
    return Plot(prepare, {"images": len(images)})


def _cam(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import pictures

    network = plot_inputs.network(request, "cam")
    images = plot_inputs.drawn_images(request)
    prepare = partial(pictures.class_activation, network, images, request.shown)
    return Plot(prepare, {"images": len(images)})


def _features(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import integer_pictures

    if len(request.others) > 1:
        message = f"feature maps are drawn of one image, and these are {len(request.others)}"
        raise fail("E0601", message, typed("plot features"), help="name one image")
    network, int8, _, read = _quantize(request, judged=not request.others)
    images = plot_inputs.pictures_of(request.others) if request.others else read
    assert images is not None
    prepare = partial(integer_pictures.features, network, int8, images, request.layer)
    return Plot(prepare, {"layer": request.layer})


def _filters(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import integer_pictures

    network, int8, *_ = _quantize(request)
    return Plot(partial(integer_pictures.filters, network, int8), {})


def _weights(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import integer_pictures

    network, int8, *_ = _quantize(request)
    return Plot(partial(integer_pictures.weights, network, int8), {})


def _errors(request: PlotRequest) -> Plot:
    from tcc.compiler.plots import integer_pictures

    network, _, source, _ = _quantize(request, judged=True)
    losses = integer_pictures.losses(network, source)
    prepare = partial(integer_pictures.errors, network, losses)
    return Plot(prepare, {"layers": [asdict(loss) for loss in losses]})


def _scatter(request: PlotRequest) -> Plot:
    from tcc.compiler.driver import evaluation
    from tcc.compiler.plots import integer_pictures

    bundles = request.others
    if not bundles:
        help = "name bundles of the network behind its spec"
        raise fail("E0601", "draw which bundles?", typed("plot scatter"), help=help)
    network = plot_inputs.network(request, "scatter", bundles)
    labelled = plot_inputs.labelled(request, network, request.most or 500)
    forms = {str(path): plot_inputs.of_form(request, network, path, labelled) for path in bundles}

    def prepare() -> "Make":
        floats = evaluation.by_reference(network.model, labelled)
        return integer_pictures.scatter(network, floats, forms)

    return Plot(prepare, {"images": len(labelled.data)})


def _quantize(
    request: PlotRequest, *, judged: bool = False
) -> "tuple[PlottedNetwork, Quantised, CalibrationSource, DataSet | None]":
    """Return the network in floats and integers, and the images that were read.

    Those of `train` calibrate where no calibration is given; beside one, those of `test` are read
    if it is to be `judged` by them, or one of them drawn.
    """
    from tcc.compiler.plots import integer_pictures

    network = plot_inputs.network(request, "integers")
    images: DataSet | None = None
    if request.calibration is None:
        images = plot_inputs.images(request, "train")
    elif judged:
        images = plot_inputs.images(request, "test")
    with request.report.stages() as stages:
        int8, source = integer_pictures.quantised(network, images, request.calibration, stages)
        stages.end()
    return network, int8, source, images


def _pictured(make: Callable[[PlotRequest], Plot]) -> Callable[[PlotRequest, Path], None]:
    """Return what draws a kind of picture with matplotlib, and says where it is."""

    def draw(request: PlotRequest, out: Path) -> None:
        from tcc.compiler.plots import drawing

        # Before the work that is drawn, which may take minutes.
        drawing.check(out)
        plot = make(request)
        with request.report.stages() as stages:
            stages("picture", 0, 1)
            drawing.write(plot.prepare(), out)
            stages.end()
        request.report.text(str(out))
        request.report.document({**plot.document, "output": str(out)})

    return draw


def _draw_cosines(request: PlotRequest, out: Path) -> None:
    """Draw how near integers came to floats, as `tcc calibrate` and `tcc build` measured it."""
    from tcc.compiler.driver import calibration
    from tcc.compiler.ir.target import LEAST
    from tcc.compiler.report import calibration_report
    from tcc.compiler.support import atomic_files
    from tcc.compiler.targets import devices

    if not request.words:
        help = "name files that `tcc calibrate` wrote, or bundles"
        raise fail("E0601", "draw which calibrations?", typed("plot cosines"), help=help)
    if out.suffix not in (".png", ".svg"):
        at, help = typed(f"--output {out}"), "such as `-o cosines.png`"
        raise fail("E0601", "a picture is a .png or a .svg", at, help=help)
    # A picture may be drawn over again, whatever made the one that is there.
    atomic_files.check_target(out, atomic_files.anything)
    named, policy = [_split_name(word) for word in request.words], devices.signature_policy()
    cosines = [
        (data, cosine)
        for data, path in named
        for cosine in calibration.read_cosines(Path(path), devices.precision, policy)
    ]
    bars = _name_bars(cosines)
    drawn = calibration.draw_bars(out, "cosine of integers and floats", bars)
    atomic_files.write_file(out, drawn)
    report = request.report
    report.text(str(out))
    if not report.quiet:
        calibration_report.print_bars(report, bars)
    listed = [{"name": bar.name, "cosine": bar.value} for bar in bars]
    report.document({"picture": str(out), "threshold": LEAST, "cosines": listed})


def _split_name(word: str) -> tuple[str, str]:
    """Return the name of the data and the path; a path that exists needs no name."""
    name, mark, path = word.partition("=")
    # A file's name may hold a `=`.
    return ("", word) if not mark or Path(word).exists() else (name, path)


def _name_bars(cosines: "Sequence[tuple[str, StoredCosine]]") -> "tuple[Bar, ...]":
    """Return a bar each, called by what tells it from the others."""
    from tcc.compiler.figures.scene import Bar

    # Only what differs is named: a bar of one network on one data set needs its name alone.
    sets = Counter(network for network, _ in {(one.network, one.data) for _, one in cosines})
    outputs = Counter(network for network, _ in {(one.network, one.output) for _, one in cosines})
    targets = Counter(network for network, _ in {(one.network, one.target) for _, one in cosines})
    bars = []
    for data, one in cosines:
        words = [one.network, data or (one.data[:8] if sets[one.network] > 1 else "")]
        words += [one.target] if targets[one.network] > 1 else []
        words += [one.output] if outputs[one.network] > 1 else []
        bars.append(Bar(", ".join(filter(None, words)), one.cosine))
    return tuple(bars)


KINDS = {
    "curves": PlotKind(
        "RUN...", "loss, accuracy and learning rate of `tcc train`", _pictured(_curves)
    ),
    "confusion": PlotKind("NETWORK", "the confusion matrix", _pictured(_confusion), takes_one=True),
    "tsne": PlotKind(
        "NETWORK",
        "images as points: outputs, or a layer's features",
        _pictured(_tsne),
        takes_one=True,
    ),
    "gradcam": PlotKind(
        "SPEC IMAGE...", "where a layer speaks for a class, by Grad-CAM", _pictured(_gradcam)
    ),
    "cam": PlotKind(
        "SPEC IMAGE...", "class activation, of a mean of the last maps", _pictured(_cam)
    ),
    "features": PlotKind("SPEC IMAGE", "feature maps in float and int8", _pictured(_features)),
    "filters": PlotKind("SPEC", "filters in float and int8", _pictured(_filters), takes_one=True),
    "weights": PlotKind(
        "SPEC", "histograms of weights, float and int8", _pictured(_weights), takes_one=True
    ),
    "scatter": PlotKind(
        "SPEC BUNDLE...", "outputs of bundles against the spec's", _pictured(_scatter)
    ),
    "errors": PlotKind(
        "SPEC", "the noise of integers by layer", _pictured(_errors), takes_one=True
    ),
    "cosines": PlotKind(
        "[DATA=]FILE...", "cosines of calibration files and bundles", _draw_cosines
    ),
}
"""The kinds, in the order in which help lists them."""
DATA_KINDS = ("confusion", "tsne", "filters", "weights", "errors")
"""Kinds that take one network, and images by `--data` alone."""
OVERLAY_KINDS = ("gradcam", "cam")
"""Kinds that are drawn over images."""
WIDTH = max(len(f"{name} {kind.words}") for name, kind in KINDS.items()) + 2
EPILOG = "\n".join(
    [
        "\b",
        "Kinds:",
        *(f"  {f'{name} {kind.words}':<{WIDTH}}{kind.summary}" for name, kind in KINDS.items()),
    ]
)
"""The kinds, a line each, at the end of the command's help; \\b keeps the lines as they are."""


def _check_kind(name: str) -> str:
    """Return the name of a kind, before anything else is looked at; refuse others (E0601)."""
    if name in KINDS:
        return name
    close = nearest(name, KINDS)
    listed = f"kinds: {', '.join(KINDS)}"
    help = f"did you mean `{close}`? {listed}" if close else listed
    raise fail("E0601", f"there is no kind of plot `{name[:40]}`", typed(f"plot {name}"), help=help)


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


Kind = Annotated[
    str,
    typer.Argument(
        metavar="KIND",
        show_default=False,
        callback=_check_kind,
        autocompletion=_complete_kind,
        help="What to draw; the kinds are listed below.",
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NETWORK|IMAGE",
        show_default=False,
        help="Networks first: specs, names of known specs, bundles, runs or calibrations; without "
        "a spec, the project file's. Then images: files, or folders of them.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="A data set in place of named images: a folder of class folders, or an .npz file; "
        "without it, the project file's.",
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="A calibration; without it, the images calibrate.",
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        show_default=False,
        help="A layer, by its path in the spec; without it, the last maps, the first and last "
        "convolution, or the outputs.",
    ),
]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class", metavar="NAME", show_default=False, help="A class; without it, the predicted."
    ),
]
Most = Annotated[
    int | None,
    # As many as t-SNE places in bearable time: `MOST` of `plots/embedding.py`.
    typer.Option(
        "--images",
        metavar="N",
        min=1,
        max=5000,
        show_default=False,
        help="Take the first N images at most; without it, 16 of a data set for overlays, 2000 for "
        "tsne, 500 for scatter, or all.",
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
        help="The picture: a .png or .svg file; KIND.png by default.",
    ),
]


def plot(
    kind: Kind,
    words: Words = None,
    data: Data = None,
    split: Split = None,
    images: Most = None,
    layer: Layer = None,
    shown: ClassOption = None,
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
    """Draw training, or what networks see, as PNG or SVG.

    A program that was not built here runs only with --trust.
    """
    known = KINDS[kind]
    request = PlotRequest(
        report, tuple(words or ()), data, weights.weights, weights.seed, settings, split, trust,
        images, layer, shown, calibration, tsne_seed, image,
    )  # fmt: skip
    if known.takes_one and len(request.words) > 1:
        message = f"`tcc plot {kind}` takes one network, and images with --data alone"
        help = "name a data set with --data" if kind in DATA_KINDS else "remove the other words"
        raise fail("E0601", message, typed(f"plot {kind} ... {request.words[1]}"), help=help)
    if kind in OVERLAY_KINDS:
        option_needs.require({UNNAMED_IMAGES: not request.others})
    elif kind == "features":
        option_needs.require({UNNAMED_IMAGES: not (request.others and calibration)})
    known.draw(request, output or Path(f"{kind}.png"))
