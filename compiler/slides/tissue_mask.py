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
from tcc.compiler.slides.slide_file import Slide, SlideExtent, compute_block_means
from tcc.compiler.support.progress import Progress

Inside = NDArray[np.bool_]

CHUNK_SIZE = 1 << 16
"""Values that are counted at a time, which bounds the memory."""


def find_threshold(pixels: NDArray[np.uint8]) -> int | None:
    """Return the largest value of the lower class; None where all values are the same.

    Of thresholds that are equally good it is the lowest.
    """
    counts = _count_values(pixels.reshape(-1)).tolist()
    total, total_moment = sum(counts), sum(level * count for level, count in enumerate(counts))
    max_variance, best_level = Fraction(0), None
    lower_count = lower_moment = 0
    for level, count in enumerate(counts[:-1]):
        lower_count += count
        lower_moment += level * count
        if 0 < lower_count < total:
            # Otsu's equation 18, times what is the same for every level. In fractions, since of
            # equal ones the lowest is taken: rounded, equal ones may differ.
            variance = Fraction(
                (lower_moment * total - total_moment * lower_count) ** 2,
                lower_count * (total - lower_count),
            )
            if variance > max_variance:
                max_variance, best_level = variance, level
    return best_level


def compute_contrast(pixels: NDArray[np.uint8], level: int) -> float:
    """Return how far the means of the two classes are apart that a threshold makes."""
    counts = _count_values(pixels.reshape(-1))
    levels = np.arange(len(counts))
    lower_counts, upper_counts = (counts * (levels <= level), counts * (levels > level))
    return float(
        (upper_counts @ levels) / upper_counts.sum() - (lower_counts @ levels) / lower_counts.sum()
    )


