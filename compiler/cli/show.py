"""`tcc show`: a network's graph as text, ONNX or a picture, and what a bundle says of itself."""

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
from tcc.compiler.cli.show_bundle import of_bundle
from tcc.compiler.cli.show_options import GraphFormat, ShowOptions, ShowResult, Stage
from tcc.compiler.driver.chosen_spec import ChosenSpec, bundle_folder, tell_project
from tcc.compiler.driver.weights_and_images import take
from tcc.compiler.figures import Direction, Level
from tcc.compiler.support import option_needs
from tcc.compiler.support.console import Report, size
from tcc.compiler.support.diagnostics import UnhandledError, fail, typed
from tcc.compiler.support.option_needs import SPECS

if TYPE_CHECKING:
    from tcc.compiler.ir.graph import Graph, Model


# A file that `-o` names is replaced only if it is of this form: a slip of the keyboard must not
# cost a user's own file.
_OURS = re.compile(
    rb"graph \w+ \{\n|# \w+ for [\w-]+ at \w+\n# spec [0-9a-f]{64}\n|\x08.\x12\x03tcc"
    rb"|<!-- tcc show -->\n|%PDF-1\.\d\n.*(% tcc show|/Creator \(tcc show\))"
    rb"|\x89PNG\r\n\x1a\n.{25}.{4}tEXtSoftware\0tcc show",
    re.DOTALL,
)
"""How each kind of file that `show` writes begins; a PDF names its creator near its end."""


