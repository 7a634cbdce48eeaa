"""What can be done with targets: a protocol each.

A `Backend` has targets, and the methods of those protocols that it can keep, and no stubs of
others. Commands and the pipeline hold a target with its backend as a `Device`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tcc.compiler.ir.graph import Graph, Input, Model, Pass
from tcc.compiler.ir.measurement import BoardTask, Measurement, Workload
from tcc.compiler.ir.number_types import Numbers
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.ir.target import (
    Artifact,
    PackageSources,
    Refusal,
    Remark,
    Target,
    ToolResults,
)
from tcc.compiler.support.external_tools import Tool
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.ir.target import Outputs


class Backend(Protocol):
    """A family of targets. Stateless: all that it knows comes in with the call."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that it knows."""
        ...


@runtime_checkable
class GraphReader(Backend, Protocol):
    """A backend that takes graphs, some after passes, and refuses others."""

    def passes(self, precision: Precision) -> tuple[Pass, ...]:
        """Return the passes that make of a model as written the float one that it starts from."""
        ...

    def refusals(self, target: Target, graph: Graph) -> Iterable[Refusal]:
        """Yield each node that the target cannot run, before any work is done.

        Args:
            target: One of the backend's.
            graph: What it would be given: after `passes`, or an integer program.
        """
        ...


@runtime_checkable
class Builder(GraphReader, Protocol):
    """A backend that makes artifacts."""

    def emit(
        self,
        target: Target,
        model: Model,
        precision: Precision = FP32,
        progress: Progress = silent,
    ) -> Artifact:
        """Return the artifact of a model that `refusals` let pass.

        Args:
            target: One of the backend's.
            model: The model after `passes`; at an integer precision, the integer program.
            precision: One of the target's.
            progress: Told how many parts of the work are done.

        Returns:
            The files by their paths, with nothing written.

        Raises:
            MissingTool: A tool that building needs is not here.
        """
        ...


@runtime_checkable
class Adviser(Protocol):
    """A backend that knows what its targets run slowly, or may not run."""

    def remarks(self, target: Target, graph: Graph) -> Iterable[Remark]:
        """Yield what is worth knowing of nodes that `refusals` let pass.

        Args:
            target: One of the backend's.
            graph: As for `refusals`.
        """
        ...


@runtime_checkable
class Packager(GraphReader, Protocol):
    """A backend whose artifacts are packages for a maker's own tool, which is mostly elsewhere."""

    @property
    def archive(self) -> str:
        """The path of the package's file with what it was calibrated with."""
        ...

    def package(
        self,
        target: Target,
        sources: PackageSources,
        precision: Precision,
        progress: Progress = silent,
    ) -> Artifact:
        """Return the package of a model that `refusals` let pass, compiled if the tool is here.

        Args:
            target: One of the backend's.
            sources: The model, its integers, and images.
            precision: One of the target's.
            progress: Told how many parts of the work are done.

        Raises:
            UserError: The tool is here and fails.
        """
        ...

    def calibration_data(
        self, target: Target, source: Input, samples: "Iterable[np.ndarray]"
    ) -> tuple[bytes, int]:
        """Return the archive of samples that the package has, and how many it took.

        Args:
            target: One of the backend's.
            source: The network's input.
            samples: Tensors of its shape (channels, height, width) or (features,).
        """
        ...

    def tool_results(
        self, target: Target, outputs: Mapping[str, tuple[int, ...]], log: Path
    ) -> "ToolResults":
        """Return what the tool said in a log, and gave for the goldens, beside it.

        `outputs` are the network's: shapes by name.

        Args:
            target: One of the backend's.
            outputs: The shapes of the network's outputs, by name.
            log: The log's file, beside which the outputs lie.

        Raises:
            UserError: It is no log of the tool, or what is beside it are no outputs (E0671).
        """
        ...


@runtime_checkable
class ToolUser(Protocol):
    """A backend that takes something from outside the project."""

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return what building for, and running, a target needs; `version` None is missing."""
        ...


@runtime_checkable
class Runner(Protocol):
    """A backend whose artifacts run here."""

    def infer(
        self, target: Target, folder: Path, source: Input, tensors: "Sequence[np.ndarray]"
    ) -> "list[Outputs]":
        """Run the artifact in `folder` on preprocessed tensors of the input's shape.

        Args:
            target: One of the backend's.
            folder: Where the artifact's files are.
            source: The network's input.
            tensors: One for each run: float32 of the input's shape, without a batch axis.

        Returns:
            For each tensor, the raw outputs by name, float32 in the graph's layout.

        Raises:
            MissingTool: What runs the artifact here is not installed.
            UserError: The artifact cannot be run on these.
        """
        ...


@runtime_checkable
class ImageRunner(Runner, Protocol):
    """A backend whose artifacts preprocess images themselves."""

    def run(self, target: Target, folder: Path, images: "Sequence[np.ndarray]") -> "list[Outputs]":
        """Run the artifact on images, uint8 (height, width, 3); outputs, errors as for `infer`."""
        ...


@runtime_checkable
class CodeRunner(Runner, Protocol):
    """A backend whose artifacts are code: running one here hands this machine to its maker."""

    def code(self, names: "Iterable[str]") -> tuple[str, ...]:
        """Return those of an artifact's files, by relative path, that running it executes."""
        ...


@runtime_checkable
class NumbersReader(Protocol):
    """A backend whose artifacts' files say what they compute with."""

    def numbers(self, target: Target, folder: Path) -> Numbers:
        """Return what the artifact in `folder` computes with.

        Raises:
            UserError: It cannot be read, or holds what no artifact of tcc does.
        """
        ...


@runtime_checkable
class OperatingPointReader(Protocol):
    """A backend whose artifacts read their outputs by operating points themselves."""

    def operating_point_files(
        self, target: Target, folder: Path, points: "Sequence[OperatingPoint]"
    ) -> Mapping[str, bytes]:
        """Return the files of the artifact in `folder` that say them, by name."""
        ...

    def follows_everywhere(self, target: Target, folder: Path) -> bool:
        """Return whether the artifact's libraries follow them, and not its program alone."""
        ...


@runtime_checkable
class Measurer(Protocol):
    """A backend that can say what its artifacts cost."""

    def measure(
        self,
        target: Target,
        folder: Path,
        source: Input,
        workload: Workload,
        progress: Progress = silent,
    ) -> Measurement:
        """Run the artifact in `folder` on one input, again and again, and say what that costs.

        Args:
            target: One of the backend's.
            folder: Where the artifact's files are.
            source: The network's input.
            workload: What is run, how often, and by how many threads.
            progress: Told how many runs are done.

        Returns:
            Milliseconds, bytes, and counts where they are counted.

        Raises:
            MissingTool: What runs or measures the artifact here is not installed.
            UserError: The artifact cannot be run on this.
        """
        ...


@runtime_checkable
class BoardMeasurer(Protocol):
    """A backend that can say what its artifacts cost on a board."""

    def measure_on_board(
        self,
        target: Target,
        folder: Path,
        source: Input,
        task: BoardTask,
        progress: Progress = silent,
    ) -> "tuple[Measurement, list[Outputs] | None]":
        """Run the artifact in `folder` on a board; return what that costs, and what it gives.

        The outputs are those for each of the task's cases, None where nothing brings them back.

        Args:
            target: One of the backend's.
            folder: Where the artifact's files are on this machine.
            source: The network's input.
            task: The board, what is timed there, and what the artifact is to answer.
            progress: Told how many runs are done.

        Raises:
            UserError: The board does not do what it is asked (E0658), or the artifact cannot be run
                there.
        """
        ...
