"""Results of slides against what is known of them: by patch, by slide and by lesion.

Lesions are as CAMELYON16 has them (its `Evaluation_FROC.py`): the tumour is grown by half of 75
micrometres, which joins what lies closer than that; holes are filled; what is then connected, by
sides or corners, is a lesion. Lesions whose major axis is below 275 micrometres, isolated tumour
cells of at most 200, are not counted, and what is detected in them is neither right nor wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.reference import (
    classification_metrics,
    confidence_intervals,
    froc_curve,
    roc_curve,
)
from tcc.compiler.reference.classification_metrics import JudgedClasses
from tcc.compiler.reference.confidence_intervals import Bounds
from tcc.compiler.reference.froc_curve import FrocFigures, FrocSlide
from tcc.compiler.slides import patch_grid, slide_file
from tcc.compiler.slides.stored_result import StoredResult
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import fail, whole_file

Inside = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LesionRule:
    """What is a lesion, and what a detection: lengths in micrometres.

    Args:
        join: What lies closer is one lesion; CAMELYON16 has 75.
        shortest: A lesion with a shorter major axis is not counted; it has 275.
        apart: How far detections lie from likelier ones.
        least: The least probability of a detection.
    """

    join: float
    shortest: float
    apart: float
    least: float


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of a slide.

    Args:
        labels: The number of the lesion, from 1 on, of each square of the slide (rows, columns).
        side: Pixels of level 0 that a square is wide.
        axes: The major axis of each in micrometres.
        counted: Whether each is long enough.
        middles: Column and row of level 0 of the middle of each.
    """

    labels: NDArray[np.int32]
    side: int
    axes: tuple[float, ...]
    counted: tuple[bool, ...]
    middles: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Detection:
    """A place of a slide, in pixels of level 0, that is likely tumour.

    `lesion` is the number of the one that it lies in, 0 where it lies in none.
    """

    x: int
    y: int
    probability: float
    lesion: int


def lesions(inside: Inside, side: int, mpp: float, rule: LesionRule) -> Lesions:
    """Return the lesions of a slide.

    Args:
        inside: Which squares are tumour.
        side: Pixels of level 0 that a square is wide.
        mpp: Micrometres of such a pixel.
        rule: What is one lesion, and which are counted.
    """
    ndimage: Any = slide_file.load("scipy.ndimage")
    unit = side * mpp
    grown = inside
    if rule.join and inside.any():
        grown = inside | (ndimage.distance_transform_edt(~inside) < rule.join / 2 / unit)
    labels, _ = ndimage.label(ndimage.binary_fill_holes(grown), np.ones((3, 3)))
    axes, middles = [], []
    for number, part in enumerate(ndimage.find_objects(labels), 1):
        places = np.argwhere(labels[part] == number)
        axes.append(major_axis(places) * unit)
        row, column = places.mean(axis=0) + np.array([part[0].start, part[1].start])
        middles.append((int((column + 0.5) * side), int((row + 0.5) * side)))
    counted = tuple(axis >= rule.shortest for axis in axes)
    return Lesions(labels.astype(np.int32), side, tuple(axes), counted, tuple(middles))


def major_axis(places: NDArray[np.int64]) -> float:
    """Return the major axis of the ellipse that has the second moments of a set of squares.

    It is 4 sqrt(l), l the larger eigenvalue of the covariance of their points: that of their
    middles (n, 2), and 1/12 for those within each (scikit-image, `regionprops`, has the same but
    for the 1/12: a hundredth of a pixel where a lesion is ten wide).
    """
    spread = np.cov(places.T.astype(np.float64), bias=True) + np.eye(2) / 12
    return float(4 * np.sqrt(np.linalg.eigvalsh(spread)[-1]))