StageOption = Annotated[
    Stage,
    typer.Option(
        "--stage",
        help="The spec's canonical text; the float graph as written, as devices run it, or ready "
        "for calibration; the integer program, which needs --calibration.",
    ),
]
FormatOption = Annotated[
    GraphFormat,
    typer.Option("--format", help="Text, ONNX, or a picture; ONNX, PNG and PDF need -o."),
]
LevelOption = Annotated[
    Level | None,
    typer.Option(
        "--level",
        show_default=False,
        help="What a picture shows: blocks (unless told), or every operation.",
    ),
]
DirectionOption = Annotated[
    Direction | None,
    typer.Option(
        "--direction", show_default=False, help="Where a picture's values flow to; down by default."
    ),
]
LegendOption = Annotated[bool, typer.Option("--legend", help="Explain a picture's colours.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        help="Write there instead of printing.",
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
    """Show a spec's graph, or what a bundle holds.

    SPEC may also be a bundle's folder.
    """
    passing = passes.options(report)
    wanted = ShowOptions(
        stage, format, level, direction, legend, weights.weights, weights.seed, passing, calibration
    )
    wanted.check()
    wanted.check_output(output)
    folder = bundle_folder(spec.spec)
    option_needs.require({SPECS: folder is None})
    if folder:
        shown = of_bundle(folder, wanted)
    else:
        chosen = spec.choose()
        tell_project(report, chosen)
        shown = _of_spec(report, chosen, wanted)
    if output is None:
        _print(report, shown)
        return
    from tcc.compiler.support import atomic_files

    atomic_files.write_file(output, shown.data, _written_by_us)
    report.note(f"{output}: {size(len(shown.data))}")
    report.document({"output": str(output), "bytes": len(shown.data)})


def _print(report: Report, shown: ShowResult) -> None:
    if shown.binary:
        message = f"{shown.binary.upper()} is not text"
        raise fail("E0601", message, typed(f"--format {shown.binary}"), help="add `-o FILE`")
    report.text(shown.data.decode().removesuffix("\n"))
    report.document(shown.document)


def _of_spec(report: Report, chosen: ChosenSpec, wanted: ShowOptions) -> ShowResult:
    from tcc.compiler.ir import printer

    spec, stage = chosen.spec, wanted.stage
    match wanted.format:
        case GraphFormat.ONNX:
            return _onnx(report, chosen, wanted)
        case GraphFormat.SVG | GraphFormat.PNG | GraphFormat.PDF:
            return _picture(_lowered(report, chosen, wanted).graph, wanted, spec.doc)
        case GraphFormat.TEXT if stage is Stage.SPEC:
            text_of_spec = _canonical(spec.path)
            return ShowResult(text_of_spec.encode(), {"name": spec.name, "text": text_of_spec})
        case GraphFormat.TEXT:
            graph = _lowered(report, chosen, wanted).graph
            return ShowResult(printer.show(graph).encode(), _graph_document(graph, stage))
        case _:
            assert_never(wanted.format)


def _lowered(report: Report, chosen: ChosenSpec, wanted: ShowOptions) -> "Model":
    """Return the model after the passes of the stage, or those that are asked for instead.

    Its weights are placeholders where nobody gave any and only the graph is looked at.
    """
    from tcc.compiler.data.weights import placeholders
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.passes import PIPELINES

    graph, passing = chosen.spec.graph, wanted.passing
    if wanted.calibration:
        return _integers(report, chosen, wanted, wanted.calibration)
    if (
        wanted.format is GraphFormat.ONNX
        or passing.verified
        or wanted.weights
        or wanted.seed is not None
    ):
        model = Model(graph, take(report, chosen, wanted.weights, wanted.seed).tensors)
    else:
        # Nobody sees a number of theirs, and drawing those of VGG16 takes seconds.
        model = Model(graph, placeholders(graph))
    match wanted.stage:
        case Stage.FLOAT:
            return passing(model, ())
        case Stage.FUSED | Stage.READY:
            return passing(model, PIPELINES[wanted.stage])
        case Stage.SPEC | Stage.INT8:
            raise UnhandledError("stage of a float graph", wanted.stage)
        case _:
            assert_never(wanted.stage)


def _integers(report: Report, chosen: ChosenSpec, wanted: ShowOptions, path: Path) -> "Model":
    """Return the integer program that a calibration file makes of a spec."""
    from tcc.compiler.driver import pipeline
    from tcc.compiler.quant import calibration_document, calibration_file
    from tcc.compiler.quant.program.quantize import quantize

    given = take(report, chosen, wanted.weights, wanted.seed)
    found = calibration_document.read(path)
    calibration_file.check(found, pipeline.network(chosen.spec), given.origin, str(path))
    ready = pipeline.ready(chosen.spec, given, wanted.passing)
    return quantize(ready, calibration_file.calibration(found, ready, str(path)))


def _picture(graph: "Graph", wanted: ShowOptions, doc: str) -> ShowResult:
    from tcc.compiler.figures.graph_picture import PictureOptions, draw, shapes

    level = wanted.level or Level.BLOCK
    look = PictureOptions(level, wanted.direction or Direction.DOWN, wanted.legend)
    match wanted.format:
        case GraphFormat.SVG:
            svg = draw(graph, look, doc)
            return ShowResult(svg.encode(), {"name": graph.name, "level": level.value, "svg": svg})
        case GraphFormat.PNG:
            from tcc.compiler.figures.export import render_png

            return ShowResult(render_png(shapes(graph, look), graph.name), {}, wanted.format)
        case GraphFormat.PDF:
            from tcc.compiler.figures.export import render_pdf

            return ShowResult(render_pdf(shapes(graph, look), graph.name), {}, wanted.format)
        case GraphFormat.TEXT | GraphFormat.ONNX:
            raise UnhandledError("kind of picture", wanted.format)
        case _:
            assert_never(wanted.format)


def _canonical(path: Path) -> str:
    from tcc.compiler.frontend.formatter import format_spec

    return format_spec(path.read_text(), str(path))


def _onnx(report: Report, chosen: ChosenSpec, wanted: ShowOptions) -> ShowResult:
    from tcc.compiler.lower.onnx import lower

    model = _lowered(report, chosen, wanted)
    return ShowResult(lower(model).SerializeToString(deterministic=True), {}, GraphFormat.ONNX)


def _graph_document(graph: "Graph", stage: Stage) -> dict[str, Any]:
    return {
        "name": graph.name,
        "stage": stage.value,
        "inputs": [{"name": i.name, "shape": i.type.shape} for i in graph.inputs],
        "nodes": [
            {
                "name": node.name,
                "op": node.op.word,
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


def _written_by_us(path: Path) -> str | None:
    """Let what an earlier `show` wrote be replaced: a printed graph, a bundle's, or our ONNX."""
    with path.open("rb") as file:
        head = file.read(1024)
        file.seek(max(0, path.stat().st_size - 4096))
        tail = file.read()
    if not head or _OURS.match(head + tail):
        return None
    return "it is there already, and no graph that tcc wrote"
