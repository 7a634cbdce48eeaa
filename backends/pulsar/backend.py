"""The targets `ax620`, `ax620e` and `ax650`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from tcc.backends.pulsar.chips import CHIPS, PRECISIONS, ROUNDED_INT8, Toolchain, get_chip
from tcc.backends.pulsar.scripts import ARCHIVE
from tcc.compiler.ir.constant_checker import UNKNOWN, ConstantCheck, ConstantSources
from tcc.compiler.ir.graph import Graph, Input, Pass
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.target import Artifact, PackageSources, Refusal, Remark, Target, ToolResults
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.external_tools import Tool, installed_version
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

COMPILED = "compiled"
"""The folder of the vendor tool's outputs, where the tool ran on this machine."""


@dataclass(frozen=True, slots=True)
class SimulatedPackage:
    """Runs one file of a package on the CPU. It does not simulate the NPU itself."""

    targets: tuple[Target, ...]
    file: str

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return ONNX Runtime, which is installed with tcc."""
        use = f"run {self.file} of packages"
        return (Tool("onnxruntime", use, installed_version("onnxruntime"), builds=False),)

    def infer(
        self, target: Target, folder: Path, network_input: Input, tensors: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the file on preprocessed tensors, one at a time; return raw outputs by name.

        Raises:
            UserError: ONNX Runtime cannot run the file on these tensors (E0651).
        """
        from tcc.compiler.lower import onnx_inspection
        from tcc.compiler.reference import onnxruntime_session as sessions

        path = folder / self.file
        try:
            with regular_files.open_file(path) as file:
                content = file.read()
            # The file may come from somebody else: the runtime never ends an infinite loop.
            onnx_inspection.check_control_flow(content)
            session = sessions.create_session(content, deterministic=True)
            names = [output.name for output in session.get_outputs()]
            # The NPU reads floats, even where an image has integer pixel values.
            feeds = ({network_input.name: tensor[None].astype("float32")} for tensor in tensors)
            runs = [session.run(names, feed) for feed in feeds]
        except Exception as error:  # the runtime has its own exception type for each cause
            raise _make_model_error(path, error) from error
        return [dict(zip(names, (batch[0] for batch in run), strict=True)) for run in runs]


