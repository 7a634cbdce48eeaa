"""Fit the guard of a build: forms on the calibration images, tables on images held out for it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tcc.compiler.bundle import goldens, guard_readings
from tcc.compiler.bundle.guard_readings import GuardMeasurement
from tcc.compiler.data.dataset import DataSet, check_dataset
from tcc.compiler.driver.build_plan import Int8Program
from tcc.compiler.guard import fit, measure, plan, stream
from tcc.compiler.guard.guard_document import Guard
from tcc.compiler.guard.plan import GuardPlan
from tcc.compiler.ir.graph import Model
from tcc.compiler.ops.integer.base import get_zero_point
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span
from tcc.compiler.support.progress import Progress

MAX_LISTED = 3
"""Most images that an error lists."""


def compute_key(form_images: DataSet, guard_images: DataSet) -> str:
    """Return what a guard depends on besides its program."""
    return hashlib.sha256(f"{form_images.digest} {guard_images.digest}".encode()).hexdigest()


def check_images(guard_images: DataSet, used: Mapping[str, Sequence[str]]) -> None:
    """Refuse guard images that were used for something else, by their digests.

    Args:
        guard_images: The images.
        used: Digests of other images, by what these were used for.

    Raises:
        UserError: Some were used (E0745); they are listed.
    """
    names = {item.digest: item.name for item in guard_images.items}
    for use, digests in used.items():
        shared = sorted({names[digest] for digest in digests if digest in names})
        if shared:
            verb = "were" if len(shared) > 1 else "was"
            message = f"{len(shared):,} of the guard images {verb} used for {use}"
            help = "give images that nothing was trained or fitted on: a promise needs them"
            location = make_file_span(str(guard_images.items[0].path.parent))
            notes = tuple(shared[:MAX_LISTED])
            raise UserError((Diagnostic("E0745", message, location, notes=notes, help=help),))


def add_guard(
    program: Int8Program, form_images: DataSet, guard_images: DataSet, progress: Progress
) -> Int8Program:
    """Return an integer program with a guard, which is fitted when its files are needed.

    Args:
        program: The integer program.
        form_images: The images of its calibration.
        guard_images: Images that nothing was trained or fitted on.
        progress: Receives the number of measured images.
    """

    def make_guard() -> Mapping[str, bytes]:
        guard = fit_guard(program.program, form_images, guard_images, progress)
        return encode_files(program.program, guard)

    return replace(program, make_guard=make_guard)


def fit_guard(
    program: Model, form_images: DataSet, guard_images: DataSet, progress: Progress
) -> Guard:
    """Return the guard of an integer program.

    Raises:
        UserError: The network reads no raw pixels (E0742), or as for `fit.fit_guard`.
    """
    guard_plan = make_plan(program)
    (network_input,) = program.graph.inputs
    form_set, guard_set = (
        measure.measure_dataset(
            program, guard_plan, check_dataset(images, network_input), None, progress
        )
        for images in (form_images, guard_images)
    )
    changed = measure.measure_changes(program, guard_plan, form_images, progress)
    guard = fit.fit_guard(guard_plan, replace(form_set, changed=changed), guard_set)
    if guard.layer is None:
        return guard
    zero_point = get_zero_point(program.graph.types[guard.layer.tap])
    return replace(guard, layer=replace(guard.layer, zero_point=zero_point))


def make_plan(program: Model) -> GuardPlan:
    """Return what the guard of an integer program reads.

    Raises:
        UserError: The program does not start from raw pixels, or as for `plan.plan_guard` (E0742).
    """
    (network_input,) = program.graph.inputs
    if network_input.preprocess is not None and not network_input.preprocess.raw:
        message = "a guard needs a network that starts from 8-bit pixels"
        help = "divide pixels by 255 in `preprocess`, not by each image's maximum"
        raise fail("E0742", message, make_file_span(program.graph.name), help=help)
    return plan.plan_guard(program.graph)


def encode_files(program: Model, guard: Guard) -> Mapping[str, bytes]:
    """Return the files of a guard in a bundle: the guard, and its numbers for the goldens."""
    (network_input,) = program.graph.inputs
    tensors = goldens.list_input_tensors(network_input)
    pixels = [tensor.transpose(1, 2, 0).astype(np.uint8) for tensor in tensors]
    sum_channels = measure.create_channel_reader(program, make_plan(program))
    measurements = []
    for image in pixels:
        sums = sum_channels(image)
        reading = stream.read_image(guard, image, None if guard.layer is None else sums)
        measurements.append(
            GuardMeasurement(reading, sums if guard.layer else np.zeros(0, np.int64))
        )
    cases = [str(number) for number in range(1, len(measurements) + 1)]
    return guard_readings.encode_files(guard, cases, measurements)
