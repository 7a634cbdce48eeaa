"""A target with the backend that knows it, as commands and the pipeline take it."""

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
    """A target and its backend; what the backend cannot do, it refuses.

    `distribution` is the name and version of the other distribution that brings the target;
    `simulated_file` the file of a package that runs in place of what a maker's tool makes of it.
    """

    backend: Backend
    target: Target
    distribution: tuple[str, str] | None = None
    simulated_file: str = ""

    @property
    def name(self) -> str:
        """The target's name, as after `--target`."""
        return self.target.name

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What building for the target, and running it here, needs."""
        return self.backend.tools(self.target) if isinstance(self.backend, ToolUser) else ()

    def list_missing_build_tools(self) -> tuple[Tool, ...]:
        """Return the tools that building needs and that are not here."""
        return tuple(tool for tool in self.tools if tool.builds and tool.version is None)

    def list_missing_run_tools(self) -> tuple[Tool, ...]:
        """Return the tools that running the artifact here needs and that are not here."""
        return tuple(tool for tool in self.tools if not tool.builds and tool.version is None)

    def fetch(self) -> None:
        """Have here what building takes from elsewhere.

        Raises:
            MissingTool: It cannot be fetched.
        """
        if isinstance(self.backend, Fetcher):
            self.backend.fetch(self.target)

    def collect_versions(self) -> Mapping[str, str]:
        """Return the versions of what decides the files' bytes."""
        from tcc.compiler.support.external_tools import installed_version
        from tcc.compiler.version import __version__

        # On every target the goldens come from ONNX Runtime, what it is given from onnx, and the
        # integers from numpy (docs/decisions/0011-reference-executors.md).
        common = {name: installed_version(name) or "" for name in ("numpy", "onnx", "onnxruntime")}
        tool_versions = {t.name: t.version for t in self.tools if t.builds and t.version}
        distribution = dict([self.distribution]) if self.distribution else {}
        return {"tcc": __version__, **common, **tool_versions, **distribution}

    def get_precision(self, name: str, at: Span | None = None) -> Precision:
        """Return the precision of a name, which stands at a place.

        Raises:
            UserError: The target is not built at it (E0606); the nearest is named.
        """
        precision = self.target.find_precision(name)
        if precision is not None:
            return precision
        offered = [choice.name for choice in self.target.precisions]
        closest = find_nearest_name(name, set(offered))
        choices_text = f"it builds at {', '.join(offered)}"
        help = f"did you mean `{closest}`? {choices_text}" if closest else choices_text
        message = f"{self.name} does not build at precision `{name[:40]}`"
        raise fail("E0606", message, at or make_file_span(self.name), help=help)

    def passes(self, precision: Precision) -> "tuple[Pass, ...]":
        """Return the passes that the model goes through before it is emitted."""
        return self._reader.passes(precision)

    def refusals(self, graph: "Graph") -> Iterable[Refusal]:
        """Yield each node that the target cannot run."""
        return self._reader.refusals(self.target, graph)

    def remarks(self, graph: "Graph") -> Iterable[Remark]:
        """Yield what is worth knowing of nodes that the target can run."""
        # Advice is optional: most targets have nothing to say, and are not made to.
        if isinstance(self.backend, RemarkProvider):
            return self.backend.remarks(self.target, graph)
        return ()

    def describe_caveats(self, precision: Precision) -> str:
        """Return what is worth knowing before a precision runs here; empty if nothing is."""
        adviser = self.backend if isinstance(self.backend, ProcessorAdviser) else None
        return adviser.describe_caveats(self.target, precision) if adviser else ""

    @property
    def approximator(self) -> Approximator | None:
        """The backend, if some of its float kernels round in more steps than sums do."""
        return self.backend if isinstance(self.backend, Approximator) else None

    def emit(self, model: "Model", precision: Precision, progress: "Progress") -> Artifact:
        """Return the target's files; at an integer precision the model is the integer program."""

        # `tcc build` takes several targets: what is told of the work bears the target's name.
        def report_for_target(stage: str, completed: int, total: int) -> None:
            name = self.name if stage == self.name else f"{self.name}: {stage}"
            progress(name, completed, total)

        return self._builder.emit(self.target, model, precision, report_for_target)

    @property
    def packager(self) -> Packager | None:
        """The backend, if what it builds are packages for a maker's own tool."""
        return self.backend if isinstance(self.backend, Packager) else None

    def read_number_types(self, folder: Path) -> "NumberTypes | None":
        """Return what an artifact computes with, None where its file does not say it."""
        if isinstance(self.backend, NumberTypeReader):
            return self.backend.read_number_types(self.target, folder)
        return None

    def list_code_files(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of an artifact's files, by relative path, that running it here executes.

        None where a runtime reads the artifact as data.
        """
        return self.backend.list_code_files(names) if isinstance(self.backend, CodeRunner) else ()

    def encode_operating_points(
        self, folder: Path, points: "Sequence[OperatingPoint]"
    ) -> Mapping[str, bytes]:
        """Return the files of the artifact in `folder` that say how its outputs are read."""
        if isinstance(self.backend, OperatingPointReader):
            return self.backend.encode_operating_points(self.target, folder, points)
        return {}

    @property
    def quantized_value_reader(self) -> QuantizedValueReader | None:
        """The backend, if its integer artifacts can be looked into here."""
        return self.backend if isinstance(self.backend, QuantizedValueReader) else None

    def with_isa(self, name: str) -> "Device":
        """Return the same, whose programs use an instruction set of this machine's family.

        Raises:
            UserError: There is no such set, or no choice for this target (E0601).
        """
        if not isinstance(self.backend, IsaChooser):
            message = f"what is built for {self.name} chooses no instruction set"
            raise fail("E0601", message, make_file_span("command line: --isa"))
        return replace(self, backend=self.backend.with_isa(self.target, name))

    @property
    def float_value_reader(self) -> FloatValueReader | None:
        """The backend, if its artifacts of float32 can be looked into here."""
        return self.backend if isinstance(self.backend, FloatValueReader) else None

    def infer(
        self, folder: Path, source: "Input", tensors: "Sequence[np.ndarray]"
    ) -> "list[Outputs]":
        """Run the artifact in `folder` on preprocessed tensors of the input's shape.

        Returns:
            For each tensor, the raw outputs by name, float32.

        Raises:
            MissingTool: What runs the artifact is not installed.
            UserError: The artifact cannot be run on these, or nothing runs it here (E0657).
        """
        return self._get_runner(folder).infer(self.target, folder, source, tensors)

    def run(self, folder: Path, source: "Input", images: "Sequence[np.ndarray]") -> "list[Outputs]":
        """Run the artifact on images, uint8 (height, width, 3), from preprocessing on.

        Returns:
            For each image, the raw outputs by name, float32.

        Raises:
            MissingTool: What runs the artifact is not installed.
            UserError: The network takes no images (E0625), or as for `infer`.
        """
        from tcc.compiler.ir import preprocess

        runner = self._get_runner(folder)
        if source.preprocess is None:
            raise build_image_error(source.name, source.type.shape, make_file_span(str(folder)))
        # A program that preprocesses by itself is judged with its preprocessing; a runtime is given
        # what the one definition of it gives.
        if isinstance(runner, ImageRunner):
            return runner.run(self.target, folder, images)
        channels, height, width = source.type.shape
        shape = (channels, height, width)
        tensors = [preprocess.apply(source.preprocess, image, shape) for image in images]
        return runner.infer(self.target, folder, source, tensors)

    def measure(
        self, folder: Path, source: "Input", workload: "Workload", progress: "Progress"
    ) -> "Measurement":
        """Return what the artifact in `folder` costs.

        Raises:
            MissingTool: What runs or measures the artifact is not installed.
            UserError: The artifact cannot be run on this, or nothing measures it here (E0657).
        """
        # What cannot run here cannot be measured: it is refused in the same words as `tcc run` has.
        self._get_runner(folder)
        if isinstance(self.backend, Measurer):
            return self.backend.measure(self.target, folder, source, workload, progress)
        message = f"nothing here measures what is built for {self.name}"
        raise fail("E0657", message, make_file_span(str(folder)))

    def measure_on_board(
        self, folder: Path, source: "Input", task: "BoardTask", progress: "Progress"
    ) -> "tuple[Measurement, list[Outputs] | None]":
        """Return what the artifact in `folder` costs on a board, and what it gives there.

        Raises:
            UserError: As the backend's, or nothing runs it on a board (E0657).
        """
        if isinstance(self.backend, BoardMeasurer):
            return self.backend.measure_on_board(self.target, folder, source, task, progress)
        message = f"nothing runs on a board what is built for {self.name}"
        raise fail("E0657", message, make_file_span(str(folder)))

    @property
    def is_counted(self) -> bool:
        """Whether measuring here counts the instructions of one run instead of timing many."""
        backend = self.backend
        return isinstance(backend, InstructionCounter) and backend.is_counted(self.target)

    @property
    def needs_board_runner(self) -> bool:
        """Whether artifacts run on a board by a program that the user brings."""
        return isinstance(self.backend, BoardRunnerUser)

    def find_simulator(self) -> "Device | None":
        """Return what runs a package's network here, without the maker's tool or the board."""
        if not isinstance(self.backend, PackageSimulator):
            return None
        simulation = self.backend.find_simulator(self.target)
        if simulation is None:
            return None
        backend, file = simulation
        return Device(backend, backend.targets[0], simulated_file=file)

    @property
    def signer(self) -> bytes | None:
        """The public key whose signature the target's programs ask for, if any."""
        return self.backend.signer if isinstance(self.backend, RunnerSigner) else None

    def with_signer(self, public_key: bytes) -> "Device":
        """Return the same, whose programs start only beside a signature by a key.

        Raises:
            UserError: What is built for it has no program that checks one (E0601).
        """
        if not isinstance(self.backend, RunnerSigner):
            message = f"what is built for {self.name} has no program that checks a signature"
            at = make_file_span("command line: --require-signature")
            raise fail("E0601", message, at, help="build it without, and sign the bundle")
        return replace(self, backend=self.backend.with_signer(self.target, public_key))

    def read_runner_signature(self, folder: Path) -> RunnerSignature | None:
        """Return the signature that the program of the artifact in a folder asks for, if any.

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
        return fail("E0606", message, make_file_span(self.name))

    def _get_runner(self, folder: Path) -> Runner:
        if isinstance(self.backend, Runner) and self.target.runs:
            return self.backend
        help = "run its files where the target runs"
        message = f"nothing here runs what is built for {self.name}"
        raise fail("E0657", message, make_file_span(str(folder)), help=help)


@dataclass(frozen=True, slots=True)
class Plan:
    """A target, and the precision that it is built at."""

    device: Device
    precision: Precision
    compiles: bool = True
    """Whether a maker's tool compiles a package, where it is here."""

    @property
    def starts_from_float_model(self) -> bool:
        """Whether it starts from the float model, after its own passes."""
        return not self.precision.integer or self.device.packager is not None
