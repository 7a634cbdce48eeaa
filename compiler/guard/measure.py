"""Measure images: what a guard reads of them, from pixels and the int8 program."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.guard import forms, known_changes
from tcc.compiler.guard.fit import Measurements
from tcc.compiler.guard.picture_features import compute_features
from tcc.compiler.guard.pixel_sums import Pixels, compute_sums
from tcc.compiler.guard.plan import GuardPlan
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Input, Model, Output
from tcc.compiler.ops.integer.base import get_zero_point
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.progress import Progress, silent

Int64 = NDArray[np.int64]
MAX_CHANGED = 64
"""Most images that known changes are applied to."""
_TAP = "guard tap"


def measure_dataset(
    program: Model,
    guard_plan: GuardPlan,
    dataset: DataSet,
    cases: Sequence[Hashable] | None = None,
    progress: Progress = silent,
) -> Measurements:
    """Return what a guard reads of a dataset's images.

    Args:
        program: The int8 program.
        guard_plan: What the guard reads.
        dataset: Images for its input.
        cases: The case of each image; None if each image is one.
        progress: Receives the number of measured images.

    Raises:
        UserError: The dataset has tensors instead of pixels (E0742), or an image is damaged.
    """
    if dataset.array is not None and dataset.array.dtype != np.uint8:
        raise fail(
            "E0742",
            "a guard reads the pixels of images, and these are tensors",
            make_file_span(str(dataset.items[0].path)),
            help="give image files, or an .npz file of uint8 `images`",
        )
    (network_input,) = program.graph.inputs
    sum_channels = create_channel_reader(program, guard_plan)
    sums: list[Int64] = []
    channel_sums: list[Int64] = []
    for index in range(len(dataset)):
        pixels = dataset.read_pixels(index, network_input).astype(np.uint8, copy=False)
        sums.append(compute_sums(pixels, guard_plan.row_step))
        if guard_plan.tap is not None:
            channel_sums.append(sum_channels(pixels))
        progress("guard", index + 1, len(dataset))
    _, height, width = guard_plan.shape
    features = compute_features(np.stack(sums), height, width, guard_plan.row_step)
    return Measurements(
        dataset.digest, features, np.stack(channel_sums) if channel_sums else None, cases
    )


def measure_changes(
    program: Model, guard_plan: GuardPlan, dataset: DataSet, progress: Progress = silent
) -> Mapping[str, Int64]:
    """Return the features of the first images of a dataset after each known change.

    Args:
        program: The int8 program.
        guard_plan: What the guard reads.
        dataset: Images for its input.
        progress: Receives the number of measured images.
    """
    (network_input,) = program.graph.inputs
    _, height, width = guard_plan.shape
    count = min(len(dataset), MAX_CHANGED)
    sums: dict[str, list[Int64]] = {name: [] for name in known_changes.CHANGES}
    for index in range(count):
        pixels = dataset.read_pixels(index, network_input).astype(np.uint8, copy=False)
        for name, image_sums in sums.items():
            changed = known_changes.apply_change(name, pixels)
            image_sums.append(compute_sums(changed, guard_plan.row_step))
        progress("guard changes", index + 1, count)
    return {
        name: compute_features(np.stack(image_sums), height, width, guard_plan.row_step)
        for name, image_sums in sums.items()
    }


def create_channel_reader(program: Model, guard_plan: GuardPlan) -> Callable[[Pixels], Int64]:
    """Return a function from an image's pixels to the tapped layer's channel sums.

    It takes uint8 (height, width, channels), and returns int64 (counted channels,).
    """
    (network_input,) = program.graph.inputs
    if guard_plan.tap is None:
        return lambda _: np.zeros(0, np.int64)
    outputs = (Output(_TAP, guard_plan.tap),)
    zero_point = get_zero_point(program.graph.types[guard_plan.tap])
    run = float_program.create_runner(
        replace(program, graph=replace(program.graph, outputs=outputs))
    )

    def sum_channels(pixels: Pixels) -> Int64:
        codes = run(_make_tensor(network_input, pixels))[_TAP].astype(np.int16)
        # In ONNX every code is a uint8, and a signed one has the zero point 128.
        return forms.compute_channel_sums(codes - zero_point, guard_plan.stride)

    return sum_channels


def _make_tensor(network_input: Input, pixels: Pixels) -> NDArray[Any]:
    assert network_input.preprocess is not None
    return preprocess.normalize(network_input.preprocess, pixels)
