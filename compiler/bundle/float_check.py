"""Compare the layers of a float bundle's artifact with those of its network."""

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
ArraysByName = Mapping[str, Array]
MAX_DIFFERENCE = agreement.FLOAT_TOLERANCE.relative
"""Allowed error of a float32 layer, relative to its largest magnitude: sums in other orders."""


@dataclass(frozen=True, slots=True)
class FloatLayerAgreement:
    """Largest error and largest magnitude of one layer's floats over all inputs.

    `allowed` is the allowed error, relative to the largest magnitude.
    """

    name: str
    values: int = 0
    largest: float = 0.0
    magnitude: float = 0.0
    allowed: float = MAX_DIFFERENCE

    @property
    def difference(self) -> float:
        """The largest error, relative to the largest magnitude."""
        return self.largest / self.magnitude if self.magnitude else self.largest

    @property
    def holds(self) -> bool:
        """Whether the error is within `allowed`; NaN never is."""
        return self.difference <= self.allowed

    def add_input(self, expected: Array, actual: Array) -> "FloatLayerAgreement":
        """Return the agreement with one more input: reference values and artifact values."""
        magnitude = float(np.abs(expected).max(initial=0.0))
        return replace(
            self,
            values=self.values + expected.size,
            largest=max(self.largest, compute_max_error(expected, actual)),
            magnitude=max(self.magnitude, magnitude),
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FloatCheck(ValueView):
    """Comparison of an artifact's layers with its network; `tensors` are the goldens' inputs.

    `layers` is None if the artifact's layers cannot be read.
    """

    network: Model
    layers: tuple[FloatLayerAgreement, ...] | None
    tensors: tuple[Array, ...]

    def _summarize(self) -> Iterator[str]:
        layers = self.layers
        description = agreement.describe_layers(
            None if layers is None else (x.holds for x in layers)
        )
        yield f"FloatCheck: {description}"

    @property
    def wrong_layer(self) -> FloatLayerAgreement | None:
        """The first layer with an error above what is allowed."""
        return next((layer for layer in self.layers or () if not layer.holds), None)

    @property
    def holds(self) -> bool:
        """Whether no layer is wrong; false if layers can be read but none was compared."""
        return self.layers != () and self.wrong_layer is None


@dataclass(frozen=True, slots=True, eq=False)
class FloatDivergence:
    """The first layer that an artifact computes differently, and the golden that shows it.

    `expected` has every value of the network, including its input. `actual` is the artifact's
    layer. `visible_names` are the nodes whose values the artifact shows.
    """

    layer: FloatLayerAgreement
    golden: str
    expected: ArraysByName
    actual: Array
    visible_names: frozenset[str]


def check(
    bundle: Bundle, device: Device, network: Model, allowed: float = MAX_DIFFERENCE
) -> FloatCheck:
    """Compare the layers of a bundle's artifact with its network's.

    Args:
        bundle: A bundle that computes in float.
        device: Its target.
        network: The network that it was built from, for inference.
        allowed: Allowed error of a layer, relative to its largest magnitude.

    Raises:
        MissingTool: The tool that runs the artifact is not installed.
        UserError: The artifact cannot be run.
    """
    tensors = tuple(
        replay.read_input_tensor(bundle, case) for case in bundle.manifest.goldens.cases
    )
    artifact_values = artifact_runs.collect_float_layers(bundle, device, tensors)
    if artifact_values is None:
        return FloatCheck(network, None, tensors)
    nodes = network.graph.nodes
    layers = {node.name: FloatLayerAgreement(node.name, allowed=allowed) for node in nodes}
    for tensor, layer_values in zip(tensors, artifact_values, strict=True):
        expected = float_program.run_all_nodes(network, tensor)
        for name, actual in _map_to_nodes(network.graph, layer_values).items():
            layers[name] = layers[name].add_input(expected[name], actual)
    return FloatCheck(network, tuple(layer for layer in layers.values() if layer.values), tensors)


def find_divergence(
    bundle: Bundle, device: Device, float_check: FloatCheck
) -> FloatDivergence | None:
    """Return where an artifact first differs from its network; None if no layer differs.

    Args:
        bundle: The bundle.
        device: Its target.
        float_check: The result of `check`.
    """
    layer = float_check.wrong_layer
    # Computed again, because `check` does not keep the values.
    artifact_values = (
        artifact_runs.collect_float_layers(bundle, device, float_check.tensors) if layer else None
    )
    if layer is None or artifact_values is None:
        return None
    cases = zip(bundle.manifest.goldens.cases, float_check.tensors, artifact_values, strict=True)
    for case, tensor, layer_values in cases:
        expected = float_program.run_all_nodes(float_check.network, tensor)
        actual_by_node = _map_to_nodes(float_check.network.graph, layer_values)
        # The agreement on this golden alone, relative to the largest magnitude over all of them.
        golden_agreement = replace(layer, values=0, largest=0.0).add_input(
            expected[layer.name], actual_by_node[layer.name]
        )
        if not golden_agreement.holds:
            actual = np.asarray(actual_by_node[layer.name], np.float32)
            input_name = float_check.network.graph.inputs[0].name
            return FloatDivergence(
                golden_agreement,
                case.name,
                {input_name: tensor, **expected},
                actual,
                frozenset(actual_by_node),
            )
    return None


def compute_max_error(expected: Array, actual: Array) -> float:
    """Return the largest absolute error; infinite for different sizes or NaN."""
    if actual.size != expected.size:
        return float("inf")
    with np.errstate(invalid="ignore"):
        differences = np.abs(expected.astype(np.float64).reshape(-1) - actual.reshape(-1))
    return float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))


def _map_to_nodes(graph: Graph, artifact_values: ArraysByName) -> dict[str, Array]:
    """Return an artifact's values by node name; outputs are mapped to their nodes."""
    nodes = {node.name for node in graph.nodes}
    outputs = {output.name: output.value for output in graph.outputs if output.name not in nodes}
    values_by_node = {outputs.get(name, name): array for name, array in artifact_values.items()}
    return {name: array for name, array in values_by_node.items() if name in nodes}
