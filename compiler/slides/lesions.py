"""Lesions that were drawn, and what of a heat map finds them.

As CAMELYON16 has it (its `Evaluation_FROC.py`): the tumour is grown by half of 75 micrometres,
which joins what lies closer than that; holes are filled; what is then connected, by sides or
corners, is a lesion. Lesions whose major axis is below 275 micrometres, isolated tumour cells of at
most 200, are not counted, and what is detected in them is neither right nor wrong.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.slides import libraries
from tcc.compiler.slides.stored_result import StoredResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

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

    labels: "NDArray[np.int32]"
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


def lesions(inside: "Inside", side: int, mpp: float, rule: LesionRule) -> Lesions:
    """Return the lesions of a slide.

    Args:
        inside: Which squares are tumour.
        side: Pixels of level 0 that a square is wide.
        mpp: Micrometres of such a pixel.
        rule: What is one lesion, and which are counted.
    """
    ndimage: Any = libraries.load("scipy.ndimage")
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


def major_axis(places: "NDArray[np.int64]") -> float:
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
