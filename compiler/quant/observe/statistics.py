"""Statistics of an fp32 model over a set of images, as used by calibration.

Inputs of convolutions are condensed to moments of their taps: sums over windows, for each part of
the images. Sums of parts can be added, and do not depend on scales or factors. They are computed
once for all fits, and the windows are not kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tcc.compiler.ops import Conv

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TapSums:
    """Sums over `count` outputs of a convolution, in float64.

    `total` (groups, taps) are the sums of each tap's inputs. `products` are the sums of products of
    two taps, for each block of taps (groups, taps of the block, taps of the block).
    """

    count: int
    total: Float64
    products: tuple[Float64, ...]

    def __add__(self, other: "TapSums") -> "TapSums":
        """Return the sums over the outputs of both."""
        pairs = zip(self.products, other.products, strict=True)
        return TapSums(
            self.count + other.count, self.total + other.total, tuple(a + b for a, b in pairs)
        )


@dataclass(frozen=True, slots=True, eq=False)
class TapMoments:
    """Tap sums of disjoint groups of images (parts); keys of `parts` are the image indices."""

    parts: Mapping[tuple[int, ...], TapSums]

    @property
    def sums(self) -> TapSums:
        """The sums over all parts, in order."""
        total, *remaining = self.parts.values()
        for part_sums in remaining:
            total += part_sums
        return total

    def select_images(self, images: Sequence[int]) -> "TapMoments":
        """Return the moments of some images, by index; the images are renumbered from 0.

        Raises:
            ValueError: Some part has only some of its images among these.
        """
        index_by_image = {image: index for index, image in enumerate(images)}
        sums_by_part = {
            tuple(index_by_image[image] for image in part): sums
            for part, sums in self.parts.items()
            if index_by_image.keys() >= set(part)
        }
        if sum(map(len, sums_by_part)) != len(index_by_image):
            raise ValueError(
                "images can only be selected by complete parts, because moments are kept by part"
            )
        return TapMoments(sums_by_part)


Float32 = NDArray[np.float32]
MAX_OUTPUTS = 4096
"""Maximum numbers kept of an output per image."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageParts:
    """Parts of images (images * count, ...), with the same number of parts per image.

    `images` are the indices of the selected images, and `rows` their positions in `all_parts`; None
    if all images are selected. The selection is copied on access.
    """

    all_parts: Float32
    images: tuple[int, ...]
    rows: tuple[int, ...] | None = None
    total_images: int = 0

    @property
    def array(self) -> Float32:
        """The parts of the selected images (images * count, ...)."""
        if self.rows is None or not self.total_images:
            return self.all_parts
        by_image = self.all_parts.reshape(self.total_images, -1, *self.all_parts.shape[1:])
        return by_image[list(self.rows)].reshape(-1, *self.all_parts.shape[1:])

    def select_images(self, images: Sequence[int]) -> "ImageParts":
        """Return the parts of some images, by index; the images are renumbered from 0."""
        index_by_image = {image: index for index, image in enumerate(images)}
        rows = self.rows if self.rows is not None else tuple(range(len(self.images)))
        selected_rows = [
            (row, image)
            for row, image in zip(rows, self.images, strict=True)
            if image in index_by_image
        ]
        indices = tuple(index_by_image[image] for _, image in selected_rows)
        total_images = self.total_images or len(self.images)
        return ImageParts(
            self.all_parts, indices, tuple(row for row, _ in selected_rows), total_images
        )


@dataclass(frozen=True, slots=True, eq=False)
class ValueStatistics:
    """Statistics of one value.

    `lows` and `highs` (images, channels) are the extremes over all elements of each channel in each
    image. `sample_parts` (positions, channels) are all channels at sampled positions.
    """

    lows: Float32
    highs: Float32
    sample_parts: ImageParts

    @property
    def sample(self) -> Float32:
        """All channels at sampled positions (positions, channels), equally many per image."""
        return self.sample_parts.array

    @property
    def sampled(self) -> tuple[int, ...]:
        """Indices of the images in `sample`."""
        return self.sample_parts.images

    @property
    def low(self) -> Float32:
        """Minimum of each image (images,)."""
        minima: Float32 = self.lows.min(axis=1)
        return minima

    @property
    def high(self) -> Float32:
        """Maximum of each image (images,)."""
        maxima: Float32 = self.highs.max(axis=1)
        return maxima

    @property
    def channel_low(self) -> Float32:
        """Minimum of each channel (channels,)."""
        minima: Float32 = self.lows.min(axis=0)
        return minima

    @property
    def channel_high(self) -> Float32:
        """Maximum of each channel (channels,)."""
        maxima: Float32 = self.highs.max(axis=0)
        return maxima

    @property
    def limits(self) -> tuple[float, float]:
        """Minimum and maximum over all images."""
        return float(self.lows.min()), float(self.highs.max())

    def select_images(self, images: Sequence[int]) -> "ValueStatistics":
        """Return the statistics of some images, by index."""
        rows = list(images)
        return ValueStatistics(
            self.lows[rows], self.highs[rows], self.sample_parts.select_images(images)
        )


