"""Judge images by the guard of a bundle, and re-make its tables for the images of a site."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import bundle_folder, guard_readings
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.data.dataset import DataSet, check_dataset
from tcc.compiler.guard import fit, guard_document, stream
from tcc.compiler.guard.guard_document import RATE, Guard
from tcc.compiler.guard.stream import Alarm, Reading, StreamState
from tcc.compiler.ir.device import Device
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.value_views import ValueView, count

UNUSUAL = "unlike the calibration images (at most 1 in 20 normal ones is)"
"""What is reported of an image with a large score."""


@dataclass(repr=False)
class GuardStream(ValueView):
    """The guard of a bundle, with the state of one stream of images.

    `judge` each image, and end each case: a patient, a slide, or an image if the cases are unknown.
    """

    bundle: Bundle
    device: Device
    guard: Guard
    state: StreamState = field(default_factory=StreamState)

    def _summarize(self) -> Iterator[str]:
        yield self.describe() or "no alarm; this does not show that the images are normal"

    def judge(self, images: Sequence[NDArray[Any]]) -> list[Reading]:
        """Judge images and add them to the running case.

        Args:
            images: Pixels, uint8 (height, width, 3) each.
        """
        readings = []
        for measurement in guard_readings.measure_images(
            self.bundle, self.device, self.guard, images
        ):
            self.state = stream.add_image(self.guard, self.state, measurement.reading)
            readings.append(measurement.reading)
        return readings

    def judge_dataset(self, dataset: DataSet) -> Iterator[Reading]:
        """Judge the images of a dataset, each of which is one case, in the order of digests."""
        for index in range(len(dataset)):
            pixels = dataset.read_pixels(index, self.bundle.input).astype(np.uint8, copy=False)
            (measurement,) = guard_readings.measure_pixels(
                self.bundle, self.device, self.guard, [pixels]
            )
            self.state = stream.add_image(self.guard, self.state, measurement.reading)
            self.end_case()
            yield measurement.reading

    def judge_cases(self, images: Sequence[NDArray[Any]]) -> Iterator[Reading]:
        """Judge images, each of which is one case."""
        for measurement in guard_readings.measure_images(
            self.bundle, self.device, self.guard, images
        ):
            self.state = stream.add_image(self.guard, self.state, measurement.reading)
            self.end_case()
            yield measurement.reading

    def end_case(self) -> Alarm:
        """End the running case and return the alarm; without images nothing changes."""
        self.state = stream.end_case(self.state)
        return self.alarm

    @property
    def alarm(self) -> Alarm:
        """The alarm after the last case that ended."""
        return stream.get_alarm(self.guard, self.state)

    def describe(self) -> str:
        """Return the alarm in words; empty without an alarm."""
        return stream.describe_alarm(self.guard, self.state)


def open_stream(bundle: Bundle, device: Device) -> GuardStream | None:
    """Return the guard of a bundle at the start of a stream; None if it has none.

    Raises:
        UserError: It is damaged (E0740).
    """
    guard = guard_readings.find_guard(bundle)
    return GuardStream(bundle, device, guard) if guard else None


def require_stream(bundle: Bundle, device: Device) -> GuardStream:
    """Return the guard of a bundle at the start of a stream.

    Raises:
        UserError: The bundle has no guard (E0746), or it is damaged (E0740).
    """
    stream_start = open_stream(bundle, device)
    if stream_start is None:
        help = "build it with `--guard-data DIR`"
        raise fail(
            "E0746", "this bundle has no guard", make_file_span(str(bundle.folder)), help=help
        )
    return stream_start


def describe_reading(reading: Reading) -> str:
    """Return what is reported of an image; empty if it is like the calibration images."""
    return f"{UNUSUAL}: {reading.feature}" if reading.is_unusual else ""


def describe_promise(guard: Guard) -> str:
    """Return what the alarm of a guard promises, and on which assumption."""
    cases = count(guard.calibrated.cases, "case")
    return (
        f"with 99 % confidence over the {cases} of the guard images, a false alarm within N cases"
        f" has a probability of at most N/{RATE:,}, if cases come as those did; silence promises"
        " nothing"
    )


def refit(bundle: Bundle, device: Device, dataset: DataSet) -> Bundle:
    """Write a bundle again with guard tables of other images, such as those of a site.

    Args:
        bundle: The bundle as it was read.
        device: Its target.
        dataset: Images of at least 50 cases, which nothing was fitted to.

    Returns:
        The new bundle.

    Raises:
        UserError: The bundle has no guard (E0746), the images are those of the calibration
            (E0745), there are too few (E0741), or the folder cannot be written.
    """
    guard = require_stream(bundle, device).guard
    if dataset.digest == guard.forms.digest:
        message = "these are the images that the guard was fitted to"
        help = "give other images: a promise needs images that nothing was fitted to"
        raise fail("E0745", message, make_file_span(str(dataset.items[0].path.parent)), help=help)
    check_dataset(dataset, bundle.input)
    measured = guard_readings.collect_measurements(bundle, device, guard, dataset)
    new_guard = fit.refit_tables(guard, measured)
    measurements = guard_readings.measure_goldens(bundle, device, new_guard)
    cases = [case.name for case in bundle.manifest.goldens.cases]
    signature = device.read_runner_signature(bundle.model)
    return bundle_folder.rewrite_bundle(
        bundle,
        bundle.manifest.operating_points,
        device.encode_guard_tables(bundle.model, guard_document.encode(new_guard)),
        # The signature was for the old program.
        (signature.file,) if signature else (),
        guard_readings.encode_files(new_guard, cases, measurements),
    )