@dataclass(frozen=True, slots=True)
class Pulsar:
    """Builds packages for one of the vendor toolchains, by the rules of its documents.

    Where docker and the toolchain's image are installed, it also compiles the package.
    """

    toolchain: Toolchain

    @property
    def targets(self) -> tuple[Target, ...]:
        """One target for each chip of the toolchain."""
        chips = (npu_chip for npu_chip in CHIPS if npu_chip.toolchain is self.toolchain)
        precisions = PRECISIONS[self.toolchain]
        return tuple(
            Target(npu_chip.target, npu_chip.title, precisions, calibrates=True)
            for npu_chip in chips
        )

    @property
    def archive(self) -> str:
        """The path of the package's file with the calibration inputs."""
        return ARCHIVE

    def passes(self, precision: Precision) -> tuple[Pass, ...]:
        """Return the passes that rewrite a model to operators that the NPU supports."""
        from tcc.backends.pulsar.rewrite import FLOAT_PASSES

        return FLOAT_PASSES[self.toolchain]

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return onnx, which writes the files and is installed with tcc."""
        return (Tool("onnx", "write ONNX files", installed_version("onnx")),)

    def refusals(self, target: Target, graph: Graph) -> Iterator[Refusal]:
        """Yield each node that the NPU cannot run according to the documents."""
        from tcc.backends.pulsar.rules import support_check

        return support_check.find_refusals(graph, get_chip(target.name))

    def remarks(self, target: Target, graph: Graph) -> Iterator[Remark]:
        """Yield each node that is slow, or may not run on the NPU, according to the documents."""
        from tcc.backends.pulsar.rules import support_check

        return support_check.find_remarks(graph, get_chip(target.name))

    def build_package(
        self,
        target: Target,
        sources: PackageSources,
        precision: Precision,
        progress: Progress = silent,
    ) -> Artifact:
        """Return the files of a package, and the tool's outputs if the tool is installed.

        Raises:
            UserError: The weights are too large for an ONNX file, or the tool fails (E0672).
        """
        from tcc.backends.pulsar import container, contract, logs, scripts
        from tcc.backends.pulsar.container import ToolImage
        from tcc.backends.pulsar.package import TOOLS, build_package_files
        from tcc.backends.pulsar.rules import check

        progress(target.name, 0, 1)
        target_chip, tool = get_chip(target.name), TOOLS[self.toolchain]
        files = build_package_files(sources, target_chip, rounded=precision == ROUNDED_INT8)
        # Check the written files: this also covers what passes or the writer did to the graph.
        check.verify(files, target_chip)
        image = container.find_image(tool) if sources.compiles else ToolImage("", "--no-tool")
        report = None
        if image.name:
            names = [output.name for output in contract.list_outputs(sources.float_model.graph)]
            numbers = range(1, len(sources.golden_inputs) + 1)
            golden_paths = (
                logs.build_output_paths(self.toolchain, number, names) for number in numbers
            )
            outputs = [path for output in golden_paths for path in output.values()]
            compiled = container.compile_package(tool, image.name, files, outputs, progress)
            text = compiled.get(scripts.LOG, b"").decode(errors="replace")
            report = logs.parse_log(self.toolchain, text, names, image.name)
            files |= {f"{COMPILED}/{path}": content for path, content in compiled.items()}
        progress(target.name, 1, 1)
        return Artifact(files, frozenset({"build.sh"}), report, uncompiled=image.missing_reason)

    def find_simulator(self, target: Target) -> tuple[SimulatedPackage, str] | None:
        """Return a runner for the int8 model of Pulsar2; packages for Pulsar have only floats."""
        from tcc.backends.pulsar.package import QDQ_FILE

        match self.toolchain:
            case Toolchain.PULSAR:
                return None
            case Toolchain.PULSAR2:
                targets = (replace(target, runs=True),)
                return SimulatedPackage(targets, QDQ_FILE), QDQ_FILE
            case _:
                assert_never(self.toolchain)

    def check_constants(
        self, target: Target, folder: Path, sources: ConstantSources
    ) -> Iterator[ConstantCheck]:
        """Compare the package's networks with those of this model, but not the tool's output."""
        from tcc.backends.pulsar.package import build_networks
        from tcc.compiler.lower import onnx_comparison

        rounded = sources.precision == ROUNDED_INT8
        models = build_networks(
            sources.float_model, sources.integer_program, get_chip(target.name), rounded=rounded
        )
        for file, expected in models.items():
            if not (folder / file).is_file():
                yield ConstantCheck(file, problem="it is missing from the package")
                continue
            if expected is None:
                yield ConstantCheck(file, uncompared=UNKNOWN)
                continue
            with regular_files.open_file(folder / file) as opened:
                actual = opened.read()
            yield onnx_comparison.compare(file, expected, actual, same_tools=sources.same_tools)
        if (folder / COMPILED).is_dir():
            yield ConstantCheck(COMPILED, uncompared="the vendor toolchain wrote it")

    def pack_calibration_data(
        self, target: Target, network_input: Input, samples: "Iterable[np.ndarray]"
    ) -> tuple[bytes, int]:
        """Return the package's archive of samples, and how many samples it contains."""
        from tcc.backends.pulsar import calibration_data

        return calibration_data.pack_samples(network_input, samples, self.toolchain)

    def read_tool_results(
        self, target: Target, outputs: Mapping[str, tuple[int, ...]], log: Path
    ) -> ToolResults:
        """Return the tool's report from its log, and its golden outputs from `gt` next to the log.

        Raises:
            UserError: The file is not a log of the tool, or `gt` does not fit the outputs (E0671).
        """
        from tcc.backends.pulsar import logs

        report = logs.parse_log(self.toolchain, logs.read_log(log), outputs, str(log))
        return ToolResults(report, logs.read_outputs(self.toolchain, log.parent, outputs))


def _make_model_error(path: Path, error: Exception) -> UserError:
    label = (str(error).splitlines() or [type(error).__name__])[0][:160]
    message = "ONNX Runtime cannot run the package's network"
    help = "build the bundle again"
    return fail("E0651", message, make_file_span(str(path)), label=label, help=help)
