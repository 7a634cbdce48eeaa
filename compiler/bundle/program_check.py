"""Compare a bundle's goldens and its artifact's layers with its integer program."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import agreement, artifact_runs, replay
from tcc.compiler.bundle.agreement import Agreement, Tolerance
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.stored_values import read_stored
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.reference import integer_program
from tcc.compiler.support.json_records import Record
from tcc.compiler.support.value_views import ValueView

ArraysByName = Mapping[str, NDArray[Any]]


Array = NDArray[Any]


class LayerAgreement(Record, frozen=True):
    """Comparison of one layer's quantized values over all inputs with the reference.

    `values` is their number, `differing` how many differ, and `largest` by how many quantization
    steps at most. An `exact` layer has no float layer before it and must not differ.
    """

    name: str
    values: int = 0
    differing: int = 0
    largest: int = 0
    exact: bool = True

    @property
    def holds(self) -> bool:
        """Whether the layer agrees: an exact layer must not differ."""
        return not (self.exact and self.differing)

    def add_input(self, expected: Array, actual: Array, high: int) -> "LayerAgreement":
        """Return the agreement with one more input: reference values and artifact values.

        `high` is the largest value of the layer's type.
        """
        differing, largest = count_differences(expected, actual, high)
        return replace(
            self,
            values=self.values + expected.size,
            differing=self.differing + differing,
            largest=max(self.largest, largest),
        )


def list_comparable_layers(graph: Graph) -> tuple[LayerAgreement, ...]:
    """Return the layers of an integer program that can be compared, in program order."""
    reach = integer_program.compute_node_float_reach(graph)
    return tuple(
        LayerAgreement(node.name, exact=not reach[node.name])
        for node in graph.nodes
        if node.type.scale is not None
    )


def compare_layers(
    graph: Graph, inputs: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]
) -> tuple[LayerAgreement, ...]:
    """Compare the layers that an artifact shows, in program order.

    Args:
        graph: The integer program.
        inputs: For each input, the reference values and the artifact's values, by layer name.
    """
    layer_by_name = {layer.name: layer for layer in list_comparable_layers(graph)}
    for expected, artifact_values in inputs:
        for name in layer_by_name.keys() & artifact_values.keys():
            layer_by_name[name] = layer_by_name[name].add_input(
                expected[name], artifact_values[name], graph.types[name].limits[1]
            )
    return tuple(layer for layer in layer_by_name.values() if layer.values)


def find_wrong_layer(layers: Iterable[LayerAgreement]) -> LayerAgreement | None:
    """Return the first layer that differs but must not."""
    return next((layer for layer in layers if not layer.holds), None)


def count_differences(expected: Array, actual: Array, high: int) -> tuple[int, int]:
    """Return how many quantized values differ, and by how many steps at most.

    An array of another size counts as different in all values. `high` is the largest value of the
    layer's type.
    """
    if actual.size != expected.size:
        return expected.size, 255
    # In int16, because a difference of two bytes would wrap around.
    differences = np.abs(
        expected.astype(np.int16).reshape(-1) - read_stored(actual, high).reshape(-1)
    )
    return int(np.count_nonzero(differences)), int(differences.max(initial=0))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ProgramCheck(ValueView):
    """Comparison of a bundle's goldens and layers with the reference executor.

    `layers` is None if the artifact's layers cannot be read, or need not be bit-exact. `tensors`
    are the goldens' inputs.
    """

    program: Model
    goldens: tuple[Agreement, ...]
    layers: tuple[LayerAgreement, ...] | None
    tensors: tuple[NDArray[Any], ...]

    def _summarize(self) -> Iterator[str]:
        wrong_count = sum(not golden.holds for golden in self.goldens)
        yield f"ProgramCheck: {len(self.goldens):,} outputs of goldens, {wrong_count:,} wrong"
        layers = self.layers
        yield agreement.describe_layers(None if layers is None else (x.holds for x in layers))

    @property
    def wrong_layer(self) -> LayerAgreement | None:
        """The first layer that differs but must not."""
        return find_wrong_layer(self.layers or ())

    @property
    def holds(self) -> bool:
        """Whether the goldens match the program, and no layer differs that must not."""
        return all(golden.holds for golden in self.goldens) and self.wrong_layer is None


def check(bundle: Bundle, device: Device, program: Model) -> ProgramCheck:
    """Compare a bundle's goldens and its artifact's layers with its integer program.

    Args:
        bundle: The bundle.
        device: Its target.
        program: The integer program that it was built from.

    Raises:
        MissingTool: The tool that runs the artifact is not installed.
        UserError: The artifact cannot be run.
    """
    cases = bundle.manifest.goldens.cases
    tensors = tuple(replay.read_input_tensor(bundle, case) for case in cases)
    expected = integer_program.run(program, tensors, keep_all=True)
    # Float layers may differ in last bits between processors, also in NumPy: use the goldens'
    # tolerance for them.
    stated_tolerance = bundle.manifest.goldens.tolerance
    inexact = integer_program.find_inexact_nodes(program.graph)
    tolerance = stated_tolerance if inexact else Tolerance(0.0, stated_tolerance.reason)
    goldens = [
        golden_agreement
        for case, golden_values in zip(cases, expected, strict=True)
        for golden_agreement in replay.compare_outputs(
            bundle,
            case.name,
            {name: replay.read_expected_output(bundle, case, name) for name in case.outputs},
            {output.name: golden_values[output.value] for output in program.graph.outputs},
            dict.fromkeys(case.outputs, tolerance),
        )
    ]
    precision = device.get_precision(bundle.manifest.precision)
    artifact_values = (
        artifact_runs.collect_quantized_layers(bundle, device, tensors) if precision.exact else None
    )
    if artifact_values is None:
        return ProgramCheck(program, tuple(goldens), None, tensors)
    layers = compare_layers(program.graph, zip(expected, artifact_values, strict=True))
    return ProgramCheck(program, tuple(goldens), layers, tensors)


@dataclass(frozen=True, slots=True, eq=False)
class Divergence:
    """The first layer that an artifact computes differently, and the golden that shows it."""

    layer: LayerAgreement
    golden: str
    expected: ArraysByName
    actual: NDArray[Any]
    visible_names: frozenset[str]


def find_divergence(
    bundle: Bundle, device: Device, program_check: ProgramCheck
) -> Divergence | None:
    """Return where an artifact first differs from its program; None if no layer differs.

    Args:
        bundle: The bundle.
        device: Its target.
        program_check: The result of `check`.
    """
    layer = program_check.wrong_layer
    if layer is None:
        return None
    # Computed again, because `check` does not keep the values.
    artifact_values = artifact_runs.collect_quantized_layers(bundle, device, program_check.tensors)
    if artifact_values is None:
        return None
    cases = bundle.manifest.goldens.cases
    for case, tensor, layer_values in zip(
        cases, program_check.tensors, artifact_values, strict=True
    ):
        (expected,) = integer_program.run(program_check.program, [tensor], keep_all=True)
        empty_layer = replace(layer, values=0, differing=0, largest=0)
        layer_output = layer_values[layer.name]
        high = program_check.program.graph.types[layer.name].limits[1]
        golden_layer = empty_layer.add_input(expected[layer.name], layer_output, high)
        if golden_layer.differing:
            converted = read_stored(layer_output, high).astype(expected[layer.name].dtype)
            visible_names = frozenset(layer_values) & program_check.program.graph.types.keys()
            return Divergence(golden_layer, case.name, expected, converted, visible_names)
    return None
