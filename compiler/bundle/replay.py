"""Replay a bundle's goldens on its artifact and compare the outputs with the reference."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.bundle import artifact_runs, guard_readings
from tcc.compiler.bundle.agreement import Agreement, Tolerance, compute_relative_difference
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import Golden
from tcc.compiler.data import confined_images
from tcc.compiler.data.dataset import check_image
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.device import Device
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class GoldenReplay:
    """Agreement of an artifact with its goldens, and its outputs.

    `outputs` are by the SHA-256 of each golden's image, or of its tensor if it has no image.
    """

    bundle: Bundle
    agreement: tuple[Agreement, ...]
    outputs: "Mapping[str, Outputs]"

    @property
    def constant_outputs(self) -> tuple[str, ...]:
        """The outputs with equal values in all goldens: they do not test the input."""
        cases, contracts = self.bundle.manifest.goldens.cases, self.bundle.manifest.outputs
        expected_by_output = {
            contract.name: {
                read_expected_output(self.bundle, case, contract.name).tobytes() for case in cases
            }
            for contract in contracts
        }
        return tuple(
            name
            for name, distinct_outputs in expected_by_output.items()
            if len(distinct_outputs) == 1
        )


def replay_goldens(bundle: Bundle, device: Device, max_cases: int | None = None) -> GoldenReplay:
    """Run the goldens of a bundle on its artifact and compare the outputs.

    Args:
        bundle: The bundle.
        device: Its target.
        max_cases: Number of goldens, from the first; all if None.

    Returns:
        The agreement of each output with its golden, and the outputs.

    Raises:
        UserError: The goldens do not fit the manifest's contract (E0621), the artifact cannot be
            run, or its outputs do not match the manifest (E0655).
    """
    cases = bundle.manifest.goldens.cases[:max_cases]
    replayed = compare_goldens(bundle, device, cases, _run_goldens(bundle, device, cases))
    guarded = guard_readings.compare_goldens(bundle, device, cases)
    return replace(replayed, agreement=(*replayed.agreement, *guarded))


def compare_goldens(
    bundle: Bundle, device: Device, cases: Sequence[Golden], outputs: "Sequence[Outputs]"
) -> GoldenReplay:
    """Compare outputs with the goldens.

    Args:
        bundle: The bundle.
        device: Its target.
        cases: Some of its goldens.
        outputs: The artifact's outputs for each golden, by name.

    Raises:
        Mislabelled: The artifact is not what the manifest states (E0656).
    """
    # By output, because float layers influence some outputs and not others.
    tolerances = artifact_runs.compute_tolerances(bundle, device)
    agreement = tuple(
        case_agreement
        for case, case_outputs in zip(cases, outputs, strict=True)
        for case_agreement in _compare_case(bundle, case, case_outputs, tolerances)
    )
    stuck = _find_stuck_outputs(bundle, cases, outputs)
    agreement = tuple(
        replace(output_agreement, stuck=output_agreement.output in stuck)
        for output_agreement in agreement
    )
    digests = {file.path: file.sha256 for file in bundle.manifest.files}
    input_digests = [digests[case.image or case.tensor] for case in cases]
    return GoldenReplay(bundle, agreement, dict(zip(input_digests, outputs, strict=True)))


def read_expected_output(bundle: Bundle, case: Golden, output: str) -> "NDArray[np.float32]":
    """Return a golden output, flattened.

    Args:
        bundle: The bundle.
        case: One of its goldens.
        output: The output's name.

    Returns:
        float32 (values,).
    """
    return _read_values(bundle, case.outputs[output], "float32")


def read_input_tensor(bundle: Bundle, case: Golden) -> "NDArray[np.float32]":
    """Return the preprocessed input tensor of a golden, in the input's shape."""
    kind = bundle.input.type
    return _read_values(bundle, case.tensor, kind.dtype).reshape(kind.shape)


