"""ONNX Runtime sessions with bit-identical results for the same input."""

from typing import TypeAlias

import onnxruntime

# If it was imported before tcc set its switch (`support.process_setup`): this stops most events.
onnxruntime.disable_telemetry_events()

Session: TypeAlias = onnxruntime.InferenceSession

EXACT_PRODUCTS = "session.x64quantprecision"
"""Makes ONNX Runtime convert the weights of integer operations to unsigned when it loads a model.
The results are the same but slower. Needed on processors that saturate products of unsigned and
signed 8-bit integers."""
ERRORS, FATAL = 3, 4
"""Minimum severity of messages that ONNX Runtime writes to standard error."""


def create_session(
    model: bytes,
    *,
    optimised: bool = True,
    deterministic: bool = False,
    exact_products: bool = False,
    release_memory: bool = False,
    severity: int = ERRORS,
) -> Session:
    """Return a session on one CPU thread; several sessions may run at once.

    With more threads ONNX Runtime splits sums by their number, and float32 sums in another order
    have other bits.

    Args:
        model: The bytes of an ONNX file.
        optimised: Let ONNX Runtime fuse and reorder operations. It is faster; integers stay the
            same, but floats are rounded differently from the graph's own order.
        deterministic: Use only kernels that promise the same bits each run.
        release_memory: Release memory after each operation, instead of keeping what each of several
            threads once needed. As fast for maps of the size of images.
        exact_products: Load integer weights so that no product saturates (`EXACT_PRODUCTS`).
        severity: Minimum severity of ONNX Runtime's log messages.

    Raises:
        Exception: ONNX Runtime cannot load the model; each cause has a type of its own.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = options.enable_mem_pattern = not release_memory
    options.use_deterministic_compute = deterministic
    options.log_severity_level = severity
    if exact_products:
        options.add_session_config_entry(EXACT_PRODUCTS, "1")
    # CPU only: other providers have different kernels, without bit-identical results.
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
