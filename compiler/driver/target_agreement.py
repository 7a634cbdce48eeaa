"""How the targets of one build agree: with the reference executor, layer by layer, and in pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import (
    artifact_runs,
    bundle_comparison,
    layer_agreement,
    replay,
)
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_comparison import OutputPair
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.layer_agreement import LayerAgreement
from tcc.compiler.bundle.replay import Replayed
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.driver import build_plan
from tcc.compiler.driver.build_plan import Int8Programs
from tcc.compiler.driver.evaluation import pixels
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.precision import Arithmetic
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support.progress import Progress, silent

Values = Mapping[str, NDArray[Any]]
BATCH = 8
"""Images that an artifact is given at a time."""
KEPT = 1 << 28
"""Most bytes of the reference's values that are kept for the next target."""


@dataclass(frozen=True, slots=True, eq=False)
class ComparedTarget:
    """One target of a build, over `images` of the user's and the goldens of its bundle.

    `unchecked` says why it was not run; then it agrees with nothing. `layers` is None where nothing
    looks into the artifact. `floats` says what of it is in float, and why that may differ.
    """

    device: Device
    bundle: Bundle
    unchecked: str = ""
    images: int = 0
    replayed: Replayed | None = None
    layers: tuple[LayerAgreement, ...] | None = None

    def at(self, bundle: Bundle) -> "ComparedTarget":
        """Return the same of the bundle in another folder."""
        moved = self.replayed and replace(self.replayed, bundle=bundle)
        return replace(self, bundle=bundle, replayed=moved)

    @property
    def outputs(self) -> tuple[Agreement, ...]:
        """How each output of each input agrees with the reference's."""
        return self.replayed.agreement if self.replayed else ()

    @property
    def inputs(self) -> int:
        """How many inputs it was run on."""
        return len(self.bundle.manifest.goldens.cases) + self.images if self.replayed else 0

    @property
    def wrong_layer(self) -> LayerAgreement | None:
        """The first layer that differs and must not."""
        return layer_agreement.first(self.layers or ())

    @property
    def holds(self) -> bool | None:
        """Whether it agrees with the reference as far as it must; None where it was not run."""
        if self.replayed is None:
            return None
        return all(each.holds for each in self.outputs) and self.wrong_layer is None

    @property
    def floats(self) -> str:
        """What is in float, or else not the integer program's, and why that may differ."""
        about = self.bundle.manifest
        precision = self.device.precision(about.precision)
        match precision.arithmetic:
            case Arithmetic.INTEGER:
                inexact = about.calibration.inexact if about.calibration else ()
                more = f" and {len(inexact) - 3} more" if len(inexact) > 3 else ""
                return f"in float: {', '.join(inexact[:3])}{more}" if inexact else ""
            case Arithmetic.FLOAT | Arithmetic.SIMULATED | Arithmetic.FOREIGN:
                return about.goldens.tolerance.reason
            case _:
                assert_never(precision.arithmetic)


@dataclass(frozen=True, slots=True)
class TargetPair:
    """An output of two targets beside each other; `why` they need not be equal."""

    found: OutputPair
    why: str


