"""The options and the result of `tcc show`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tcc.compiler.driver.pass_options import PassOptions
from tcc.compiler.figures import Direction, Level
from tcc.compiler.support.diagnostics import fail, make_command_span


class Stage(StrEnum):
    """The compiler stage of the graph that is shown."""

    SPEC = "spec"
    FLOAT = "float"
    FUSED = "fused"
    READY = "ready"
    INT8 = "int8"


class GraphFormat(StrEnum):
    """The format of a graph."""

    TEXT = "text"
    ONNX = "onnx"
    SVG = "svg"
    PNG = "png"
    PDF = "pdf"


@dataclass(frozen=True)
class ShowOptions:
    """What to show, and with which weights."""

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
        """Refuse a file name with the suffix of another format (E0601)."""
        end = output.suffix.lower().removeprefix(".") if output else ""
        if end in set(GraphFormat) and end != self.format:
            message = (
                f"the format is `{self.format}`, but the file name has the suffix of {end.upper()}"
            )
            help = f"use `--format {end}`, or another file name"
            raise fail("E0601", message, make_command_span(f"--output {output}"), help=help)

    def check(self) -> None:
        """Refuse a stage that these options cannot show."""
        if self.stage is Stage.INT8 and self.calibration is None:
            message = "the stage `int8` needs a calibration"
            help = "name a file that `tcc calibrate` wrote with --calibration"
            raise fail("E0601", message, make_command_span("--stage int8"), help=help)
        if self.format is not GraphFormat.TEXT and self.stage is Stage.SPEC:
            message = "the stage `spec` is text, not a graph"
            raise fail("E0601", message, make_command_span(f"--stage spec --format {self.format}"))


@dataclass(frozen=True)
class ShowResult:
    """The bytes for a file, and the document for `--json`; a `binary` result is not text."""

    content: bytes
    document: Mapping[str, Any]
    binary: GraphFormat | None = None
