"""Translation validation: what a pass makes is run beside what it was made of.

Not only the outputs must agree but every value whose name both graphs know, since a value keeps
its name only with its meaning; so the first one that differs says where a pass went wrong.
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
"""Told of each pass how far it moved the value that it moved the most."""


class PassError(AssertionError):
    """A pass changed what a model computes: a fault of the compiler, never of the user."""


def run(
    model: Model,
    pipeline: Sequence[Pass],
    seeds: Sequence[int] = (0,),
    report: PassReport | None = None,
) -> Model:
    """Return the model after the passes in turn, as `passes.run` does, each of them checked.

    Args:
        model: What the passes begin with; its graph has one input.
        pipeline: The passes.
        seeds: A random input is run for each.
        report: Told of each pass how far it moved the value that it moved the most.

    Raises:
        PassError: A pass moved a value by more than it says.
        GraphError: A pass left a graph that breaks the rules.
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
    """Return every value by name, the inputs where they are outputs, for inputs of each seed."""
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


def sample(source: Input, seed: int, brightness: float = 1.0) -> Tensor:
    """Return a random input; that of an image is of the same pixels whatever its contract.

    `brightness` is the share of the largest magnitudes that it has.

    Args:
        source: The input.
        seed: What the numbers follow from.
        brightness: The share of the largest magnitudes that it has.

    Returns:
        float32 of the input's shape.
    """
    generator = np.random.default_rng(seed)
    if source.preprocess is None:
        return generator.standard_normal(source.type.shape, np.float32) * np.float32(brightness)
    channels, *size = source.type.shape
    max_pixel = int(256 * brightness)
    return normalize(
        source.preprocess, generator.integers(0, max_pixel, (*size, channels), np.uint8)
    )


def _list_probes(graph: Graph) -> Iterator[Output]:
    """Yield an output for each node's value, in order: the graph's own, or one named as it is."""
    outputs = [o for o in graph.outputs if not o.train_only]
    output_names = {o.name for o in outputs}
    for node in graph.nodes:
        node_outputs = [o for o in outputs if o.value == node.name]
        yield from node_outputs or (
            [Output(node.name, node.name)] if node.name not in output_names else []
        )


def _check_outputs(graph_pass: Pass, old_graph: Graph, new_graph: Graph) -> None:
    """Refuse other outputs than there were; those that only training has may go."""
    output_names = [o.name for o in old_graph.outputs if not o.train_only]
    if output_names != [o.name for o in new_graph.outputs if not o.train_only]:
        raise PassError(f"{graph_pass.name} changed which outputs there are")


def _check_values(graph_pass: Pass, old_values: TensorsByName, new_values: TensorsByName) -> float:
    """Return how far a pass moved values at most; refuse more than it allows itself."""
    max_difference = 0.0
    for name, old_tensor in old_values.items():
        if name in new_values:
            difference = measure_difference(old_tensor, new_values[name])
            if difference > graph_pass.bound:
                message = (
                    f"{graph_pass.name} moved `{name}` by {difference:.3g}; its bound is "
                    f"{graph_pass.bound:g}"
                )
                raise PassError(message)
            max_difference = max(max_difference, difference)
    return max_difference


def measure_difference(old_tensor: Tensor, new_tensor: Tensor) -> float:
    """Return the largest difference, relative to the largest magnitude (at least 1).

    It is infinite where shapes differ, or what is not finite.
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
    # Relative to 1 at least: a sum that comes to nearly nothing has rounding errors of its terms.
    magnitude = max(1.0, float(np.abs(old_finite).max(initial=0)))
    return float(np.abs(old_finite - new_finite).max(initial=0)) / magnitude
