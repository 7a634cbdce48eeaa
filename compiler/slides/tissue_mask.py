"""Find the tissue of a slide by the three steps of Xiao et al. (IEEE IoT Journal 2023, III.B).

RGB: dark pixels, by Otsu's thresholds of red, green and blue. HSV: coloured pixels, by Otsu's
threshold of the saturation. The paper does not name the channel; the saturation is used in the
programs that its authors build on (NCRF's `tissue_mask.py`). Range: pixels with red, green and blue
from 50 to 240. A rule defines how the three are combined.

Otsu's threshold (N. Otsu, A Threshold Selection Method from Gray-Level Histograms, 1979) splits
values into two classes with the largest variance between the classes.
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
"""Number of values that are counted at a time, to bound the memory."""


def find_threshold(pixels: NDArray[np.uint8]) -> int | None:
    """Return the largest value of the lower class; None if all values are equal.

    Ties go to the lowest threshold.
    """
    counts = _count_values(pixels.reshape(-1)).tolist()
    total, total_moment = sum(counts), sum(level * count for level, count in enumerate(counts))
    max_variance, best_level = Fraction(0), None
    lower_count = lower_moment = 0
    for level, count in enumerate(counts[:-1]):
        lower_count += count
        lower_moment += level * count
        if 0 < lower_count < total:
            # Otsu's equation 18, times a constant factor. In exact fractions, because rounding
            # would break ties.
            variance = Fraction(
                (lower_moment * total - total_moment * lower_count) ** 2,
                lower_count * (total - lower_count),
            )
            if variance > max_variance:
                max_variance, best_level = variance, level
    return best_level


def compute_contrast(pixels: NDArray[np.uint8], level: int) -> float:
    """Return the difference of the means of a threshold's two classes."""
    counts = _count_values(pixels.reshape(-1))
    levels = np.arange(len(counts))
    lower_counts, upper_counts = (counts * (levels <= level), counts * (levels > level))
    return float(
        (upper_counts @ levels) / upper_counts.sum() - (lower_counts @ levels) / lower_counts.sum()
    )


