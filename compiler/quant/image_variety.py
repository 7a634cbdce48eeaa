"""Variety of the calibration images, with notices on sets that are too uniform."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import confined_images, image_files
from tcc.compiler.data.dataset import DataSet, get_class_indices
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.types import Pair
from tcc.compiler.support.diagnostics import UnhandledError, UserError, fail, make_file_span

MAX_COMPARED_IMAGES = 512
"""Images whose pixels are compared; other images of a larger set are compared by file digest."""
RECOMMENDED_IMAGES = 32
"""Recommended number of different images: more of them change the ranges little."""


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """Image sizes (height, width) before and after preprocessing.

    Attributes:
        original_sizes: Size of each image file; empty for tensors.
        resize: The size that images are resized to; None if they are not resized.
        mode: How they are resized.
        input_size: The size of the network's input.
    """

    original_sizes: tuple[Pair, ...]
    resize: Pair | None
    mode: str
    input_size: Pair

    def collect_notices(self) -> Iterator[str]:
        """Yield notices on sizes that differ much from each other or from the network's input."""
        if not self.original_sizes:
            return
        sides = np.array(self.original_sizes, np.float64)
        yield from self._report_size_spread(sides)
        if self.resize is None:
            visible_shares = np.minimum(np.array(self.input_size) / sides, 1).prod(axis=1)
            yield from self._report_cropped(visible_shares)
            return
        scales = np.array(self.resize) / sides
        match self.mode:
            case "stretch":
                yield from self._report_squeezed(self.resize, scales)
            case "cover":
                scales = np.repeat(scales.max(axis=1, keepdims=True), 2, axis=1)
                yield from self._report_cropped(
                    np.minimum(np.array(self.resize) / (sides * scales), 1).prod(axis=1)
                )
            case _:
                raise UnhandledError("resize mode", self.mode)
        if indices := _find_indices(scales.min(axis=1) >= ENLARGEMENT_LIMIT):
            yield (
                f"{self._describe_images(indices)} are enlarged to {_format_size(self.resize)}, by"
                f" up to {scales.min(axis=1).max():.1f} times. They lack fine detail, so that"
                " sharp images may exceed the ranges"
            )

    def _report_squeezed(self, size: Pair, scales: NDArray[np.float64]) -> Iterator[str]:
        stretch_ratios = scales.max(axis=1) / scales.min(axis=1)
        if indices := _find_indices(stretch_ratios >= SQUEEZE_LIMIT):
            yield (
                f"{self._describe_images(indices)} have another aspect ratio than the"
                f" {_format_size(size)} that they are resized to. They are distorted by a factor of"
                f" up to {stretch_ratios.max():.1f}, and the ranges are those of distorted images"
            )

    def _report_size_spread(self, sides: NDArray[np.float64]) -> Iterator[str]:
        areas = np.sqrt(sides.prod(axis=1))
        if areas.max() >= SIZE_RATIO_LIMIT * areas.min():
            smallest, largest = (
                self.original_sizes[int(index)] for index in (areas.argmin(), areas.argmax())
            )
            yield (
                f"image sizes range from {_format_size(smallest)} to {_format_size(largest)}. After"
                " resizing, the images differ in detail: ranges and quantization error are those of"
                " the mixture, not of one camera"
            )

    def _report_cropped(self, visible_shares: NDArray[np.float64]) -> Iterator[str]:
        if indices := _find_indices(visible_shares <= 1 - CROPPED_SHARE_LIMIT):
            yield (
                f"the network only reads the centre of {self._describe_images(indices)}, down to"
                f" {visible_shares.min():.0%} of the area. Calibration ignores the rest"
            )

    def _describe_images(self, indices: Sequence[int]) -> str:
        example_size = _format_size(self.original_sizes[indices[0]])
        return f"{len(indices)} of {len(self.original_sizes)} images ({example_size})"


