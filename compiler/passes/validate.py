"""Translation validation: run the model before and after each pass, and compare.

It compares the outputs and every value whose name is in both graphs, because a value that keeps its
name keeps its meaning. So the first difference shows where a pass is wrong.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from tcc.compiler import passes
from tcc.compiler.ir.graph import Graph, Input, Model, Output, Pass
from tcc.compiler.ir.preprocess import normalize
from tcc.compiler.reference import float_program

Tensor = NDArray[np.float32]
TensorsByName = Mapping[str, Tensor]
PassReport = Callable[[Pass, float], None]
"""Receives, for each pass, the largest change of a value."""


class PassError(AssertionError):
    """A pass changed what a model computes: a bug in the compiler, never the user's mistake."""


def run(
    model: Model,
    pipeline: Sequence[Pass],
    seeds: Sequence[int] = (0,),
    report: PassReport | None = None,
) -> Model:
    """Return the model after the passes in order, like `passes.run`, and check each pass.

    Args:
        model: The model before the passes; its graph has one input.
        pipeline: The passes.
        seeds: Seeds of random inputs.
        report: Receives, for each pass, the largest change of a value.

    Raises:
        PassError: A pass changed a value by more than its bound.
        GraphError: A pass returned a malformed graph.
    """
    old_values: list[TensorsByName] = []
    for graph_pass in pipeline:
        new_model = passes.run(model, (graph_pass,))
        _check_outputs(graph_pass, model.graph, new_model.graph)
        max_difference = 0.0
        if not is_equal(model, new_model):
            old_values = old_values or compute_values(model, seeds)
            new_values = compute_values(new_model, seeds)
            max_difference = max(
                _check_values(graph_pass, *both)
                for both in zip(old_values, new_values, strict=True)
            )
            old_values = new_values
        if report:
            report(graph_pass, max_difference)
        model = new_model
    return model


def is_equal(model: Model, other_model: Model) -> bool:
    """Whether two models are equal, node by node and weight by weight."""
    return model.graph == other_model.graph and all(
        tensor is other_model.weights[name] or np.array_equal(tensor, other_model.weights[name])
        for name, tensor in ((name, model.weights[name]) for name in model.graph.params)
    )


def compute_values(model: Model, seeds: Sequence[int]) -> list[TensorsByName]:
    """Return all values by name, including inputs that are outputs, for one input per seed."""
    graph = model.graph
    probed_model = Model(replace(graph, outputs=tuple(_list_probes(graph))), model.weights)
    tensors = [sample(graph.inputs[0], seed) for seed in seeds]
    outputs = (
        float_program.run(probed_model, tensors)
        if probed_model.graph.outputs
        else [{} for _ in seeds]
    )
    passthrough = [o.name for o in graph.outputs if o.value == graph.inputs[0].name]
    return [
        {**dict.fromkeys(passthrough, tensor), **output_values}
        for tensor, output_values in zip(tensors, outputs, strict=True)
    ]


def sample(network_input: Input, seed: int, brightness: float = 1.0) -> Tensor:
    """Return a random input; for an image, the pixels do not depend on the contract.

    Args:
        network_input: The input.
        seed: The seed of the numbers.
        brightness: Its magnitudes, relative to the largest possible ones.

    Returns:
        float32 of the input's shape.
    """
    generator = np.random.default_rng(seed)
    if network_input.preprocess is None:
        return generator.standard_normal(network_input.type.shape, np.float32) * np.float32(
            brightness
        )
    channels, *size = network_input.type.shape
    max_pixel = int(256 * brightness)
    return normalize(
        network_input.preprocess, generator.integers(0, max_pixel, (*size, channels), np.uint8)
    )


def _list_probes(graph: Graph) -> Iterator[Output]:
    """Yield an output for each node, in order: the graph's own, or one with the node's name."""
    outputs = [o for o in graph.outputs if not o.train_only]
    output_names = {o.name for o in outputs}
    for node in graph.nodes:
        node_outputs = [o for o in outputs if o.value == node.name]
        yield from node_outputs or (
            [Output(node.name, node.name)] if node.name not in output_names else []
        )


def _check_outputs(graph_pass: Pass, old_graph: Graph, new_graph: Graph) -> None:
    """Refuse changed outputs; train-only outputs may be removed."""
    output_names = [o.name for o in old_graph.outputs if not o.train_only]
    if output_names != [o.name for o in new_graph.outputs if not o.train_only]:
        raise PassError(f"{graph_pass.name} changed the graph's outputs")


def _check_values(graph_pass: Pass, old_values: TensorsByName, new_values: TensorsByName) -> float:
    """Return the largest change of a value by a pass; refuse more than the pass's bound."""
    max_difference = 0.0
    for name, old_tensor in old_values.items():
        if name in new_values:
            difference = measure_difference(old_tensor, new_values[name])
            if difference > graph_pass.bound:
                message = (
                    f"{graph_pass.name} changed `{name}` by {difference:.3g}, more than its bound "
                    f"of {graph_pass.bound:g}"
                )
                raise PassError(message)
            max_difference = max(max_difference, difference)
    return max_difference


def measure_difference(old_tensor: Tensor, new_tensor: Tensor) -> float:
    """Return the largest difference, relative to the largest magnitude (at least 1).

    Infinite if the shapes differ, or the values that are not finite.
    """
    if old_tensor.shape != new_tensor.shape:
        return inf
    finite = np.isfinite(old_tensor)
    if not np.array_equal(old_tensor[~finite], new_tensor[~finite], equal_nan=True):
        return inf
    old_finite, new_finite = (
        old_tensor[finite].astype(np.float64),
        new_tensor[finite].astype(np.float64),
    )
    if not np.isfinite(new_finite).all():
        return inf
    # Relative to at least 1: a sum near zero has the rounding errors of its terms.
    magnitude = max(1.0, float(np.abs(old_finite).max(initial=0)))
    return float(np.abs(old_finite - new_finite).max(initial=0)) / magnitude
