"""The reference executor: the float graph as written, unfused, in ONNX Runtime."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tcc.compiler.graph import Model
from tcc.compiler.lower.onnx import lower

NAME = "onnxruntime"
Tensor = NDArray[np.float32]


def run(model: Model, tensors: Sequence[Tensor]) -> list[Mapping[str, Tensor]]:
    """Return the raw outputs, by name, of each input tensor (without a batch axis)."""
    session = _session(model)
    names = [output.name for output in session.get_outputs()]
    (source,) = session.get_inputs()
    batches = (session.run(names, {source.name: tensor[None]}) for tensor in tensors)
    return [dict(zip(names, (b[0] for b in batch), strict=True)) for batch in batches]


def evaluate(model: Model, feeds: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the raw outputs (N, ...) by name, given every input (N, ...) by name."""
    session = _session(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _session(model: Model) -> onnxruntime.InferenceSession:
    """Return a session of one thread and no graph optimisation: sums run in the same order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        lower(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
