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
from tcc.compiler.reference.classification_metrics import ClassEvaluation
from tcc.compiler.reference.confidence_intervals import Bounds
from tcc.compiler.reference.froc_curve import FrocFigures, FrocSlide
from tcc.compiler.slides import patch_grid, slide_file
from tcc.compiler.slides.saved_result import StoredResult
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import fail, make_file_span

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
        major_axes: The major axis of each in micrometres.
        is_counted: Whether each is long enough.
        centers: Column and row of level 0 of the middle of each.
    """

    labels: NDArray[np.int32]
    side: int
    major_axes: tuple[float, ...]
    is_counted: tuple[bool, ...]
    centers: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Detection:
    """A place of a slide, in pixels of level 0, that is likely tumour.

    `lesion` is the number of the one that it lies in, 0 where it lies in none.
    """

    x: int
    y: int
    probability: float
    lesion: int


def find_lesions(inside: Inside, side: int, mpp: float, rule: LesionRule) -> Lesions:
    """Return the lesions of a slide.

    Args:
        inside: Which squares are tumour.
        side: Pixels of level 0 that a square is wide.
        mpp: Micrometres of such a pixel.
        rule: What is one lesion, and which are counted.
    """
    ndimage: Any = slide_file.load_module("scipy.ndimage")
    micrometres_per_square = side * mpp
    dilated = inside
    if rule.join and inside.any():
        dilated = inside | (
            ndimage.distance_transform_edt(~inside) < rule.join / 2 / micrometres_per_square
        )
    labels, _ = ndimage.label(ndimage.binary_fill_holes(dilated), np.ones((3, 3)))
    axes, centers = [], []
    for number, bounding_slices in enumerate(ndimage.find_objects(labels), 1):
        squares = np.argwhere(labels[bounding_slices] == number)
        axes.append(compute_major_axis(squares) * micrometres_per_square)
        row, column = squares.mean(axis=0) + np.array(
            [bounding_slices[0].start, bounding_slices[1].start]
        )
        centers.append((int((column + 0.5) * side), int((row + 0.5) * side)))
    is_counted = tuple(axis >= rule.shortest for axis in axes)
    return Lesions(labels.astype(np.int32), side, tuple(axes), is_counted, tuple(centers))


def compute_major_axis(squares: NDArray[np.int64]) -> float:
    """Return the major axis of the ellipse that has the second moments of a set of squares.

    It is 4 sqrt(l), l the larger eigenvalue of the covariance of their points: that of their
    middles (n, 2), and 1/12 for those within each (scikit-image, `regionprops`, has the same but
    for the 1/12: a hundredth of a pixel where a lesion is ten wide).
    """
    covariance = np.cov(squares.T.astype(np.float64), bias=True) + np.eye(2) / 12
    return float(4 * np.sqrt(np.linalg.eigvalsh(covariance)[-1]))


def find_detections(
    slide_result: StoredResult, slide_lesions: Lesions, rule: LesionRule
) -> list[Detection]:
    """Return the local maxima of a heat map, the likeliest first.

    The likeliest patch is one, of equal ones the first by rows; its place is the middle of its
    cell. Patches whose middle lies less than `apart` from it are passed over, and so on with the
    rest, as long as it is at least as likely as `least`.
    """
    grid, heat = slide_result.grid, slide_result.to_raster()
    min_distance = max(rule.apart / slide_result.mpp / grid.stride, 0.5)
    radius = int(min_distance)
    across = np.arange(-radius, radius + 1)
    is_near = across[:, None] ** 2 + across**2 < min_distance**2
    is_open = np.where(np.isnan(heat), -1.0, heat) >= rule.least
    # np.nonzero goes by rows, and a stable sort keeps that order within equal ones.
    rows, columns = is_open.nonzero()
    order = np.argsort(-heat[rows, columns], kind="stable")
    local_maxima = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if not is_open[row, column]:
            continue
        first_row, first_column = max(0, row - radius), max(0, column - radius)
        window = is_open[first_row : row + radius + 1, first_column : column + radius + 1]
        near_window = is_near[first_row - row + radius :, first_column - column + radius :]
        window &= ~near_window[: window.shape[0], : window.shape[1]]
        x, y = slide_result.compute_center(row, column)
        lesion = int(slide_lesions.labels[y // slide_lesions.side, x // slide_lesions.side])
        local_maxima.append(Detection(x, y, float(heat[row, column]), lesion))
    return local_maxima


LABELS = ("normal", "tumour")
MIN_TUMOUR_SHARE = 0.5
"""The share of a patch from which on it is tumour: equation 4 of Xiao et al., for every patch."""
MAX_WIDTH_DIFFERENCE = 0.02
"""How much the width of patches may differ between slides, as resolutions are rounded."""


@dataclass(frozen=True, eq=False)
class EvaluatedSlide:
    """A slide, its result and what is known of it.

    Args:
        slide_result: What a run wrote.
        shares: The share of each patch that is tumour, in the result's order.
        has_tumour: Whether any of the slide is.
        lesions: Its lesions.
        detections: The places that the result calls likely tumour.
    """

    slide_result: StoredResult
    shares: NDArray[np.float64]
    has_tumour: bool
    lesions: Lesions
    detections: tuple[Detection, ...]

    @property
    def probability(self) -> float:
        """How likely the slide is of tumour: its likeliest patch; 0 where it has none."""
        return float(self.slide_result.tumour.max(initial=0.0))

    def find_lesion_probability(self, lesion: int) -> float:
        """Return the probability of a lesion's likeliest detection, NaN where none lies in it."""
        probabilities = (
            detection.probability for detection in self.detections if detection.lesion == lesion
        )
        return max(probabilities, default=float("nan"))

    @property
    def false_positives(self) -> tuple[Detection, ...]:
        """The detections that lie in no lesion."""
        return tuple(detection for detection in self.detections if not detection.lesion)

    def build_froc_slide(self, normal_only: bool) -> FrocSlide:
        """Return what the slide adds to the curve: its lesions that are counted.

        Args:
            normal_only: Whether false positives of slides with tumour are not counted.
        """
        numbers = [n for n, counted in enumerate(self.lesions.is_counted, 1) if counted]
        lesion_probabilities = np.array(
            [self.find_lesion_probability(n) for n in numbers], np.float64
        )
        false_probabilities = np.array(
            [detection.probability for detection in self.false_positives], np.float64
        )
        return FrocSlide(
            lesion_probabilities, false_probabilities, not (normal_only and self.has_tumour)
        )


