"""The kinds of `tcc plot` that show floats beside integers, as the quantisation study does."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    CalibrationOption,
    Data,
    Layer,
    Most,
    Out,
    SpecWord,
    finish,
)
from tcc.compiler.plots import plot_inputs
from tcc.compiler.plots.plot_inputs import PlotRequest
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.int8_program import CalibrationSource
    from tcc.compiler.plots.layers import Quantised
    from tcc.compiler.plots.pictures import Make, PlottedNetwork

Forms = Annotated[
    list[Path],
    typer.Argument(metavar="BUNDLE", help="Bundles of the same network.", show_default=False),
]


def _quantised(
    request: PlotRequest, calibration: Path | None, out: Path, *, pictured: bool = False
) -> "tuple[PlottedNetwork, Quantised, CalibrationSource, DataSet | None]":
    """Return the network in floats and integers, and the images that were read.

    A calibration takes the images of `train`; beside one that is given those of `test` are read,
    if they are to be pictured.
    """
    from tcc.compiler.plots import drawing, integer_pictures

    drawing.check(out)
    net = plot_inputs.network(request, "integers")
    # A calibration holds ranges: images are needed to make one, not to read one.
    images = None
    if calibration is None:
        images = plot_inputs.images(request, "train")
    elif pictured:
        images = plot_inputs.images(request, "test")
    with request.report.stages() as stages:
        made, source = integer_pictures.quantised(net, images, calibration, stages)
        stages.end()
    return net, made, source, images


def features(
    spec: SpecArgument = None,
    data: Data = None,
    calibration: CalibrationOption = None,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="The image; else one of the data."),
    ] = None,
    layer: Layer = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    split: SplitOption = None,
    settings: Settings = None,
    out: Out = Path("features.png"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw feature maps of the first and last convolution, or of a layer, in float and int8."""
    report = Report(json, quiet, verbose)
    request = PlotRequest(report, spec, data, weights, seed, settings, split)
    from tcc.compiler.plots import integer_pictures

    net, made, _, read = _quantised(request, calibration, out, pictured=image is None)
    given = plot_inputs.pictures_of([image]) if image else read
    assert given is not None
    prepare = partial(integer_pictures.features, net, made, given, layer)
    finish(report, prepare, out, {"layer": layer})


def filters(
    spec: SpecArgument = None,
    data: Data = None,
    calibration: CalibrationOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    split: SplitOption = None,
    settings: Settings = None,
    out: Out = Path("filters.png"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw the filters of the first and last convolution, in float and int8."""
    report = Report(json, quiet, verbose)
    request = PlotRequest(report, spec, data, weights, seed, settings, split)
    from tcc.compiler.plots import integer_pictures

    net, made, *_ = _quantised(request, calibration, out)
    finish(report, partial(integer_pictures.filters, net, made), out, {})


def weight_histograms(
    spec: SpecArgument = None,
    data: Data = None,
    calibration: CalibrationOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    split: SplitOption = None,
    settings: Settings = None,
    out: Out = Path("weights.png"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw histograms of the weights of the first and last convolution, in float and int8."""
    report = Report(json, quiet, verbose)
    request = PlotRequest(report, spec, data, weights, seed, settings, split)
    from tcc.compiler.plots import integer_pictures

    net, made, *_ = _quantised(request, calibration, out)
    finish(report, partial(integer_pictures.weights, net, made), out, {})


def errors(
    spec: SpecArgument = None,
    data: Data = None,
    calibration: CalibrationOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    split: SplitOption = None,
    settings: Settings = None,
    out: Out = Path("errors.png"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw a bar for each layer: the noise of its integers; --json has cosines, too."""
    report = Report(json, quiet, verbose)
    request = PlotRequest(report, spec, data, weights, seed, settings, split)
    from dataclasses import asdict

    from tcc.compiler.plots import integer_pictures

    net, _, source, _ = _quantised(request, calibration, out, pictured=True)
    found = integer_pictures.losses(net, source)
    said = {"layers": [asdict(each) for each in found]}
    finish(report, partial(integer_pictures.errors, net, found), out, said)


def scatter(
    spec: SpecWord,
    bundles: Forms,
    data: Data = None,
    images: Most = 500,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    split: SplitOption = None,
    settings: Settings = None,
    out: Out = Path("scatter.png"),
    trust: Trust = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw outputs of bundles against those of the spec in floats; their own artifacts run.

    A program that was not built here runs only with --trust.
    """
    report = Report(json, quiet, verbose)
    request = PlotRequest(report, spec, data, weights, seed, settings, split, trust)
    from tcc.compiler.plots import drawing, integer_pictures, pictures

    drawing.check(out)
    net = plot_inputs.network(request, "scatter")
    given = plot_inputs.labelled(request, net, images)
    forms = {str(path): plot_inputs.of_form(request, net, path, given) for path in bundles}

    def prepare() -> "Make":
        return integer_pictures.scatter(net, pictures.evaluated(net, given), forms)

    finish(report, prepare, out, {"images": len(given.data)})
