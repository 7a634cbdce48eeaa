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
from tcc.compiler.ir.preprocess import normalized
from tcc.compiler.reference import float_program

Tensor = NDArray[np.float32]
Values = Mapping[str, Tensor]
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
    before: list[Values] = []
    for one in pipeline:
        after = passes.run(model, (one,))
        _check_outputs(one, model.graph, after.graph)
        moved = 0.0
        if not same(model, after):
            before = before or values(model, seeds)
            found = values(after, seeds)
            moved = max(_compared(one, *both) for both in zip(before, found, strict=True))
            before = found
        if report:
            report(one, moved)
        model = after
    return model


def same(model: Model, other: Model) -> bool:
    """Whether two models are equal, node by node and weight by weight."""
    return model.graph == other.graph and all(
        tensor is other.weights[name] or np.array_equal(tensor, other.weights[name])
        for name, tensor in ((name, model.weights[name]) for name in model.graph.params)
    )


def values(model: Model, seeds: Sequence[int]) -> list[Values]:
    """Return every value by name, the inputs where they are outputs, for inputs of each seed."""
    graph = model.graph
    tapped = Model(replace(graph, outputs=tuple(_taps(graph))), model.weights)
    tensors = [sample(graph.inputs[0], seed) for seed in seeds]
    found = float_program.run(tapped, tensors) if tapped.graph.outputs else [{} for _ in seeds]
    straight = [o.name for o in graph.outputs if o.value == graph.inputs[0].name]
    return [{**dict.fromkeys(straight, x), **y} for x, y in zip(tensors, found, strict=True)]


def sample(source: Input, seed: int, bright: float = 1.0) -> Tensor:
    """Return a random input; that of an image is of the same pixels whatever its contract.

    `bright` is the share of the largest magnitudes that it has.

    Args:
        source: The input.
        seed: What the numbers follow from.
        bright: The share of the largest magnitudes that it has.

    Returns:
        float32 of the input's shape.
    """
    stream = np.random.default_rng(seed)
    if source.preprocess is None:
        return stream.standard_normal(source.type.shape, np.float32) * np.float32(bright)
    channels, *size = source.type.shape
    top = int(256 * bright)
    return normalized(source.preprocess, stream.integers(0, top, (*size, channels), np.uint8))


def _taps(graph: Graph) -> Iterator[Output]:
    """Yield an output for each node's value, in order: the graph's own, or one named as it is."""
    own = [o for o in graph.outputs if not o.train_only]
    taken = {o.name for o in own}
    for node in graph.nodes:
        named = [o for o in own if o.value == node.name]
        yield from named or ([Output(node.name, node.name)] if node.name not in taken else [])


def _check_outputs(one: Pass, before: Graph, after: Graph) -> None:
    """Refuse other outputs than there were; those that only training has may go."""
    kept = [o.name for o in before.outputs if not o.train_only]
    if kept != [o.name for o in after.outputs if not o.train_only]:
        raise PassError(f"{one.name} changed which outputs there are")


def _compared(one: Pass, before: Values, after: Values) -> float:
    """Return how far a pass moved values at most; refuse more than it allows itself."""
    most = 0.0
    for name, known in before.items():
        if name in after:
            found = moved(known, after[name])
            if found > one.bound:
                message = f"{one.name} moved `{name}` by {found:.3g}; its bound is {one.bound:g}"
                raise PassError(message)
            most = max(most, found)
    return most


def moved(known: Tensor, now: Tensor) -> float:
    """Return the largest difference, relative to the largest magnitude (at least 1).

    It is infinite where shapes differ, or what is not finite.
    """
    if known.shape != now.shape:
        return inf
    finite = np.isfinite(known)
    if not np.array_equal(known[~finite], now[~finite], equal_nan=True):
        return inf
    before, after = known[finite].astype(np.float64), now[finite].astype(np.float64)
    if not np.isfinite(after).all():
        return inf
    # Relative to 1 at least: a sum that comes to nearly nothing has rounding errors of its terms.
    top = max(1.0, float(np.abs(before).max(initial=0)))
    return float(np.abs(before - after).max(initial=0)) / top
