"""The target `tflite`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.backends.tflite.precisions import PRECISIONS
from tcc.compiler.ir.constant_checker import UNKNOWN, ConstantCheck, ConstantSources
from tcc.compiler.ir.graph import Graph, Input, Model, Pass
from tcc.compiler.ir.measurement import BoardTask, Measurement, Workload
from tcc.compiler.ir.number_types import NumberTypes
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.ir.target import Artifact, Refusal, Remark, Target
from tcc.compiler.ir.types import DType
from tcc.compiler.support import regular_files
from tcc.compiler.support.cpu import explain_slow_integers, read_features
from tcc.compiler.support.external_tools import MissingTool, Tool, installed_version
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

FILE = "model.tflite"
PACKAGES = (
    ("ai-edge-litert", "write and run TFLite files"),
    ("flatbuffers", "write TFLite files"),
)


@dataclass(frozen=True, slots=True)
class TfLite:
    """Builds `model.tflite`, channels last with batch size 1, and runs it on one thread."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The one target."""
        title = "TFLite file for phones and DSPs, run by LiteRT"
        return (Target("tflite", title, PRECISIONS, calibrates=True, runs=True),)

    def passes(self, precision: Precision) -> tuple[Pass, ...]:
        """Return the passes for a device."""
        from tcc.compiler.passes import INFERENCE, INT8

        return INT8 if precision.integer else INFERENCE

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return the packages that read and write the format."""
        return tuple(Tool(name, use, installed_version(name)) for name, use in PACKAGES)

    def refusals(self, target: Target, graph: Graph) -> Iterator[Refusal]:
        """Yield each node that TFLite has no operator for."""
        from tcc.backends.tflite.float_operators import FLOAT
        from tcc.backends.tflite.integer_operators import INTEGER_OPERATORS

        for node in graph.nodes:
            kinds = (*graph.get_input_types(node), node.type)
            # The tables of `description`: float operators for float nodes, else integer ones.
            is_float = all(kind.dtype is DType.F32 for kind in kinds)
            if type(node.op) not in (FLOAT if is_float else INTEGER_OPERATORS):
                yield Refusal(node, f"TFLite has no rule for {node.op.keyword}")

    def describe_caveats(self, target: Target, precision: Precision) -> str:
        """Return a note if integer arithmetic may be slow on this processor."""
        return explain_slow_integers(read_features()) if precision.integer else ""

    def remarks(self, target: Target, graph: Graph) -> Iterator[Remark]:
        """Yield each lookup table over the pixels of a map without an exact float function."""
        from tcc.backends.tflite.integer_operators import SMOOTH_FUNCTIONS
        from tcc.compiler.lower.integer_variants import find_slow_tables

        return find_slow_tables(graph, lambda _, table: type(table.function) in SMOOTH_FUNCTIONS)

    def emit(
        self,
        target: Target,
        model: Model,
        precision: Precision = FP32,
        progress: Progress = silent,
    ) -> Artifact:
        """Return `model.tflite`.

        Raises:
            MissingTool: A package that writes the format is not installed.
            UserError: The weights exceed the size limit of a file (E0450).
        """
        self._require_tools(target)
        progress(target.name, 0, 1)
        content = _write(model, precision)
        progress(target.name, 1, 1)
        return Artifact({FILE: content})

    def check_constants(
        self, target: Target, folder: Path, sources: ConstantSources
    ) -> Iterator[ConstantCheck]:
        """Compare the file with the file that the network gives.

        Raises:
            MissingTool: A package that reads and writes the format is not installed.
        """
        self._require_tools(target)
        from tcc.backends.tflite import file_inspection

        if sources.start_model is None:
            yield ConstantCheck(FILE, uncompared=UNKNOWN)
            return
        expected = _write(sources.start_model, sources.precision)
        with regular_files.open_file(folder / FILE) as file:
            actual = file.read()
        yield file_inspection.compare_files(FILE, expected, actual, same_tools=sources.same_tools)

    def read_number_types(self, target: Target, folder: Path) -> NumberTypes:
        """Return the number types that the file computes with.

        Raises:
            MissingTool: A package that reads the format is not installed.
            UserError: It is not a TFLite file, or not one that tcc writes (E0651).
        """
        self._require_tools(target)
        from tcc.backends.tflite import runner

        return runner.read_numbers(folder / FILE)

    def infer(
        self, target: Target, folder: Path, network_input: Input, tensors: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the file on preprocessed tensors, one at a time; return raw outputs by name.

        Raises:
            MissingTool: LiteRT is not installed.
            UserError: LiteRT cannot run the file (E0651).
        """
        self._require_tools(target)
        from tcc.backends.tflite import runner

        return runner.infer(folder / FILE, network_input, tensors)

    def trace_quantized_values(
        self, target: Target, folder: Path, network_input: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the file on tensors; yield the quantized values between its layers.

        Raises:
            MissingTool: LiteRT is not installed.
            UserError: LiteRT cannot run the file (E0651).
        """
        self._require_tools(target)
        from tcc.backends.tflite import runner

        return runner.run_with_inner_values(folder / FILE, tensors)

    def trace_float_values(
        self, target: Target, folder: Path, network_input: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the file on tensors; yield its float values. Errors as above."""
        self._require_tools(target)
        from tcc.backends.tflite import file_inspection, runner

        return runner.run_with_inner_values(folder / FILE, tensors, file_inspection.FLOAT_TYPES)

    def measure(
        self,
        target: Target,
        folder: Path,
        network_input: Input,
        workload: Workload,
        progress: Progress = silent,
    ) -> Measurement:
        """Time the file with XNNPACK.

        Raises:
            MissingTool: LiteRT is not installed.
            UserError: LiteRT cannot run the file (E0651).
        """
        self._require_tools(target)
        from tcc.backends.tflite import runner

        return runner.measure(folder / FILE, network_input, workload, progress)

    @property
    def board_runner(self) -> str:
        """LiteRT's own program for running files on a board."""
        return "benchmark_model"

    def measure_on_board(
        self,
        target: Target,
        folder: Path,
        network_input: Input,
        task: BoardTask,
        progress: Progress = silent,
    ) -> tuple[Measurement, None]:
        """Time the file on a board with LiteRT's own program, which returns no outputs.

        Raises:
            UserError: There is no such program (E0601), it fails (E0651), or the board does not
                respond correctly (E0658).
        """
        from tcc.backends.tflite import board_benchmark

        progress("time", 0, 1)
        return board_benchmark.measure(folder / FILE, task), None

    def _require_tools(self, target: Target) -> None:
        missing = [tool for tool in self.tools(target) if tool.version is None]
        if missing:
            raise MissingTool(missing[0])


def _write(model: Model, precision: Precision) -> bytes:
    """Return the file of a model; for int8 precisions, of the integer program."""
    from tcc.backends.tflite.description import describe_floats, describe_integers
    from tcc.backends.tflite.precision_conversion import CONVERSIONS
    from tcc.backends.tflite.writer import pack

    # Two functions describe files, one packs them; float precisions only convert stored weights.
    describe = describe_integers if precision.integer else describe_floats
    return pack(CONVERSIONS[precision](describe(model)))