@dataclass(frozen=True, slots=True)
class BuildAgreement:
    """All targets of a build, and each that ran beside each other."""

    targets: tuple[ComparedTarget, ...]
    pairs: tuple[TargetPair, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing disagrees; what was not run says nothing."""
        return all(each.holds is not False for each in self.targets) and all(
            pair.found.holds for pair in self.pairs
        )


@dataclass(frozen=True, eq=False)
class BuildComparison:
    """What the targets of one build are held against: the network, and images beside goldens."""

    model: Model
    integers: Int8Programs | None
    images: DataSet | None = None
    _kept: dict[tuple[int, bytes], Values] = field(default_factory=dict)

    def compared(self, bundle: Bundle, plan: Plan, progress: Progress = silent) -> ComparedTarget:
        """Return how a target that runs here agrees with the reference.

        Raises:
            MissingTool: What runs it is not here.
            UserError: It cannot be run, or gives something else than its manifest says (E0655).
        """
        found = replay.replay(bundle, plan.device)
        own = build_plan.program(plan, self.integers)
        program = own.program if own and plan.precision.integer else None
        tensors = [replay.tensor(bundle, case) for case in bundle.manifest.goldens.cases]
        if self.images:
            agreed, outputs = self._images(bundle, plan, program, progress)
            outputs = {**found.outputs, **outputs}
            found = replace(found, agreement=(*found.agreement, *agreed), outputs=outputs)
            tensors += [self.images.tensor(i, bundle.input) for i in range(len(self.images))]
        layers = None
        if program and plan.precision.exact and plan.device.level_reader:
            pairs = self._levels(bundle, plan.device, program, tensors)
            layers = layer_agreement.compared(program.graph, pairs)
        number = len(self.images) if self.images else 0
        return ComparedTarget(plan.device, bundle, "", number, found, layers)

    def _images(
        self, bundle: Bundle, plan: Plan, program: Model | None, progress: Progress
    ) -> tuple[list[Agreement], dict[str, Values]]:
        """Return how the artifact does on the images, from their pixels on, and what it gives."""
        data, source = self.images, bundle.input
        assert data is not None
        agreed: list[Agreement] = []
        outputs: dict[str, Values] = {}
        allowed = artifact_runs.allowed(bundle, plan.device)
        for start in range(0, len(data), BATCH):
            progress(f"{plan.device.name}: images", start, len(data))
            places = range(start, min(start + BATCH, len(data)))
            batch = _given(bundle, plan.device, data, places)
            for i, given in zip(places, batch, strict=True):
                wanted = self._right(program, data, i, source)
                digest = data.items[i].digest
                agreed += replay.beside(bundle, digest[:12], wanted, given, allowed)
                outputs[digest] = given
        return agreed, outputs

    def _right(self, program: Model | None, data: DataSet, place: int, source: Input) -> Values:
        """Return what the reference gives for an image: of the integers, or else of the floats."""
        if program:
            return _outputs(program, self._values(program, data.tensor(place, source)))
        (own,) = self.model.graph.inputs
        return float_program.run(self.model, [data.tensor(place, own)])[0]

    def _levels(
        self, bundle: Bundle, device: Device, program: Model, tensors: Sequence[NDArray[Any]]
    ) -> Iterator[tuple[Values, Values]]:
        shown = artifact_runs.inner_levels(bundle, device, tensors)
        assert shown is not None
        for tensor, values in zip(tensors, shown, strict=True):
            yield self._values(program, tensor), values

    def _values(self, program: Model, tensor: NDArray[Any]) -> Values:
        """Return all values of the integer program, kept while they are not too many."""
        # By identity: the programs of one build live as long as this.
        key = id(program), tensor.tobytes()
        if key in self._kept:
            return self._kept[key]
        (found,) = integer_program.run(program, [tensor], every=True)
        known = sum(value.nbytes for values in self._kept.values() for value in values.values())
        if known + sum(value.nbytes for value in found.values()) <= KEPT:
            self._kept[key] = found
        return found


def unchecked(device: Device, bundle: Bundle, why: str) -> ComparedTarget:
    """Return a target that was not run."""
    return ComparedTarget(device, bundle, why)


def agreement(targets: Sequence[ComparedTarget]) -> BuildAgreement:
    """Return how targets agree, each that ran with each."""
    pairs = []
    ran = [each for each in targets if each.replayed]
    for index, one in enumerate(ran):
        for other in ran[index + 1 :]:
            assert one.replayed
            assert other.replayed
            why = _apart(one, other)
            pairs += [
                TargetPair(pair, why)
                for pair in bundle_comparison.compared(one.replayed, other.replayed)
            ]
    return BuildAgreement(tuple(targets), tuple(pairs))


def _given(
    bundle: Bundle, device: Device, data: DataSet, places: range
) -> Sequence[Mapping[str, NDArray[np.float32]]]:
    """Return what an artifact gives for some images, or for tensors given as such."""
    source = bundle.input
    if data.array is not None and data.array.dtype != np.uint8:
        return artifact_runs.infer(bundle, device, [data.tensor(i, source) for i in places])
    return artifact_runs.run(bundle, device, [pixels(data, i, source) for i in places])


def _outputs(model: Model, values: Values) -> Values:
    return {output.name: values[output.value] for output in model.graph.outputs}


def _apart(one: ComparedTarget, other: ComparedTarget) -> str:
    """Return why the outputs of two targets need not be equal; nothing where they must be."""
    kinds = [each.device.precision(each.bundle.manifest.precision) for each in (one, other)]
    if not all(kind.exact for kind in kinds):
        return "computed in float"
    if kinds[0].real_ends != kinds[1].real_ends:
        ends = one if kinds[1].real_ends else other
        return f"{ends.device.name} gives 8-bit levels at its end, which are the last layer's"
    return one.floats or other.floats
