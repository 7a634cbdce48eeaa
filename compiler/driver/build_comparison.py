"""Compare the targets of one build with the reference executor."""

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
from tcc.compiler.driver.evaluation import read_pixels
from tcc.compiler.driver.target_agreement import ComparedTarget
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support.progress import Progress, silent

TensorMap = Mapping[str, NDArray[Any]]
BATCH_SIZE = 8
"""Number of images per call of an artifact."""
MAX_CACHED_BYTES = 1 << 28
"""Most bytes of reference values that are cached for the next target."""


@dataclass(frozen=True, eq=False)
class BuildComparison:
    """Reference for the targets of one build: the network, and images in addition to goldens."""

    model: Model
    int8_programs: Int8Programs | None
    images: DataSet | None = None
    _cached_values: dict[tuple[int, bytes], TensorMap] = field(default_factory=dict)

    def compare(self, bundle: Bundle, plan: Plan, progress: Progress = silent) -> ComparedTarget:
        """Return how a target that runs here agrees with the reference.

        Raises:
            MissingTool: The tool that runs it is not installed.
            UserError: It cannot be run, or its outputs do not match its manifest (E0655).
        """
        replayed = replay.replay_goldens(bundle, plan.device)
        int8_program = build_plan.select_program(plan, self.int8_programs)
        program = int8_program.program if int8_program and plan.precision.integer else None
        tensors = [replay.read_input_tensor(bundle, case) for case in bundle.manifest.goldens.cases]
        if self.images:
            agreed, outputs = self._compare_images(bundle, plan, program, progress)
            outputs = {**replayed.outputs, **outputs}
            replayed = replace(replayed, agreement=(*replayed.agreement, *agreed), outputs=outputs)
            tensors += [self.images.read_tensor(i, bundle.input) for i in range(len(self.images))]
        layers = None
        if program and plan.precision.exact and plan.device.quantized_value_reader:
            pairs = self._iterate_layer_values(bundle, plan.device, program, tensors)
            layers = program_check.compare_layers(program.graph, pairs)
        image_count = len(self.images) if self.images else 0
        return ComparedTarget(plan.device, bundle, "", image_count, replayed, layers)

    def _compare_images(
        self, bundle: Bundle, plan: Plan, program: Model | None, progress: Progress
    ) -> tuple[list[Agreement], dict[str, TensorMap]]:
        """Return the agreement on the images, starting from their pixels, and the outputs."""
        dataset, network_input = self.images, bundle.input
        assert dataset is not None
        agreed: list[Agreement] = []
        outputs: dict[str, TensorMap] = {}
        allowed = artifact_runs.compute_tolerances(bundle, plan.device)
        for start in range(0, len(dataset), BATCH_SIZE):
            progress(f"{plan.device.name}: images", start, len(dataset))
            indices = range(start, min(start + BATCH_SIZE, len(dataset)))
            batch = _run_artifact(bundle, plan.device, dataset, indices)
            for i, actual in zip(indices, batch, strict=True):
                expected = self._compute_expected(program, dataset, i, network_input)
                digest = dataset.items[i].digest
                agreed += replay.compare_outputs(bundle, digest[:12], expected, actual, allowed)
                outputs[digest] = actual
        return agreed, outputs

    def _compute_expected(
        self, program: Model | None, dataset: DataSet, index: int, network_input: Input
    ) -> TensorMap:
        """Return the reference outputs of an image: of the int8 model, or else the float model."""
        if program:
            return _select_outputs(
                program, self._compute_values(program, dataset.read_tensor(index, network_input))
            )
        (graph_input,) = self.model.graph.inputs
        return float_program.run(self.model, [dataset.read_tensor(index, graph_input)])[0]

    def _iterate_layer_values(
        self, bundle: Bundle, device: Device, program: Model, tensors: Sequence[NDArray[Any]]
    ) -> Iterator[tuple[TensorMap, TensorMap]]:
        actual_values = artifact_runs.collect_quantized_layers(bundle, device, tensors)
        assert actual_values is not None
        for tensor, actual in zip(tensors, actual_values, strict=True):
            yield self._compute_values(program, tensor), actual

    def _compute_values(self, program: Model, tensor: NDArray[Any]) -> TensorMap:
        """Return all values of the integer program, cached up to `MAX_CACHED_BYTES`."""
        # The key has the identity: the programs of one build live as long as this object.
        key = id(program), tensor.tobytes()
        if key in self._cached_values:
            return self._cached_values[key]
        (computed,) = integer_program.run(program, [tensor], keep_all=True)
        cached_bytes = sum(
            array.nbytes for cached in self._cached_values.values() for array in cached.values()
        )
        if cached_bytes + sum(array.nbytes for array in computed.values()) <= MAX_CACHED_BYTES:
            self._cached_values[key] = computed
        return computed


def _run_artifact(
    bundle: Bundle, device: Device, dataset: DataSet, indices: range
) -> Sequence[Mapping[str, NDArray[np.float32]]]:
    """Return the artifact's outputs for some images, or for tensors if the dataset has these."""
    network_input = bundle.input
    if dataset.array is not None and dataset.array.dtype != np.uint8:
        return artifact_runs.infer(
            bundle, device, [dataset.read_tensor(i, network_input) for i in indices]
        )
    return artifact_runs.run(
        bundle, device, [read_pixels(dataset, i, network_input) for i in indices]
    )


def _select_outputs(model: Model, computed: TensorMap) -> TensorMap:
    return {output.name: computed[output.value] for output in model.graph.outputs}
