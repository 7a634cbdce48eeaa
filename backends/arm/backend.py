"""The targets `arm-a7`, `arm-a53`, `arm-a72`, `arm-a76` and `host`."""

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.backends.arm.machine import (
    FP32_DIRECT,
    INT8_COUNTED,
    MACHINES,
    PROGRAM_SUFFIX,
    Machine,
    get_machine,
)
from tcc.compiler.ir.backend import LinkedLibrary, RunnerSignature
from tcc.compiler.ir.constant_checker import UNKNOWN, ConstantCheck, ConstantSources
from tcc.compiler.ir.graph import Graph, Input, Model, Node, Pass
from tcc.compiler.ir.measurement import BoardTask, Measurement, Workload
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.ir.target import Artifact, Refusal, Target
from tcc.compiler.support.external_tools import MissingTool, Tool, installed_version
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

    from tcc.compiler.ir.operating_point import OperatingPoint


UNSIGNED_ADVICE = (
    "its program starts only after you sign it: `tcc sign BUNDLE --runner-key PRIVATE.pem`; here "
    "its library ran in a program without the signature check"
)
CODE_SUFFIXES = (".a", ".so", ".c", ".h")
"""Suffixes of libraries and C sources."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Builds libraries, a C header and a runner program; runs the program natively or in qemu.

    `isa` is the instruction set that programs are asked to use; None lets them choose.
    `signer` is the public key that the built programs check their signature with, if any. `guard`
    is the guard that is compiled into them, the bytes of `guard.json`.
    """

    isa: str | None = None
    signer: bytes | None = None
    guard: bytes | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        """One target for each processor, and this machine."""
        return tuple(m.target for m in MACHINES)

    def passes(self, precision: Precision) -> tuple[Pass, ...]:
        """Return the passes from a network to the graph that a device runs."""
        from tcc.compiler.passes import INFERENCE, INT8

        return INT8 if precision.integer else INFERENCE

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return TVM and zig, which build, and qemu if it is needed to run programs here."""
        tools: tuple[Tool, ...] = (
            Tool("apache-tvm", "compile kernels", installed_version("apache-tvm")),
            Tool("ziglang", "compile and link", installed_version("ziglang")),
        )
        if self.signer:
            from tcc.backends.arm.codegen.runner_signature import LIBRARY, LIBRARY_VERSION

            tools += (Tool(LIBRARY, "check signatures on a device", LIBRARY_VERSION),)
        processor = get_machine(target)
        # Only running needs the emulator; building for a board does not.
        return tools if processor.native else (*tools, _find_qemu(processor))

    def refusals(self, target: Target, graph: Graph) -> Iterator[Refusal]:
        """Yield each node that has no kernel or is too large."""
        from tcc.backends.arm.schedule.limits import find_refusals

        return find_refusals(target.name, graph)

    def emit(
        self,
        target: Target,
        model: Model,
        precision: Precision = FP32,
        progress: Progress = silent,
    ) -> Artifact:
        """Return the libraries, the header, the runner program and the C sources.

        Raises:
            MissingTool: TVM or zig is not installed.
            BuildError: TVM or zig fails; the message has the node.
        """
        missing = [t for t in self.tools(target) if t.builds and t.version is None]
        if missing:
            raise MissingTool(missing[0])
        # If PyTorch is installed, TVM loads it to exchange tensors with it.
        with _disable_import("torch"):
            from tcc.backends.arm.compile_model import emit
            from tcc.compiler.guard import guard_document

        direct = precision is FP32_DIRECT
        processor = replace(get_machine(target), direct=direct, signer=self.signer)
        guard = guard_document.decode(self.guard, "guard.json") if self.guard else None
        is_instrumented = precision is INT8_COUNTED
        return emit(processor, model, progress, is_instrumented=is_instrumented, guard=guard)

    def get_exact_precision(self, precision: Precision) -> Precision | None:
        """Return the precision without Winograd's method."""
        return FP32_DIRECT if precision is FP32 else None

    def find_approximate_layers(self, target: Target, model: Model) -> tuple[Node, ...]:
        """Return the convolutions that use Winograd's method."""
        from tcc.backends.arm.schedule import winograd_rounding

        return winograd_rounding.find_layers(model, get_machine(target))

    def compute_approximate_outputs(
        self, target: Target, model: Model, tensor: "np.ndarray"
    ) -> "Mapping[str, np.ndarray]":
        """Return the outputs with these convolutions approximated."""
        from tcc.backends.arm.schedule import winograd_rounding

        return winograd_rounding.compute_outputs(model, get_machine(target), tensor)

    def list_code_files(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the runner program, libraries and C sources among an artifact's files."""
        return tuple(name for name in names if name.endswith((PROGRAM_SUFFIX, *CODE_SUFFIXES)))

    def check_constants(
        self, target: Target, folder: Path, sources: ConstantSources
    ) -> Iterator[ConstantCheck]:
        """Compare the constants in the libraries and in the program.

        Raises:
            MissingTool: TVM, which selects the kernels, is not installed.
        """
        missing = [t for t in self.tools(target) if t.name == "apache-tvm" and t.version is None]
        if missing:
            raise MissingTool(missing[0])
        if sources.start_model is None:
            return iter([ConstantCheck("its libraries and program", uncompared=UNKNOWN)])
        with _disable_import("torch"):
            from tcc.backends.arm.execute import stored_constants

        processor = replace(get_machine(target), direct=sources.precision is FP32_DIRECT)
        return stored_constants.check(processor, folder, sources.start_model)

    def link_libraries(
        self, target: Target, folder: Path, scratch: Path, *, same_tools: bool
    ) -> "Iterator[LinkedLibrary]":
        """Link a program with each library, or report that there is no linker."""
        from tcc.backends.arm.execute import linked_libraries

        if installed_version("ziglang") is None:
            reason = "ziglang, which links programs, is not installed: pip install 'tcc[arm]'"
            libraries = sorted(path.name for path in folder.glob("lib*.*"))
            return iter([LinkedLibrary(name, unverified=reason) for name in libraries])
        return linked_libraries.link_all(
            get_machine(target), folder, scratch, same_tools=same_tools
        )

    def infer(
        self, target: Target, folder: Path, network_input: Input, tensors: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the program in `folder` on preprocessed tensors; return raw outputs by name.

        Raises:
            MissingTool: qemu is needed but not installed.
            UserError: The program fails on an input; the message has the reason.
        """
        from tcc.backends.arm.execute import runner

        return runner.infer(self._get_runnable_machine(target), folder, network_input, tensors)

    def run(
        self, target: Target, folder: Path, images: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the program on images, uint8 (height, width, 3); it preprocesses them itself.

        Raises:
            MissingTool: qemu is needed but not installed.
            UserError: The program fails on an image.
        """
        from tcc.backends.arm.execute import runner

        return runner.run(self._get_runnable_machine(target), folder, images)

    def trace_quantized_values(
        self, target: Target, folder: Path, network_input: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the program on tensors and yield the output values of each of its layers.

        Raises:
            MissingTool: qemu is needed but not installed.
            UserError: The program fails on a tensor.
        """
        from tcc.backends.arm.execute import layer_trace

        return layer_trace.trace_layers(
            self._get_runnable_machine(target), folder, network_input, tensors
        )

    def trace_float_values(
        self, target: Target, folder: Path, network_input: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Yield the float values of each layer; errors as for `trace_quantized_values`."""
        from tcc.backends.arm.execute import layer_trace

        kinds = layer_trace.FLOAT_TYPES
        return layer_trace.trace_layers(
            self._get_runnable_machine(target), folder, network_input, tensors, kinds
        )

    def encode_operating_points(
        self, target: Target, folder: Path, points: "Sequence[OperatingPoint]"
    ) -> Mapping[str, bytes]:
        """Return the libraries and the program with these operating points written into them."""
        from tcc.backends.arm.codegen import operating_point

        return operating_point.encode_files(folder, points)

    def has_operating_points_in_libraries(self, target: Target, folder: Path) -> bool:
        """Whether the library contains operating points; libraries of older versions do not."""
        from tcc.backends.arm.codegen import operating_point

        return operating_point.has_library_records(folder)

    def with_guard(self, target: Target, guard: bytes) -> "Arm":
        """Return a backend that compiles this guard into libraries and programs."""
        return replace(self, guard=guard)

    def encode_guard_tables(
        self, target: Target, folder: Path, guard: bytes
    ) -> Mapping[str, bytes]:
        """Return the libraries and the program with the tables of this guard."""
        from tcc.backends.arm.codegen import guard_tables
        from tcc.compiler.guard import guard_document

        return guard_tables.encode_files(folder, guard_document.decode(guard, "guard.json"))

    def run_guard(
        self, target: Target, folder: Path, network_input: Input, pixels: "Sequence[np.ndarray]"
    ) -> "list[np.ndarray]":
        """Return the numbers of the guard that the program computes, for the images of a stream.

        Raises:
            MissingTool: qemu is needed but not installed.
            UserError: The program fails.
        """
        from tcc.backends.arm.execute import runner

        return runner.run_guard(self._get_runnable_machine(target), folder, pixels)

    def with_isa(self, target: Target, name: str) -> "Arm":
        """Return a backend whose programs use this instruction set.

        Raises:
            UserError: There is no such set, or the target has no choice of sets (E0601).
        """
        from tcc.backends.arm.execute import runner

        runner.check_isa(get_machine(target), name)
        return replace(self, isa=name)

    def with_signer(self, target: Target, public_key: bytes) -> "Arm":
        """Return a backend whose programs start only with a valid signature by this key."""
        return replace(self, signer=public_key)

    def read_runner_signature(self, target: Target, folder: Path) -> RunnerSignature | None:
        """Return the signature that the program needs to start, if it needs one."""
        from tcc.backends.arm.codegen import runner_signature

        return runner_signature.find(folder)

    def describe_caveats(self, target: Target, precision: Precision) -> str:
        """Return how to sign the program, if it must be signed before it runs."""
        return UNSIGNED_ADVICE if self.signer else ""

    def measure(
        self,
        target: Target,
        folder: Path,
        network_input: Input,
        workload: Workload,
        progress: Progress = silent,
    ) -> Measurement:
        """Time the program if it runs natively; otherwise count its instructions.

        Raises:
            MissingTool: qemu, or a tool for counting and modelling, is needed but not installed.
            UserError: The program fails.
        """
        from tcc.backends.arm.measure import measurement_modes

        return measurement_modes.measure_locally(
            self._get_runnable_machine(target), folder, network_input, workload, progress
        )

    def is_counted(self, target: Target) -> bool:
        """Whether this machine emulates the target, and so counts its instructions."""
        return not get_machine(target).native

    def measure_on_board(
        self,
        target: Target,
        folder: Path,
        network_input: Input,
        task: BoardTask,
        progress: Progress = silent,
    ) -> "tuple[Measurement, list[dict[str, np.ndarray]] | None]":
        """Copy the program to a board and time it there.

        Raises:
            UserError: A command on the board fails (E0658), or the program fails.
        """
        from tcc.backends.arm.measure import measurement_modes

        return measurement_modes.measure_on_board(folder, network_input, task, progress)

    def _get_runnable_machine(self, target: Target) -> Machine:
        """Return a target's machine, if its programs run on this computer."""
        processor = replace(get_machine(target), isa=self.isa, signer=self.signer)
        if not processor.native and _find_qemu(processor).version is None:
            raise MissingTool(_find_qemu(processor))
        return processor


def _find_qemu(processor: Machine) -> Tool:
    version = "found" if shutil.which(processor.qemu) else None
    needed_for = f"run {processor.target.name} programs here"
    return Tool(processor.qemu, needed_for, version, builds=False)


@contextmanager
def _disable_import(name: str) -> Iterator[None]:
    """Make a package look uninstalled, unless it is already imported.

    TVM imports PyTorch if it is installed, to exchange tensors with it: 3 s of an 8 s build.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # Python treats None as "not installed"
    try:
        yield
    finally:
        del sys.modules[name]
