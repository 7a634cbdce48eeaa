"""Integer programs as kernels for processors: each step's result beside the reference executor's."""

from collections.abc import Mapping

import numpy as np
from arm_steps import Array, Library
from quantised import int8, picture
from random_steps import random_graph

from tcc.backends.arm.schedule.partition import partition
from tcc.backends.arm.schedule.program import Program
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.reference import integer_program


def seeded(seed: int) -> Model:
    """Return the integer program of a random graph, with weights that are random too."""
    graph, weights = random_graph(seed)
    return int8(graph, weights, seed)


def exact_results(graph: Graph) -> set[str]:
    """Return the values of groups of nodes that compute on integers alone."""
    inexact = set(integer_program.inexact(graph))
    groups = partition(graph)
    return {g.result.name for g in groups if not inexact & {node.name for node in g.nodes}}


def differing(library: Library, program: Program, model: Model, seed: int = 0) -> Mapping[str, int]:
    """Return how many numbers of each step's result are not the reference's, where any are.

    Each step reads what is right. Of results that are no integers' alone, those count that are no
    numbers.
    """
    x = picture(model.graph, seed)
    (right,) = integer_program.run(model, [x], every=True)
    source, exact = model.graph.inputs[0], exact_results(model.graph)
    counts = {}
    inputs = {source.name: x.astype(source.type.dtype.value)}
    for name, got in library.steps(program, inputs, right):
        expected: Array = right[name]
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape), name
        wrong = got != expected if name in exact else ~np.isfinite(got)
        if wrong.any():
            counts[name] = int(wrong.sum())
    return counts
