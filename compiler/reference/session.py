"""Sessions of ONNX Runtime in which the same input always gives the same bits."""

from typing import TypeAlias

import onnxruntime

Session: TypeAlias = onnxruntime.InferenceSession


def session(model: bytes) -> Session:
    """Return a session on one thread, so that sums run in one order; several may run at once."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
