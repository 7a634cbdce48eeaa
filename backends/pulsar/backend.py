"""The targets `ax620`, `ax620e` and `ax650`."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from tcc.backends.pulsar.chips import CHIPS, Toolchain, chip
from tcc.compiler.ir.graph import Graph, Model, Pass
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.ir.target import Artifact, Refusal, Remark, Target
from tcc.compiler.support.external_tools import Tool
from tcc.compiler.support.progress import Progress, silent

FILE = "model.onnx"


@dataclass(frozen=True, slots=True)
class Pulsar:
    """Builds what one of the makers' toolchains compiles, by the rules of its documents."""

    toolchain: Toolchain

    @property
    def targets(self) -> tuple[Target, ...]:
        """One target for each chip of the toolchain."""
        own = (each for each in CHIPS if each.toolchain is self.toolchain)
        return tuple(Target(each.target, each.title, (FP32,), calibrates=True) for each in own)

    def passes(self, precision: Precision) -> tuple[Pass, ...]:
        """Return what makes of a model one of operators that the NPU has."""
        from tcc.backends.pulsar.rewrite import FLOAT

        return FLOAT[self.toolchain]

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return onnx, which builds and comes with tcc."""
        return (Tool("onnx", "write ONNX files", version("onnx")),)

    def refusals(self, target: Target, graph: Graph) -> Iterator[Refusal]:
        """Yield each node that the documents say the NPU cannot run."""
        from tcc.backends.pulsar.rules import capability

        return capability.refusals(graph, chip(target.name))

    def remarks(self, target: Target, graph: Graph) -> Iterator[Remark]:
        """Yield each node that the documents say is slow, or may not be for the NPU."""
        from tcc.backends.pulsar.rules import capability

        return capability.remarks(graph, chip(target.name))

    def emit(
        self,
        target: Target,
        model: Model,
        precision: Precision = FP32,
        progress: Progress = silent,
    ) -> Artifact:
        """Return `model.onnx`.

        Raises:
            UserError: The weights exceed what an ONNX file holds.
        """
        from tcc.backends.pulsar.onnx_model import npu_onnx

        made = npu_onnx(model, chip(target.name))
        return Artifact({FILE: made.SerializeToString(deterministic=True)})
