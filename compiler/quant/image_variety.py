"""How much the images of a calibration have to say: what a set that says little costs is told."""

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
"""Images whose pixels are compared; those of a larger set that are alike have digests alike."""
RECOMMENDED_IMAGES = 32
"""Different images from which on more of them change ranges little."""


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """Heights and widths of images as they are shown, before the contract, and what it makes.

    `resize` is what they are scaled to, None where they are not, `mode` how; `input_size` is the
    size that the network reads. Of tensors there are no sizes.
    """

    original_sizes: tuple[Pair, ...]
    resize: Pair | None
    mode: str
    input_size: Pair

    def collect_notices(self) -> Iterator[str]:
        """Yield what sizes cost that are far from each other or from the network's."""
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
                f"{self._describe_images(indices)} are enlarged "
                f"{scales.min(axis=1).max():.1f} times or less to"
                f" {_format_size(self.resize)}: they have none of the fine detail of "
                "sharp images, which"
                " may exceed the ranges"
            )

    def _report_squeezed(self, size: Pair, scales: NDArray[np.float64]) -> Iterator[str]:
        stretch_ratios = scales.max(axis=1) / scales.min(axis=1)
        if indices := _find_indices(stretch_ratios >= SQUEEZE_LIMIT):
            yield (
                f"{self._describe_images(indices)} are of another shape than the "
                f"{_format_size(size)} that they are"
                f" scaled to, and are squeezed by up to {stretch_ratios.max():.1f}: "
                "scales are those of"
                " shapes that images as the network knows them do not have"
            )

    def _report_size_spread(self, sides: NDArray[np.float64]) -> Iterator[str]:
        areas = np.sqrt(sides.prod(axis=1))
        if areas.max() >= SIZE_RATIO_LIMIT * areas.min():
            smallest, largest = (
                self.original_sizes[int(index)] for index in (areas.argmin(), areas.argmax())
            )
            yield (
                f"images are of {_format_size(smallest)} to {_format_size(largest)}: "
                "scaled alike they differ in"
                " detail, and ranges and what is lost are those of the mixture, not of one camera"
            )

    def _report_cropped(self, visible_shares: NDArray[np.float64]) -> Iterator[str]:
        if indices := _find_indices(visible_shares <= 1 - CROPPED_SHARE_LIMIT):
            yield (
                f"of {self._describe_images(indices)} the network reads the centre alone, down to"
                f" {visible_shares.min():.0%}: nothing is learnt from the rest"
            )

    def _describe_images(self, indices: Sequence[int]) -> str:
        example_size = _format_size(self.original_sizes[indices[0]])
        return f"{len(indices)} of {len(self.original_sizes)} images ({example_size})"


@dataclass(frozen=True, slots=True)
class ImageVariety:
    """What a set of `images` holds.

    `repeats` are the digests of files of other contents than all others that show the pixels of
    one of them, `distinct_count` is how many pictures remain, `plain_count` are of one colour;
    `only_class` is the class that all are of, where their labels are known and the network tells
    several, of `classes`; `sizes` are those before the network's contract.
    """

    images: int
    repeats: tuple[str, ...]
    distinct_count: int
    plain_count: int
    only_class: str | None
    classes: int
    sizes: ImageSizes

    def collect_notices(self) -> Iterator[str]:
        """Yield what the set costs."""
        if self.distinct_count == 1:
            yield (
                "one image says nothing of how much the scales depend on the images, nor of how"
                f" many answers change on others; take {RECOMMENDED_IMAGES} images or more"
            )
        if self.distinct_count < self.images:
            yield (
                f"{self.images - self.distinct_count} of {self.images} images repeat the pixels of"
                f" others: what is learnt is that of {_format_image_count(self.distinct_count)}"
            )
        if self.plain_count:
            yield (
                f"{self.plain_count} of {self.images} images are of one colour: they show "
                "no features,"
                " and ranges may clip those of others"
            )
        if self.only_class is not None:
            yield (
                f"all images are of `{self.only_class}`, one of {self.classes} classes: "
                "what others need"
                " is not known, and no interval of what is lost holds for them"
            )
        yield from self.sizes.collect_notices()

    def require(self, min_images: int, name: str) -> None:
        """Refuse fewer different images than are asked for.

        Args:
            min_images: The fewest.
            name: What the set is called.

        Raises:
            UserError: There are fewer (E0721).
        """
        if self.distinct_count < min_images:
            verb = "is" if self.distinct_count == 1 else "are"
            label = f"{_format_image_count(self.distinct_count)} of {self.images} {verb} different"
            help = "give more images, or a smaller --min-images"
            message = f"fewer than {min_images} different images to calibrate with"
            raise fail("E0721", message, make_file_span(name), label=label, help=help)


