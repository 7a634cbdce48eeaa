"""Weights on the grid of the integer program, as floats: an experiment.

Pulsar takes no scales, but rounds weights by itself. Those that are multiples of their filter's
largest magnitude / 127 already can be rounded to what they are. Whether the tool finds that scale
is not documented, and takes a build to see.
"""

import numpy as np

from tcc.compiler.ir.graph import Model
from tcc.compiler.ops import Conv

LARGEST = 127


def rounded_weights(model: Model) -> Model:
    """Return a model whose convolutions have weights of 255 levels a filter."""
    made = dict(model.weights)
    for node in model.graph.nodes:
        if isinstance(node.op, Conv):
            weight = model.weights[node.params[0]].astype(np.float64)
            largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
            scale = np.where(largest > 0, largest, 1.0) / LARGEST
            made[node.params[0]] = (np.rint(weight / scale) * scale).astype(np.float32)
    return Model(model.graph, made)
