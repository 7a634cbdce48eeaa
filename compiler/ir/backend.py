"""What backends can do with targets: one protocol per capability.

A `Backend` has targets, and implements the protocols that it supports, without stubs for others.
Commands and the pipeline use a target with its backend as a `Device`.
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
"""The version of these protocols; a backend of another distribution states it as `interface`.

It is raised when backends that were written for the version before would no longer work."""


class Backend(Protocol):
    """A family of targets. Stateless: each call passes all data."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that it supports."""
        ...


@runtime_checkable
class GraphReader(Backend, Protocol):
    """A backend that accepts graphs, some after passes, and refuses others."""

    def passes(self, precision: Precision) -> tuple[Pass, ...]:
        """Return the passes that prepare the float model that a build starts from."""
        ...

    def refusals(self, target: Target, graph: Graph) -> Iterable[Refusal]:
        """Yield each node that the target cannot run, before any work is done.

        Args:
            target: One of the backend's.
            graph: The graph to build: after `passes`, or an integer program.
        """
        ...


@runtime_checkable
class Builder(GraphReader, Protocol):
    """A backend that builds artifacts."""

    def emit(
        self,
        target: Target,
        model: Model,
        precision: Precision = FP32,
        progress: Progress = silent,
    ) -> Artifact:
        """Return the artifact of a model without refused nodes.

        Args:
            target: One of the backend's.
            model: The model after `passes`; at an integer precision, the integer program.
            precision: One of the target's.
            progress: Receives how many parts of the work are done.

        Returns:
            The files by path; none is written.

        Raises:
            MissingTool: A tool that the build needs is missing.
        """
        ...


@runtime_checkable
class RemarkProvider(Protocol):
    """A backend that reports what its targets run slowly, or may not run."""

    def remarks(self, target: Target, graph: Graph) -> Iterable[Remark]:
        """Yield remarks on nodes that are not refused.

        Args:
            target: One of the backend's.
            graph: As for `refusals`.
        """
        ...


@runtime_checkable
class Packager(GraphReader, Protocol):
    """A backend whose artifacts are packages for a vendor toolchain, usually on another machine."""

    @property
    def archive(self) -> str:
        """The path of the package's archive of calibration data."""
        ...

    def build_package(
        self,
        target: Target,
        sources: PackageSources,
        precision: Precision,
        progress: Progress = silent,
    ) -> Artifact:
        """Return the package of a model without refused nodes, compiled if the tool is here.

        Args:
            target: One of the backend's.
            sources: The model, its integer program, and images.
            precision: One of the target's.
            progress: Receives how many parts of the work are done.

        Raises:
            UserError: The tool is here and fails.
        """
        ...

    def pack_calibration_data(
        self, target: Target, network_input: Input, samples: "Iterable[np.ndarray]"
    ) -> tuple[bytes, int]:
        """Return the package's archive of samples, and the number of samples in it.

        Args:
            target: One of the backend's.
            network_input: The network's input.
            samples: Tensors of its shape (channels, height, width) or (features,).
        """
        ...

    def read_tool_results(
        self, target: Target, outputs: Mapping[str, tuple[int, ...]], log: Path
    ) -> "ToolResults":
        """Return what the tool reported in a log, and its outputs for the test vectors.

        Args:
            target: One of the backend's.
            outputs: The shapes of the network's outputs, by name.
            log: The log file; the outputs are in the same folder.

        Raises:
            UserError: It is not a log of the tool, or the files next to it are not outputs (E0671).
        """
        ...


@runtime_checkable
class ToolUser(Protocol):
    """A backend that uses tools from outside the project."""

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return the tools to build for a target and to run it; `version` None means missing."""
        ...


@runtime_checkable
class Runner(Protocol):
    """A backend whose artifacts run on this machine."""

    def infer(
        self, target: Target, folder: Path, network_input: Input, tensors: "Sequence[np.ndarray]"
    ) -> "list[Outputs]":
        """Run the artifact in `folder` on preprocessed tensors of the input's shape.

        Args:
            target: One of the backend's.
            folder: The folder of the artifact's files.
            network_input: The network's input.
            tensors: One for each run: float32 of the input's shape, without a batch axis.

        Returns:
            For each tensor, the raw outputs by name, float32 in the graph's layout.

        Raises:
            MissingTool: The tool that runs the artifact is not installed.
            UserError: The artifact cannot run on these tensors.
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
    """A backend whose artifacts are code: running one here executes code of its author."""

    def list_code_files(self, names: "Iterable[str]") -> tuple[str, ...]:
        """Return the files of an artifact, by relative path, that are executed when it runs."""
        ...


