"""The target `web`."""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.ir.constant_checker import UNKNOWN, ConstantCheck, ConstantSources
from tcc.compiler.ir.graph import Graph, Input, Model, Pass
from tcc.compiler.ir.number_types import NumberTypes
from tcc.compiler.ir.precision import FP32, Arithmetic, Precision, Storage
from tcc.compiler.ir.target import Artifact, Refusal, Target
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.support.npm_packages import NpmPackage
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

FP16 = Precision("fp16", "float16 weights, float32 arithmetic", weights=Storage.FLOAT16)
INT8 = Precision("int8", "int8 model with QLinearConv", Arithmetic.INTEGER)
INT8_I8 = Precision(
    "int8-i8",
    "the same with 8-bit inputs and outputs; a last step dequantizes the outputs",
    Arithmetic.INTEGER,
    float_io=False,
)
OPSET = 17
MODEL_FILE, QUANTIZED_OUTPUTS_FILE = "model.onnx", "levels.bin"
"""The network, and bytes appended to it that add its 8-bit integers as outputs."""
SITE_FOLDER = Path(__file__).resolve().parent / "site"
"""Files of the page around a network, the same for all networks."""
GUARD_FILE = "guard.js"
GUARD_SECTION = re.compile(rb"^ *// #ifdef GUARD\n(.*?)^ *// #endif\n", re.MULTILINE | re.DOTALL)
"""Lines of the page that only bundles with a guard have."""
RUNTIME_FOLDER = "onnxruntime"
"""Folder of ONNX Runtime's files in a page."""
# The smallest build with all operators: WebAssembly with SIMD.
RUNTIME_PACKAGE = NpmPackage(
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
    """Builds a page with the network and ONNX Runtime, and runs the page's code in Node.

    With `has_guard`, the page judges images by the guard of its bundle.
    """

    has_guard: bool = False

    @property
    def targets(self) -> tuple[Target, ...]:
        """The one target."""
        title = "page for browsers, run by ONNX Runtime as WebAssembly"
        precisions = (FP32, FP16, INT8, INT8_I8)
        return (Target("web", title, precisions, calibrates=True, runs=True),)

    def passes(self, precision: Precision) -> tuple[Pass, ...]:
        """Return the passes for a device."""
        from tcc.compiler.passes import INFERENCE, INT8

        return INT8 if precision.integer else INFERENCE

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return ONNX Runtime for browsers, and Node, which runs the page's code here."""
        return (RUNTIME_PACKAGE.find_tool(), _find_node())

    def fetch(self, target: Target) -> None:
        """Fetch ONNX Runtime for browsers.

        Raises:
            MissingTool: It cannot be fetched.
        """
        RUNTIME_PACKAGE.load_files()

    def refusals(self, target: Target, graph: Graph) -> Iterator[Refusal]:
        """Yield each node with a third-party op: tcc's own ops define their ONNX form."""
        from tcc.compiler.ops import INTERNAL, OPS
        from tcc.compiler.ops.integer import INTEGER_OPS

        supported_ops = {*OPS, *INTERNAL, *INTEGER_OPS}
        for node in graph.nodes:
            if type(node.op) not in supported_ops:
                yield Refusal(node, f"ONNX Runtime has no rule for {node.op.keyword}")

    def emit(
        self,
        target: Target,
        model: Model,
        precision: Precision = FP32,
        progress: Progress = silent,
    ) -> Artifact:
        """Return the page, the network's ONNX file, and ONNX Runtime.

        Raises:
            MissingTool: ONNX Runtime for browsers is missing and cannot be fetched.
            UserError: The weights exceed the size limit of an ONNX file.
        """
        from tcc.compiler.lower.onnx_inspection import build_inner_outputs

        progress(target.name, 0, 2)
        runtime = RUNTIME_PACKAGE.load_files()
        progress(target.name, 1, 2)
        model_bytes = _write(model, precision)
        network = {MODEL_FILE: model_bytes}
        if precision.integer:
            network[QUANTIZED_OUTPUTS_FILE] = build_inner_outputs(model_bytes)
        page = {
            path.name: _select_sections(path.read_bytes(), has_guard=self.has_guard)
            for path in sorted(SITE_FOLDER.iterdir())
            if path.is_file() and (self.has_guard or path.name != GUARD_FILE)
        }
        runtime_files = {f"{RUNTIME_FOLDER}/{name}": file for name, file in runtime.items()}
        progress(target.name, 2, 2)
        return Artifact({**page, **network, **runtime_files})

    def check_constants(
        self, target: Target, folder: Path, sources: ConstantSources
    ) -> Iterator[ConstantCheck]:
        """Compare the page's ONNX file with the file that the network gives."""
        from tcc.compiler.lower import onnx_comparison

        if sources.start_model is None:
            yield ConstantCheck(MODEL_FILE, uncompared=UNKNOWN)
            return
        expected = _write(sources.start_model, sources.precision)
        actual = _read_bytes(folder / MODEL_FILE)
        yield onnx_comparison.compare(MODEL_FILE, expected, actual, same_tools=sources.same_tools)

    def read_number_types(self, target: Target, folder: Path) -> NumberTypes:
        """Return the number types that the network's file computes with.

        Raises:
            UserError: It is not an ONNX model, or not one that tcc writes (E0651).
        """
        from tcc.compiler.lower.onnx_inspection import find_number_types

        path = folder / MODEL_FILE
        try:
            return find_number_types(_read_bytes(path))
        except Exception as error:  # protobuf has exception types of its own
            label = (str(error).splitlines() or [type(error).__name__])[0][:160]
            message, help = "cannot read the page's network", "build the bundle again"
            at = make_file_span(str(path))
            raise fail("E0651", message, at, label=label, help=help) from error

    def list_code_files(self, names: "Iterable[str]") -> tuple[str, ...]:
        """Return all files except the network: Node runs any file that a page's code names."""
        return tuple(name for name in names if name != MODEL_FILE)

    def infer(
        self, target: Target, folder: Path, network_input: Input, tensors: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the page's code in Node on preprocessed tensors; return raw outputs by name.

        Raises:
            MissingTool: Node is not installed.
            UserError: The page's code fails (E0651).
        """
        self._require_node()
        from tcc.backends.web import headless

        return headless.infer(folder, network_input, tensors)

    def run(
        self, target: Target, folder: Path, images: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the page's code in Node on images, by the input contract of the bundle's manifest.

        Raises:
            MissingTool: Node is not installed.
            UserError: The page's code fails (E0651).
        """
        self._require_node()
        from tcc.backends.web import headless

        return headless.run(folder, images)

    def trace_quantized_values(
        self, target: Target, folder: Path, network_input: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the page's code in Node; yield the quantized values between the layers.

        Raises:
            MissingTool: Node is not installed.
            UserError: The page's code fails (E0651).
        """
        self._require_node()
        from tcc.backends.web import headless

        return headless.trace_quantized_values(folder, network_input, tensors)

    def trace_float_values(
        self, target: Target, folder: Path, network_input: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the page's code in Node; yield the network's float values. Errors as above."""
        self._require_node()
        from tcc.backends.web import headless

        return headless.trace_float_values(folder, network_input, tensors)

    def with_guard(self, target: Target, guard: bytes) -> "Web":
        """Return a backend whose pages judge images by the guard of their bundle."""
        return replace(self, has_guard=True)

    def encode_guard_tables(
        self, target: Target, folder: Path, guard: bytes
    ) -> Mapping[str, bytes]:
        """Return no files: pages read `guard.json`."""
        return {}

    def run_guard(
        self, target: Target, folder: Path, network_input: Input, pixels: "Sequence[np.ndarray]"
    ) -> "list[np.ndarray]":
        """Return the guard's numbers as the page's code computes them, for images of a stream.

        Raises:
            MissingTool: Node is not installed.
            UserError: The page's code fails (E0651).
        """
        self._require_node()
        from tcc.backends.web import headless

        return headless.run_guard(folder, network_input, pixels)

    def _require_node(self) -> None:
        if _find_node().version is None:
            raise MissingTool(_find_node())


def _select_sections(content: bytes, *, has_guard: bool) -> bytes:
    """Return a file of the page with the lines of `#ifdef GUARD`, or without them."""
    # Pages without a guard do not mention it, as the C sources.
    return GUARD_SECTION.sub(rb"\1" if has_guard else b"", content)


def _find_node() -> Tool:
    version = "found" if shutil.which("node") else None
    return Tool("node", "run pages on this machine", version, builds=False)


def _write(model: Model, precision: Precision) -> bytes:
    """Return the ONNX file of a model at a precision; for int8, of the integer program."""
    from tcc.compiler.lower.onnx import lower
    from tcc.compiler.lower.onnx_constants import merge_constants
    from tcc.compiler.lower.small_weights import convert_float16

    lowered = merge_constants(
        lower(convert_float16(model) if precision == FP16 else model, OPSET), fill=True
    )
    content: bytes = lowered.SerializeToString(deterministic=True)
    return content


def _read_bytes(path: Path) -> bytes:
    with regular_files.open_file(path) as file:
        return file.read()
