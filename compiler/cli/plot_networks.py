"""The kinds of `tcc plot` that show training, and what networks tell apart and look at."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tcc.compiler.cli.common_options import (
    Json,
    Quiet,
    SeedOption,
    Settings,
    SpecArgument,
    SplitOption,
    Trust,
    Verbose,
    WeightsOption,
)
from tcc.compiler.cli.plot_options import (
    ClassOption,
    Data,
    Layer,
    Most,
    Out,
    Pictures,
    PointSeed,
    SpecWord,
    finish,
)
from tcc.compiler.plots import plot_inputs
from tcc.compiler.plots.plot_inputs import PlotRequest
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import fail, typed


def curves(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Folders that `tcc train` wrote.", show_default=False),
    ],
    out: Out = Path("curves.png"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw the training curves of runs: loss, accuracy, learning rate."""
    report = Report(json, quiet, verbose)
    from tcc.compiler.plots import drawing, training_curves

    # Before the work that is drawn, which may take minutes.
    drawing.check(out)
    if len(runs) > training_curves.MAX_RUNS:
        message = (
            f"{len(runs)} runs are more than {training_curves.MAX_RUNS}, which lines tell apart"
        )
        raise fail("E0601", message, typed("plot curves"))
    found = [training_curves.read(path) for path in runs]
    said = {"runs": [{"name": run.name, "epochs": len(run.epochs)} for run in found]}
    finish(report, lambda: partial(training_curves.draw, found), out, said)


def confusion(
    spec: SpecArgument = None,
    data: Data = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    split: SplitOption = None,
    settings: Settings = None,
    out: Out = Path("confusion.png"),
    trust: Trust = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw the confusion matrix of a spec or a bundle on labelled images."""
    report = Report(json, quiet, verbose)
    request = PlotRequest(report, spec, data, weights, seed, settings, split, trust)
    from tcc.compiler.plots import drawing, pictures

    drawing.check(out)
    found = plot_inputs.judged(request, None)
    said = {"network": found.name, "images": found.evaluated.scores.images}
    prepare = partial(pictures.confusion, found.evaluated, found.name, found.notice)
    finish(report, prepare, out, said)


def tsne(
    spec: SpecArgument = None,
    data: Data = None,
    layer: Layer = None,
    images: Most = 2000,
    tsne_seed: PointSeed = 0,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    split: SplitOption = None,
    settings: Settings = None,
    out: Out = Path("tsne.png"),
    trust: Trust = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw images as points that lie together where the outputs, or a layer's features, do.

    Without --layer the outputs of a spec or a bundle; of feature maps, the mean of each channel.
    """
    report = Report(json, quiet, verbose)
    request = PlotRequest(report, spec, data, weights, seed, settings, split, trust)
    from tcc.compiler.plots import drawing, pictures

    drawing.check(out)
    if layer is None:
        found = plot_inputs.judged(request, images)
        arguments = (found.evaluated, found.name, tsne_seed, found.notice)
        prepare = partial(pictures.tsne_of_outputs, *arguments)
    else:
        net = plot_inputs.network(request, "--layer")
        given = plot_inputs.labelled(request, net, images)
        prepare = partial(pictures.tsne_of_layer, net, given, layer, tsne_seed)
    finish(report, prepare, out, {"layer": layer, "seed": tsne_seed})


def gradcam(
    spec: SpecWord,
    images: Pictures,
    layer: Layer = None,
    shown: ClassOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: Settings = None,
    out: Out = Path("gradcam.png"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw where in images a layer's features speak for a class, by Grad-CAM.

    Without --layer, the last feature maps.
    """
    report = Report(json, quiet, verbose)
    request = PlotRequest(report, spec, None, weights, seed, settings)
    from tcc.compiler.plots import drawing, pictures

    drawing.check(out)
    net = plot_inputs.network(request, "gradcam")
    given = plot_inputs.pictures_of(images)
    prepare = partial(pictures.gradcam, net, given, layer, shown)
    finish(report, prepare, out, {"images": len(given)})


def cam(
    spec: SpecWord,
    images: Pictures,
    shown: ClassOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: Settings = None,
    out: Out = Path("cam.png"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw class-activation maps of images, of networks that end in a mean of their maps."""
    report = Report(json, quiet, verbose)
    request = PlotRequest(report, spec, None, weights, seed, settings)
    from tcc.compiler.plots import drawing, pictures

    drawing.check(out)
    net = plot_inputs.network(request, "cam")
    given = plot_inputs.pictures_of(images)
    prepare = partial(pictures.class_activation, net, given, shown)
    finish(report, prepare, out, {"images": len(given)})
