"""Running the targets of one build beside the reference executor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs, program_check, replay
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.driver import build_plan
from tcc.compiler.driver.build_plan import Int8Programs
from tcc.compiler.driver.evaluation import pixels
from tcc.compiler.driver.target_agreement import ComparedTarget
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support.progress import Progress, silent

Values = Mapping[str, NDArray[Any]]
BATCH = 8
"""Images that an artifact is given at a time."""
KEPT = 1 << 28
"""Most bytes of the reference's values that are kept for the next target."""


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
            layers = program_check.compare_layers(program.graph, pairs)
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
