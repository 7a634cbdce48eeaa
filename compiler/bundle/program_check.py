"""A bundle beside its integer program: its goldens and each of its layers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs, layer_agreement, replay
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.layer_agreement import LayerAgreement
from tcc.compiler.bundle.manifest import Tolerance
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Model
from tcc.compiler.reference import integer_program
from tcc.compiler.support.value_views import ValueView

Values = Mapping[str, NDArray[Any]]


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
        yield layer_agreement.describe(None if layers is None else (x.holds for x in layers))

    @property
    def wrong_layer(self) -> LayerAgreement | None:
        """The first layer that differs and must not."""
        return layer_agreement.first(self.layers or ())

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
    layers = layer_agreement.compared(program.graph, zip(right, shown, strict=True))
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
            meant = layer_agreement.meant(own, kind).astype(kind)
            visible = frozenset(values) & found.program.graph.types.keys()
            return Divergence(differing, case.name, right, meant, visible)
    return None
