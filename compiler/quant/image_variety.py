"""How much the images of a calibration have to say: what a set that says little costs is told."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import confined_images, image_files
from tcc.compiler.data.dataset import DataSet, indices
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.types import Pair
from tcc.compiler.support.diagnostics import UnhandledError, UserError, fail, whole_file

LOOKED = 512
"""Images whose pixels are compared; those of a larger set that are alike have digests alike."""
ENOUGH = 32
"""Different images from which on more of them change ranges little."""


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """Heights and widths of images as they are shown, before the contract, and what it makes.

    `resize` is what they are scaled to, None where they are not, `mode` how; `read` is the size
    that the network reads. Of tensors there are no sizes.
    """

    found: tuple[Pair, ...]
    resize: Pair | None
    mode: str
    read: Pair

    def notices(self) -> Iterator[str]:
        """Yield what sizes cost that are far from each other or from the network's."""
        if not self.found:
            return
        sides = np.array(self.found, np.float64)
        yield from self._apart(sides)
        if self.resize is None:
            seen = np.minimum(np.array(self.read) / sides, 1).prod(axis=1)
            yield from self._cut(seen)
            return
        scales = np.array(self.resize) / sides
        match self.mode:
            case "stretch":
                yield from self._squeezed(self.resize, scales)
            case "cover":
                scales = np.repeat(scales.max(axis=1, keepdims=True), 2, axis=1)
                yield from self._cut(
                    np.minimum(np.array(self.resize) / (sides * scales), 1).prod(axis=1)
                )
            case _:
                raise UnhandledError("way to resize", self.mode)
        if places := _where(scales.min(axis=1) >= ENLARGED):
            yield (
                f"{self._some(places)} are enlarged {scales.min(axis=1).max():.1f} times or less to"
                f" {_size(self.resize)}: they have none of the fine detail of sharp images, which"
                " may exceed the ranges"
            )

    def _squeezed(self, size: Pair, scales: NDArray[np.float64]) -> Iterator[str]:
        squeezed = scales.max(axis=1) / scales.min(axis=1)
        if places := _where(squeezed >= SQUEEZED):
            yield (
                f"{self._some(places)} are of another shape than the {_size(size)} that they are"
                f" scaled to, and are squeezed by up to {squeezed.max():.1f}: scales are those of"
                " shapes that images as the network knows them do not have"
            )

    def _apart(self, sides: NDArray[np.float64]) -> Iterator[str]:
        areas = np.sqrt(sides.prod(axis=1))
        if areas.max() >= APART * areas.min():
            least, most = (self.found[int(pick)] for pick in (areas.argmin(), areas.argmax()))
            yield (
                f"images are of {_size(least)} to {_size(most)}: scaled alike they differ in"
                " detail, and ranges and what is lost are those of the mixture, not of one camera"
            )

    def _cut(self, seen: NDArray[np.float64]) -> Iterator[str]:
        if places := _where(seen <= 1 - UNSEEN):
            yield (
                f"of {self._some(places)} the network reads the centre alone, down to"
                f" {seen.min():.0%}: nothing is learnt from the rest"
            )

    def _some(self, places: Sequence[int]) -> str:
        first = _size(self.found[places[0]])
        return f"{len(places)} of {len(self.found)} images ({first})"


