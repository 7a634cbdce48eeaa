"""What convolutions read, as moments of their taps: sums over windows, of each part of the images.

Sums of parts add up to those of any of them together, whatever scale and factors levels come to
have. So they are taken once for every fit, and the windows themselves need not be kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        first, *others = self.parts.values()
        for other in others:
            first += other
        return first

    def of(self, images: Sequence[int]) -> "TapMoments":
        """Return those of some images, by their places, which become 0 and so on.

        Raises:
            ValueError: The images are not whole parts.
        """
        places = {image: place for place, image in enumerate(images)}
        kept = {
            tuple(places[image] for image in part): sums
            for part, sums in self.parts.items()
            if places.keys() >= set(part)
        }
        if sum(map(len, kept)) != len(places):
            raise ValueError("moments are kept of whole parts of the images alone")
        return TapMoments(kept)