@dataclass(frozen=True, slots=True)
class ImageVariety:
    """Variety of a set of images.

    Attributes:
        images: Number of images.
        repeats: Digests of files that have the same pixels as another file with another digest.
        distinct_count: Number of different images.
        plain_count: Number of images of a single colour.
        only_class: The class of all images; None if they have several or unknown classes.
        classes: Number of classes of the network.
        sizes: Sizes before preprocessing.
    """

    images: int
    repeats: tuple[str, ...]
    distinct_count: int
    plain_count: int
    only_class: str | None
    classes: int
    sizes: ImageSizes

    def collect_notices(self) -> Iterator[str]:
        """Yield notices on what the set lacks."""
        if self.distinct_count == 1:
            yield (
                "one image cannot show how much the scales depend on the images, or how many"
                f" predictions change on others; give {RECOMMENDED_IMAGES} images or more"
            )
        if self.distinct_count < self.images:
            yield (
                f"{self.images - self.distinct_count} of {self.images} images have the same pixels"
                f" as others: the calibration uses {_format_image_count(self.distinct_count)}"
            )
        if self.plain_count:
            yield (
                f"{self.plain_count} of {self.images} images have a single colour and no"
                " features: the ranges may clip the values of other images"
            )
        if self.only_class is not None:
            yield (
                f"all images are of `{self.only_class}`, one of {self.classes} classes: the ranges"
                " that the other classes need are unknown, and the error estimates do not apply to"
                " them"
            )
        yield from self.sizes.collect_notices()

    def require(self, min_images: int, name: str) -> None:
        """Check the number of different images.

        Args:
            min_images: The minimum.
            name: The name of the set in errors.

        Raises:
            UserError: There are fewer (E0721).
        """
        if self.distinct_count < min_images:
            label = f"{self.images} images, of which {self.distinct_count} different"
            help = "give more images, or a smaller --min-images"
            message = f"calibration needs at least {min_images} different images"
            raise fail("E0721", message, make_file_span(name), label=label, help=help)


def measure_variety(lowered_model: Model, dataset: DataSet) -> ImageVariety:
    """Return the variety of a set of images, by their preprocessed pixels.

    Args:
        lowered_model: The lowered model.
        dataset: The images.
    """
    (network_input,) = lowered_model.graph.inputs
    digest_by_pixels, repeats, plain_count = dict[str, str](), dict[str, None](), 0
    compared = dataset.select_first(MAX_COMPARED_IMAGES)
    for index in range(len(compared)):
        try:
            pixels = compared.read_pixels(index, network_input)
        except UserError:
            raise dataset.collect_errors(network_input) from None
        # After resize and crop: to the network, a copy in another format or size is the same image.
        digest = compared.digests[index]
        if (
            digest_by_pixels.setdefault(hashlib.sha256(pixels.tobytes()).hexdigest(), digest)
            != digest
        ):
            repeats[digest] = None
        plain_count += _is_plain(pixels)
    # The others are compared by file digest, which needs no decoding.
    undecoded = set(dataset.digests[MAX_COMPARED_IMAGES:]) - set(compared.digests)
    labels = max((output.labels for output in lowered_model.graph.outputs), key=len, default=())
    # Folder labels, if they are labels of the network.
    label_indices = set(get_class_indices(dataset, labels)) if labels else {None}
    only_class = (
        labels[label_indices.pop() or 0]
        if len(label_indices) == 1 and None not in label_indices
        else None
    )
    return ImageVariety(
        len(dataset),
        tuple(repeats),
        len(digest_by_pixels) + len(undecoded),
        plain_count,
        only_class if len(labels) > 1 else None,
        len(labels),
        collect_sizes(compared, network_input),
    )


def _format_image_count(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def _is_plain(pixels: NDArray[np.uint8] | NDArray[np.float32]) -> bool:
    """Whether an image, uint8 (height, width, channels) or a tensor, has a single colour."""
    if pixels.ndim < 3:
        return False
    is_uint8 = pixels.dtype == np.uint8
    channels = (
        pixels.reshape(-1, pixels.shape[2]).T if is_uint8 else pixels.reshape(len(pixels), -1)
    )
    return channels.shape[1] > 1 and bool((channels == channels[:, :1]).all())


SIZE_RATIO_LIMIT, ENLARGEMENT_LIMIT, SQUEEZE_LIMIT, CROPPED_SHARE_LIMIT = 4.0, 2.0, 1.5, 0.75
"""Limits for notices: largest image side to smallest, network side to image side, scale of one
side to that of the other, and cropped share of an image."""


def collect_sizes(dataset: DataSet, network_input: Input) -> ImageSizes:
    """Return the sizes of images before and after a network's preprocessing.

    Args:
        dataset: The images.
        network_input: The network's input.
    """
    preprocess, shape = network_input.preprocess, network_input.type.shape
    if preprocess is None or (dataset.array is not None and dataset.array.dtype != np.uint8):
        return ImageSizes((), None, "", (1, 1))
    if dataset.array is None:
        file_sizes = (
            confined_images.find_size(image_files.read_bytes(image_file.path))
            for image_file in dataset.items
        )
        original_sizes = tuple(size for size in file_sizes if size)
    else:
        original_sizes = ((dataset.array.shape[1], dataset.array.shape[2]),) * len(dataset)
    resize = preprocess.resize
    return ImageSizes(
        original_sizes,
        resize.size if resize else None,
        resize.mode if resize else "",
        preprocess.crop or (shape[1], shape[2]),
    )


def _find_indices(mask: NDArray[np.bool_]) -> list[int]:
    return [int(index) for index in np.flatnonzero(mask)]


def _format_size(sides: Pair) -> str:
    return f"{sides[1]} x {sides[0]}"
