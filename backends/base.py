"""What a backend owes the rest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Pass
from tcc.compiler.ir.number_types import Numbers
from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Artifact", "Backend", "MissingTool", "Refusal", "Target", "Tool"]


@dataclass(frozen=True, slots=True)
class Target:
    """One word after `--target`; without precisions, it is not built, only calibrated for.

    The last layers of its integer programs give real numbers with `real_ends`, else 8-bit integers.
    """

    name: str
    title: str
    precisions: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    calibrates: bool = False
    real_ends: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that a target cannot run: the rule it breaks, and what would fit."""

    node: Node
    why: str
    help: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Files by relative path; the caller alone writes them. `executable` ones get the x bit."""

    files: Mapping[str, bytes]
    executable: frozenset[str] = field(default=frozenset())


class Backend(Protocol):
    """A family of targets. Stateless: all that it knows comes in with the call."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that it builds."""
        ...

    def passes(self, precision: str) -> tuple[Pass, ...]:
        """Return the passes that make of a model as written the float one that it starts from."""
        ...

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return what building for, and running, a target needs; `version` None is missing."""
        ...

    def refusals(self, target: Target, graph: Graph) -> Iterator[Refusal]:
        """Yield each node that the target cannot run, before any work is done."""
        ...

    def emit(
        self, target: Target, model: Model, precision: str = "fp32", progress: Progress = silent
    ) -> Artifact:
        """Return the artifact of a model that `refusals` let pass.

        At an integer precision, the model is the integer program.

        Raises:
            MissingTool: A tool that building needs is not here.
        """
        ...

    def numbers(self, target: Target, folder: Path) -> Numbers | None:
        """Return what the artifact in `folder` computes with, None where its file hides it.

        Raises:
            UserError: It cannot be read, or holds what no artifact of tcc does.
        """
        ...

    def infer(
        self, target: Target, folder: Path, source: Input, tensors: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the artifact in `folder` on preprocessed tensors; return raw outputs by name."""
        ...

    def run(
        self, target: Target, folder: Path, source: Input, images: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the artifact on images, uint8 (height, width, 3), from preprocessing on.

        Raises:
            MissingTool: What runs the artifact here is not installed.
        """
        ...