@dataclass(frozen=True, slots=True)
class ImageVariety:
    """What a set of `images` holds.

    `repeats` are the digests of files of other contents than all others that show the pixels of
    one of them, `different` is how many pictures remain, `plain` are of one colour; `only` is the
    class that all are of, where their labels are known and the network tells several, of `classes`;
    `sizes` are those before the network's contract.
    """

    images: int
    repeats: tuple[str, ...]
    different: int
    plain: int
    only: str | None
    classes: int
    sizes: ImageSizes

    def notices(self) -> Iterator[str]:
        """Yield what the set costs."""
        if self.different == 1:
            yield (
                "one image says nothing of how much the scales depend on the images, nor of how"
                f" many answers change on others; take {ENOUGH} images or more"
            )
        if self.different < self.images:
            yield (
                f"{self.images - self.different} of {self.images} images repeat the pixels of"
                f" others: what is learnt is that of {_images(self.different)}"
            )
        if self.plain:
            yield (
                f"{self.plain} of {self.images} images are of one colour: they show no features,"
                " and ranges may clip those of others"
            )
        if self.only is not None:
            yield (
                f"all images are of `{self.only}`, one of {self.classes} classes: what others need"
                " is not known, and no interval of what is lost holds for them"
            )
        yield from self.sizes.notices()

    def require(self, least: int, name: str) -> None:
        """Refuse fewer different images than are asked for.

        Args:
            least: The fewest.
            name: What the set is called.

        Raises:
            UserError: There are fewer (E0721).
        """
        if self.different < least:
            verb = "is" if self.different == 1 else "are"
            found = f"{_images(self.different)} of {self.images} {verb} different"
            help = "give more images, or a smaller --min-images"
            message = f"fewer than {least} different images to calibrate with"
            raise fail("E0721", message, whole_file(name), label=found, help=help)


def variety(ready: Model, data: DataSet) -> ImageVariety:
    """Return what a set of images holds, by their pixels as the network sees them.

    Args:
        ready: The ready model.
        data: The images.
    """
    (source,) = ready.graph.inputs
    first, repeats, plain = dict[str, str](), dict[str, None](), 0
    looked = data.first(LOOKED)
    for place in range(len(looked)):
        try:
            pixels = looked.levels(place, source)
        except UserError:
            raise data.damaged(source) from None
        # By pixels after resize and crop: a copy in another format or size is the same image to the
        # network.
        own = looked.digests[place]
        if first.setdefault(hashlib.sha256(pixels.tobytes()).hexdigest(), own) != own:
            repeats[own] = None
        plain += _plain(pixels)
    # Beyond those that were decoded by contents of files alone, which needs no decoding.
    more = set(data.digests[LOOKED:]) - set(looked.digests)
    labels = max((output.labels for output in ready.graph.outputs), key=len, default=())
    # Labels of folders, as far as they are the network's own.
    told = set(indices(data, labels)) if labels else {None}
    only = labels[told.pop() or 0] if len(told) == 1 and None not in told else None
    return ImageVariety(
        len(data),
        tuple(repeats),
        len(first) + len(more),
        plain,
        only if len(labels) > 1 else None,
        len(labels),
        sizes(looked, source),
    )


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def _plain(pixels: NDArray[np.uint8] | NDArray[np.float32]) -> bool:
    """Whether an image, (height, width, channels) of levels or a tensor, is of one colour."""
    if pixels.ndim < 3:
        return False
    levels = pixels.dtype == np.uint8
    channels = pixels.reshape(-1, pixels.shape[2]).T if levels else pixels.reshape(len(pixels), -1)
    return channels.shape[1] > 1 and bool((channels == channels[:, :1]).all())


APART, ENLARGED, SQUEEZED, UNSEEN = 4.0, 2.0, 1.5, 0.75
"""From what on something is said: the largest image's side by the smallest's, the network's side by
an image's, one side's change of scale by the other's, and the share of an image that is cut."""


def sizes(data: DataSet, source: Input) -> ImageSizes:
    """Return the sizes of images beside a network's input.

    Args:
        data: The images.
        source: The input.
    """
    contract, shape = source.preprocess, source.type.shape
    if contract is None or (data.array is not None and data.array.dtype != np.uint8):
        return ImageSizes((), None, "", (1, 1))
    if data.array is None:
        told = (confined_images.find_size(image_files.contents(item.path)) for item in data.items)
        found = tuple(one for one in told if one)
    else:
        found = ((data.array.shape[1], data.array.shape[2]),) * len(data)
    resize = contract.resize
    return ImageSizes(
        found,
        resize.size if resize else None,
        resize.mode if resize else "",
        contract.crop or (shape[1], shape[2]),
    )


def _where(chosen: NDArray[np.bool_]) -> list[int]:
    return [int(place) for place in np.flatnonzero(chosen)]


def _size(sides: Pair) -> str:
    return f"{sides[1]} x {sides[0]}"
