"""What was seen of a float model over a set of images; all that calibration knows of them.

What convolutions read is kept as moments of their taps: sums over windows, of each part of the
images. Sums of parts add up to those of any of them together, whatever scale and factors levels
come to have. So they are taken once for every fit, and the windows themselves need not be kept.
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

    `total` (groups, taps) is of what each tap reads, `products` of pairs of taps: for each block of
    them (groups, taps of the block, taps of the block).
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
    """The sums of each part of the images, of which some parts may be left out."""

    parts: Mapping[tuple[int, ...], TapSums]

    @property
    def sums(self) -> TapSums:
        """Those over all the parts that are left, in their order."""
        total, *remaining = self.parts.values()
        for part_sums in remaining:
            total += part_sums
        return total

    def select_images(self, images: Sequence[int]) -> "TapMoments":
        """Return those of some images, by their places, which become 0 and so on.

        Raises:
            ValueError: The images are not whole parts.
        """
        index_by_image = {image: index for index, image in enumerate(images)}
        sums_by_part = {
            tuple(index_by_image[image] for image in part): sums
            for part, sums in self.parts.items()
            if index_by_image.keys() >= set(part)
        }
        if sum(map(len, sums_by_part)) != len(index_by_image):
            raise ValueError("moments are kept of whole parts of the images alone")
        return TapMoments(sums_by_part)


Float32 = NDArray[np.float32]
MAX_OUTPUTS = 4096
"""Most numbers that are kept of an output of one image."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageParts:
    """Parts (images * count, ...) of images, as many of each, of which some may be left out.

    `images` are the places of those that are left, `rows` where theirs lie among `all_parts`: None
    where all are left. What is left is copied when it is asked for, not before.
    """

    all_parts: Float32
    images: tuple[int, ...]
    rows: tuple[int, ...] | None = None
    total_images: int = 0

    @property
    def array(self) -> Float32:
        """The parts that are left (images * count, ...)."""
        if self.rows is None or not self.total_images:
            return self.all_parts
        by_image = self.all_parts.reshape(self.total_images, -1, *self.all_parts.shape[1:])
        return by_image[list(self.rows)].reshape(-1, *self.all_parts.shape[1:])

    def select_images(self, images: Sequence[int]) -> "ImageParts":
        """Return those of some images, by their places, which become 0 and so on."""
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
    """What was seen of one value.

    `lows` and `highs` (images, channels) are the extremes of each channel in each image: of all
    elements, not of the sample. `sample_parts` holds all channels at positions that hashes of the
    images chose, (positions, channels).
    """

    lows: Float32
    highs: Float32
    sample_parts: ImageParts

    @property
    def sample(self) -> Float32:
        """All channels at some positions (positions, channels), as many of each image sampled."""
        return self.sample_parts.array

    @property
    def sampled(self) -> tuple[int, ...]:
        """The places of the images that `sample` is of."""
        return self.sample_parts.images

    @property
    def low(self) -> Float32:
        """The least number of each image (images,)."""
        minima: Float32 = self.lows.min(axis=1)
        return minima

    @property
    def high(self) -> Float32:
        """The greatest number of each image (images,)."""
        maxima: Float32 = self.highs.max(axis=1)
        return maxima

    @property
    def channel_low(self) -> Float32:
        """The least number of each channel (channels,)."""
        minima: Float32 = self.lows.min(axis=0)
        return minima

    @property
    def channel_high(self) -> Float32:
        """The greatest number of each channel (channels,)."""
        maxima: Float32 = self.highs.max(axis=0)
        return maxima

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest number seen."""
        return float(self.lows.min()), float(self.highs.max())

    def select_images(self, images: Sequence[int]) -> "ValueStatistics":
        """Return what some images, by their places, show of the value."""
        rows = list(images)
        return ValueStatistics(
            self.lows[rows], self.highs[rows], self.sample_parts.select_images(images)
        )


@dataclass(frozen=True, slots=True, eq=False)
class InputWindows:
    """Parts of a convolution's input, its padding of zeros included where they reach the border.

    `parts` is (windows, channels, height, width); each holds the inputs of several neighbouring
    outputs. There are as many of each of the images whose places `sampled` says.
    """

    op: Conv
    parts: Float32
    sampled: tuple[int, ...] = ()

    def select_images(self, images: Sequence[int]) -> "InputWindows":
        """Return the parts of some images, by their places."""
        image_parts = ImageParts(self.parts, self.sampled).select_images(images)
        return InputWindows(self.op, image_parts.array, image_parts.images)

    def select_groups(self, start: int, end: int) -> "InputWindows":
        """Return what some groups of the convolution read, from `start` to before `end`."""
        op, depth = self.op, self.parts.shape[1] // self.op.groups
        group_op = replace(op, filters=op.filters // op.groups * (end - start), groups=end - start)
        return replace(self, op=group_op, parts=self.parts[:, start * depth : end * depth])

    def extract_patches(self) -> Float32:
        """Return what each output reads, (groups, samples, channels / groups * kh * kw).

        A patch is laid out as a filter of the weight tensor.
        """
        height, width = self.op.window
        (row_stride, column_stride), (row_dilation, column_dilation) = (
            self.op.stride,
            self.op.dilation,
        )
        # Views into one array: patches of overlapping windows are copied once, at the end.
        views = sliding_window_view(self.parts, (height, width), (2, 3))
        views = views[:, :, ::row_stride, ::column_stride, ::row_dilation, ::column_dilation]
        windows, channels, *_ = views.shape
        split = views.reshape(windows, self.op.groups, channels // self.op.groups, *views.shape[2:])
        # Groups first and a filter's own layout last, so that outputs are one product of matrices a
        # group.
        ordered = split.transpose(1, 0, 3, 4, 2, 5, 6)
        return np.ascontiguousarray(ordered).reshape(
            self.op.groups, -1, channels // self.op.groups * self.op.kernel[0] * self.op.kernel[1]
        )


@dataclass(frozen=True, slots=True, eq=False)
class WindowsOfImages(Mapping[str, InputWindows]):
    """What some images, by their places, give each convolution: copied when it is asked for."""

    all_windows: Mapping[str, InputWindows]
    images: tuple[int, ...]

    def __getitem__(self, name: str) -> InputWindows:
        """Return those of a convolution."""
        return self.all_windows[name].select_images(self.images)

    def __iter__(self) -> Iterator[str]:
        """Yield the names of convolutions."""
        return iter(self.all_windows)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.all_windows)


def compute_outputs(
    op: Conv, patches: Float32, weight: Float32, bias: Float32 | None = None
) -> Float32:
    """Return a convolution's outputs for patches, (groups, samples, filters / groups).

    Args:
        op: The convolution.
        patches: What each output reads (groups, samples, channels / groups * kh * kw).
        weight: float32 (filters, channels / groups, kh, kw).
        bias: float32 (filters,), if there is one.
    """
    filters = weight.reshape(op.groups, op.filters // op.groups, -1)
    products = patches @ filters.transpose(0, 2, 1)
    return products if bias is None else products + bias.reshape(op.groups, 1, -1)


def sample_output(output: Float32) -> Float32:
    """Return at most `MAX_OUTPUTS` numbers of an output, evenly spread, as a vector."""
    flat = output.reshape(-1)
    # Every n-th number; an output of classes has few enough to be kept whole.
    return flat[:: -(-flat.size // MAX_OUTPUTS)]


def count_sampled_outputs(elements: int) -> int:
    """Return how many of `elements` numbers `sample_output` keeps."""
    step = -(-elements // MAX_OUTPUTS)
    return -(-elements // step)


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What was seen of every kept value by name, and of the input of every convolution node.

    `images` are the digests of the images, in order: the axis of `ValueStatistics.low` and
    `high`, and the first of `outputs`, which hold the model's raw outputs by name, thinned. Where
    they are condensed there are `moments` of what convolutions read in place of `windows`.
    """

    images: tuple[str, ...]
    by_value: Mapping[str, ValueStatistics]
    windows: Mapping[str, InputWindows]
    outputs: Mapping[str, Float32]
    moments: Mapping[str, TapMoments] = field(default_factory=dict)

    def select_images(self, images: Sequence[int]) -> "Statistics":
        """Return what some images, by their places, show."""
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
        """The smallest and the largest number of each value."""
        return {name: value_statistics.limits for name, value_statistics in self.by_value.items()}
