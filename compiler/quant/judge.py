"""How near one program's outputs come to another's: the measure that calibration is judged by."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tcc.compiler import activations, reference
from tcc.compiler.floor import Quality
from tcc.compiler.graph import Model
from tcc.compiler.quant.data import DataSet

Rows = NDArray[np.float64]
"""The first output of each image, flattened: (images, values)."""


def rows(model: Model, data: DataSet) -> Rows:
    """Return the first output of a model, float or integer, for each image of a set."""
    return np.array([values[0] for values in outputs(model, data)]).reshape(len(data), -1)


def outputs(model: Model, data: DataSet) -> Iterator[list[NDArray[np.float64]]]:
    """Yield the outputs of a model, flattened, for each image of a set."""
    (source,) = model.graph.inputs
    run = reference.prepared(model)
    for index in range(len(data)):
        found = run(data.tensor(index, source))
        yield [found[o.name].reshape(-1).astype(np.float64) for o in model.graph.outputs]


def quality(expected: Rows, found: Rows) -> Quality:
    """Return how near outputs (images, values) come to the expected ones."""
    cosines = np.array([cosine(a, b) for a, b in zip(expected, found, strict=True)])
    same = expected.argmax(axis=1) == found.argmax(axis=1)
    shares = [_probabilities(rows) for rows in (expected, found)]
    return Quality(
        len(expected),
        float(cosines.mean()),
        float(cosines.min()),
        float(same.mean()),
        float(np.abs(shares[0] - shares[1]).max()),
    )


def cosine(a: Sequence[float] | NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the cosine of the angle between two vectors; two of zeros point the same way."""
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if lengths == 0:
        return float(not (np.any(a) or np.any(b)))
    return float(np.dot(a, b)) / lengths


def _probabilities(values: Rows) -> Rows:
    return activations.applied("softmax", values.T).T
