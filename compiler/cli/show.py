"""`tcc show`: show a network's graph as text, ONNX or a figure, and the summary of a bundle."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, assert_never

import typer

from tcc.compiler.cli.options import (
    CalibrationFile,
    PassChoice,
    ReportOptions,
    SpecOptions,
    WeightOptions,
)
from tcc.compiler.cli.show_bundle import render_bundle
from tcc.compiler.cli.show_options import GraphFormat, ShowOptions, ShowResult, Stage
from tcc.compiler.driver.chosen_spec import ChosenSpec, find_bundle_folder, report_project
from tcc.compiler.driver.weights_and_images import load_weights
from tcc.compiler.figures import Direction, Level
from tcc.compiler.support import option_requirements
from tcc.compiler.support.console import Report, format_bytes
from tcc.compiler.support.diagnostics import UnhandledError, fail, make_command_span
from tcc.compiler.support.option_requirements import SPECS

if TYPE_CHECKING:
    from tcc.compiler.ir.graph import Graph, Model


# `-o` replaces an existing file only if it has this form, so that a typing mistake does not destroy
# a user's file.
_OUTPUT_PATTERN = re.compile(
    rb"graph \w+ \{\n|# \w+ for [\w-]+ at \w+\n# spec [0-9a-f]{64}\n|\x08.\x12\x03tcc"
    rb"|<!-- tcc show -->\n|%PDF-1\.\d\n.*(% tcc show|/Creator \(tcc show\))"
    rb"|\x89PNG\r\n\x1a\n.{25}.{4}tEXtSoftware\0tcc show",
    re.DOTALL,
)
"""How each kind of file that `show` writes begins; a PDF has its creator near its end."""


StageOption = Annotated[
    Stage,
    typer.Option(
        "--stage",
        help="Stage to show. spec: its canonical text. float: the graph as written. fused: "
        "the graph as devices run it. ready: the graph for calibration. int8: the int8 "
        "program, which needs --calibration.",
    ),
]
FormatOption = Annotated[
    GraphFormat,
    typer.Option("--format", help="Text, ONNX, or a figure. ONNX, PNG and PDF need -o."),
]
LevelOption = Annotated[
    Level | None,
    typer.Option(
        "--level",
        show_default=False,
        help="Level of a figure: blocks or every operation. Default: block.",
    ),
]
DirectionOption = Annotated[
    Direction | None,
    typer.Option(
        "--direction", show_default=False, help="Flow direction of a figure. Default: down."
    ),
]
LegendOption = Annotated[
    bool, typer.Option("--legend", help="Add a legend of the colours to a figure.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        help="Write to this file instead of printing.",
    ),
]


def show(
    stage: StageOption = Stage.FLOAT,
    format: FormatOption = GraphFormat.TEXT,
    level: LevelOption = None,
    direction: DirectionOption = None,
    legend: LegendOption = False,
    output: Output = None,
    calibration: CalibrationFile = None,
    *,
    spec: SpecOptions,
    weights: WeightOptions,
    passes: PassChoice,
    report: ReportOptions,
) -> None:
    """Show a spec's graph, or the summary and graph of a bundle.

    SPEC can also be the folder of a bundle.
    """
    pass_options = passes.create_options(report)
    options = ShowOptions(
        stage,
        format,
        level,
        direction,
        legend,
        weights.weights,
        weights.seed,
        pass_options,
        calibration,
    )
    options.check()
    options.check_output(output)
    folder = find_bundle_folder(spec.spec)
    option_requirements.report_facts({SPECS: folder is None})
    if folder:
        rendered = render_bundle(folder, options)
    else:
        chosen_spec = spec.choose()
        report_project(report, chosen_spec)
        rendered = _show_spec(report, chosen_spec, options)
    if output is None:
        _print(report, rendered)
        return
    from tcc.compiler.support import atomic_files

    atomic_files.write_file(output, rendered.content, _check_replaceable)
    report.print_note(f"{output}: {format_bytes(len(rendered.content))}")
    report.print_document({"output": str(output), "bytes": len(rendered.content)})


def _print(report: Report, rendered: ShowResult) -> None:
    if rendered.binary:
        message = f"{rendered.binary.upper()} is binary and cannot be printed"
        raise fail(
            "E0601", message, make_command_span(f"--format {rendered.binary}"), help="add `-o FILE`"
        )
    report.print_text(rendered.content.decode().removesuffix("\n"))
    report.print_document(rendered.document)


def _show_spec(report: Report, chosen_spec: ChosenSpec, options: ShowOptions) -> ShowResult:
    from tcc.compiler.ir import printer

    spec, stage = chosen_spec.spec, options.stage
    match options.format:
        case GraphFormat.ONNX:
            return _export_onnx(report, chosen_spec, options)
        case GraphFormat.SVG | GraphFormat.PNG | GraphFormat.PDF:
            return _draw_picture(
                _lower_model(report, chosen_spec, options).graph, options, spec.doc
            )
        case GraphFormat.TEXT if stage is Stage.SPEC:
            spec_text = _format_canonical(spec.path)
            return ShowResult(spec_text.encode(), {"name": spec.name, "text": spec_text})
        case GraphFormat.TEXT:
            graph = _lower_model(report, chosen_spec, options).graph
            return ShowResult(printer.print_graph(graph).encode(), _describe_graph(graph, stage))
        case _:
            assert_never(options.format)


def _lower_model(report: Report, chosen_spec: ChosenSpec, options: ShowOptions) -> "Model":
    """Return the model after the passes of the stage, or after the requested ones instead.

    Its weights are placeholders if none are given and only the graph is shown.
    """
    from tcc.compiler.data.weights import make_placeholders
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.passes import PIPELINES

    graph, pass_options = chosen_spec.spec.graph, options.pass_options
    if options.calibration:
        return _quantize_model(report, chosen_spec, options, options.calibration)
    if (
        options.format is GraphFormat.ONNX
        or pass_options.verified
        or options.weights
        or options.seed is not None
    ):
        model = Model(
            graph, load_weights(report, chosen_spec, options.weights, options.seed).tensors
        )
    else:
        # The values are not shown, and random weights of VGG16 take seconds.
        model = Model(graph, make_placeholders(graph))
    match options.stage:
        case Stage.FLOAT:
            return pass_options(model, ())
        case Stage.FUSED | Stage.READY:
            return pass_options(model, PIPELINES[options.stage])
        case Stage.SPEC | Stage.INT8:
            raise UnhandledError("stage of a float graph", options.stage)
        case _:
            assert_never(options.stage)


def _quantize_model(
    report: Report, chosen_spec: ChosenSpec, options: ShowOptions, path: Path
) -> "Model":
    """Return the int8 program of a spec and a calibration file."""
    from tcc.compiler.driver import pipeline
    from tcc.compiler.quant import calibration_document, calibration_file
    from tcc.compiler.quant.program.quantize import quantize

    weight_source = load_weights(report, chosen_spec, options.weights, options.seed)
    document = calibration_document.read_document(path)
    calibration_file.check(
        document, pipeline.describe_network(chosen_spec.spec), weight_source.origin, str(path)
    )
    lowered_model = pipeline.lower_for_int8(chosen_spec.spec, weight_source, options.pass_options)
    return quantize(
        lowered_model, calibration_file.decode_calibration(document, lowered_model, str(path))
    )


def _draw_picture(graph: "Graph", options: ShowOptions, doc: str) -> ShowResult:
    from tcc.compiler.figures.graph_image import FigureOptions, draw, draw_scene

    level = options.level or Level.BLOCK
    picture_options = FigureOptions(level, options.direction or Direction.DOWN, options.legend)
    match options.format:
        case GraphFormat.SVG:
            svg = draw(graph, picture_options, doc)
            return ShowResult(svg.encode(), {"name": graph.name, "level": level.value, "svg": svg})
        case GraphFormat.PNG:
            from tcc.compiler.figures.export import render_png

            return ShowResult(
                render_png(draw_scene(graph, picture_options), graph.name), {}, options.format
            )
        case GraphFormat.PDF:
            from tcc.compiler.figures.export import render_pdf

            return ShowResult(
                render_pdf(draw_scene(graph, picture_options), graph.name), {}, options.format
            )
        case GraphFormat.TEXT | GraphFormat.ONNX:
            raise UnhandledError("figure format", options.format)
        case _:
            assert_never(options.format)


def _format_canonical(path: Path) -> str:
    from tcc.compiler.frontend.formatter import format_spec

    return format_spec(path.read_text(), str(path))


def _export_onnx(report: Report, chosen_spec: ChosenSpec, options: ShowOptions) -> ShowResult:
    from tcc.compiler.lower.onnx import lower

    model = _lower_model(report, chosen_spec, options)
    return ShowResult(lower(model).SerializeToString(deterministic=True), {}, GraphFormat.ONNX)


def _describe_graph(graph: "Graph", stage: Stage) -> dict[str, Any]:
    return {
        "name": graph.name,
        "stage": stage.value,
        "inputs": [{"name": i.name, "shape": i.type.shape} for i in graph.inputs],
        "nodes": [
            {
                "name": node.name,
                "op": node.op.keyword,
                "inputs": node.inputs,
                "params": node.params,
                "attributes": node.op.attributes(),
                "shape": node.type.shape,
                "line": node.at.line,
            }
            for node in graph.nodes
        ],
        "outputs": [{"name": o.name, "value": o.value} for o in graph.outputs],
    }


def _check_replaceable(path: Path) -> str | None:
    """Allow replacing only a file that an earlier `show` wrote."""
    with path.open("rb") as file:
        head = file.read(1024)
        file.seek(max(0, path.stat().st_size - 4096))
        tail = file.read()
    if not head or _OUTPUT_PATTERN.match(head + tail):
        return None
    return "it exists already, and `tcc show` did not write it"
