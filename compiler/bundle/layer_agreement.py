"""What an artifact computes between its layers, beside the reference executor's values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph
from tcc.compiler.reference import integer_program

Array = NDArray[Any]
OFFSET = 128
"""How much less a signed byte is that stands for an unsigned level, where a target has no other."""


@dataclass(frozen=True, slots=True)
class LayerAgreement:
    """One layer's levels over all inputs: how many there are, differ, and by how many at most.

    Where no layer in float is before it, it is `exact`, and none may differ.
    """

    name: str
    values: int = 0
    differing: int = 0
    largest: int = 0
    exact: bool = True

    @property
    def holds(self) -> bool:
        """Whether nothing differs that must not."""
        return not (self.exact and self.differing)

    def plus(self, right: Array, found: Array) -> "LayerAgreement":
        """Return it with the levels of one more input: the reference's, and the artifact's."""
        differing, largest = apart(right, found)
        return replace(
            self,
            values=self.values + right.size,
            differing=self.differing + differing,
            largest=max(self.largest, largest),
        )


def describe(holding: "Iterable[bool] | None") -> str:
    """Return in a line how many layers were compared and are wrong; None of no look into them."""
    if holding is None:
        return "no layer was compared: nothing looks into the artifact"
    verdicts = list(holding)
    return f"{len(verdicts):,} layers compared, {verdicts.count(False):,} wrong"


def levels(graph: Graph) -> tuple[LayerAgreement, ...]:
    """Return the layers of an integer program that can be compared, in its order."""
    reach = integer_program.reaches(graph)
    return tuple(
        LayerAgreement(node.name, exact=not reach[node.name])
        for node in graph.nodes
        if node.type.scale is not None
    )


def compared(
    graph: Graph, inputs: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]
) -> tuple[LayerAgreement, ...]:
    """Return how the layers that an artifact shows agree, in the program's order.

    Args:
        graph: The integer program.
        inputs: For each input the reference's values and those that the artifact shows, by name.
    """
    found = {layer.name: layer for layer in levels(graph)}
    for right, shown in inputs:
        for name in found.keys() & shown.keys():
            found[name] = found[name].plus(right[name], shown[name])
    return tuple(layer for layer in found.values() if layer.values)


def first(layers: Iterable[LayerAgreement]) -> LayerAgreement | None:
    """Return the first layer that differs and must not."""
    return next((layer for layer in layers if not layer.holds), None)


def apart(right: Array, found: Array) -> tuple[int, int]:
    """Return how many levels are others, and by how many steps at most.

    An array of another size differs in all of them.
    """
    if found.size != right.size:
        return right.size, 255
    # In int16: the difference of two bytes would wrap around.
    off = np.abs(right.astype(np.int16).reshape(-1) - meant(found, right.dtype).reshape(-1))
    return int(np.count_nonzero(off)), int(off.max(initial=0))


def meant(found: Array, kind: Any) -> NDArray[np.int16]:
    """Return levels as an artifact stores them as those of the type that the graph gives them."""
    stored = found.astype(np.int16)
    if found.dtype == kind:
        return stored
    return stored + np.int16(OFFSET if found.dtype == np.int8 else -OFFSET)
