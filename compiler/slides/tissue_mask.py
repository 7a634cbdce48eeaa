"""What of a slide is tissue, by the three steps of Xiao et al. (IEEE IoT Journal 2023, III.B).

RGB: what Otsu's thresholds of red, green and blue call dark. HSV: what Otsu's threshold of the
saturation calls coloured; the paper does not name the channel, and the saturation is what the
programs use that its authors build on (NCRF's `tissue_mask.py`). Range: what has red, green and
blue from 50 to 240. A rule says how the three are joined.

Otsu's threshold (N. Otsu, A Threshold Selection Method from Gray-Level Histograms, 1979) is the
level that splits values so that the variance between the two classes is largest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides import slide_file
from tcc.compiler.slides.slide_file import Slide, SlideExtent, block_means
from tcc.compiler.support.progress import Progress

Inside = NDArray[np.bool_]

STRIP = 1 << 16
"""Values that are counted at a time, which bounds the memory."""


def threshold(values: NDArray[np.uint8]) -> int | None:
    """Return the largest value of the lower class; None where all values are the same.

    Of thresholds that are equally good it is the lowest.
    """
    counts = _histogram(values.reshape(-1)).tolist()
    total, moment = sum(counts), sum(value * count for value, count in enumerate(counts))
    best, found = Fraction(0), None
    below = first = 0
    for value, count in enumerate(counts[:-1]):
        below += count
        first += value * count
        if 0 < below < total:
            # Otsu's equation 18, times what is the same for every level. In fractions, since of
            # equal ones the lowest is taken: rounded, equal ones may differ.
            between = Fraction((first * total - moment * below) ** 2, below * (total - below))
            if between > best:
                best, found = between, value
    return found


def contrast(values: NDArray[np.uint8], level: int) -> float:
    """Return how far the means of the two classes are apart that a threshold makes."""
    counts = _histogram(values.reshape(-1))
    numbers = np.arange(len(counts))
    low, high = (counts * (numbers <= level), counts * (numbers > level))
    return float((high @ numbers) / high.sum() - (low @ numbers) / low.sum())


def _histogram(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each value is there."""
    found = np.zeros(256, np.int64)
    for first in range(0, len(values), STRIP):  # each is made eight times as wide
        found += np.bincount(values[first : first + STRIP], minlength=256)
    return found


COLOURS = ("red", "green", "blue")
DARKEST, BRIGHTEST = 50, 240
"""The paper's range of red, green and blue, both ends in it."""
MOST_PIXELS = 1 << 24
"""Most pixels of a mask."""
WIDEST = 4096
"""Most pixels of level 0 that a mask's pixel is wide."""

TissueRule = Literal["any", "wide", "paper"]
"""How the three steps are joined, from the rule that keeps most to the one that keeps least:

- `any`: dark in one of the three colours or coloured, and in the range in one of them.
- `wide`: dark in one of the three colours, coloured, and in the range in one of them.
- `paper`: dark in all three colours, coloured, and in the range in all of them: the paper's.
"""
DEFAULT_RULE: TissueRule = "any"
"""The rule that misses least of drawn tissue and takes no more glass: tools/tissue_rules.py."""
WEAK = 8.0
"""Levels between the means of two classes, of 256, below which they are one: glass and its noise.
The default rule asks for more, since what one channel says is enough for it."""
MUCH = 0.05
"""Share of the default rule's tissue beyond which it is worth saying that another leaves it out."""


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Which squares of `side` pixels of level 0 are tissue: `inside` (rows, columns)."""

    side: int
    inside: Inside

    @property
    def regions(self) -> list[tuple[slice, slice]]:
        """The rows and columns of each connected region's bounding rectangle."""
        ndimage: Any = slide_file.load("scipy.ndimage")
        labels, _ = ndimage.label(self.inside)
        return list(ndimage.find_objects(labels))


@dataclass(frozen=True, slots=True)
class TissueChoices:
    """How tissue is found, lengths in micrometres.

    `mpp` is the side of a mask's pixel. Regions smaller than `least` square micrometres are left
    out, holes up to `fill` are filled, and then what is left grows by `grow`.
    """

    mpp: float = 4.0
    rule: TissueRule = DEFAULT_RULE
    least: float = 0.0
    fill: float = 0.0
    grow: float = 0.0


@dataclass(frozen=True, eq=False)
class TissueSteps:
    """Each step on the way to a mask, by name, and the thresholds that Otsu's method found.

    `lost` is the share of the default rule's tissue that the rule leaves out.
    """

    image: NDArray[np.uint8]
    masks: Mapping[str, Inside]
    thresholds: Mapping[str, int | None]
    mask: TissueMask
    lost: float


