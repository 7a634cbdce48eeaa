"""A model run with values from between its layers beside its outputs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.reference import float_program


def tapped(model: Model, names: list[str]) -> Callable[[Any], Mapping[str, Any]]:
    """Return what gives a model's outputs, and the values of names, as floats or levels.

    Args:
        model: A float model or an integer program, with one input.
        names: The values.
    """
    graph = model.graph
    more = tuple(Output(f"tap {name}", name) for name in names if name not in _inputs(model))
    run = float_program.prepared(replace(model, graph=replace(graph, outputs=graph.outputs + more)))

    def one(tensor: Any) -> Mapping[str, Any]:
        given = dict.fromkeys(_inputs(model), tensor)
        return given | {key.removeprefix("tap "): value for key, value in run(tensor).items()}

    return one


def _inputs(model: Model) -> tuple[str, ...]:
    return tuple(source.name for source in model.graph.inputs)