def _run_goldens(bundle: Bundle, device: Device, cases: Sequence[Golden]) -> "Sequence[Outputs]":
    """Run the artifact on the goldens, starting from the image files if there are images."""
    network_input = bundle.input
    # For images too: their preprocessed tensors are compared with the goldens' before the artifact
    # runs.
    tensors = [read_input_tensor(bundle, case) for case in cases]
    if network_input.preprocess is None:
        return artifact_runs.infer(bundle, device, tensors)
    paths = [bundle.folder / case.image for case in cases if case.image]
    pixels = [
        check_image(confined_images.read_image(path), network_input, str(path)) for path in paths
    ]
    channels, height, width = network_input.type.shape
    for path, image, golden_tensor in zip(paths, pixels, tensors, strict=True):
        # Bit for bit: the contract defines preprocessing exactly.
        preprocessed = preprocess.apply(
            network_input.preprocess, image, (channels, height, width), str(path)
        )
        if not np.array_equal(preprocessed, golden_tensor):
            label = "its stored tensor differs from the preprocessed image"
            raise _build_damage_error(path, label)
    return artifact_runs.run(bundle, device, pixels)


def _compare_case(
    bundle: Bundle, case: Golden, outputs: "Outputs", tolerances: Mapping[str, Tolerance]
) -> Iterator[Agreement]:
    expected_outputs = {name: read_expected_output(bundle, case, name) for name in case.outputs}
    return compare_outputs(bundle, case.name, expected_outputs, outputs, tolerances)


def compare_outputs(
    bundle: Bundle,
    name: str,
    expected_outputs: "Outputs",
    outputs: "Outputs",
    tolerances: Mapping[str, Tolerance],
) -> Iterator[Agreement]:
    """Yield the agreement of each output of one input.

    Args:
        bundle: The bundle; its goldens define the magnitude of an output.
        name: Name of the input.
        expected_outputs: The expected outputs, float32 by name.
        outputs: The artifact's outputs.
        tolerances: The tolerance of each output.
    """
    for output, expected_output in expected_outputs.items():
        expected, actual = expected_output.reshape(-1), outputs[output].reshape(-1)
        differing, largest = count_differences(expected, actual)
        magnitude = float(np.abs(expected.astype(np.float64)).max(initial=0.0))
        tolerance = tolerances[output].relative
        difference = compute_relative_difference(
            largest, max(magnitude, _compute_magnitude(bundle, output)), tolerance
        )
        yield Agreement(
            name, output, difference, tolerance, expected.size, differing, largest, magnitude
        )


def _compute_magnitude(bundle: Bundle, output: str) -> float:
    """Return the largest magnitude of an output over all goldens."""
    cases = bundle.manifest.goldens.cases
    return max(
        float(np.abs(read_expected_output(bundle, case, output)).max(initial=0.0)) for case in cases
    )


def _find_stuck_outputs(
    bundle: Bundle, cases: Sequence[Golden], outputs: "Sequence[Outputs]"
) -> set[str]:
    """Return the outputs that are the same for every golden although their references differ."""
    return {
        name
        for name in (contract.name for contract in bundle.manifest.outputs)
        if len({case_outputs[name].tobytes() for case_outputs in outputs}) == 1
        and len({read_expected_output(bundle, case, name).tobytes() for case in cases}) > 1
    }


def count_differences(
    first_array: "NDArray[np.float32]", second_array: "NDArray[np.float32]"
) -> tuple[int, float]:
    """Return how many values of two arrays differ in bits, and the largest absolute difference."""
    # By bits: 0.0 and -0.0 differ, and equal NaNs do not.
    differing = int(np.count_nonzero(first_array.view(np.uint32) != second_array.view(np.uint32)))
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(first_array.astype(np.float64) - second_array).max(initial=0.0))
    return differing, largest


def _read_values(bundle: Bundle, path: str, dtype: str) -> "NDArray[np.float32]":
    """Return the values of a file with the size of its tensor, which was checked."""
    location = bundle.folder / path
    with regular_files.open_file(location) as file:
        return np.frombuffer(file.read(), np.dtype(dtype).newbyteorder("<")).astype(np.float32)


def _build_damage_error(path: Path, label: str) -> UserError:
    help = "build the bundle again"
    return fail(
        "E0621",
        "the bundle's goldens are damaged",
        make_file_span(str(path)),
        label=label,
        help=help,
    )
