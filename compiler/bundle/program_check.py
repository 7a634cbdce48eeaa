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

ArraysByName = Mapping[str, NDArray[Any]]


Array = NDArray[Any]
SIGN_OFFSET = 128
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

    def add_input(self, expected: Array, actual: Array) -> "LayerAgreement":
        """Return it with the levels of one more input: the reference's, and the artifact's."""
        differing, largest = count_differences(expected, actual)
        return replace(
            self,
            values=self.values + expected.size,
            differing=self.differing + differing,
            largest=max(self.largest, largest),
        )


def list_comparable_layers(graph: Graph) -> tuple[LayerAgreement, ...]:
    """Return the layers of an integer program that can be compared, in its order."""
    reach = integer_program.compute_node_float_reach(graph)
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
    layer_by_name = {layer.name: layer for layer in list_comparable_layers(graph)}
    for expected, artifact_values in inputs:
        for name in layer_by_name.keys() & artifact_values.keys():
            layer_by_name[name] = layer_by_name[name].add_input(
                expected[name], artifact_values[name]
            )
    return tuple(layer for layer in layer_by_name.values() if layer.values)


def find_wrong_layer(layers: Iterable[LayerAgreement]) -> LayerAgreement | None:
    """Return the first layer that differs and must not."""
    return next((layer for layer in layers if not layer.holds), None)


def count_differences(expected: Array, actual: Array) -> tuple[int, int]:
    """Return how many levels are others, and by how many steps at most.

    An array of another size differs in all of them.
    """
    if actual.size != expected.size:
        return expected.size, 255
    # In int16: the difference of two bytes would wrap around.
    differences = np.abs(
        expected.astype(np.int16).reshape(-1) - convert_sign(actual, expected.dtype).reshape(-1)
    )
    return int(np.count_nonzero(differences)), int(differences.max(initial=0))


def convert_sign(quantized: Array, dtype: Any) -> NDArray[np.int16]:
    """Return levels as an artifact stores them as those of the type that the graph gives them."""
    wide = quantized.astype(np.int16)
    if quantized.dtype == dtype:
        return wide
    return wide + np.int16(SIGN_OFFSET if quantized.dtype == np.int8 else -SIGN_OFFSET)


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

    def _summarize(self) -> Iterator[str]:
        wrong_count = sum(not golden.holds for golden in self.goldens)
        yield f"ProgramCheck: {len(self.goldens):,} outputs of goldens, {wrong_count:,} wrong"
        layers = self.layers
        yield agreement.describe_layers(None if layers is None else (x.holds for x in layers))

    @property
    def wrong_layer(self) -> LayerAgreement | None:
        """The first layer that differs and must not."""
        return find_wrong_layer(self.layers or ())

    @property
    def holds(self) -> bool:
        """Whether the goldens are the program's, and no layer differs that must not."""
        return all(golden.holds for golden in self.goldens) and self.wrong_layer is None


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
    tensors = tuple(replay.read_input_tensor(bundle, case) for case in cases)
    expected = integer_program.run(program, tensors, keep_all=True)
    # What is inexact in numpy is not in other bits on another processor: as far as a golden allows.
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
    """The first layer that an artifact computes otherwise: on which golden, and all it gave."""

    layer: LayerAgreement
    golden: str
    expected: ArraysByName
    actual: NDArray[Any]
    visible_names: frozenset[str]


def find_divergence(
    bundle: Bundle, device: Device, program_check: ProgramCheck
) -> Divergence | None:
    """Return where an artifact first differs from its program; None where no layer does.

    Args:
        bundle: The bundle.
        device: Its target.
        program_check: What `check` found of it.
    """
    layer = program_check.wrong_layer
    if layer is None:
        return None
    # Once more, as what was compared was not kept.
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
        golden_layer = empty_layer.add_input(expected[layer.name], layer_output)
        if golden_layer.differing:
            dtype = expected[layer.name].dtype
            converted = convert_sign(layer_output, dtype).astype(dtype)
            visible_names = frozenset(layer_values) & program_check.program.graph.types.keys()
            return Divergence(golden_layer, case.name, expected, converted, visible_names)
    return None
