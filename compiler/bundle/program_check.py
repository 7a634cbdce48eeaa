"""A bundle beside its integer program: its goldens and each of its layers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import agreement, artifact_runs, replay
from tcc.compiler.bundle.agreement import Agreement, Tolerance
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.reference import integer_program
from tcc.compiler.support.json_records import Record
from tcc.compiler.support.value_views import ValueView

Values = Mapping[str, NDArray[Any]]


Array = NDArray[Any]
OFFSET = 128
"""How much less a signed byte is that stands for an unsigned level, where a target has no other."""


class LayerAgreement(Record, frozen=True):
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
        differing, largest = count_apart(right, found)
        return replace(
            self,
            values=self.values + right.size,
            differing=self.differing + differing,
            largest=max(self.largest, largest),
        )


def list_levels(graph: Graph) -> tuple[LayerAgreement, ...]:
    """Return the layers of an integer program that can be compared, in its order."""
    reach = integer_program.reaches(graph)
    return tuple(
        LayerAgreement(node.name, exact=not reach[node.name])
        for node in graph.nodes
        if node.type.scale is not None
    )


def compare_layers(
    graph: Graph, inputs: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]
) -> tuple[LayerAgreement, ...]:
    """Return how the layers that an artifact shows agree, in the program's order.

    Args:
        graph: The integer program.
        inputs: For each input the reference's values and those that the artifact shows, by name.
    """
    found = {layer.name: layer for layer in list_levels(graph)}
    for right, shown in inputs:
        for name in found.keys() & shown.keys():
            found[name] = found[name].plus(right[name], shown[name])
    return tuple(layer for layer in found.values() if layer.values)


def first_wrong(layers: Iterable[LayerAgreement]) -> LayerAgreement | None:
    """Return the first layer that differs and must not."""
    return next((layer for layer in layers if not layer.holds), None)


def count_apart(right: Array, found: Array) -> tuple[int, int]:
    """Return how many levels are others, and by how many steps at most.

    An array of another size differs in all of them.
    """
    if found.size != right.size:
        return right.size, 255
    # In int16: the difference of two bytes would wrap around.
    off = np.abs(right.astype(np.int16).reshape(-1) - stored_as(found, right.dtype).reshape(-1))
    return int(np.count_nonzero(off)), int(off.max(initial=0))


def stored_as(found: Array, kind: Any) -> NDArray[np.int16]:
    """Return levels as an artifact stores them as those of the type that the graph gives them."""
    stored = found.astype(np.int16)
    if found.dtype == kind:
        return stored
    return stored + np.int16(OFFSET if found.dtype == np.int8 else -OFFSET)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ProgramCheck(ValueView):
    """What the reference executor says of a bundle's goldens, and of what its artifact computes.

    `layers` is None where nothing looks into the artifact, or it need not compute the program to
    the bit; `tensors` are the goldens' inputs.
    """

    program: Model
    goldens: tuple[Agreement, ...]
    layers: tuple[LayerAgreement, ...] | None
    tensors: tuple[NDArray[Any], ...]

    def _summary(self) -> Iterator[str]:
        wrong = sum(not each.holds for each in self.goldens)
        yield f"ProgramCheck: {len(self.goldens):,} outputs of goldens, {wrong:,} wrong"
        layers = self.layers
        yield agreement.describe_layers(None if layers is None else (x.holds for x in layers))

    @property
    def wrong_layer(self) -> LayerAgreement | None:
        """The first layer that differs and must not."""
        return first_wrong(self.layers or ())

    @property
    def holds(self) -> bool:
        """Whether the goldens are the program's, and no layer differs that must not."""
        return all(each.holds for each in self.goldens) and self.wrong_layer is None


def check(bundle: Bundle, device: Device, program: Model) -> ProgramCheck:
    """Return how a bundle's goldens and its artifact's layers agree with its integer program.

    Args:
        bundle: The bundle.
        device: Its target.
        program: The integer program that it was built from.

    Raises:
        MissingTool: What runs the artifact is not here.
        UserError: It cannot be run.
    """
    cases = bundle.manifest.goldens.cases
    tensors = tuple(replay.tensor(bundle, case) for case in cases)
    right = integer_program.run(program, tensors, every=True)
    # What is inexact in numpy is not in other bits on another processor: as far as a golden allows.
    said = bundle.manifest.goldens.tolerance
    inexact = integer_program.inexact(program.graph)
    allowed = said if inexact else Tolerance(0.0, said.reason)
    goldens = [
        each
        for case, values in zip(cases, right, strict=True)
        for each in replay.beside(
            bundle,
            case.name,
            {name: replay.expected(bundle, case, name) for name in case.outputs},
            {one.name: values[one.value] for one in program.graph.outputs},
            dict.fromkeys(case.outputs, allowed),
        )
    ]
    precision = device.precision(bundle.manifest.precision)
    shown = artifact_runs.inner_levels(bundle, device, tensors) if precision.exact else None
    if shown is None:
        return ProgramCheck(program, tuple(goldens), None, tensors)
    layers = compare_layers(program.graph, zip(right, shown, strict=True))
    return ProgramCheck(program, tuple(goldens), layers, tensors)


@dataclass(frozen=True, slots=True, eq=False)
class Divergence:
    """The first layer that an artifact computes otherwise: on which golden, and all it gave."""

    layer: LayerAgreement
    golden: str
    right: Values
    found: NDArray[Any]
    shown: frozenset[str]


def divergence(bundle: Bundle, device: Device, found: ProgramCheck) -> Divergence | None:
    """Return where an artifact first differs from its program; None where no layer does.

    Args:
        bundle: The bundle.
        device: Its target.
        found: What `check` found of it.
    """
    layer = found.wrong_layer
    if layer is None:
        return None
    # Once more, as what was compared was not kept.
    shown = artifact_runs.inner_levels(bundle, device, found.tensors)
    if shown is None:
        return None
    cases = bundle.manifest.goldens.cases
    for case, tensor, values in zip(cases, found.tensors, shown, strict=True):
        (right,) = integer_program.run(found.program, [tensor], every=True)
        alone = replace(layer, values=0, differing=0, largest=0)
        own = values[layer.name]
        differing = alone.plus(right[layer.name], own)
        if differing.differing:
            kind = right[layer.name].dtype
            meant = stored_as(own, kind).astype(kind)
            visible = frozenset(values) & found.program.graph.types.keys()
            return Divergence(differing, case.name, right, meant, visible)
    return None
