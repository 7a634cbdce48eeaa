"""What the guard of a bundle reads of images, and its goldens.

A guard reads the pixels of an image and the 8-bit codes of one layer. The artifact computes the
codes. A target with code of its own for guards also computes the scores; the others leave that to
this code.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import Golden
from tcc.compiler.bundle.stored_values import MAX_UINT8, read_stored
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.guard import forms, guard_document, stream
from tcc.compiler.guard.fit import Measurements
from tcc.compiler.guard.guard_document import Guard
from tcc.compiler.guard.picture_features import compute_features
from tcc.compiler.guard.pixel_sums import compute_sums
from tcc.compiler.guard.stream import Reading, StreamState
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Input
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, make_file_span

NAME = "guard.json"
"""The guard of a bundle, by its path."""
GOLDEN_NAME = "guard"
"""Name of the guard's numbers in the comparison with the goldens."""
Pixels = NDArray[np.uint8]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class GuardMeasurement:
    """The reading of an image, and the sums of the tapped layer's channels (channels,)."""

    reading: Reading
    channel_sums: Int64


def find_guard(bundle: Bundle) -> Guard | None:
    """Return the guard of a bundle; None if it has none.

    Raises:
        UserError: It is damaged (E0740).
    """
    if all(file.path != NAME for file in bundle.manifest.files):
        return None
    return guard_document.read_guard(bundle.folder / NAME)


def measure_images(
    bundle: Bundle, device: Device, guard: Guard, images: Iterable[Pixels]
) -> Iterator[GuardMeasurement]:
    """Yield what a guard reads of images.

    Args:
        bundle: The bundle of the guard.
        device: Its target.
        guard: The guard.
        images: uint8 (height, width, 3) each.

    Raises:
        UserError: The layer of the guard cannot be read here (E0744), or as for
            `artifact_runs.collect_quantized_layers`.
    """
    pixels = (prepare_pixels(bundle.input, image) for image in images)
    yield from measure_pixels(bundle, device, guard, list(pixels))


def measure_pixels(
    bundle: Bundle, device: Device, guard: Guard, pixels: Sequence[Pixels]
) -> Iterator[GuardMeasurement]:
    """Yield what a guard reads of images that have the size of the network's input.

    Args:
        bundle: The bundle of the guard.
        device: Its target.
        guard: The guard.
        pixels: uint8 (height, width, channels) each, before normalization.
    """
    for image, channel_sums in zip(
        pixels, _sum_channels(bundle, device, guard, pixels), strict=True
    ):
        sums = None if guard.layer is None else channel_sums
        yield GuardMeasurement(stream.read_image(guard, image, sums), channel_sums)


def prepare_pixels(network_input: Input, image: Pixels) -> Pixels:
    """Return the pixels that the network reads of an image, before normalization."""
    channels, height, width = network_input.type.shape
    assert network_input.preprocess is not None
    return preprocess.prepare_pixels(network_input.preprocess, image, (channels, height, width))


def _sum_channels(
    bundle: Bundle, device: Device, guard: Guard, pixels: Sequence[Pixels]
) -> Iterator[Int64]:
    layer, contract = guard.layer, bundle.input.preprocess
    assert contract is not None
    if layer is None:
        yield from (np.zeros(0, np.int64) for _ in pixels)
        return
    tensors = (preprocess.normalize(contract, image) for image in pixels)
    layer_values = artifact_runs.collect_quantized_layers(bundle, device, tensors)
    if layer_values is None:
        raise _build_unreadable_error(bundle, layer.tap)
    for values in layer_values:
        if layer.tap not in values or values[layer.tap].size != np.prod(layer.shape):
            raise _build_unreadable_error(bundle, layer.tap)
        codes = values[layer.tap].reshape(layer.shape)
        quantized = read_stored(codes, MAX_UINT8 - layer.zero_point)
        yield forms.compute_channel_sums(quantized, layer.stride)


def _build_unreadable_error(bundle: Bundle, tap: str) -> Exception:
    message = f"layer `{tap[:80]}`, which the guard reads, cannot be read in this artifact"
    return fail("E0744", message, make_file_span(str(bundle.folder)), help="build the bundle again")


def collect_measurements(
    bundle: Bundle, device: Device, guard: Guard, dataset: DataSet
) -> Measurements:
    """Return what a guard reads of a dataset's images, with the artifact's codes.

    Raises:
        UserError: An image is damaged or does not fit the network, or as for `measure_images`.
    """
    network_input = bundle.input
    pixels = [
        dataset.read_pixels(index, network_input).astype(np.uint8, copy=False)
        for index in range(len(dataset))
    ]
    _, height, width = guard.shape
    sums = np.stack([compute_sums(image, guard.row_step) for image in pixels])
    features = compute_features(sums, height, width, guard.row_step)
    channel_sums = None
    if guard.layer is not None:
        channel_sums = np.stack(list(_sum_channels(bundle, device, guard, pixels)))
    return Measurements(dataset.digest, features, channel_sums)


