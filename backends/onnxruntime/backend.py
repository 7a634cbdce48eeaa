"""The target `onnxruntime`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.backends.onnxruntime.precisions import PRECISIONS
from tcc.compiler.ir.constant_checker import UNKNOWN, ConstantCheck, ConstantSources
from tcc.compiler.ir.graph import Graph, Input, Model, Pass
from tcc.compiler.ir.measurement import Measurement, Workload
from tcc.compiler.ir.number_types import NumberTypes
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.ir.target import Artifact, Refusal, Remark, Target
from tcc.compiler.support import regular_files
from tcc.compiler.support.cpu import explain_slow_integers, read_features, select_product_types
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.external_tools import Tool, installed_version
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

    from tcc.compiler.reference.onnxruntime_session import Session

MODEL_FILE = "model.onnx"


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """Builds `model.onnx` with a dynamic batch axis, and runs it on one thread.

    At `fp32` batch norms are kept: the file has the spec's weights under the spec's names, so that
    other tools can read and train them. ONNX Runtime folds the batch norms when it loads the file.
    `fp16` and `dynamic` are smaller files of the folded network. The int8 model is written with
    QLinearConv (`int8`), with unsigned weights that no processor saturates (`int8-u8u8`), or in QDQ
    form for tools that require it (`int8-qdq`).
    """

    opset: int = 17
    """First opset with LayerNormalization. Older opsets can be read by more runtimes."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The one target."""
        title = "ONNX file, run by ONNX Runtime"
        return (Target("onnxruntime", title, PRECISIONS, ("ort",), calibrates=True, runs=True),)

    def passes(self, precision: Precision) -> tuple[Pass, ...]:
        """Return passes that keep all weights for `fp32`, or else those for a device."""
        from tcc.compiler.passes import INFERENCE, INT8, PLAIN

        # ONNX Runtime folds batch norms when it loads a file, so keeping the spec's weights costs
        # no run time.
        if precision.full:
            return PLAIN
        return INT8 if precision.integer else INFERENCE

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return onnx, for building, and ONNX Runtime, for running; both are installed with tcc."""
        needs = (("onnx", "write ONNX files", True), ("onnxruntime", "run ONNX files", False))
        return tuple(
            Tool(name, needed_for, installed_version(name), builds=builds)
            for name, needed_for, builds in needs
        )

    def refusals(self, target: Target, graph: Graph) -> Iterator[Refusal]:
        """Yield each node with a third-party op: tcc's own ops define their ONNX form."""
        from tcc.compiler.ops import INTERNAL, OPS
        from tcc.compiler.ops.integer import INTEGER_OPS

        supported_ops = {*OPS, *INTERNAL, *INTEGER_OPS}
        for node in graph.nodes:
            if type(node.op) not in supported_ops:
                yield Refusal(node, f"ONNX Runtime has no rule for {node.op.keyword}")

    def describe_caveats(self, target: Target, precision: Precision) -> str:
        """Return a note if integer arithmetic may be slow on this processor."""
        return explain_slow_integers(read_features()) if precision.integer else ""

    def remarks(self, target: Target, graph: Graph) -> Iterator[Remark]:
        """Yield each lookup table over the pixels of a map that is not computed instead."""
        from tcc.compiler.lower.integer_variants import find_computed_form, find_slow_tables

        return find_slow_tables(
            graph, lambda node, table: bool(find_computed_form(table, *graph.get_input_types(node)))
        )

    def emit(
        self,
        target: Target,
        model: Model,
        precision: Precision = FP32,
        progress: Progress = silent,
    ) -> Artifact:
        """Return `model.onnx`, without train-only parts.

        Raises:
            UserError: The weights exceed the size limit of an ONNX file.
        """
        from tcc.backends.onnxruntime.precision_conversion import encode_onnx

        progress(target.name, 0, 1)
        content = encode_onnx(model, precision, self.opset)
        progress(target.name, 1, 1)
        return Artifact({MODEL_FILE: content})

    def check_constants(
        self, target: Target, folder: Path, sources: ConstantSources
    ) -> Iterator[ConstantCheck]:
        """Compare the file with the file that the network gives.

        Raises:
            UserError: It cannot be read (E0651).
        """
        from tcc.backends.onnxruntime.precision_conversion import encode_onnx
        from tcc.compiler.lower import onnx_comparison

        if sources.start_model is None:
            yield ConstantCheck(MODEL_FILE, uncompared=UNKNOWN)
            return
        expected = encode_onnx(sources.start_model, sources.precision, self.opset)
        actual = _read_model(folder / MODEL_FILE)
        yield onnx_comparison.compare(MODEL_FILE, expected, actual, same_tools=sources.same_tools)

    def read_number_types(self, target: Target, folder: Path) -> NumberTypes:
        """Return the number types that the file computes with.

        Raises:
            UserError: It is not an ONNX model, or not one that tcc writes (E0651).
        """
        try:
            return _read_number_types(_read_bytes(folder / MODEL_FILE))
        except Exception as error:  # protobuf has exception types of its own
            raise _create_error(folder / MODEL_FILE, "load", error) from error

    def infer(
        self,
        target: Target,
        folder: Path,
        network_input: Input,
        tensors: "Sequence[np.ndarray]",
    ) -> "list[dict[str, np.ndarray]]":
        """Run the file on preprocessed tensors, one at a time; return raw outputs by name.

        Raises:
            UserError: ONNX Runtime cannot run it on these tensors (E0651).
        """
        ort_session = _get_cached_session(folder / MODEL_FILE, _read_model(folder / MODEL_FILE))
        names = [output.name for output in ort_session.get_outputs()]
        # One image at a time: a batch may be summed in another order.
        feeds = (tensor[None].astype(network_input.type.dtype.value) for tensor in tensors)
        try:
            runs = [ort_session.run(names, {network_input.name: feed}) for feed in feeds]
            return [dict(zip(names, map(_remove_batch_axis, run), strict=True)) for run in runs]
        except Exception as error:  # the runtime has exception types of its own for each cause
            raise _create_error(folder / MODEL_FILE, "run", error) from error

    def trace_quantized_values(
        self, target: Target, folder: Path, network_input: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the file on tensors; yield the quantized values between its layers.

        Raises:
            UserError: ONNX Runtime cannot run it on these tensors (E0651).
        """
        from tcc.compiler.lower.onnx_inspection import INTEGERS

        return _trace_values(folder / MODEL_FILE, network_input, tensors, INTEGERS)

    def trace_float_values(
        self, target: Target, folder: Path, network_input: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the file on tensors; yield its float values. Errors as above."""
        from tcc.compiler.lower.onnx_inspection import FLOATS

        return _trace_values(folder / MODEL_FILE, network_input, tensors, FLOATS)

    def measure(
        self,
        target: Target,
        folder: Path,
        network_input: Input,
        workload: Workload,
        progress: Progress = silent,
    ) -> Measurement:
        """Time the file on one thread.

        Raises:
            UserError: ONNX Runtime cannot run it (E0651), or more than one thread is requested
                (E0601).
        """
        from tcc.compiler.ir import in_process

        # Measured in the way it runs: `tcc run` and `verify` use one thread for the same reason.
        if workload.threads != 1:
            message = "ONNX Runtime runs on one thread here; more threads would change the results"
            raise fail("E0601", message, make_file_span("--threads"), help="remove `--threads`")
        feed = {network_input.name: workload.tensor[None].astype(network_input.type.dtype.value)}
        path = folder / MODEL_FILE
        description = f"ONNX Runtime {installed_version('onnxruntime')}, one thread"
        try:
            return in_process.measure(
                description,
                path,
                network_input,
                lambda: create_session(path),
                lambda s: s.run(None, feed),
                (workload, progress),
            )
        except UserError:
            raise
        except Exception as error:  # the runtime has exception types of its own for each cause
            raise _create_error(path, "run", error) from error


def _remove_batch_axis(batch: object) -> "np.ndarray":
    """Return an output without its batch axis of size one."""
    shape = getattr(batch, "shape", ())
    if shape[:1] != (1,):
        dims = "x".join(map(str, shape)) or "()"
        raise ValueError(f"an output of shape {dims} is not a batch of one")
    output: np.ndarray = batch[0]  # type: ignore[index]
    return output


def create_session(path: Path) -> "Session":
    """Return a session on one thread, with correct integer products on this processor.

    Raises:
        UserError: ONNX Runtime cannot load the model (E0651).
    """
    return _create_checked_session(path, _read_model(path))


def _read_model(path: Path) -> bytes:
    try:
        return _read_bytes(path)
    except OSError as error:
        raise _create_error(path, "load", error) from error


def _create_checked_session(path: Path, content: bytes) -> "Session":
    from tcc.compiler.lower import onnx_inspection
    from tcc.compiler.reference import onnxruntime_session as sessions

    has_exact_products = select_product_types(read_features()).unsigned
    try:
        # The file may be untrusted, and nothing in the runtime would end an endless loop.
        onnx_inspection.check_control_flow(content)
        return sessions.create_session(
            content, deterministic=True, exact_products=has_exact_products
        )
    except Exception as error:  # the runtime has exception types of its own for each cause
        raise _create_error(path, "load", error) from error


@lru_cache(maxsize=1)
def _get_cached_session(path: Path, content: bytes) -> "Session":
    """Return the session of a file, cached because many batches use one file.

    The content is part of the cache key, so a changed file is opened again.
    """
    return _create_checked_session(path, content)


@lru_cache(maxsize=1)
def _read_number_types(content: bytes) -> NumberTypes:
    from tcc.compiler.lower.onnx_inspection import find_number_types

    return find_number_types(content)


def _read_bytes(path: Path) -> bytes:
    with regular_files.open_file(
        path
    ) as file:  # read as bytes: the file name may be in any encoding
        return file.read()


def _create_error(path: Path, action: str, error: Exception) -> UserError:
    label = (str(error).splitlines() or [type(error).__name__])[0][:160]
    message = f"ONNX Runtime cannot {action} the model"
    help = "build the bundle again"
    return fail("E0651", message, make_file_span(str(path)), label=label, help=help)


def _trace_values(
    path: Path, network_input: Input, tensors: "Iterable[np.ndarray]", kinds: tuple[int, ...]
) -> "Iterator[Mapping[str, np.ndarray]]":
    """Yield a file's values of some types for each tensor, without batch axes of size one."""
    from tcc.compiler.lower.onnx_inspection import add_inner_outputs

    try:
        content, names = add_inner_outputs(_read_bytes(path), kinds)
    except Exception as error:  # protobuf has exception types of its own
        raise _create_error(path, "load", error) from error
    ort_session = _create_checked_session(path, content)
    for tensor in tensors:
        feed = {network_input.name: tensor[None].astype(network_input.type.dtype.value)}
        try:
            inner_tensors = ort_session.run(list(names), feed)
        except Exception as error:  # the runtime has exception types of its own
            raise _create_error(path, "run", error) from error
        yield dict(zip(names, inner_tensors, strict=True))
