"""What was seen of a float model over a set of images; all that calibration knows of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tcc.compiler.ops import Conv

Float32 = NDArray[np.float32]
MOST_OUTPUTS = 4096
"""Most numbers that are kept of an output of one image."""


@dataclass(frozen=True, slots=True, eq=False)
class ValueStatistics:
    """What was seen of one value.

    `low` and `high` (images,) are the extremes of each image, `channel_low` and `channel_high`
    (channels,) those of each channel over all images: of all elements, not of the sample.
    `sample` (positions, channels) holds all channels at positions that hashes of the images chose.
    """

    low: Float32
    high: Float32
    channel_low: Float32
    channel_high: Float32
    sample: Float32

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest number seen."""
        return float(self.low.min()), float(self.high.max())


@dataclass(frozen=True, slots=True, eq=False)
class InputWindows:
    """Parts of a convolution's input, its padding of zeros included where they reach the border.

    `parts` is (windows, channels, height, width); each holds the inputs of several neighbouring
    outputs.
    """

    op: Conv
    parts: Float32

    def of_groups(self, start: int, end: int) -> "InputWindows":
        """Return what some groups of the convolution read, from `start` to before `end`."""
        op, depth = self.op, self.parts.shape[1] // self.op.groups
        some = replace(op, filters=op.filters // op.groups * (end - start), groups=end - start)
        return replace(self, op=some, parts=self.parts[:, start * depth : end * depth])

    def patches(self) -> Float32:
        """Return what each output reads, (groups, samples, channels / groups * kh * kw).

        A patch is laid out as a filter of the weight tensor.
        """
        height, width = self.op.window
        (down, right), (tall, wide) = self.op.stride, self.op.dilation
        views = sliding_window_view(self.parts, (height, width), (2, 3))
        views = views[:, :, ::down, ::right, ::tall, ::wide]
        windows, channels, *_ = views.shape
        split = views.reshape(windows, self.op.groups, channels // self.op.groups, *views.shape[2:])
        ordered = split.transpose(1, 0, 3, 4, 2, 5, 6)
        return np.ascontiguousarray(ordered).reshape(
            self.op.groups, -1, channels // self.op.groups * self.op.kernel[0] * self.op.kernel[1]
        )


def outputs(op: Conv, patches: Float32, weight: Float32, bias: Float32 | None = None) -> Float32:
    """Return a convolution's outputs for patches, (groups, samples, filters / groups).

    Args:
        op: The convolution.
        patches: What each output reads (groups, samples, channels / groups * kh * kw).
        weight: float32 (filters, channels / groups, kh, kw).
        bias: float32 (filters,), if there is one.
    """
    filters = weight.reshape(op.groups, op.filters // op.groups, -1)
    found = patches @ filters.transpose(0, 2, 1)
    return found if bias is None else found + bias.reshape(op.groups, 1, -1)


def thinned_output(output: Float32) -> Float32:
    """Return at most `MOST_OUTPUTS` numbers of an output, evenly spread, as a vector."""
    flat = output.reshape(-1)
    return flat[:: -(-flat.size // MOST_OUTPUTS)]


def thinned_size(elements: int) -> int:
    """Return how many of `elements` numbers `thinned_output` keeps."""
    step = -(-elements // MOST_OUTPUTS)
    return -(-elements // step)


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What was seen of every kept value by name, and of the input of every convolution node.

    `images` are the digests of the images, in order: the axis of `ValueStatistics.low` and
    `high`, and the first of `outputs`, which hold the model's raw outputs by name, thinned.
    """

    images: tuple[str, ...]
    seen: Mapping[str, ValueStatistics]
    windows: Mapping[str, InputWindows]
    outputs: Mapping[str, Float32]

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """The smallest and the largest number of each value."""
        return {name: seen.limits for name, seen in self.seen.items()}
