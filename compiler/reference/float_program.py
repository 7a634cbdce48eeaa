"""The reference executor: the float graph as written, unfused, in ONNX Runtime.

Integer graphs run in it as well, with the results that `tcc.compiler.quant.integer` defines.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx import lower
from tcc.compiler.lower.unsigned_weights import unsigned
from tcc.compiler.support.cpu import features, products

NAME = "onnxruntime"
Tensor = NDArray[np.float32]


def run(model: Model, tensors: Sequence[Tensor]) -> list[Mapping[str, Tensor]]:
    """Return the raw outputs, by name, of each input tensor (without a batch axis)."""
    one = prepared(model)
    return [one(tensor) for tensor in tensors]


def prepared(model: Model, *, optimised: bool = False) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """Return what gives a model's raw outputs, by name, for an input tensor, without batch axes.

    `optimised` is faster: integers stay the same, floats are rounded otherwise.
    """
    session = _session(model, optimised=optimised)
    names = [output.name for output in session.get_outputs()]
    (source,) = model.graph.inputs

    def one(tensor: Tensor) -> Mapping[str, Tensor]:
        given = tensor[None].astype(source.type.dtype.value)
        return {
            n: v[0] for n, v in zip(names, session.run(names, {source.name: given}), strict=True)
        }

    return one


def evaluate(model: Model, feeds: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the raw outputs (N, ...) by name, given every input (N, ...) by name."""
    session = _session(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _session(model: Model, *, optimised: bool = False) -> onnxruntime.InferenceSession:
    """Return a session of one thread, so that sums always run in the same order.

    Without graph optimisation, that order is the graph's own.
    Integer weights are unsigned where the processor's products of mixed signs saturate.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    )
    options.log_severity_level = 3
    fit = unsigned(model) if products(features()).unsigned else model
    return onnxruntime.InferenceSession(
        lower(fit).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
