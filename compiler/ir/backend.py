"""What can be done with targets: a protocol each.

A `Backend` has targets, and the methods of those protocols that it can keep, and no stubs of
others. Commands and the pipeline hold a target with its backend as a `Device`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Pass
from tcc.compiler.ir.measurement import BoardTask, Measurement, Workload
from tcc.compiler.ir.number_types import NumberTypes
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


INTERFACE_VERSION = 2
"""The version of these protocols, which a backend of another distribution states as `interface`.

It is raised when a backend written for the version before would no longer work."""


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
class RemarkProvider(Protocol):
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

    def build_package(
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

    def pack_calibration_data(
        self, target: Target, source: Input, samples: "Iterable[np.ndarray]"
    ) -> tuple[bytes, int]:
        """Return the archive of samples that the package has, and how many it took.

        Args:
            target: One of the backend's.
            source: The network's input.
            samples: Tensors of its shape (channels, height, width) or (features,).
        """
        ...

    def read_tool_results(
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

    def list_code_files(self, names: "Iterable[str]") -> tuple[str, ...]:
        """Return those of an artifact's files, by relative path, that running it executes."""
        ...


@runtime_checkable
class NumberTypeReader(Protocol):
    """A backend whose artifacts' files say what they compute with."""

    def read_number_types(self, target: Target, folder: Path) -> NumberTypes:
        """Return what the artifact in `folder` computes with.

        Raises:
            UserError: It cannot be read, or holds what no artifact of tcc does.
        """
        ...


@runtime_checkable
class OperatingPointReader(Protocol):
    """A backend whose artifacts read their outputs by operating points themselves."""

    def encode_operating_points(
        self, target: Target, folder: Path, points: "Sequence[OperatingPoint]"
    ) -> Mapping[str, bytes]:
        """Return the files of the artifact in `folder` that say them, by name."""
        ...

    def has_operating_points_in_libraries(self, target: Target, folder: Path) -> bool:
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


@dataclass(frozen=True, slots=True)
class LinkedLibrary:
    """A library of an artifact, and what linking with it showed.

    One of the others is set. `program` is a folder whose program uses the library, and runs as the
    artifact does. `same_bytes` is what linking gave again, byte for byte. `problem` is why it is no
    library of this artifact, and `unverified` why nothing is known of it here.
    """

    file: str
    program: Path | None = None
    same_bytes: str = ""
    problem: str = ""
    unverified: str = ""


@runtime_checkable
class LibraryLinker(Protocol):
    """A backend whose artifacts have libraries that others build with."""

    def link_libraries(
        self, target: Target, folder: Path, scratch: Path, *, same_tools: bool
    ) -> Iterator[LinkedLibrary]:
        """Link a program with each library of the artifact in `folder`.

        Args:
            target: One of the backend's.
            folder: Where the artifact's files are.
            scratch: An empty folder for what is made of them.
            same_tools: Whether the artifact was linked by the tools that are here, so that linking
                gives the same bytes.
        """
        ...


@runtime_checkable
class ProcessorAdviser(Protocol):
    """A backend whose artifacts this machine's processor may not run as fast as others do."""

    def describe_caveats(self, target: Target, precision: Precision) -> str:
        """Return what whoever runs them here should know; empty if there is nothing."""
        ...


@runtime_checkable
class InstructionCounter(Protocol):
    """A measurer that counts instructions of targets that do not run here by themselves."""

    def is_counted(self, target: Target) -> bool:
        """Return whether it counts one run of a target's artifacts instead of timing many."""
        ...


@runtime_checkable
class BoardRunnerUser(Protocol):
    """A board measurer whose artifacts are run by a program that the user brings."""

    @property
    def board_runner(self) -> str:
        """The name of that program."""
        ...