def side_for(slide: SlideExtent, mpp: float, wanted: float) -> int:
    """Return the pixels of level 0 that a pixel of a mask is wide, where `wanted` mpp are asked.

    Of those with the same number of rows and columns it is the least, so that a mask's size tells.
    """
    side = min(max(1, round(wanted / mpp)), WIDEST)
    while -(-slide.width // side) * -(-slide.height // side) > MOST_PIXELS:
        side += 1
    return least_side(slide, *shape_at(slide, side))


def shape_at(slide: SlideExtent, side: int) -> tuple[int, int]:
    """Return the rows and columns of a mask whose pixels are `side` of level 0 wide."""
    return -(-slide.height // side), -(-slide.width // side)


def least_side(slide: SlideExtent, rows: int, columns: int) -> int:
    """Return the least width of pixels of which a mask has at most so many rows and columns."""
    return max(-(-slide.height // rows), -(-slide.width // columns))


def find(slide: Slide, mpp: float, choices: TissueChoices, progress: Progress) -> TissueSteps:
    """Return the mask of a slide, and the steps to it.

    Args:
        slide: The slide.
        mpp: Micrometres of a pixel of level 0.
        choices: How tissue is found.
        progress: Told of the rows that are looked at.

    Raises:
        UserError: The slide is damaged (E1302).
    """
    side = side_for(slide, mpp, choices.mpp)
    image = block_means(slide, side, progress)
    # A colour after the other in memory: comparing takes a third of the time.
    planes = np.stack([image[:, :, n] for n in range(3)]).transpose(1, 2, 0)
    colour = saturation(planes)
    thresholds = _thresholds(planes, colour)
    if choices.rule == DEFAULT_RULE:
        thresholds = _drop_weak(planes, colour, thresholds)
    masks = _masks(planes, colour, thresholds, choices.rule)
    tissue = _join(masks, choices.rule)
    strong = _drop_weak(planes, colour, thresholds)
    usual = _join(_masks(planes, colour, strong, DEFAULT_RULE), DEFAULT_RULE)
    lost = 1 - int((usual & tissue).sum()) / int(usual.sum()) if usual.any() else 0.0
    cleaned = _cleaned(tissue, choices, (side * mpp) ** 2)
    steps = {**masks, "joined": tissue, "tissue": cleaned}
    return TissueSteps(image, steps, thresholds, TissueMask(side, cleaned), lost)


def saturation(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the saturation of HSV, 0 to 255, halves up."""
    # By channel: a reduction along an axis of three takes ten times as long.
    red, green, blue = (image[:, :, n] for n in range(3))
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    spread = (most - least).astype(np.uint16)
    spread *= 255
    spread += most // 2
    spread //= np.maximum(most, 1)
    return spread.astype(np.uint8)


def _thresholds(image: NDArray[np.uint8], colour: NDArray[np.uint8]) -> dict[str, int | None]:
    """Return what Otsu's method finds for each channel; None where it has one value."""
    channels = {name: image[:, :, n] for n, name in enumerate(COLOURS)}
    return {name: threshold(values) for name, values in (channels | {"saturation": colour}).items()}


def _drop_weak(
    image: NDArray[np.uint8],
    colour: NDArray[np.uint8],
    thresholds: Mapping[str, int | None],
) -> dict[str, int | None]:
    """Return thresholds without those that split one colour: Otsu's method splits noise too."""
    channels = {name: image[:, :, n] for n, name in enumerate(COLOURS)} | {"saturation": colour}
    return {
        name: None if level is None or contrast(channels[name], level) < WEAK else level
        for name, level in thresholds.items()
    }


def _join(masks: Mapping[str, Inside], rule: TissueRule) -> Inside:
    """Return what the three steps call tissue together."""
    stained = masks["rgb"] | masks["hsv"] if rule == "any" else masks["rgb"] & masks["hsv"]
    return np.asarray(stained & masks["range"])


def _masks(
    image: NDArray[np.uint8],
    colour: NDArray[np.uint8],
    thresholds: Mapping[str, int | None],
    rule: TissueRule,
) -> dict[str, Inside]:
    """Return what each of the paper's steps calls tissue; nothing, where all has one value.

    Args:
        image: The slide made small.
        colour: Its saturation.
        thresholds: What Otsu's method found.
        rule: Whether all colours have to agree.
    """
    join: Any = np.logical_and if rule == "paper" else np.logical_or
    channels = [image[:, :, n] for n in range(3)]
    dark = [
        channel <= (-1 if (level := thresholds[name]) is None else level)
        for channel, name in zip(channels, COLOURS, strict=True)
    ]
    level = thresholds["saturation"]
    return {
        "rgb": join.reduce(dark),
        "hsv": colour > (255 if level is None else level),
        "range": join.reduce([each >= DARKEST for each in channels])
        & join.reduce([each <= BRIGHTEST for each in channels]),
    }


def _cleaned(tissue: Inside, choices: TissueChoices, pixel: float) -> Inside:
    """Return a mask without small regions, without holes, and grown; `pixel` is an area."""
    found = tissue
    if choices.least > 0:
        found = found & ~_small(found, choices.least / pixel)
    if choices.fill > 0:
        found = found | _small(~found, choices.fill / pixel, within=True)
    if choices.grow > 0:
        found = _grown(found, choices.grow / pixel**0.5)
    return found


def _small(of: Inside, pixels: float, *, within: bool = False) -> Inside:
    """Return the connected regions of few pixels, or only those that do not touch the edge."""
    ndimage: Any = slide_file.load("scipy.ndimage")
    # Tissue is connected by sides, and what is around it by corners too.
    labels, count = ndimage.label(of, np.ones((3, 3)) if within else None)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    small = sizes <= pixels if within else sizes < pixels
    small[0] = False
    if within:
        edge = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
        small[np.unique(np.concatenate(edge))] = False
    return np.asarray(small[labels])


def _grown(inside: Inside, radius: float) -> Inside:
    """Return what lies at most `radius` pixels from the tissue."""
    ndimage: Any = slide_file.load("scipy.ndimage")
    if not inside.any():
        return inside
    return np.asarray(ndimage.distance_transform_edt(~inside) <= radius)
