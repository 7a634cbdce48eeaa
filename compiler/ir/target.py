"""Targets: what is said of them, and what their backends owe the rest.

A `Backend` has targets; what can be done with these is a protocol each, and a backend has the
methods of those that it can, and no stubs of others. Commands and the pipeline hold a target with
its backend as a `Device`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Pass
from tcc.compiler.ir.measurement import BoardTask, Measurement, Workload
from tcc.compiler.ir.number_types import Numbers
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.ir.tool_report import ToolReport
from tcc.compiler.support.external_tools import Tool
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

    Outputs = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Target:
    """One word after `--target`.

    Its backend is a `Builder` if it has precisions, and a `Runner` if it `runs`. What has no
    precision is not built, only calibrated for.
    """

    name: str
    title: str
    precisions: tuple[Precision, ...] = ()
    aliases: tuple[str, ...] = ()
    calibrates: bool = False
    runs: bool = False
    """Whether there is anything that runs its artifacts here; it may lack a tool."""

    def precision(self, name: str) -> Precision | None:
        """Return the precision of a name, if the target is built at it."""
        return next((one for one in self.precisions if one.name == name), None)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that a target cannot run: what breaks a rule, what would fit, and the rule itself.

    A `rule` has its source, where documents of others are what says it.
    """

    node: Node
    why: str
    help: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """A node that a target runs slowly, or else may not run, and why; as `Refusal` says it."""

    node: Node
    why: str
    help: str
    rule: str
    slow: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a program has of a network: `arena` is all that changes while it runs.

    No arena could be smaller than `bound`, the values that are in use at once; `weights` are
    constants of the program.
    """

    arena: int
    bound: int
    weights: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """Files by relative path; the caller alone writes them. `executable` ones get the x bit.

    `compiled` is what a maker's own tool said where one was run; `memory` what running takes, where
    that is known beforehand; `layers` what computes each layer, where kernels of the target do.
    """

    files: Mapping[str, bytes]
    executable: frozenset[str] = field(default=frozenset())
    compiled: ToolReport | None = None
    memory: Memory | None = None
    layers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PackageSources:
    """What a package is made of, for a tool elsewhere that compiles it.

    `floats` is the model after the target's passes, `program` the integer program. `samples` gives
    what to calibrate with and `goldens` the inputs of the bundle's goldens, float32 of the input's
    shape: grey levels where the input contract has one scale for all images, or what the network
    reads. `name` is the bundle's. `compiles`: have the tool compile it, if it is here.
    """

    floats: Model
    program: Model
    samples: "Callable[[], Iterator[np.ndarray]]"
    goldens: "Sequence[np.ndarray]"
    name: str
    compiles: bool = True


@dataclass(frozen=True, slots=True)
class ToolResults:
    """What a tool's log says, and what it gave for goldens: raw outputs by golden and name."""

    report: ToolReport
    outputs: "Mapping[str, Outputs]"


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
        """Yield each node that the target cannot run, before any work is done."""
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

        At an integer precision, the model is the integer program.

        Raises:
            MissingTool: A tool that building needs is not here.
        """
        ...


@runtime_checkable
class Adviser(Protocol):
    """A backend that knows what its targets run slowly, or may not run."""

    def remarks(self, target: Target, graph: Graph) -> Iterable[Remark]:
        """Yield what is worth knowing of nodes that `refusals` let pass."""
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

        Raises:
            UserError: The tool is here and fails.
        """
        ...

    def calibration_data(
        self, target: Target, source: Input, samples: "Iterable[np.ndarray]"
    ) -> tuple[bytes, int]:
        """Return the archive of samples that the package has, and how many it took."""
        ...

    def tool_results(
        self, target: Target, outputs: Mapping[str, tuple[int, ...]], log: Path
    ) -> "ToolResults":
        """Return what the tool said in a log, and gave for the goldens, beside it.

        `outputs` are the network's: shapes by name.

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
class NumbersReader(Protocol):
    """A backend whose artifacts' files say what they compute with."""

    def numbers(self, target: Target, folder: Path) -> Numbers:
        """Return what the artifact in `folder` computes with.

        Raises:
            UserError: It cannot be read, or holds what no artifact of tcc does.
        """
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

        Raises:
            UserError: The board does not do what it is asked (E0658), or the artifact cannot be run
                there.
        """
        ...
