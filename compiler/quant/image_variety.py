"""How much the images of a calibration have to say: what a set that says little costs is told."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet, indices
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.image_sizes import ImageSizes, sizes
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

LOOKED = 512
"""Images whose pixels are compared; those of a larger set that are alike have digests alike."""
ENOUGH = 32
"""Different images from which on more of them change ranges little."""


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