@runtime_checkable
class PackageSimulator(Protocol):
    """A backend whose packages hold a network that a runtime of this machine computes as well."""

    def find_simulator(self, target: Target) -> tuple[Backend, str] | None:
        """Return what runs that network, and its file in the artifact; None where there is none.

        The backend is a `Runner` of one target of the same name, which runs here. What it gives is
        what the file means: a maker's tool may make something else of it.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunnerSignature:
    """The signature that an artifact's program asks for when it starts: Ed25519, 64 bytes.

    `file` is its name beside the program, `public_key` the 32 bytes of the key that is compiled
    into the program, and `message` the bytes to sign, for the files as they are now.
    """

    file: str
    public_key: bytes
    message: bytes


@runtime_checkable
class RunnerSigner(Protocol):
    """A backend that builds programs that check a signature."""

    signer: bytes | None
    """The public key of whoever signs what it builds; None where programs check nothing."""

    def with_signer(self, target: Target, public_key: bytes) -> Self:
        """Return the same, whose programs start only beside a signature by this key.

        What it runs are programs without the check, linked with the same library: what it builds
        is not signed yet.
        """
        ...

    def read_runner_signature(self, target: Target, folder: Path) -> RunnerSignature | None:
        """Return what the program in a folder asks for; None where it asks for nothing.

        Raises:
            UserError: The artifact is damaged (E0652).
        """
        ...


@runtime_checkable
class QuantizedValueReader(Protocol):
    """A backend whose integer artifacts can be looked into while they run here."""

    def trace_quantized_values(
        self, target: Target, folder: Path, source: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the artifact in `folder` on tensors; yield what it computes inside for each.

        Args:
            target: One of the backend's.
            folder: Where the artifact's files are.
            source: The network's input.
            tensors: As for `Runner.infer`; each is taken when its turn comes.

        Yields:
            The values of 8-bit integers by their names in the graph, as the artifact stores them:
            uint8 or int8, in the graph's layout or flat; what the graph has as uint8 may be int8,
            128 less.

        Raises:
            MissingTool: What runs the artifact here is not installed.
            UserError: The artifact cannot be run on these.
        """
        ...


@runtime_checkable
class FloatValueReader(Protocol):
    """A backend whose artifacts of float32 can be looked into while they run here."""

    def trace_float_values(
        self, target: Target, folder: Path, source: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the artifact in `folder` on tensors; yield the floats that it computes inside.

        Arguments and errors are those of `QuantizedValueReader.inner_levels`.

        Yields:
            float32 by the names of values in the graph, or of outputs, in the graph's layout or
            flat; other names are the artifact's own.
        """
        ...


@runtime_checkable
class IsaChooser(Protocol):
    """A backend that may be told which instructions its programs use here."""

    def with_isa(self, target: Target, name: str) -> Self:
        """Return the same, whose programs use the instruction set of a name.

        Raises:
            UserError: There is no such set, or no choice for the target (E0601). What this
                processor lacks is refused once a program runs.
        """
        ...


@runtime_checkable
class Fetcher(Protocol):
    """A backend that takes files from a package registry, once."""

    def fetch(self, target: Target) -> None:
        """Have here what building for a target takes from elsewhere.

        Args:
            target: One of the backend's.

        Raises:
            MissingTool: It cannot be fetched.
        """
        ...


@runtime_checkable
class Approximator(Protocol):
    """A backend some of whose float kernels round in more steps than sums of products do."""

    def get_exact_precision(self, precision: Precision) -> Precision | None:
        """Return the precision that is built without them; None where none has them."""
        ...

    def find_approximate_layers(self, target: Target, model: Model) -> tuple[Node, ...]:
        """Return the nodes that they compute of a model after `passes`."""
        ...

    def compute_approximate_outputs(
        self, target: Target, model: Model, tensor: "np.ndarray"
    ) -> "Mapping[str, np.ndarray]":
        """Return the raw outputs, by name, of such a model with such kernels.

        Args:
            target: One of the backend's.
            model: The model after `passes`.
            tensor: float32 of the input's shape, without a batch axis.
        """
        ...
