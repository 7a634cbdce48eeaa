"""What `tcc show` is asked for, and what it then has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tcc.compiler.driver.pass_options import PassOptions
from tcc.compiler.figures import Direction, Level
from tcc.compiler.support.diagnostics import fail, make_command_span


class Stage(StrEnum):
    """How far the compiler goes before the graph is shown."""

    SPEC = "spec"
    FLOAT = "float"
    FUSED = "fused"
    READY = "ready"
    INT8 = "int8"


class GraphFormat(StrEnum):
    """What a graph is shown as."""

    TEXT = "text"
    ONNX = "onnx"
    SVG = "svg"
    PNG = "png"
    PDF = "pdf"


@dataclass(frozen=True)
class ShowOptions:
    """What is to be shown, and with which weights."""

    stage: Stage
    format: GraphFormat
    level: Level | None = None
    direction: Direction | None = None
    legend: bool = False
    weights: Path | None = None
    seed: int | None = None
    pass_options: PassOptions = field(default_factory=PassOptions)
    calibration: Path | None = None

    def check_output(self, output: Path | None) -> None:
        """Refuse a file's name that ends as that of another format does (E0601)."""
        end = output.suffix.lower().removeprefix(".") if output else ""
        if end in set(GraphFormat) and end != self.format:
            message = f"the format is `{self.format}`, and the file is named as {end.upper()}"
            help = f"say `--format {end}`, or name the file otherwise"
            raise fail("E0601", message, make_command_span(f"--output {output}"), help=help)

    def check(self) -> None:
        """Refuse a stage that cannot be shown so."""
        if self.stage is Stage.INT8 and self.calibration is None:
            message = "the stage `int8` needs a calibration"
            help = "name a file that `tcc calibrate` wrote, with --calibration"
            raise fail("E0601", message, make_command_span("--stage int8"), help=help)
        if self.format is not GraphFormat.TEXT and self.stage is Stage.SPEC:
            message = "the stage `spec` is text, not a graph"
            raise fail("E0601", message, make_command_span(f"--stage spec --format {self.format}"))


@dataclass(frozen=True)
class ShowResult:
    """The bytes for a file, and the document for `--json`; those of a `binary` are no text."""

    content: bytes
    document: Mapping[str, Any]
    binary: GraphFormat | None = None