def _count_values(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the count of each value (256,)."""
    counts = np.zeros(256, np.int64)
    for start in range(0, len(pixels), CHUNK_SIZE):  # bincount converts to 8 bytes per value
        counts += np.bincount(pixels[start : start + CHUNK_SIZE], minlength=256)
    return counts


COLOURS = ("red", "green", "blue")
MIN_INTENSITY, MAX_INTENSITY = 50, 240
"""The paper's range of red, green and blue, inclusive."""
MAX_PIXELS = 1 << 24
"""Maximum number of pixels of a mask."""
MAX_SIDE = 4096
"""Maximum width of a mask pixel in pixels of level 0."""

TissueRule = Literal["any", "wide", "paper"]
"""How to combine the three steps, from the rule that keeps most to the one that keeps least:

- `any`: dark in any of the three colours or coloured, and in the range in any colour.
- `wide`: dark in any of the three colours, coloured, and in the range in any colour.
- `paper`: dark in all three colours, coloured, and in the range in all colours, as in the paper.
"""
DEFAULT_RULE: TissueRule = "any"
"""The rule that misses least annotated tissue and includes no more glass: tools/tissue_rules.py."""
MIN_CONTRAST = 8.0
"""Minimum difference of the two classes' means, of 256, for the default rule. Below it, the classes
are glass and its noise. Only the default rule needs this, because one channel suffices for it."""
MAX_LOST_SHARE = 0.05
"""Share of the default rule's tissue; if another rule omits more, a warning is reported."""


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue mask: `inside` (rows, columns) has a value for each square of `side` pixels."""

    side: int
    inside: Inside

    @property
    def regions(self) -> list[tuple[slice, slice]]:
        """The bounding rectangle of each connected region, as slices of rows and columns."""
        ndimage: Any = slide_file.load_module("scipy.ndimage")
        labels, _ = ndimage.label(self.inside)
        return list(ndimage.find_objects(labels))


@dataclass(frozen=True, slots=True)
class TissueChoices:
    """Options for finding tissue.

    Attributes:
        mpp: The side of a mask pixel in micrometres.
        rule: How to combine the steps.
        min_area: Smaller regions, in square micrometres, are removed.
        fill: Holes up to this area, in square micrometres, are filled.
        grow: The tissue is finally dilated by this length in micrometres.
    """

    mpp: float = 4.0
    rule: TissueRule = DEFAULT_RULE
    min_area: float = 0.0
    fill: float = 0.0
    grow: float = 0.0


@dataclass(frozen=True, eq=False)
class TissueSteps:
    """The steps of a mask.

    Attributes:
        image: The downscaled slide.
        masks: The mask of each step, by name.
        thresholds: Otsu's threshold of each channel; None if there is none.
        mask: The tissue mask.
        lost_share: The share of the default rule's tissue that this rule omits.
    """

    image: NDArray[np.uint8]
    masks: Mapping[str, Inside]
    thresholds: Mapping[str, int | None]
    mask: TissueMask
    lost_share: float


def choose_side(slide: SlideExtent, mpp: float, mask_mpp: float) -> int:
    """Return the width of a mask pixel in pixels of level 0, for a resolution of `mask_mpp`.

    It is the smallest width with the same number of rows and columns, so that it can be derived
    from a mask's size.
    """
    side = min(max(1, round(mask_mpp / mpp)), MAX_SIDE)
    while -(-slide.width // side) * -(-slide.height // side) > MAX_PIXELS:
        side += 1
    return compute_min_side(slide, *compute_shape(slide, side))


def compute_shape(slide: SlideExtent, side: int) -> tuple[int, int]:
    """Return the rows and columns of a mask with pixels of `side` level 0 pixels."""
    return -(-slide.height // side), -(-slide.width // side)


def compute_min_side(slide: SlideExtent, rows: int, columns: int) -> int:
    """Return the smallest pixel width for a mask of at most `rows` rows and `columns` columns."""
    return max(-(-slide.height // rows), -(-slide.width // columns))


def find_tissue(
    slide: Slide, mpp: float, choices: TissueChoices, progress: Progress
) -> TissueSteps:
    """Return the mask of a slide with its steps.

    Args:
        slide: The slide.
        mpp: Micrometres per pixel of level 0.
        choices: The options for finding tissue.
        progress: Receives the number of processed rows.

    Raises:
        UserError: The slide is damaged (E1302).
    """
    side = choose_side(slide, mpp, choices.mpp)
    image = compute_block_means(slide, side, progress)
    # Store the colours as planes: comparisons take a third of the time.
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
    """Return the HSV saturation, 0 to 255, rounded half up."""
    # By channel, because a reduction along an axis of length three takes ten times as long.
    red, green, blue = (image[:, :, n] for n in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    darkest = np.minimum(np.minimum(red, green), blue)
    saturations = (brightest - darkest).astype(np.uint16)
    saturations *= 255
    saturations += brightest // 2
    saturations //= np.maximum(brightest, 1)
    return saturations.astype(np.uint8)


def _find_thresholds(image: NDArray[np.uint8], colour: NDArray[np.uint8]) -> dict[str, int | None]:
    """Return Otsu's threshold for each channel; None for a channel with only one value."""
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
    """Return thresholds without those of low contrast, because Otsu's method also splits noise."""
    channels = {name: image[:, :, n] for n, name in enumerate(COLOURS)} | {"saturation": colour}
    return {
        name: None
        if level is None or compute_contrast(channels[name], level) < MIN_CONTRAST
        else level
        for name, level in thresholds.items()
    }


def _join_masks(masks: Mapping[str, Inside], rule: TissueRule) -> Inside:
    """Return the combined tissue mask of the three steps."""
    stained = masks["rgb"] | masks["hsv"] if rule == "any" else masks["rgb"] & masks["hsv"]
    return np.asarray(stained & masks["range"])


def _build_masks(
    image: NDArray[np.uint8],
    colour: NDArray[np.uint8],
    thresholds: Mapping[str, int | None],
    rule: TissueRule,
) -> dict[str, Inside]:
    """Return the mask of each of the paper's steps; a channel without threshold adds no pixels.

    Args:
        image: The downscaled slide.
        colour: Its saturation.
        thresholds: Otsu's threshold of each channel.
        rule: The rule; it defines whether all colours have to agree.
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
    """Remove small regions, fill small holes and dilate; `pixel_area` is in square micrometres."""
    mask = tissue
    if choices.min_area > 0:
        mask = mask & ~_find_small_regions(mask, choices.min_area / pixel_area)
    if choices.fill > 0:
        mask = mask | _find_small_regions(~mask, choices.fill / pixel_area, is_hole=True)
    if choices.grow > 0:
        mask = _dilate(mask, choices.grow / pixel_area**0.5)
    return mask


def _find_small_regions(mask: Inside, pixels: float, *, is_hole: bool = False) -> Inside:
    """Return connected regions of few pixels; for holes, only those that do not touch the edge."""
    ndimage: Any = slide_file.load_module("scipy.ndimage")
    # Tissue is 4-connected, so its background is 8-connected.
    labels, count = ndimage.label(mask, np.ones((3, 3)) if is_hole else None)
    region_sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    is_small = region_sizes <= pixels if is_hole else region_sizes < pixels
    is_small[0] = False
    if is_hole:
        edge = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
        is_small[np.unique(np.concatenate(edge))] = False
    return np.asarray(is_small[labels])


def _dilate(inside: Inside, radius: float) -> Inside:
    """Return the pixels within `radius` pixels of the tissue."""
    ndimage: Any = slide_file.load_module("scipy.ndimage")
    if not inside.any():
        return inside
    return np.asarray(ndimage.distance_transform_edt(~inside) <= radius)
