"""Sessions of ONNX Runtime in which the same input always gives the same bits."""

from typing import TypeAlias

import onnxruntime

# Whoever imported it before tcc had no switch set (`support.process_setup`): this ends most events.
onnxruntime.disable_telemetry_events()

Session: TypeAlias = onnxruntime.InferenceSession

EXACT_PRODUCTS = "session.x64quantprecision"
"""Has ONNX Runtime make the weights of integer operations unsigned when it loads a model: the same
results, slower, on processors whose products of unsigned and signed 8-bit integers saturate."""
ERRORS, FATAL = 3, 4
"""From which severity on ONNX Runtime writes to standard error."""


def create_session(
    model: bytes,
    *,
    optimised: bool = True,
    deterministic: bool = False,
    exact_products: bool = False,
    release_memory: bool = False,
    severity: int = ERRORS,
) -> Session:
    """Return a session on one thread of the CPU; several may run at once.

    With more threads ONNX Runtime splits sums by their number, and float32 sums of another order
    have other bits.

    Args:
        model: The bytes of an ONNX file.
        optimised: Let ONNX Runtime fuse and reorder operations. It is faster; integers stay the
            same, but floats are rounded otherwise than by the graph's own order.
        deterministic: Have it take those of its kernels alone that promise the same bits each run.
        release_memory: Give memory back after each operation, rather than keep what each of several
            threads once needed: as fast for maps as large as images make them.
        exact_products: Load integer weights so that no product saturates (`EXACT_PRODUCTS`).
        severity: The least severity of what ONNX Runtime logs.

    Raises:
        Exception: It is no model that ONNX Runtime can load; each cause has a type of its own.
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
    # The CPU alone: other providers have kernels of their own, which promise no bits.
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