def _count_values(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each value is there."""
    counts = np.zeros(256, np.int64)
    for start in range(0, len(pixels), CHUNK_SIZE):  # each is made eight times as wide
        counts += np.bincount(pixels[start : start + CHUNK_SIZE], minlength=256)
    return counts


COLOURS = ("red", "green", "blue")
MIN_INTENSITY, MAX_INTENSITY = 50, 240
"""The paper's range of red, green and blue, both ends in it."""
MAX_PIXELS = 1 << 24
"""Most pixels of a mask."""
MAX_SIDE = 4096
"""Most pixels of level 0 that a mask's pixel is wide."""

TissueRule = Literal["any", "wide", "paper"]
"""How the three steps are joined, from the rule that keeps most to the one that keeps least:

- `any`: dark in one of the three colours or coloured, and in the range in one of them.
- `wide`: dark in one of the three colours, coloured, and in the range in one of them.
- `paper`: dark in all three colours, coloured, and in the range in all of them: the paper's.
"""
DEFAULT_RULE: TissueRule = "any"
"""The rule that misses least of drawn tissue and takes no more glass: tools/tissue_rules.py."""
MIN_CONTRAST = 8.0
"""Levels between the means of two classes, of 256, below which they are one: glass and its noise.
The default rule asks for more, since what one channel says is enough for it."""
MAX_LOST_SHARE = 0.05
"""Share of the default rule's tissue beyond which it is worth saying that another leaves it out."""


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Which squares of `side` pixels of level 0 are tissue: `inside` (rows, columns)."""

    side: int
    inside: Inside

    @property
    def regions(self) -> list[tuple[slice, slice]]:
        """The rows and columns of each connected region's bounding rectangle."""
        ndimage: Any = slide_file.load_module("scipy.ndimage")
        labels, _ = ndimage.label(self.inside)
        return list(ndimage.find_objects(labels))


@dataclass(frozen=True, slots=True)
class TissueChoices:
    """How tissue is found, lengths in micrometres.

    `mpp` is the side of a mask's pixel. Regions smaller than `min_area` square micrometres are left
    out, holes up to `fill` are filled, and then what is left grows by `grow`.
    """

    mpp: float = 4.0
    rule: TissueRule = DEFAULT_RULE
    min_area: float = 0.0
    fill: float = 0.0
    grow: float = 0.0


@dataclass(frozen=True, eq=False)
class TissueSteps:
    """Each step on the way to a mask, by name, and the thresholds that Otsu's method found.

    `lost_share` is the share of the default rule's tissue that the rule leaves out.
    """

    image: NDArray[np.uint8]
    masks: Mapping[str, Inside]
    thresholds: Mapping[str, int | None]
    mask: TissueMask
    lost_share: float


def choose_side(slide: SlideExtent, mpp: float, mask_mpp: float) -> int:
    """Return the pixels of level 0 that a pixel of a mask is wide, where `mask_mpp` mpp are asked.

    Of those with the same number of rows and columns it is the least, so that a mask's size tells.
    """
    side = min(max(1, round(mask_mpp / mpp)), MAX_SIDE)
    while -(-slide.width // side) * -(-slide.height // side) > MAX_PIXELS:
        side += 1
    return compute_min_side(slide, *compute_shape(slide, side))


def compute_shape(slide: SlideExtent, side: int) -> tuple[int, int]:
    """Return the rows and columns of a mask whose pixels are `side` of level 0 wide."""
    return -(-slide.height // side), -(-slide.width // side)


def compute_min_side(slide: SlideExtent, rows: int, columns: int) -> int:
    """Return the least width of pixels of which a mask has at most so many rows and columns."""
    return max(-(-slide.height // rows), -(-slide.width // columns))


def find_tissue(
    slide: Slide, mpp: float, choices: TissueChoices, progress: Progress
) -> TissueSteps:
    """Return the mask of a slide, and the steps to it.

    Args:
        slide: The slide.
        mpp: Micrometres of a pixel of level 0.
        choices: How tissue is found.
        progress: Told of the rows that are looked at.

    Raises:
        UserError: The slide is damaged (E1302).
    """
    side = choose_side(slide, mpp, choices.mpp)
    image = compute_block_means(slide, side, progress)
    # A colour after the other in memory: comparing takes a third of the time.
    planes = np.stack([image[:, :, n] for n in range(3)]).transpose(1, 2, 0)
    colour = compute_saturation(planes)
    thresholds = _find_thresholds(planes, colour)
    if choices.rule == DEFAULT_RULE:
        thresholds = _remove_weak(planes, colour, thresholds)
    masks = _build_masks(planes, colour, thresholds, choices.rule)
    tissue = _join_masks(masks, choices.rule)
    strong_thresholds = _remove_weak(planes, colour, thresholds)
    default_tissue = _join_masks(
        _build_masks(planes, colour, strong_thresholds, DEFAULT_RULE), DEFAULT_RULE
    )
    lost_share = (
        1 - int((default_tissue & tissue).sum()) / int(default_tissue.sum())
        if default_tissue.any()
        else 0.0
    )
    cleaned = _clean_mask(tissue, choices, (side * mpp) ** 2)
    steps = {**masks, "joined": tissue, "tissue": cleaned}
    return TissueSteps(image, steps, thresholds, TissueMask(side, cleaned), lost_share)


def compute_saturation(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the saturation of HSV, 0 to 255, halves up."""
    # By channel: a reduction along an axis of three takes ten times as long.
    red, green, blue = (image[:, :, n] for n in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    darkest = np.minimum(np.minimum(red, green), blue)
    saturations = (brightest - darkest).astype(np.uint16)
    saturations *= 255
    saturations += brightest // 2
    saturations //= np.maximum(brightest, 1)
    return saturations.astype(np.uint8)


def _find_thresholds(image: NDArray[np.uint8], colour: NDArray[np.uint8]) -> dict[str, int | None]:
    """Return what Otsu's method finds for each channel; None where it has one value."""
    channels = {name: image[:, :, n] for n, name in enumerate(COLOURS)}
    return {
        name: find_threshold(channel)
        for name, channel in (channels | {"saturation": colour}).items()
    }


def _remove_weak(
    image: NDArray[np.uint8],
    colour: NDArray[np.uint8],
    thresholds: Mapping[str, int | None],
) -> dict[str, int | None]:
    """Return thresholds without those that split one colour: Otsu's method splits noise too."""
    channels = {name: image[:, :, n] for n, name in enumerate(COLOURS)} | {"saturation": colour}
    return {
        name: None
        if level is None or compute_contrast(channels[name], level) < MIN_CONTRAST
        else level
        for name, level in thresholds.items()
    }


def _join_masks(masks: Mapping[str, Inside], rule: TissueRule) -> Inside:
    """Return what the three steps call tissue together."""
    stained = masks["rgb"] | masks["hsv"] if rule == "any" else masks["rgb"] & masks["hsv"]
    return np.asarray(stained & masks["range"])


def _build_masks(
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
        "range": join.reduce([channel >= MIN_INTENSITY for channel in channels])
        & join.reduce([channel <= MAX_INTENSITY for channel in channels]),
    }


def _clean_mask(tissue: Inside, choices: TissueChoices, pixel_area: float) -> Inside:
    """Return a mask without small regions, without holes, and grown; `pixel_area` is an area."""
    mask = tissue
    if choices.min_area > 0:
        mask = mask & ~_find_small_regions(mask, choices.min_area / pixel_area)
    if choices.fill > 0:
        mask = mask | _find_small_regions(~mask, choices.fill / pixel_area, is_hole=True)
    if choices.grow > 0:
        mask = _dilate(mask, choices.grow / pixel_area**0.5)
    return mask


def _find_small_regions(mask: Inside, pixels: float, *, is_hole: bool = False) -> Inside:
    """Return the connected regions of few pixels, or only those that do not touch the edge."""
    ndimage: Any = slide_file.load_module("scipy.ndimage")
    # Tissue is connected by sides, and what is around it by corners too.
    labels, count = ndimage.label(mask, np.ones((3, 3)) if is_hole else None)
    region_sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    is_small = region_sizes <= pixels if is_hole else region_sizes < pixels
    is_small[0] = False
    if is_hole:
        edge = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
        is_small[np.unique(np.concatenate(edge))] = False
    return np.asarray(is_small[labels])


def _dilate(inside: Inside, radius: float) -> Inside:
    """Return what lies at most `radius` pixels from the tissue."""
    ndimage: Any = slide_file.load_module("scipy.ndimage")
    if not inside.any():
        return inside
    return np.asarray(ndimage.distance_transform_edt(~inside) <= radius)
