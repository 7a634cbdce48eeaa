"""A bundle of float32 beside its network: the layers that its artifact shows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import agreement, artifact_runs, replay
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.reference import float_program
from tcc.compiler.support.value_views import ValueView

Array = NDArray[Any]
Values = Mapping[str, Array]
ALLOWED = agreement.FLOAT.relative
"""What a layer of float32 may be off, of its own largest magnitude: sums in other orders."""


@dataclass(frozen=True, slots=True)
class FloatLayerAgreement:
    """One layer's floats over all inputs: how far they are off at most, and their largest one.

    `allowed` is how far they may be off, relative to the largest.
    """

    name: str
    values: int = 0
    largest: float = 0.0
    magnitude: float = 0.0
    allowed: float = ALLOWED

    @property
    def difference(self) -> float:
        """How far it is off at most, relative to its largest magnitude."""
        return self.largest / self.magnitude if self.magnitude else self.largest

    @property
    def holds(self) -> bool:
        """Whether that is what sums in other orders come to, or what is allowed; NaN never is."""
        return self.difference <= self.allowed

    def plus(self, right: Array, found: Array) -> "FloatLayerAgreement":
        """Return it with the values of one more input: the reference's, and the artifact's."""
        most = float(np.abs(right).max(initial=0.0))
        return replace(
            self,
            values=self.values + right.size,
            largest=max(self.largest, apart(right, found)),
            magnitude=max(self.magnitude, most),
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FloatCheck(ValueView):
    """What the artifact of a bundle computes beside its network; `tensors` are its goldens'.

    `layers` is None where nothing looks into the artifact.
    """

    network: Model
    layers: tuple[FloatLayerAgreement, ...] | None
    tensors: tuple[Array, ...]

    def _summary(self) -> Iterator[str]:
        layers = self.layers
        found = agreement.describe_layers(None if layers is None else (x.holds for x in layers))
        yield f"FloatCheck: {found}"

    @property
    def wrong_layer(self) -> FloatLayerAgreement | None:
        """The first layer that is off by more than it may."""
        return next((layer for layer in self.layers or () if not layer.holds), None)

    @property
    def holds(self) -> bool:
        """Whether no layer is; an artifact that shows none of them agrees with nothing."""
        return self.layers != () and self.wrong_layer is None


@dataclass(frozen=True, slots=True, eq=False)
class FloatDivergence:
    """The first layer that an artifact computes otherwise: on which golden, and all it gave.

    `right` has every value of the network, its input's too.
    """

    layer: FloatLayerAgreement
    golden: str
    right: Values
    found: Array
    shown: frozenset[str]


def check(bundle: Bundle, device: Device, network: Model, allowed: float = ALLOWED) -> FloatCheck:
    """Return how the layers of a bundle's artifact agree with its network's.

    Args:
        bundle: The bundle, of floats.
        device: Its target.
        network: What it was built from, for inference.
        allowed: How far a layer may be off, relative to its largest value.

    Raises:
        MissingTool: What runs the artifact is not here.
        UserError: It cannot be run.
    """
    tensors = tuple(replay.tensor(bundle, case) for case in bundle.manifest.goldens.cases)
    shown = artifact_runs.inner_values(bundle, device, tensors)
    if shown is None:
        return FloatCheck(network, None, tensors)
    nodes = network.graph.nodes
    layers = {node.name: FloatLayerAgreement(node.name, allowed=allowed) for node in nodes}
    for tensor, values in zip(tensors, shown, strict=True):
        right = float_program.every(network, tensor)
        for name, found in _named(network.graph, values).items():
            layers[name] = layers[name].plus(right[name], found)
    return FloatCheck(network, tuple(one for one in layers.values() if one.values), tensors)


def divergence(bundle: Bundle, device: Device, found: FloatCheck) -> FloatDivergence | None:
    """Return where an artifact first differs from its network; None where no layer does.

    Args:
        bundle: The bundle.
        device: Its target.
        found: What `check` found of it.
    """
    layer = found.wrong_layer
    # Once more, as what was compared was not kept.
    shown = artifact_runs.inner_values(bundle, device, found.tensors) if layer else None
    if layer is None or shown is None:
        return None
    cases = zip(bundle.manifest.goldens.cases, found.tensors, shown, strict=True)
    for case, tensor, values in cases:
        right = float_program.every(found.network, tensor)
        named = _named(found.network.graph, values)
        alone = replace(layer, values=0, largest=0.0).plus(right[layer.name], named[layer.name])
        if not alone.holds:
            own = np.asarray(named[layer.name], np.float32)
            source = found.network.graph.inputs[0].name
            return FloatDivergence(
                alone, case.name, {source: tensor, **right}, own, frozenset(named)
            )
    return None


def apart(right: Array, found: Array) -> float:
    """Return how far floats are off at most; infinite where a size is another, or one is NaN."""
    if found.size != right.size:
        return float("inf")
    with np.errstate(invalid="ignore"):
        off = np.abs(right.astype(np.float64).reshape(-1) - found.reshape(-1))
    return float(np.nan_to_num(off, nan=np.inf).max(initial=0.0))


def _named(graph: Graph, shown: Values) -> dict[str, Array]:
    """Return what an artifact shows of a graph's values, also under the names of outputs."""
    nodes = {node.name for node in graph.nodes}
    outputs = {one.name: one.value for one in graph.outputs if one.name not in nodes}
    named = {outputs.get(name, name): values for name, values in shown.items()}
    return {name: values for name, values in named.items() if name in nodes}
