"""The target `ax620`, as far as it goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tcc.backends.base import Artifact, Refusal, Target
from tcc.compiler.ir.graph import Graph, Input, Model, Pass
from tcc.compiler.ir.number_types import Numbers
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.external_tools import Tool
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Pulsar:
    """Takes part in calibration alone: there is no precision that it builds at."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The AX620A, the processor of the Maix-III board."""
        return (
            Target("ax620", "AXERA AX620A, an NPU: its calibration alone", (), calibrates=True),
        )

    def passes(self, precision: str) -> tuple[Pass, ...]:  # noqa: ARG002
        """Return what makes the graph that calibration sees."""
        from tcc.compiler.passes import INT8

        return INT8

    def tools(self, target: Target) -> tuple[Tool, ...]:  # noqa: ARG002
        """Return nothing: calibration needs no tool of the vendor's."""
        return ()

    def refusals(self, target: Target, graph: Graph) -> Iterator[Refusal]:  # noqa: ARG002
        """Yield nothing: what the NPU cannot run is found out when it is built for."""
        return iter(())

    def emit(
        self,
        target: Target,
        model: Model,  # noqa: ARG002
        precision: str = "fp32",  # noqa: ARG002
        progress: Progress = silent,  # noqa: ARG002
    ) -> Artifact:
        """Refuse to build."""
        _absent(target)

    def numbers(self, target: Target, folder: Path) -> Numbers | None:  # noqa: ARG002
        """Return nothing: there is no artifact."""
        return None

    def infer(
        self,
        target: Target,
        folder: Path,  # noqa: ARG002
        source: Input,  # noqa: ARG002
        tensors: "Sequence[np.ndarray]",  # noqa: ARG002
    ) -> "list[dict[str, np.ndarray]]":
        """Refuse to run."""
        _absent(target)

    def run(
        self,
        target: Target,
        folder: Path,  # noqa: ARG002
        source: Input,  # noqa: ARG002
        images: "Sequence[np.ndarray]",  # noqa: ARG002
    ) -> "list[dict[str, np.ndarray]]":
        """Refuse to run."""
        _absent(target)


def _absent(target: Target) -> NoReturn:
    message = f"this version calibrates for {target.name}, but neither builds nor runs it"
    raise fail("E0606", message, whole_file(target.name))
