"""How large the images of a calibration are, beside what the network reads of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import confined_images, image_files
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.types import Pair
from tcc.compiler.support.diagnostics import UnhandledError

APART, ENLARGED, SQUEEZED, UNSEEN = 4.0, 2.0, 1.5, 0.75
"""From what on something is said: the largest image's side by the smallest's, the network's side by
an image's, one side's change of scale by the other's, and the share of an image that is cut."""


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