@dataclass(frozen=True, eq=False)
class EvaluatedSlides:
    """Slides that one bundle classified in one way."""

    slides: tuple[EvaluatedSlide, ...]

    def evaluate_patches(self) -> ClassEvaluation:
        """Return what all patches were taken for, against equation 4: half of one is tumour."""
        is_tumour = np.concatenate([slide.shares >= MIN_TUMOUR_SHARE for slide in self.slides])
        is_positive = np.concatenate([slide.slide_result.is_positive for slide in self.slides])
        probabilities = np.concatenate([slide.slide_result.tumour for slide in self.slides])
        true_classes, predicted_classes = (
            np.stack([~is_class, is_class], axis=1) for is_class in (is_tumour, is_positive)
        )
        # Any number that grows with the probability gives the same areas.
        return classification_metrics.evaluate_exclusive_classes(
            LABELS,
            true_classes,
            predicted_classes,
            np.stack([-probabilities, probabilities], axis=1),
        )

    @property
    def mixed(self) -> int:
        """How many patches are of both, which no network can be right about wholly."""
        return sum(int(((slide.shares > 0) & (slide.shares < 1)).sum()) for slide in self.slides)

    def compute_auc(self) -> tuple[float | None, Bounds | None]:
        """Return the area under the ROC curve of slides, and its interval."""
        has_tumour = np.array([slide.has_tumour for slide in self.slides], np.bool_)
        probabilities = np.array([slide.probability for slide in self.slides], np.float64)
        auc, count = roc_curve.compute_auc(probabilities, has_tumour), int(has_tumour.sum())
        return auc, confidence_intervals.compute_auc_interval(auc, count, len(has_tumour) - count)

    def compute_froc(self, *, normal_only: bool = False) -> FrocFigures | None:
        """Return how many lesions are found at how many false positives a slide.

        Args:
            normal_only: Whether these are counted on slides without tumour alone.
        """
        return froc_curve.compute_froc(
            [slide.build_froc_slide(normal_only) for slide in self.slides]
        )


def evaluate_slide(
    slide_result: StoredResult, side: int, inside: NDArray[np.bool_], rule: LesionRule
) -> EvaluatedSlide:
    """Return a result beside what is known of its slide.

    Args:
        slide_result: What a run wrote.
        side: How many pixels of level 0 the squares of `inside` are wide.
        inside: Which of them are tumour.
        rule: What is a lesion, and what a detection.
    """
    grid = slide_result.grid
    weights = patch_grid.compute_tissue_weights(grid, TissueMask(side, inside)) / grid.span**2
    shares = weights[slide_result.cells[:, 0], slide_result.cells[:, 1]]
    slide_lesions = find_lesions(inside, side, slide_result.mpp, rule)
    slide_detections = tuple(find_detections(slide_result, slide_lesions, rule))
    return EvaluatedSlide(slide_result, shares, bool(inside.any()), slide_lesions, slide_detections)


def check_comparable(slide_results: Sequence[tuple[Path, StoredResult]]) -> None:
    """Refuse results of one slide, or of different bundles or patches (E1322)."""
    for (first_path, first_result), (result_path, second_result) in pairwise(slide_results):
        if not _is_comparable(first_result, second_result):
            message = "these results are not of one bundle and one way of cutting patches"
            label = f"{first_path} differs in bundle, classes, threshold or patches"
            help = "judge them apart: figures of several networks together are of none"
            raise fail("E1322", message, make_file_span(str(result_path)), label=label, help=help)
    path_by_name: dict[str, Path] = {}
    for result_path, slide_result in slide_results:
        if slide_result.name in path_by_name:
            message = (
                f"slide {slide_result.name} is there twice: {path_by_name[slide_result.name]} "
                f"and {result_path}"
            )
            raise fail(
                "E1322", message, make_file_span(str(result_path)), help="name each slide once"
            )
        path_by_name[slide_result.name] = result_path


def _is_comparable(first_result: StoredResult, second_result: StoredResult) -> bool:
    settings = [
        (summary.bundle, summary.tumour, summary.classes, summary.grid.patch)
        for summary in (first_result.summary, second_result.summary)
    ]
    widths = [
        (slide_result.grid.span * slide_result.mpp, slide_result.grid.stride * slide_result.mpp)
        for slide_result in (first_result, second_result)
    ]
    has_same_widths = all(
        isclose(a, b, rel_tol=MAX_WIDTH_DIFFERENCE) for a, b in zip(*widths, strict=True)
    )
    return has_same_widths and settings[0] == settings[1]