def encode_files(
    guard: Guard, cases: Sequence[str], measurements: Iterable[GuardMeasurement]
) -> Mapping[str, bytes]:
    """Return the files of a guard in a bundle by path: the guard, and its numbers for goldens."""
    rows = list_numbers(guard, measurements)
    return {
        NAME: guard_document.encode(guard),
        **{
            get_golden_path(case): row.astype("<i8").tobytes()
            for case, row in zip(cases, rows, strict=True)
        },
    }


def measure_goldens(bundle: Bundle, device: Device, guard: Guard) -> list[GuardMeasurement]:
    """Return what a guard reads of the goldens of a bundle."""
    pixels = [_read_golden_pixels(bundle, case) for case in bundle.manifest.goldens.cases]
    return list(measure_pixels(bundle, device, guard, pixels))


def get_golden_path(case: str) -> str:
    """Return the path of a golden's guard numbers in a bundle."""
    return f"goldens/{case}/guard.bin"


def list_numbers(guard: Guard, measurements: Iterable[GuardMeasurement]) -> Iterator[Int64]:
    """Yield the numbers that every target computes alike for the images of a stream, in order.

    Each image is one case. The numbers are: the scores of picture, drift and layer (0 without a
    layer), 1 if the image is unlike those of calibration, the alarm, 3 evidences, 19 trends,
    19 deviations, and the sums of the layer's channels.
    """
    state = StreamState()
    for measurement in measurements:
        reading = measurement.reading
        change = guard.drift.changes[stream.find_change(guard, state)]
        drift = stream.compute_drift_score(change, reading.deviations)
        state = stream.end_case(stream.add_image(guard, state, reading))
        numbers = (
            *(reading.picture, drift, reading.layer or 0, int(reading.is_unusual)),
            int(stream.get_alarm(guard, state)),
            *state.evidences,
            *state.trends,
            *reading.deviations,
        )
        yield np.concatenate([np.array(numbers, np.int64), measurement.channel_sums])


def compare_goldens(bundle: Bundle, device: Device, cases: Sequence[Golden]) -> list[Agreement]:
    """Compare a guard's numbers for goldens with those in the bundle; empty without a guard.

    If the target has code of its own for guards, both are compared: the larger difference counts.

    Raises:
        UserError: As for `measure_images`.
    """
    guard = find_guard(bundle)
    if guard is None:
        return []
    pixels = [_read_golden_pixels(bundle, case) for case in cases]
    computed = [list(list_numbers(guard, measure_pixels(bundle, device, guard, pixels)))]
    if (by_target := device.run_guard(bundle.model, bundle.input, pixels)) is not None:
        computed.append(list(by_target))
    expected = [_read_numbers(bundle, case) for case in cases]
    return [
        max(
            (_compare_numbers(case, expected[index], rows[index]) for rows in computed),
            key=lambda agreement: agreement.differing,
        )
        for index, case in enumerate(cases)
    ]


def _compare_numbers(case: Golden, expected: Int64, actual: Int64) -> Agreement:
    if expected.shape != actual.shape:
        count = max(expected.size, 1)
        return Agreement(case.name, GOLDEN_NAME, 1.0, 0.0, count, count, 1.0, 1.0)
    differing = int(np.count_nonzero(expected != actual))
    largest = float(np.abs(expected - actual).max(initial=0))
    magnitude = float(np.abs(expected).max(initial=1))
    return Agreement(
        case.name,
        GOLDEN_NAME,
        largest / magnitude,
        0.0,
        expected.size,
        differing,
        largest,
        magnitude,
    )


def _read_golden_pixels(bundle: Bundle, case: Golden) -> Pixels:
    """Return the pixels (height, width, channels) of a golden's tensor, which is raw."""
    content = regular_files.read_file(bundle.folder / case.tensor)
    channels, height, width = bundle.input.type.shape
    flat = np.frombuffer(content, np.uint8)
    return np.ascontiguousarray(flat.reshape(channels, height, width).transpose(1, 2, 0))


def _read_numbers(bundle: Bundle, case: Golden) -> Int64:
    content = regular_files.read_file(bundle.folder / get_golden_path(case.name))
    return np.frombuffer(content[: len(content) // 8 * 8], "<i8").astype(np.int64)