@runtime_checkable
class NumberTypeReader(Protocol):
    """A backend whose artifact files show the number types that they compute with."""

    def read_number_types(self, target: Target, folder: Path) -> NumberTypes:
        """Return the number types that the artifact in `folder` computes with.

        Raises:
            UserError: It cannot be read, or has content that no artifact of tcc has.
        """
        ...


@runtime_checkable
class OperatingPointReader(Protocol):
    """A backend whose artifacts apply operating points to their outputs themselves."""

    def encode_operating_points(
        self, target: Target, folder: Path, points: "Sequence[OperatingPoint]"
    ) -> Mapping[str, bytes]:
        """Return the files that store operating points for the artifact in `folder`, by name."""
        ...

    def has_operating_points_in_libraries(self, target: Target, folder: Path) -> bool:
        """Return whether the artifact's libraries apply them, and not only its program."""
        ...


@runtime_checkable
class Measurer(Protocol):
    """A backend that can measure its artifacts."""

    def measure(
        self,
        target: Target,
        folder: Path,
        network_input: Input,
        workload: Workload,
        progress: Progress = silent,
    ) -> Measurement:
        """Run the artifact in `folder` repeatedly on one input, and return what that costs.

        Args:
            target: One of the backend's.
            folder: The folder of the artifact's files.
            network_input: The network's input.
            workload: The input, the number of runs and the number of threads.
            progress: Receives how many runs are done.

        Returns:
            Milliseconds, bytes, and counts if the backend counts.

        Raises:
            MissingTool: A tool that runs or measures the artifact is not installed.
            UserError: The artifact cannot run on this input.
        """
        ...


@runtime_checkable
class BoardMeasurer(Protocol):
    """A backend that can measure its artifacts on a board."""

    def measure_on_board(
        self,
        target: Target,
        folder: Path,
        network_input: Input,
        task: BoardTask,
        progress: Progress = silent,
    ) -> "tuple[Measurement, list[Outputs] | None]":
        """Run the artifact in `folder` on a board; return the measurement and the outputs.

        The outputs are those for the task's cases; None if they cannot be read back.

        Args:
            target: One of the backend's.
            folder: The folder of the artifact's files on this machine.
            network_input: The network's input.
            task: The board, the workload to measure, and the cases to answer.
            progress: Receives how many runs are done.

        Raises:
            UserError: A command on the board failed (E0658), or the artifact cannot run there.
        """
        ...


@dataclass(frozen=True, slots=True)
class LinkedLibrary:
    """A library of an artifact, and the result of linking with it.

    One of the other fields is set. `program` is a folder with a program that uses the library and
    runs like the artifact. `same_bytes` names what linking reproduced byte for byte. `problem` is
    why the library does not belong to the artifact, and `unverified` why it could not be checked.
    """

    file: str
    program: Path | None = None
    same_bytes: str = ""
    problem: str = ""
    unverified: str = ""


@runtime_checkable
class LibraryLinker(Protocol):
    """A backend whose artifacts have libraries for other programs."""

    def link_libraries(
        self, target: Target, folder: Path, scratch: Path, *, same_tools: bool
    ) -> Iterator[LinkedLibrary]:
        """Link a program with each library of the artifact in `folder`.

        Args:
            target: One of the backend's.
            folder: The folder of the artifact's files.
            scratch: An empty folder for the linked programs.
            same_tools: Whether the artifact was linked by the installed tools, so that linking
                gives the same bytes.
        """
        ...


@runtime_checkable
class ProcessorAdviser(Protocol):
    """A backend that knows when this machine's processor runs its artifacts slowly."""

    def describe_caveats(self, target: Target, precision: Precision) -> str:
        """Return advice for whoever runs them on this machine; empty if there is none."""
        ...


@runtime_checkable
class InstructionCounter(Protocol):
    """A measurer that counts instructions for targets that this machine can only emulate."""

    def is_counted(self, target: Target) -> bool:
        """Return whether it counts one run of a target's artifact instead of timing many."""
        ...


@runtime_checkable
class BoardRunnerUser(Protocol):
    """A board measurer whose artifacts need a program of the user's to run them."""

    @property
    def board_runner(self) -> str:
        """The name of that program."""
        ...


