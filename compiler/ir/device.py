"""A target with its backend, as commands and the pipeline use it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.ir.backend import (
    Approximator,
    Backend,
    BoardMeasurer,
    BoardRunnerUser,
    Builder,
    CodeRunner,
    Fetcher,
    FloatValueReader,
    GraphReader,
    GuardCompiler,
    GuardRunner,
    ImageRunner,
    InstructionCounter,
    IsaChooser,
    Measurer,
    NumberTypeReader,
    OperatingPointReader,
    Packager,
    PackageSimulator,
    ProcessorAdviser,
    QuantizedValueReader,
    RemarkProvider,
    Runner,
    RunnerSignature,
    RunnerSigner,
    ToolUser,
)
from tcc.compiler.ir.image_inputs import build_image_error
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.target import Artifact, Refusal, Remark, Target
from tcc.compiler.support.diagnostics import (
    Span,
    UserError,
    fail,
    find_nearest_name,
    make_file_span,
)
from tcc.compiler.support.external_tools import Tool

if TYPE_CHECKING:
    import numpy as np

    from tcc.compiler.ir.graph import Graph, Input, Model, Pass
    from tcc.compiler.ir.measurement import BoardTask, Measurement, Workload
    from tcc.compiler.ir.number_types import NumberTypes
    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.support.progress import Progress

    Outputs = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Device:
    """A target and its backend; unsupported requests raise errors.

    `distribution` is the name and version of another distribution that provides the target.
    `simulated_file` is the file of a package that runs in place of the compiled one.
    """

    backend: Backend
    target: Target
    distribution: tuple[str, str] | None = None
    simulated_file: str = ""

    @property
    def name(self) -> str:
        """The target's name, as in `--target`."""
        return self.target.name

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools to build for the target, and to run it on this machine."""
        return self.backend.tools(self.target) if isinstance(self.backend, ToolUser) else ()

    def list_missing_build_tools(self) -> tuple[Tool, ...]:
        """Return the missing tools that building needs."""
        return tuple(tool for tool in self.tools if tool.builds and tool.version is None)

    def list_missing_run_tools(self) -> tuple[Tool, ...]:
        """Return the missing tools that running the artifact on this machine needs."""
        return tuple(tool for tool in self.tools if not tool.builds and tool.version is None)

    def fetch(self) -> None:
        """Fetch the files that building needs.

        Raises:
            MissingTool: They cannot be fetched.
        """
        if isinstance(self.backend, Fetcher):
            self.backend.fetch(self.target)

    def collect_versions(self) -> Mapping[str, str]:
        """Return the versions of everything that determines the files' bytes."""
        from tcc.compiler.support.external_tools import installed_version
        from tcc.compiler.version import __version__

        # For every target, the test vectors come from ONNX Runtime, its input from onnx, and the
        # integer program from numpy (docs/decisions/0011-reference-executors.md).
        common = {name: installed_version(name) or "" for name in ("numpy", "onnx", "onnxruntime")}
        tool_versions = {t.name: t.version for t in self.tools if t.builds and t.version}
        distribution = dict([self.distribution]) if self.distribution else {}
        return {"tcc": __version__, **common, **tool_versions, **distribution}

    def get_precision(self, name: str, at: Span | None = None) -> Precision:
        """Return the precision with a name; `at` is the span of the name.

        Raises:
            UserError: The target does not support it (E0606); the help suggests a similar one.
        """
        precision = self.target.find_precision(name)
        if precision is not None:
            return precision
        offered = [choice.name for choice in self.target.precisions]
        closest = find_nearest_name(name, set(offered))
        choices_text = f"supported precisions: {', '.join(offered)}"
        help = f"did you mean `{closest}`? {choices_text}" if closest else choices_text
        message = f"{self.name} does not support precision `{name[:40]}`"
        raise fail("E0606", message, at or make_file_span(self.name), help=help)

    def passes(self, precision: Precision) -> "tuple[Pass, ...]":
        """Return the passes that prepare a model before it is emitted."""
        return self._reader.passes(precision)

    def refusals(self, graph: "Graph") -> Iterable[Refusal]:
        """Yield each node that the target cannot run."""
        return self._reader.refusals(self.target, graph)

    def remarks(self, graph: "Graph") -> Iterable[Remark]:
        """Yield remarks on nodes that the target can run."""
        # Optional: most targets have no remarks.
        if isinstance(self.backend, RemarkProvider):
            return self.backend.remarks(self.target, graph)
        return ()

    def describe_caveats(self, precision: Precision) -> str:
        """Return advice before a precision runs on this machine; empty if there is none."""
        adviser = self.backend if isinstance(self.backend, ProcessorAdviser) else None
        return adviser.describe_caveats(self.target, precision) if adviser else ""

    @property
    def approximator(self) -> Approximator | None:
        """The backend, if some of its float kernels round in more steps than sums of products."""
        return self.backend if isinstance(self.backend, Approximator) else None

    def emit(self, model: "Model", precision: Precision, progress: "Progress") -> Artifact:
        """Return the target's files; at an integer precision the model is the integer program."""

        # `tcc build` accepts several targets: progress is reported with the target's name.
        def report_for_target(stage: str, completed: int, total: int) -> None:
            name = self.name if stage == self.name else f"{self.name}: {stage}"
            progress(name, completed, total)

        return self._builder.emit(self.target, model, precision, report_for_target)

    @property
    def packager(self) -> Packager | None:
        """The backend, if its artifacts are packages for a vendor toolchain."""
        return self.backend if isinstance(self.backend, Packager) else None

    def read_number_types(self, folder: Path) -> "NumberTypes | None":
        """Return the number types of an artifact; None if its file does not show them."""
        if isinstance(self.backend, NumberTypeReader):
            return self.backend.read_number_types(self.target, folder)
        return None

    def list_code_files(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the files of an artifact, by relative path, that are executed when it runs.

        Empty if a runtime reads the artifact as data.
        """
        return self.backend.list_code_files(names) if isinstance(self.backend, CodeRunner) else ()

    def encode_operating_points(
        self, folder: Path, points: "Sequence[OperatingPoint]"
    ) -> Mapping[str, bytes]:
        """Return the files that store operating points for the artifact in `folder`."""
        if isinstance(self.backend, OperatingPointReader):
            return self.backend.encode_operating_points(self.target, folder, points)
        return {}

    @property
    def quantized_value_reader(self) -> QuantizedValueReader | None:
        """The backend, if it can read the tensors inside its int8 artifacts on this machine."""
        return self.backend if isinstance(self.backend, QuantizedValueReader) else None

    def with_isa(self, name: str) -> "Device":
        """Return a copy whose programs use an instruction set of this machine's family.

        Raises:
            UserError: There is no such set, or no choice for this target (E0601).
        """
        if not isinstance(self.backend, IsaChooser):
            message = f"{self.name} has no choice of instruction sets"
            at = make_file_span("command line: --isa")
            raise fail("E0601", message, at, help="remove `--isa`")
        return replace(self, backend=self.backend.with_isa(self.target, name))

    @property
    def float_value_reader(self) -> FloatValueReader | None:
        """The backend, if it can read the tensors inside its float artifacts on this machine."""
        return self.backend if isinstance(self.backend, FloatValueReader) else None

    def infer(
        self, folder: Path, network_input: "Input", tensors: "Sequence[np.ndarray]"
    ) -> "list[Outputs]":
        """Run the artifact in `folder` on preprocessed tensors of the input's shape.

        Returns:
            For each tensor, the raw outputs by name, float32.

        Raises:
            MissingTool: The tool that runs the artifact is not installed.
            UserError: The artifact cannot run on these tensors, or not on this machine (E0657).
        """
        return self._get_runner(folder).infer(self.target, folder, network_input, tensors)

    def run(
        self, folder: Path, network_input: "Input", images: "Sequence[np.ndarray]"
    ) -> "list[Outputs]":
        """Run the artifact on images, uint8 (height, width, 3), including preprocessing.

        Returns:
            For each image, the raw outputs by name, float32.

        Raises:
            MissingTool: The tool that runs the artifact is not installed.
            UserError: The network takes no images (E0625), or as for `infer`.
        """
        from tcc.compiler.ir import preprocess

        runner = self._get_runner(folder)
        if network_input.preprocess is None:
            raise build_image_error(
                network_input.name, network_input.type.shape, make_file_span(str(folder))
            )
        # A program with its own preprocessing is tested with it; a runtime gets tensors from the
        # reference preprocessing.
        if isinstance(runner, ImageRunner):
            return runner.run(self.target, folder, images)
        channels, height, width = network_input.type.shape
        shape = (channels, height, width)
        tensors = [preprocess.apply(network_input.preprocess, image, shape) for image in images]
        return runner.infer(self.target, folder, network_input, tensors)

    def measure(
        self, folder: Path, network_input: "Input", workload: "Workload", progress: "Progress"
    ) -> "Measurement":
        """Return the measured costs of the artifact in `folder`.

        Raises:
            MissingTool: A tool that runs or measures the artifact is not installed.
            UserError: The artifact cannot run on this input, or not on this machine (E0657).
        """
        # An artifact that cannot run here gets the same error as from `tcc run`.
        self._get_runner(folder)
        if isinstance(self.backend, Measurer):
            return self.backend.measure(self.target, folder, network_input, workload, progress)
        message = f"this machine cannot measure what is built for {self.name}"
        help = "measure it on the target device"
        raise fail("E0657", message, make_file_span(str(folder)), help=help)

    def measure_on_board(
        self, folder: Path, network_input: "Input", task: "BoardTask", progress: "Progress"
    ) -> "tuple[Measurement, list[Outputs] | None]":
        """Return the measured costs of the artifact in `folder` on a board, and its outputs.

        Raises:
            UserError: From the backend, or the artifact cannot run on a board (E0657).
        """
        if isinstance(self.backend, BoardMeasurer):
            return self.backend.measure_on_board(self.target, folder, network_input, task, progress)
        message = f"artifacts for {self.name} cannot run on a board"
        help = "remove `--ssh` or `--adb`"
        raise fail("E0657", message, make_file_span(str(folder)), help=help)

    @property
    def is_counted(self) -> bool:
        """Whether measuring here counts the instructions of one run instead of timing many."""
        backend = self.backend
        return isinstance(backend, InstructionCounter) and backend.is_counted(self.target)

    @property
    def needs_board_runner(self) -> bool:
        """Whether artifacts need a program of the user's to run on a board."""
        return isinstance(self.backend, BoardRunnerUser)

    def find_simulator(self) -> "Device | None":
        """Return a device that runs a package's network here, without toolchain or board."""
        if not isinstance(self.backend, PackageSimulator):
            return None
        simulation = self.backend.find_simulator(self.target)
        if simulation is None:
            return None
        backend, file = simulation
        return Device(backend, backend.targets[0], simulated_file=file)

    def with_guard(self, guard: bytes) -> "Device":
        """Return a copy that compiles a guard into its artifacts, if its artifacts are code."""
        if not isinstance(self.backend, GuardCompiler):
            return self
        return replace(self, backend=self.backend.with_guard(self.target, guard))

    def encode_guard_tables(self, folder: Path, guard: bytes) -> "Mapping[str, bytes]":
        """Return the files of an artifact that change with the tables of its guard, by name."""
        if not isinstance(self.backend, GuardCompiler):
            return {}
        return self.backend.encode_guard_tables(self.target, folder, guard)

    def run_guard(
        self, folder: Path, network_input: "Input", pixels: "Sequence[np.ndarray]"
    ) -> "Sequence[np.ndarray] | None":
        """Return the guard's numbers as the artifact computes them; None if it does not."""
        if not isinstance(self.backend, GuardRunner):
            return None
        return self.backend.run_guard(self.target, folder, network_input, pixels)

    @property
    def signer(self) -> bytes | None:
        """The public key whose signature the target's programs require, if any."""
        return self.backend.signer if isinstance(self.backend, RunnerSigner) else None

    def with_signer(self, public_key: bytes) -> "Device":
        """Return a copy whose programs start only with a signature by a key.

        Raises:
            UserError: The target's artifacts have no program that could check it (E0601).
        """
        if not isinstance(self.backend, RunnerSigner):
            message = f"artifacts for {self.name} have no program that checks a signature"
            at = make_file_span("command line: --require-signature")
            raise fail("E0601", message, at, help="remove the option, and sign the bundle")
        return replace(self, backend=self.backend.with_signer(self.target, public_key))

    def read_runner_signature(self, folder: Path) -> RunnerSignature | None:
        """Return the signature that the program of the artifact in a folder requires, if any.

        Raises:
            UserError: The artifact is damaged (E0652).
        """
        if isinstance(self.backend, RunnerSigner):
            return self.backend.read_runner_signature(self.target, folder)
        return None

    @property
    def _builder(self) -> Builder:
        if isinstance(self.backend, Builder) and self.target.precisions:
            return self.backend
        raise self._make_unbuilt_error()

    @property
    def _reader(self) -> GraphReader:
        if isinstance(self.backend, GraphReader) and self.target.precisions:
            return self.backend
        raise self._make_unbuilt_error()

    def _make_unbuilt_error(self) -> UserError:
        message = f"this version calibrates for {self.name}, but does not build it"
        help = f"use `tcc calibrate --target {self.name}`"
        return fail("E0606", message, make_file_span(self.name), help=help)

    def _get_runner(self, folder: Path) -> Runner:
        if isinstance(self.backend, Runner) and self.target.runs:
            return self.backend
        help = "run its files on the target device"
        message = f"this machine cannot run what is built for {self.name}"
        raise fail("E0657", message, make_file_span(str(folder)), help=help)


@dataclass(frozen=True, slots=True)
class Plan:
    """A target, and the precision to build."""

    device: Device
    precision: Precision
    compiles: bool = True
    """Whether the vendor toolchain compiles a package, if it is installed."""

    @property
    def starts_from_float_model(self) -> bool:
        """Whether it is built from the float model, after its own passes."""
        return not self.precision.integer or self.device.packager is not None
