"""The target `web`."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.ir.constant_checker import UNKNOWN, ConstantCheck, ConstantSources
from tcc.compiler.ir.graph import Graph, Input, Model, Pass
from tcc.compiler.ir.number_types import Numbers
from tcc.compiler.ir.precision import FP32, Arithmetic, Precision, Storage
from tcc.compiler.ir.target import Artifact, Refusal, Target
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.support.npm_packages import NpmPackage
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

FP16 = Precision("fp16", "weights sent as float16, sums in float32", weights=Storage.FLOAT16)
INT8 = Precision("int8", "the integer program with QLinearConv", Arithmetic.INTEGER)
INT8_I8 = Precision(
    "int8-i8",
    "the same with 8-bit levels at its ends, whose real numbers come last",
    Arithmetic.INTEGER,
    real_ends=False,
)
OPSET = 17
FILE, LEVELS = "model.onnx", "levels.bin"
"""The network, and what is appended to it to see its 8-bit integers, where it has some."""
SITE = Path(__file__).resolve().parent / "site"
"""The page around a network: plain files, the same for all."""
RUNTIME_FOLDER = "onnxruntime"
"""The folder of ONNX Runtime's files in a page."""
# The smallest build that knows all operators: WebAssembly with SIMD.
RUNTIME = NpmPackage(
    "onnxruntime-web",
    "build pages for browsers",
    {
        "dist/ort.wasm.bundle.min.mjs": (
            "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"
        ),
        "dist/ort-wasm-simd-threaded.wasm": (
            "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
        ),
    },
)


@dataclass(frozen=True, slots=True)
class Web:
    """Builds a page with the network and ONNX Runtime in it, and runs its code in Node."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The one target."""
        title = "page for browsers, run by ONNX Runtime as WebAssembly"
        precisions = (FP32, FP16, INT8, INT8_I8)
        return (Target("web", title, precisions, calibrates=True, runs=True),)

    def passes(self, precision: Precision) -> tuple[Pass, ...]:
        """Return what makes of a network what a device runs."""
        from tcc.compiler.passes import INFERENCE, INT8

        return INT8 if precision.integer else INFERENCE

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return what is vendored, and what runs the page's code here."""
        return (RUNTIME.tool(), _node())

    def fetch(self, target: Target) -> None:
        """Have what is vendored here.

        Raises:
            MissingTool: It cannot be fetched.
        """
        RUNTIME.files()

    def refusals(self, target: Target, graph: Graph) -> Iterator[Refusal]:
        """Yield each node that is none of tcc's own: ONNX Runtime's page knows all of ONNX."""
        from tcc.compiler.ops import INTERNAL, OPS
        from tcc.compiler.ops.integer import INTEGERS

        known = {*OPS, *INTERNAL, *INTEGERS}
        for node in graph.nodes:
            if type(node.op) not in known:
                yield Refusal(node, f"ONNX Runtime has no rule for {node.op.word}")

    def emit(
        self,
        target: Target,
        model: Model,
        precision: Precision = FP32,
        progress: Progress = silent,
    ) -> Artifact:
        """Return the page, the network's ONNX file, and ONNX Runtime.

        Raises:
            MissingTool: ONNX Runtime for browsers is not here and cannot be fetched.
            UserError: The weights exceed what an ONNX file holds.
        """
        from tcc.compiler.lower.onnx_inspection import inner_outputs

        progress(target.name, 0, 2)
        runtime = RUNTIME.files()
        progress(target.name, 1, 2)
        data = _write(model, precision)
        network = {FILE: data}
        if precision.integer:
            network[LEVELS] = inner_outputs(data)
        page = {path.name: path.read_bytes() for path in sorted(SITE.iterdir()) if path.is_file()}
        beside = {f"{RUNTIME_FOLDER}/{name}": file for name, file in runtime.items()}
        progress(target.name, 2, 2)
        return Artifact({**page, **network, **beside})

    def check_constants(
        self, target: Target, folder: Path, sources: ConstantSources
    ) -> Iterator[ConstantCheck]:
        """Compare the page's network with the file that the network gives."""
        from tcc.compiler.lower import onnx_comparison

        if sources.start is None:
            yield ConstantCheck(FILE, uncompared=UNKNOWN)
            return
        expected = _write(sources.start, sources.precision)
        actual = _data(folder / FILE)
        yield onnx_comparison.compare(FILE, expected, actual, same_tools=sources.same_tools)

    def numbers(self, target: Target, folder: Path) -> Numbers:
        """Return what the network's file computes with.

        Raises:
            UserError: It is no ONNX model, or one that tcc does not write (E0651).
        """
        from tcc.compiler.lower.onnx_inspection import numbers

        path = folder / FILE
        try:
            return numbers(_data(path))
        except Exception as error:  # protobuf has exception types of its own
            label = (str(error).splitlines() or [type(error).__name__])[0][:160]
            message = "the page's network cannot be read"
            raise fail("E0651", message, whole_file(str(path)), label=label) from error

    def code(self, names: "Iterable[str]") -> tuple[str, ...]:
        """Return all but the network: Node runs whatever a page's code names."""
        return tuple(name for name in names if name != FILE)

    def infer(
        self, target: Target, folder: Path, source: Input, tensors: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the page's code in Node on preprocessed tensors; return raw outputs by name.

        Raises:
            MissingTool: Node is not here.
            UserError: The page's code fails (E0651).
        """
        self._need()
        from tcc.backends.web import headless

        return headless.infer(folder, source, tensors)

    def run(
        self, target: Target, folder: Path, images: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the page's code in Node on images, by the contract in the manifest beside it.

        Raises:
            MissingTool: Node is not here.
            UserError: The page's code fails (E0651).
        """
        self._need()
        from tcc.backends.web import headless

        return headless.run(folder, images)

    def inner_levels(
        self, target: Target, folder: Path, source: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the page's code in Node with all that lies between the layers given out; yield it.

        Raises:
            MissingTool: Node is not here.
            UserError: The page's code fails (E0651).
        """
        self._need()
        from tcc.backends.web import headless

        return headless.inner_levels(folder, source, tensors)

    def inner_values(
        self, target: Target, folder: Path, source: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the page's code in Node with the network's floats given out; errors as above."""
        self._need()
        from tcc.backends.web import headless

        return headless.inner_values(folder, source, tensors)

    def _need(self) -> None:
        if _node().version is None:
            raise MissingTool(_node())


def _node() -> Tool:
    found = "found" if shutil.which("node") else None
    return Tool("node", "run pages here", found, builds=False)


def _write(model: Model, precision: Precision) -> bytes:
    """Return the ONNX file of a model at a precision; an integer one takes the integer program."""
    from tcc.compiler.lower.onnx import lower
    from tcc.compiler.lower.onnx_constants import compact
    from tcc.compiler.lower.small_weights import half

    lowered = compact(lower(half(model) if precision == FP16 else model, OPSET), fill=True)
    data: bytes = lowered.SerializeToString(deterministic=True)
    return data


def _data(path: Path) -> bytes:
    with regular_files.opened(path) as file:
        return file.read()
