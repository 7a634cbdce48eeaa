"""`tcc show`: a network's graph as text, ONNX or a picture, and what a bundle says of itself."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.given import SeedOption, WeightsOption, take
from tcc.compiler.cli.options import (
    Chosen,
    Json,
    Quiet,
    Settings,
    SpecArgument,
    Verbose,
    choose,
    typed,
)
from tcc.compiler.cli.report import Report, size
from tcc.compiler.draw import Level
from tcc.compiler.source import fail

if TYPE_CHECKING:
    from tcc.compiler.graph import Graph
    from tcc.compiler.manifest import Manifest


_OURS = re.compile(
    rb"graph \w+ \{\n|# \w+ for [\w-]+ at \w+\n# spec [0-9a-f]{64}\n|\x08.\x12\x03tcc"
    rb"|<!-- tcc show -->\n",
    re.DOTALL,
)
"""How each kind of file that `show` writes begins."""


class Stage(StrEnum):
    """How far the compiler goes before the graph is shown."""

    SPEC = "spec"
    FLOAT = "float"
    FUSED = "fused"


class Format(StrEnum):
    """What a graph is shown as."""

    TEXT = "text"
    ONNX = "onnx"
    SVG = "svg"


StageOption = Annotated[
    Stage,
    typer.Option(
        "--stage",
        help="The spec's canonical text, the float graph as written, or as devices run it.",
    ),
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="Text, ONNX (needs -o), or a picture (SVG).")
]
LevelOption = Annotated[
    Level | None,
    typer.Option(
        "--level",
        show_default=False,
        help="What a picture shows: blocks (unless told), or every operation.",
    ),
]
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
    spec: SpecArgument = None,
    stage: StageOption = Stage.FLOAT,
    format: FormatOption = Format.TEXT,
    level: LevelOption = None,
    output: Output = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show a spec's graph, or what a bundle holds.

    SPEC may also be a bundle's folder.
    """
    report = Report(json, quiet, verbose)
    wanted = Wanted(stage, format, level, weights, seed)
    wanted.check()
    folder = _bundle_folder(spec)
    if folder:
        shown = _of_bundle(folder, wanted)
    else:
        shown = _of_spec(report, choose(spec, settings), wanted)
    if output is None:
        _print(report, shown)
        return
    from tcc.compiler import files

    files.write_file(output, shown.data, _written_by_us)
    report.note(f"{output}: {size(len(shown.data))}")
    report.document({"output": str(output), "bytes": len(shown.data)})


@dataclass(frozen=True)
class Wanted:
    """What is to be shown, and with which weights."""

    stage: Stage
    format: Format
    level: Level | None = None
    weights: Path | None = None
    seed: int | None = None

    def check(self) -> None:
        """Refuse options that do not go together."""
        if self.level and self.format is not Format.SVG:
            message = "only pictures have levels"
            given = typed(f"--format {self.format} --level {self.level}")
            raise fail("E0601", message, given, help="say `--format svg`")
        if self.format is not Format.TEXT and self.stage is Stage.SPEC:
            message = "the stage `spec` is text, not a graph"
            raise fail("E0601", message, typed(f"--stage spec --format {self.format}"))


@dataclass(frozen=True)
class Shown:
    """The bytes for a file, and the document for `--json`."""

    data: bytes
    document: Mapping[str, Any]
    binary: bool = False


def _bundle_folder(name: str | None) -> Path | None:
    """Return the folder that a user means, if it is a bundle's and not a spec."""
    from tcc.compiler import files

    if not name:
        return None
    if not os.path.lexists(name):
        files.recover(Path(name))
    return Path(name) if os.path.isfile(Path(name) / "manifest.json") else None


def _print(report: Report, shown: Shown) -> None:
    if shown.binary:
        raise fail("E0601", "ONNX is not text", typed("--format onnx"), help="add `-o FILE`")
    report.text(shown.data.decode().removesuffix("\n"))
    report.document(shown.document)


def _of_spec(report: Report, chosen: Chosen, wanted: Wanted) -> Shown:
    from tcc.compiler import pipeline, text
    from tcc.compiler.graph import Model

    spec, stage = chosen.spec, wanted.stage
    if wanted.format is Format.ONNX:
        return _onnx(report, chosen, wanted)
    if stage is Stage.SPEC:
        text_of_spec = _canonical(spec.path)
        return Shown(text_of_spec.encode(), {"name": spec.name, "text": text_of_spec})
    model = Model(spec.graph, pipeline.random_weights(spec.graph).tensors)
    graph = pipeline.fused(model).graph if stage is Stage.FUSED else spec.graph
    if wanted.format is Format.SVG:
        return _picture(graph, wanted, spec.doc)
    return Shown(text.show(graph).encode(), _graph_document(graph, stage))


def _picture(graph: "Graph", wanted: Wanted, doc: str) -> Shown:
    from tcc.compiler.draw.picture import draw

    level = wanted.level or Level.BLOCK
    svg = draw(graph, level, doc)
    return Shown(svg.encode(), {"name": graph.name, "level": level.value, "svg": svg})


def _canonical(path: Path) -> str:
    from tcc.compiler.frontend.fmt import format_spec

    return format_spec(path.read_text(), str(path))


def _onnx(report: Report, chosen: Chosen, wanted: Wanted) -> Shown:
    from tcc.compiler import pipeline
    from tcc.compiler.graph import Model
    from tcc.compiler.lower.onnx import lower

    given = take(report, chosen, wanted.weights, wanted.seed)
    model = Model(chosen.spec.graph, given.tensors)
    if wanted.stage is Stage.FUSED:
        model = pipeline.fused(model)
    return Shown(lower(model).SerializeToString(deterministic=True), {}, binary=True)


def _of_bundle(folder: Path, wanted: Wanted) -> Shown:
    from tcc.compiler import bundle, records

    if wanted.format is not Format.TEXT or wanted.stage is Stage.SPEC:
        message = "a bundle holds its graph as text of the stages float and fused"
        raise fail("E0601", message, typed(str(folder)), help="show the spec itself")
    found = bundle.read(folder)
    graph = (folder / bundle.GRAPH / f"{wanted.stage}.txt").read_text()
    summary = "".join(f"# {line}\n" for line in _summary(found.manifest))
    return Shown(f"{summary}{graph}".encode(), records.encode(found.manifest))


def _summary(about: "Manifest") -> Iterator[str]:
    yield f"{about.model.name} for {about.target} at {about.precision}"
    yield f"spec {about.model.spec}"
    yield f"weights {about.weights.digest}"
    yield about.weights.notice or f"weights from {about.weights.file}"
    yield f"input {about.input.name}: {'x'.join(map(str, about.input.shape))} {about.input.dtype}"
    for output in about.outputs:
        shape = "x".join(map(str, output.shape))
        labels = f": {', '.join(output.labels)}" if output.labels else ""
        yield f"output {output.name}: {shape} {output.dtype}, {output.activation}{labels}"
    yield f"made with {', '.join(f'{k} {v}' for k, v in about.made_with.items())}"
    yield f"{len(about.files)} files, {size(sum(file.bytes for file in about.files))}"


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
    if not head or _OURS.match(head):
        return None
    return "it is there already, and no graph that tcc wrote"
