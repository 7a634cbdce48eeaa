"""An imported spec is held against its file: both are run on the same inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler import reference
from tcc.compiler.activations import applied
from tcc.compiler.graph import Graph, Model
from tcc.compiler.onnx_import.contract import Source
from tcc.compiler.onnx_import.rebuild import Rebuilt
from tcc.compiler.source import fail, whole_file

if TYPE_CHECKING:
    import onnx

    from tcc.compiler.onnx_import import Runner

TOLERANCE = 1e-3
"""Largest difference of an output, relative to the largest of its values."""
TRIALS = 2
Tensor = NDArray[np.float32]


def difference(
    path: Path, model: "onnx.ModelProto", source: Source, made: Rebuilt, runner: "Runner"
) -> tuple[float | None, tuple[str, ...]]:
    """Return how far a spec's outputs are from its file's, or None and why that is not known.

    Raises:
        UserError: They are further apart than rounding explains (E0920).
    """
    graph = made.spec.graph
    tensors = [_noise(graph, seed) for seed in range(TRIALS)]
    ours = reference.run(Model(graph, made.weights), tensors)
    theirs, done = runner.outputs(model, source.name, [source.arranged(t) for t in tensors])
    if not theirs:
        return None, (f"the file could not be run, so nothing is compared: {done.problem}",)
    furthest = max(_furthest(graph, *both) for both in zip(ours, theirs, strict=True))
    if not furthest <= TOLERANCE:
        raise fail(
            "E0920",
            "the spec would not compute what the file does",
            whole_file(str(path)),
            label=f"its outputs differ by {furthest:.2g} of the largest on random inputs",
            help="please report this with the file; nothing was written",
        )
    return furthest, ()


def _furthest(graph: Graph, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Return the largest difference of any output, relative to that output's largest value."""
    found = 0.0
    for output, their in zip(graph.outputs, theirs.values(), strict=True):
        own = applied(output.activation, ours[output.name])
        other = their[0].astype(np.float64).reshape(own.shape)
        if np.array_equal(own, other, equal_nan=True):
            continue
        found = max(found, float(np.abs(own - other).max() / max(np.abs(other).max(), 1e-6)))
    return found


def _noise(graph: Graph, seed: int) -> Tensor:
    shape = graph.inputs[0].type.shape
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