@runtime_checkable
class PackageSimulator(Protocol):
    """A backend whose packages contain a network that a runtime on this machine can run."""

    def find_simulator(self, target: Target) -> tuple[Backend, str] | None:
        """Return a backend that runs that network, and its file in the artifact; None if none.

        The backend is a `Runner` of one target of the same name, which runs here. It computes the
        file as written: a vendor toolchain may compile it to something else.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunnerSignature:
    """The signature that an artifact's program requires when it starts: Ed25519, 64 bytes.

    `file` is its name next to the program, `public_key` the 32 bytes of the key that is compiled
    into the program, and `message` the bytes to sign, for the files as they are now.
    """

    file: str
    public_key: bytes
    message: bytes


@runtime_checkable
class GuardRunner(Protocol):
    """A backend whose artifacts compute a bundle's guard with code of their own."""

    def run_guard(
        self, target: Target, folder: Path, network_input: Input, pixels: "Sequence[np.ndarray]"
    ) -> "Sequence[np.ndarray]":
        """Return the guard's numbers for the images of one stream, int64 (numbers,) each.

        Args:
            target: The target.
            folder: The artifact in a bundle.
            network_input: Its input.
            pixels: uint8 (height, width, channels) each, of the input's size.

        Raises:
            UserError: The artifact cannot be run.
        """
        ...


@runtime_checkable
class GuardCompiler(Protocol):
    """A backend that compiles a guard into its artifacts."""

    def with_guard(self, target: Target, guard: bytes) -> Self:
        """Return a copy that compiles this guard, the bytes of `guard.json`."""
        ...

    def encode_guard_tables(
        self, target: Target, folder: Path, guard: bytes
    ) -> Mapping[str, bytes]:
        """Return the files of an artifact that have tables of its guard, with those of another.

        Raises:
            UserError: The artifact is damaged (E0652).
        """
        ...


@runtime_checkable
class RunnerSigner(Protocol):
    """A backend that builds programs which check a signature."""

    signer: bytes | None
    """The public key for the programs that it builds; None if they check no signature."""

    def with_signer(self, target: Target, public_key: bytes) -> Self:
        """Return a copy whose programs start only with a signature by this key.

        To run an artifact before it is signed, the backend uses programs without the check that
        are linked with the same library.
        """
        ...

    def read_runner_signature(self, target: Target, folder: Path) -> RunnerSignature | None:
        """Return the signature that the program in a folder requires; None if it requires none.

        Raises:
            UserError: The artifact is damaged (E0652).
        """
        ...


@runtime_checkable
class QuantizedValueReader(Protocol):
    """A backend that can read the tensors inside its int8 artifacts while they run here."""

    def trace_quantized_values(
        self, target: Target, folder: Path, network_input: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the artifact in `folder` on tensors; yield its quantized values for each.

        Args:
            target: One of the backend's.
            folder: The folder of the artifact's files.
            network_input: The network's input.
            tensors: As for `Runner.infer`; each is read when it is needed.

        Yields:
            The 8-bit tensors by their names in the graph, in the graph's layout or flat: uint8 or
            int8, where the type's largest byte is the largest value of the tensor's type.

        Raises:
            MissingTool: The tool that runs the artifact is not installed.
            UserError: The artifact cannot run on these tensors.
        """
        ...


@runtime_checkable
class FloatValueReader(Protocol):
    """A backend that can read the tensors inside its float artifacts while they run here."""

    def trace_float_values(
        self, target: Target, folder: Path, network_input: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the artifact in `folder` on tensors; yield the float tensors inside it.

        Arguments and errors are those of `QuantizedValueReader.trace_quantized_values`.

        Yields:
            float32 by the names of values in the graph, or of outputs, in the graph's layout or
            flat; other names are internal to the artifact.
        """
        ...


@runtime_checkable
class IsaChooser(Protocol):
    """A backend whose programs can be limited to an instruction set of this machine."""

    def with_isa(self, target: Target, name: str) -> Self:
        """Return a copy whose programs use the instruction set with this name.

        Raises:
            UserError: There is no such set, or no choice for the target (E0601). If this processor
                does not support the set, the error comes when a program runs.
        """
        ...


@runtime_checkable
class Fetcher(Protocol):
    """A backend that fetches files from a package registry, once."""

    def fetch(self, target: Target) -> None:
        """Fetch the files that building for a target needs.

        Args:
            target: One of the backend's.

        Raises:
            MissingTool: They cannot be fetched.
        """
        ...


@runtime_checkable
class Approximator(Protocol):
    """A backend with float kernels that round in more steps than sums of products do."""

    def get_exact_precision(self, precision: Precision) -> Precision | None:
        """Return the precision that is built without them; None if this one has none."""
        ...

    def find_approximate_layers(self, target: Target, model: Model) -> tuple[Node, ...]:
        """Return the nodes that such kernels compute, in a model after `passes`."""
        ...

    def compute_approximate_outputs(
        self, target: Target, model: Model, tensor: "np.ndarray"
    ) -> "Mapping[str, np.ndarray]":
        """Return the raw outputs, by name, of a model computed with such kernels.

        Args:
            target: One of the backend's.
            model: The model after `passes`.
            tensor: float32 of the input's shape, without a batch axis.
        """
        ...