def detections(result: StoredResult, found: Lesions, rule: LesionRule) -> list[Detection]:
    """Return the local maxima of a heat map, the likeliest first.

    The likeliest patch is one, of equal ones the first by rows; its place is the middle of its
    cell. Patches whose middle lies less than `apart` from it are passed over, and so on with the
    rest, as long as it is at least as likely as `least`.
    """
    grid, heat = result.grid, result.raster()
    wide = max(rule.apart / result.mpp / grid.stride, 0.5)
    reach = int(wide)
    across = np.arange(-reach, reach + 1)
    near = across[:, None] ** 2 + across**2 < wide**2
    open_ones = np.where(np.isnan(heat), -1.0, heat) >= rule.least
    # np.nonzero goes by rows, and a stable sort keeps that order within equal ones.
    rows, columns = open_ones.nonzero()
    order = np.argsort(-heat[rows, columns], kind="stable")
    made = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if not open_ones[row, column]:
            continue
        top, left = max(0, row - reach), max(0, column - reach)
        part = open_ones[top : row + reach + 1, left : column + reach + 1]
        cut = near[top - row + reach :, left - column + reach :]
        part &= ~cut[: part.shape[0], : part.shape[1]]
        x, y = result.middle(row, column)
        lesion = int(found.labels[y // found.side, x // found.side])
        made.append(Detection(x, y, float(heat[row, column]), lesion))
    return made


LABELS = ("normal", "tumour")
HALF = 0.5
"""The share of a patch from which on it is tumour: equation 4 of Xiao et al., for every patch."""
SAME = 0.02
"""How much the width of patches may differ between slides, as resolutions are rounded."""


@dataclass(frozen=True, eq=False)
class JudgedSlide:
    """A slide, its result and what is known of it.

    Args:
        result: What a run wrote.
        shares: The share of each patch that is tumour, in the result's order.
        tumour: Whether any of the slide is.
        lesions: Its lesions.
        detections: The places that the result calls likely tumour.
    """

    result: StoredResult
    shares: NDArray[np.float64]
    tumour: bool
    lesions: Lesions
    detections: tuple[Detection, ...]

    @property
    def probability(self) -> float:
        """How likely the slide is of tumour: its likeliest patch; 0 where it has none."""
        return float(self.result.tumour.max(initial=0.0))

    def found(self, lesion: int) -> float:
        """Return the probability of a lesion's likeliest detection, NaN where none lies in it."""
        own = (one.probability for one in self.detections if one.lesion == lesion)
        return max(own, default=float("nan"))

    @property
    def false(self) -> tuple[Detection, ...]:
        """The detections that lie in no lesion."""
        return tuple(one for one in self.detections if not one.lesion)

    def froc(self, normal: bool) -> FrocSlide:
        """Return what the slide adds to the curve: its lesions that are counted.

        Args:
            normal: Whether false positives of slides with tumour are not counted.
        """
        numbers = [n for n, counted in enumerate(self.lesions.counted, 1) if counted]
        own = np.array([self.found(n) for n in numbers], np.float64)
        false = np.array([one.probability for one in self.false], np.float64)
        return FrocSlide(own, false, not (normal and self.tumour))


@dataclass(frozen=True, eq=False)
class JudgedSlides:
    """Slides that one bundle classified in one way."""

    slides: tuple[JudgedSlide, ...]

    def patches(self) -> JudgedClasses:
        """Return what all patches were taken for, against equation 4: half of one is tumour."""
        holds = np.concatenate([one.shares >= HALF for one in self.slides])
        taken = np.concatenate([one.result.positive for one in self.slides])
        likely = np.concatenate([one.result.tumour for one in self.slides])
        true, said = (np.stack([~each, each], axis=1) for each in (holds, taken))
        # Any number that grows with the probability gives the same areas.
        return classification_metrics.exclusive(
            LABELS, true, said, np.stack([-likely, likely], axis=1)
        )

    @property
    def mixed(self) -> int:
        """How many patches are of both, which no network can be right about wholly."""
        return sum(int(((one.shares > 0) & (one.shares < 1)).sum()) for one in self.slides)

    def area(self) -> tuple[float | None, Bounds | None]:
        """Return the area under the ROC curve of slides, and its interval."""
        holds = np.array([one.tumour for one in self.slides], np.bool_)
        likely = np.array([one.probability for one in self.slides], np.float64)
        found, count = roc_curve.area(likely, holds), int(holds.sum())
        return found, confidence_intervals.of_area(found, count, len(holds) - count)

    def froc(self, *, normal: bool = False) -> FrocFigures | None:
        """Return how many lesions are found at how many false positives a slide.

        Args:
            normal: Whether these are counted on slides without tumour alone.
        """
        return froc_curve.figures([one.froc(normal) for one in self.slides])


def judge(
    result: StoredResult, side: int, inside: NDArray[np.bool_], rule: LesionRule
) -> JudgedSlide:
    """Return a result beside what is known of its slide.

    Args:
        result: What a run wrote.
        side: How many pixels of level 0 the squares of `inside` are wide.
        inside: Which of them are tumour.
        rule: What is a lesion, and what a detection.
    """
    grid = result.grid
    weights = patch_grid.weights(grid, TissueMask(side, inside)) / grid.span**2
    shares = weights[result.places[:, 0], result.places[:, 1]]
    drawn = lesions(inside, side, result.mpp, rule)
    found = tuple(detections(result, drawn, rule))
    return JudgedSlide(result, shares, bool(inside.any()), drawn, found)


def check_alike(results: Sequence[tuple[Path, StoredResult]]) -> None:
    """Refuse results of one slide, or of different bundles or patches (E1322)."""
    for (first, one), (path, other) in pairwise(results):
        if not _alike(one, other):
            message = "these results are not of one bundle and one way of cutting patches"
            label = f"{first} differs in bundle, classes, threshold or patches"
            help = "judge them apart: figures of several networks together are of none"
            raise fail("E1322", message, whole_file(str(path)), label=label, help=help)
    places: dict[str, Path] = {}
    for path, each in results:
        if each.name in places:
            message = f"slide {each.name} is there twice: {places[each.name]} and {path}"
            raise fail("E1322", message, whole_file(str(path)), help="name each slide once")
        places[each.name] = path


def _alike(one: StoredResult, other: StoredResult) -> bool:
    ways = [
        (about.bundle, about.tumour, about.classes, about.grid.patch)
        for about in (one.summary, other.summary)
    ]
    widths = [(each.grid.span * each.mpp, each.grid.stride * each.mpp) for each in (one, other)]
    close = all(isclose(a, b, rel_tol=SAME) for a, b in zip(*widths, strict=True))
    return close and ways[0] == ways[1]