@dataclass(frozen=True, slots=True, eq=False)
class InputWindows:
    """Windows of a convolution's input, with zero padding at the borders.

    `parts` is (windows, channels, height, width). Each window has the inputs of several
    neighbouring outputs. `sampled` are the indices of the images, with equally many windows each.
    """

    op: Conv
    parts: Float32
    sampled: tuple[int, ...] = ()

    def select_images(self, images: Sequence[int]) -> "InputWindows":
        """Return the windows of some images, by index."""
        image_parts = ImageParts(self.parts, self.sampled).select_images(images)
        return InputWindows(self.op, image_parts.array, image_parts.images)

    def select_groups(self, start: int, end: int) -> "InputWindows":
        """Return the windows of the convolution's groups from `start` up to `end`."""
        op, depth = self.op, self.parts.shape[1] // self.op.groups
        group_op = replace(op, filters=op.filters // op.groups * (end - start), groups=end - start)
        return replace(self, op=group_op, parts=self.parts[:, start * depth : end * depth])

    def extract_patches(self) -> Float32:
        """Return the inputs of each output, (groups, samples, channels / groups * kh * kw).

        A patch has the layout of a filter in the weight tensor.
        """
        height, width = self.op.window
        (row_stride, column_stride), (row_dilation, column_dilation) = (
            self.op.stride,
            self.op.dilation,
        )
        # Views into one array: the overlapping patches are only copied at the end.
        views = sliding_window_view(self.parts, (height, width), (2, 3))
        views = views[:, :, ::row_stride, ::column_stride, ::row_dilation, ::column_dilation]
        windows, channels, *_ = views.shape
        split = views.reshape(windows, self.op.groups, channels // self.op.groups, *views.shape[2:])
        # Groups first and the filter's layout last, so that outputs are one matrix product per
        # group.
        ordered = split.transpose(1, 0, 3, 4, 2, 5, 6)
        return np.ascontiguousarray(ordered).reshape(
            self.op.groups, -1, channels // self.op.groups * self.op.kernel[0] * self.op.kernel[1]
        )


@dataclass(frozen=True, slots=True, eq=False)
class WindowsOfImages(Mapping[str, InputWindows]):
    """Windows of some images by convolution, copied on access."""

    all_windows: Mapping[str, InputWindows]
    images: tuple[int, ...]

    def __getitem__(self, name: str) -> InputWindows:
        """Return the windows of a convolution."""
        return self.all_windows[name].select_images(self.images)

    def __iter__(self) -> Iterator[str]:
        """Yield the names of convolutions."""
        return iter(self.all_windows)

    def __len__(self) -> int:
        """Return the number of convolutions."""
        return len(self.all_windows)


def compute_outputs(
    op: Conv, patches: Float32, weight: Float32, bias: Float32 | None = None
) -> Float32:
    """Return a convolution's outputs for patches, (groups, samples, filters / groups).

    Args:
        op: The convolution.
        patches: Inputs of each output (groups, samples, channels / groups * kh * kw).
        weight: float32 (filters, channels / groups, kh, kw).
        bias: float32 (filters,), if any.
    """
    filters = weight.reshape(op.groups, op.filters // op.groups, -1)
    products = patches @ filters.transpose(0, 2, 1)
    return products if bias is None else products + bias.reshape(op.groups, 1, -1)


def sample_output(output: Float32) -> Float32:
    """Return at most `MAX_OUTPUTS` numbers of an output, evenly spread, as a vector."""
    flat = output.reshape(-1)
    # Every n-th number; a class output has few numbers, and all are kept.
    return flat[:: -(-flat.size // MAX_OUTPUTS)]


def count_sampled_outputs(elements: int) -> int:
    """Return the number of elements that `sample_output` keeps."""
    step = -(-elements // MAX_OUTPUTS)
    return -(-elements // step)


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Statistics of every unfused value, and of the input of every convolution.

    Attributes:
        images: Digests of the images, in order; the first axis of all tables.
        by_value: Statistics by value.
        windows: Input windows by convolution; empty if condensed.
        outputs: Raw outputs of the model by name, sampled by `sample_output`.
        moments: Tap moments by convolution, if condensed.
    """

    images: tuple[str, ...]
    by_value: Mapping[str, ValueStatistics]
    windows: Mapping[str, InputWindows]
    outputs: Mapping[str, Float32]
    moments: Mapping[str, TapMoments] = field(default_factory=dict)

    def select_images(self, images: Sequence[int]) -> "Statistics":
        """Return the statistics of some images, by index."""
        rows = list(images)
        return Statistics(
            tuple(self.images[row] for row in rows),
            {
                name: value_statistics.select_images(rows)
                for name, value_statistics in self.by_value.items()
            },
            WindowsOfImages(self.windows, tuple(rows)),
            {name: output[rows] for name, output in self.outputs.items()},
            {name: moments.select_images(rows) for name, moments in self.moments.items()},
        )

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """Minimum and maximum of each value."""
        return {name: value_statistics.limits for name, value_statistics in self.by_value.items()}
