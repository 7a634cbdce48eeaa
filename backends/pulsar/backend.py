"""The targets `ax620`, `ax620e` and `ax650`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from tcc.backends.pulsar.chips import CHIPS, Toolchain, chip
from tcc.backends.pulsar.precisions import PRECISIONS
from tcc.backends.pulsar.simulated_package import SimulatedPackage
from tcc.compiler.ir.constant_checker import UNKNOWN, ConstantCheck, ConstantSources
from tcc.compiler.ir.graph import Graph, Input, Pass
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.target import Artifact, PackageSources, Refusal, Remark, Target, ToolResults
from tcc.compiler.support import regular_files
from tcc.compiler.support.external_tools import Tool, installed_version
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

QDQ = "model_qdq.onnx"
"""The integer program in a package for Pulsar2."""
COMPILED = "compiled"
"""The folder of what the tool made, where it was here."""


@dataclass(frozen=True, slots=True)
class Pulsar:
    """Builds what one of the makers' toolchains compiles, by the rules of its documents.

    Where docker and the toolchain's image are, it has the package compiled too.
    """

    toolchain: Toolchain

    @property
    def targets(self) -> tuple[Target, ...]:
        """One target for each chip of the toolchain."""
        own = (each for each in CHIPS if each.toolchain is self.toolchain)
        kinds = PRECISIONS[self.toolchain]
        return tuple(Target(each.target, each.title, kinds, calibrates=True) for each in own)

    @property
    def archive(self) -> str:
        """The path of the package's file with what it was calibrated with."""
        return "calibration.tar"

    def passes(self, precision: Precision) -> tuple[Pass, ...]:
        """Return what makes of a model one of operators that the NPU has."""
        from tcc.backends.pulsar.rewrite import FLOAT

        return FLOAT[self.toolchain]

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return onnx, which builds and comes with tcc."""
        return (Tool("onnx", "write ONNX files", installed_version("onnx")),)

    def refusals(self, target: Target, graph: Graph) -> Iterator[Refusal]:
        """Yield each node that the documents say the NPU cannot run."""
        from tcc.backends.pulsar.rules import capability

        return capability.refusals(graph, chip(target.name))

    def remarks(self, target: Target, graph: Graph) -> Iterator[Remark]:
        """Yield each node that the documents say is slow, or may not be for the NPU."""
        from tcc.backends.pulsar.rules import capability

        return capability.remarks(graph, chip(target.name))

    def package(
        self,
        target: Target,
        sources: PackageSources,
        precision: Precision,
        progress: Progress = silent,
    ) -> Artifact:
        """Return the files of a package, and what the tool made of them where it is here.

        Raises:
            UserError: The weights exceed what an ONNX file holds, or the tool fails (E0672).
        """
        from tcc.backends.pulsar import container, contract, logs, scripts, simulated_outputs
        from tcc.backends.pulsar.container import ToolImage
        from tcc.backends.pulsar.pulsar2.package import TOOL as PULSAR2
        from tcc.backends.pulsar.rules import check
        from tcc.backends.pulsar.v1.package import TOOL as PULSAR

        progress(target.name, 0, 1)
        files = self._files(target, sources, precision)
        # By the files as written: what passes or the writer do to a graph that was allowed is seen
        # as well.
        check.verify(files, chip(target.name))
        tool = {Toolchain.PULSAR: PULSAR, Toolchain.PULSAR2: PULSAR2}[self.toolchain]
        found = container.image(tool) if sources.compiles else ToolImage("", "--no-tool")
        report = None
        if found.name:
            names = [each.name for each in contract.outputs(sources.floats.graph)]
            numbers = range(1, len(sources.goldens) + 1)
            listed = (simulated_outputs.paths(self.toolchain, n, names) for n in numbers)
            outputs = [path for each in listed for path in each.values()]
            made = container.compiled(tool, found.name, files, outputs, progress)
            text = made.get(scripts.LOG, b"").decode(errors="replace")
            report = logs.report(self.toolchain, text, names, found.name)
            files |= {f"{COMPILED}/{path}": data for path, data in made.items()}
        progress(target.name, 1, 1)
        return Artifact(files, frozenset({"build.sh"}), report, uncompiled=found.absent)

    def simulator(self, target: Target) -> tuple[SimulatedPackage, str] | None:
        """Return what runs the integer program that Pulsar2 reads; Pulsar is given floats alone."""
        match self.toolchain:
            case Toolchain.PULSAR:
                return None
            case Toolchain.PULSAR2:
                here = (replace(target, runs=True),)
                return SimulatedPackage(here, QDQ), QDQ
            case _:
                assert_never(self.toolchain)

    def check_constants(
        self, target: Target, folder: Path, sources: ConstantSources
    ) -> Iterator[ConstantCheck]:
        """Compare the networks that the tool is given; what it compiled is its own."""
        from tcc.compiler.lower import onnx_comparison

        for file, expected in self._networks(target, sources).items():
            if not (folder / file).is_file():
                yield ConstantCheck(file, problem="it is not in the package")
                continue
            if expected is None:
                yield ConstantCheck(file, uncompared=UNKNOWN)
                continue
            with regular_files.opened(folder / file) as opened:
                actual = opened.read()
            yield onnx_comparison.compare(file, expected, actual, same_tools=sources.same_tools)
        if (folder / COMPILED).is_dir():
            yield ConstantCheck(COMPILED, uncompared="it is the NPU tool's work")

    def calibration_data(
        self, target: Target, source: Input, samples: "Iterable[np.ndarray]"
    ) -> tuple[bytes, int]:
        """Return the archive of samples that the package has, and how many it took."""
        from tcc.backends.pulsar import calibration_data
        from tcc.backends.pulsar.pulsar2.package import sample as second
        from tcc.backends.pulsar.v1.package import sample as first

        sample = {Toolchain.PULSAR: first, Toolchain.PULSAR2: second}[self.toolchain]
        return calibration_data.packed(source, samples, sample)

    def tool_results(
        self, target: Target, outputs: Mapping[str, tuple[int, ...]], log: Path
    ) -> ToolResults:
        """Return what the tool said in a log, and gave for the goldens, in `gt` beside it.

        Raises:
            UserError: It is no log of the tool (E0671), or what is beside it are no outputs.
        """
        from tcc.backends.pulsar import logs, simulated_outputs

        report = logs.report(self.toolchain, logs.read(log), outputs, str(log))
        return ToolResults(report, simulated_outputs.read(self.toolchain, log.parent, outputs))

    def _networks(self, target: Target, sources: ConstantSources) -> dict[str, bytes | None]:
        """Return the ONNX files of a package, as far as what they are written from is known."""
        from tcc.backends.pulsar.onnx_model import npu_onnx
        from tcc.backends.pulsar.precisions import ROUNDED
        from tcc.backends.pulsar.pulsar2.qdq import qdq_onnx
        from tcc.backends.pulsar.v1.rounded_weights import rounded_weights

        target_chip, floats = chip(target.name), sources.floats
        if floats and sources.precision == ROUNDED:
            floats = rounded_weights(floats)
        model = program = None
        if floats:
            model = npu_onnx(floats, target_chip).SerializeToString(deterministic=True)
        if sources.program:
            program = qdq_onnx(sources.program, target_chip)
        match self.toolchain:
            case Toolchain.PULSAR:
                return {"model.onnx": model}
            case Toolchain.PULSAR2:
                return {"model.onnx": model, QDQ: program}
            case _:
                assert_never(self.toolchain)

    def _files(
        self, target: Target, sources: PackageSources, precision: Precision
    ) -> dict[str, bytes]:
        from tcc.backends.pulsar.precisions import ROUNDED
        from tcc.backends.pulsar.pulsar2 import package as second
        from tcc.backends.pulsar.v1 import package as first
        from tcc.backends.pulsar.v1.rounded_weights import rounded_weights

        match self.toolchain:
            case Toolchain.PULSAR:
                rounded = precision == ROUNDED
                model = rounded_weights(sources.floats) if rounded else sources.floats
                return first.files(model, sources, chip(target.name))
            case Toolchain.PULSAR2:
                return second.files(sources, chip(target.name))
            case _:
                assert_never(self.toolchain)