def measure_variety(lowered_model: Model, dataset: DataSet) -> ImageVariety:
    """Return what a set of images holds, by their pixels as the network sees them.

    Args:
        lowered_model: The ready model.
        dataset: The images.
    """
    (source,) = lowered_model.graph.inputs
    digest_by_pixels, repeats, plain_count = dict[str, str](), dict[str, None](), 0
    compared = dataset.select_first(MAX_COMPARED_IMAGES)
    for index in range(len(compared)):
        try:
            pixels = compared.read_pixels(index, source)
        except UserError:
            raise dataset.collect_errors(source) from None
        # By pixels after resize and crop: a copy in another format or size is the same image to the
        # network.
        digest = compared.digests[index]
        if (
            digest_by_pixels.setdefault(hashlib.sha256(pixels.tobytes()).hexdigest(), digest)
            != digest
        ):
            repeats[digest] = None
        plain_count += _is_plain(pixels)
    # Beyond those that were decoded by contents of files alone, which needs no decoding.
    undecoded = set(dataset.digests[MAX_COMPARED_IMAGES:]) - set(compared.digests)
    labels = max((output.labels for output in lowered_model.graph.outputs), key=len, default=())
    # Labels of folders, as far as they are the network's own.
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
        collect_sizes(compared, source),
    )


def _format_image_count(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def _is_plain(pixels: NDArray[np.uint8] | NDArray[np.float32]) -> bool:
    """Whether an image, (height, width, channels) of levels or a tensor, is of one colour."""
    if pixels.ndim < 3:
        return False
    is_uint8 = pixels.dtype == np.uint8
    channels = (
        pixels.reshape(-1, pixels.shape[2]).T if is_uint8 else pixels.reshape(len(pixels), -1)
    )
    return channels.shape[1] > 1 and bool((channels == channels[:, :1]).all())


SIZE_RATIO_LIMIT, ENLARGEMENT_LIMIT, SQUEEZE_LIMIT, CROPPED_SHARE_LIMIT = 4.0, 2.0, 1.5, 0.75
"""From what on something is said: the largest image's side by the smallest's, the network's side by
an image's, one side's change of scale by the other's, and the share of an image that is cut."""


def collect_sizes(dataset: DataSet, source: Input) -> ImageSizes:
    """Return the sizes of images beside a network's input.

    Args:
        dataset: The images.
        source: The input.
    """
    contract, shape = source.preprocess, source.type.shape
    if contract is None or (dataset.array is not None and dataset.array.dtype != np.uint8):
        return ImageSizes((), None, "", (1, 1))
    if dataset.array is None:
        file_sizes = (
            confined_images.find_size(image_files.read_bytes(image_file.path))
            for image_file in dataset.items
        )
        original_sizes = tuple(size for size in file_sizes if size)
    else:
        original_sizes = ((dataset.array.shape[1], dataset.array.shape[2]),) * len(dataset)
    resize = contract.resize
    return ImageSizes(
        original_sizes,
        resize.size if resize else None,
        resize.mode if resize else "",
        contract.crop or (shape[1], shape[2]),
    )


def _find_indices(mask: NDArray[np.bool_]) -> list[int]:
    return [int(index) for index in np.flatnonzero(mask)]


def _format_size(sides: Pair) -> str:
    return f"{sides[1]} x {sides[0]}"
