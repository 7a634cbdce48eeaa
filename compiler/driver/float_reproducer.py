"""A layer of float32 by itself: its spec, with the weights that the network has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import float_check
from tcc.compiler.bundle.float_check import FloatDivergence
from tcc.compiler.data import weights
from tcc.compiler.driver import layer_form
from tcc.compiler.driver.layer_form import SpokenLayer, UnspokenError
from tcc.compiler.foreign.onnx_import import spec_rebuild
from tcc.compiler.foreign.onnx_import.options import ImportOptions
from tcc.compiler.ir.graph import Graph, Input, Model, Output, verify
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import GlobalMaxPool, Slice
from tcc.compiler.reference import float_program

Array = NDArray[Any]


def sources(found: FloatDivergence, network: Model, target: str) -> tuple[str, bytes, Array]:
    """Return the spec's text, its weights as a file, and the tensor that goes in.

    Args:
        found: Where an artifact differs from its network.
        network: The network, for inference.
        target: What the artifact is built for.

    Raises:
        UnspokenError: The language has no words for the layer.
        UserError: It has none for its shapes or weights.
    """
    graph, name = network.graph, found.layer.name
    nodes, ends = layer_form.segment(graph, name, found.shown - {name})
    said = {value: f"input_{i}" for i, value in enumerate(ends)}
    said |= {node.name: f"step_{i}" for i, node in enumerate(nodes)}
    made = SpokenLayer(said, {})
    tensor = _enter(made, graph, ends, found.right)
    for node in nodes:
        own = made.add(said[node.name], node.op, [said[value] for value in node.inputs])
        values = [network.weights[param] for param in node.params]
        made.weights.update(zip(own.params, values, strict=True))
    output = Output("values", said[name])
    lean = verify(Graph("layer", tuple(made.inputs), tuple(made.nodes), (output,)))
    label = Path(f"the layer {name.replace('/', '.')} for {target}")
    spoken = spec_rebuild.rebuild(Model(lean, made.weights), label, ImportOptions())
    (given,) = float_program.run(Model(spoken.spec.graph, spoken.weights), [tensor])
    right = found.right[name]
    # A spec that gives other values would accuse the wrong layer.
    off = float_check.FloatLayerAgreement(name).plus(right, next(iter(given.values())))
    if not off.holds:
        raise UnspokenError
    return spoken.text, weights.encode(spoken.weights), tensor


def _enter(
    made: SpokenLayer, graph: Graph, ends: Sequence[str], right: Mapping[str, Array]
) -> Array:
    """Add the input of a layer, or parts of one; return the tensor that goes in."""
    shapes = [graph.types[value].shape for value in ends]
    if len(ends) == 1:
        _begin(made, made.said[ends[0]], shapes[0])
        return np.asarray(right[ends[0]], np.float32)
    # Data is of one input: several values lie side by side as its channels.
    if {len(shape) for shape in shapes} != {3}:
        raise UnspokenError
    height, width = (max(shape[axis] for shape in shapes) for axis in (1, 2))
    _begin(made, "parts", (sum(shape[0] for shape in shapes), height, width))
    rows, start = [], 0
    for value, (channels, *size) in zip(ends, shapes, strict=True):
        if tuple(size) not in ((1, 1), (height, width)):
            raise UnspokenError
        last, part = made.said[value], Slice(start, start + channels)
        # A value that is broadcast stands in every pixel of its part, and is pooled to one again.
        if tuple(size) == (height, width):
            made.add(last, part, ["parts"])
        else:
            made.add(f"{last}_part", part, ["parts"])
            made.add(last, GlobalMaxPool(), [f"{last}_part"])
        rows.append(np.broadcast_to(right[value], (channels, height, width)))
        start += channels
    return np.concatenate(rows).astype(np.float32)


def _begin(made: SpokenLayer, name: str, shape: tuple[int, ...]) -> None:
    made.inputs.append(Input(name, TensorType(shape)))
    made.types[name] = made.inputs[0].type
