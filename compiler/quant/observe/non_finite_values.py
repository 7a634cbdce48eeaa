"""Which layer is the first to give NaN or infinity."""

import numpy as np

from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx_taps import Extreme, Part, feeds, tapped
from tcc.compiler.quant.observe.statistics import Float32
from tcc.compiler.reference.onnxruntime_session import session
from tcc.compiler.support.diagnostics import NOWHERE, UserError, fail


def overflow(model: Model, tensor: Float32) -> UserError:
    """Return what is wrong with a model that gives no finite numbers for a tensor.

    Every value is looked at whole: the extremes of an observation may miss a NaN.
    """
    graph = model.graph
    image = {name for name, kind in graph.types.items() if len(kind.shape) == 3}
    parts = [Part(f"all {name}", name) for name in graph.types if name in image]
    # A vector is its own extreme.
    vectors = [Extreme(f"all {name}", name, "Max") for name in graph.types if name not in image]
    given = {graph.inputs[0].name: tensor[None]}
    for part in parts:
        height, width = graph.types[part.value].shape[1:]
        given |= feeds(part, (0, 0), (height, width))
    names = [f"all {name}" for name in graph.types]
    found = session(tapped(model, vectors, parts)).run(names, given)
    bad = [name for name, v in zip(graph.types, found, strict=True) if not np.isfinite(v).all()]
    name = bad[0] if bad else graph.outputs[0].value
    at = {node.name: node.at for node in graph.nodes}
    return fail(
        "E0720",
        f"with these weights, the values of `{name}` are not finite",
        at.get(name, NOWHERE),
        label="NaN or infinity for an image of the data set",
        help="look at the weights' magnitudes; the network overflows float32",
    )
