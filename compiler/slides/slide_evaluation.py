"""Evaluate results of slides against the ground truth, by patch, by slide and by lesion.

Lesions are defined as in CAMELYON16 (`Evaluation_FROC.py`): the tumour is grown by half of 75
micrometres, which joins areas that are closer than that; holes are filled; each 8-connected
component is a lesion. Lesions with a major axis below 275 micrometres (isolated tumour cells of at
most 200) are not counted. Detections in them are neither true nor false positives.
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
    """Definition of lesions and detections; lengths in micrometres.

    Args:
        join: Areas that are closer are one lesion; 75 in CAMELYON16.
        shortest: Lesions with a shorter major axis are not counted; 275 in CAMELYON16.
        apart: Minimum distance of detections.
        least: Minimum probability of a detection.
    """

    join: float
    shortest: float
    apart: float
    least: float


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of a slide.

    Args:
        labels: The lesion number, from 1, of each square of the slide (rows, columns).
        side: The width of a square in pixels of level 0.
        major_axes: The major axis of each lesion in micrometres.
        is_counted: Whether each lesion is long enough.
        centers: Column and row of level 0 of each lesion's centre.
    """

    labels: NDArray[np.int32]
    side: int
    major_axes: tuple[float, ...]
    is_counted: tuple[bool, ...]
    centers: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Detection:
    """A position on a slide, in pixels of level 0, that is likely tumour.

    `lesion` is the number of its lesion, or 0 if it is not in a lesion.
    """

    x: int
    y: int
    probability: float
    lesion: int


def find_lesions(inside: Inside, side: int, mpp: float, rule: LesionRule) -> Lesions:
    """Return the lesions of a slide.

    Args:
        inside: Whether each square is tumour.
        side: The width of a square in pixels of level 0.
        mpp: Micrometres per pixel of level 0.
        rule: The definition of lesions.
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
    """Return the major axis of the ellipse with the second moments of a set of squares.

    It is 4 sqrt(l), where l is the larger eigenvalue of the covariance of the squares' points: the
    covariance of their centres (n, 2), plus 1/12 for the points within each square. scikit-image's
    `regionprops` omits the 1/12, a difference of 0.01 pixels for a lesion that is 10 pixels wide.
    """
    covariance = np.cov(squares.T.astype(np.float64), bias=True) + np.eye(2) / 12
    return float(4 * np.sqrt(np.linalg.eigvalsh(covariance)[-1]))


def find_detections(
    slide_result: StoredResult, slide_lesions: Lesions, rule: LesionRule
) -> list[Detection]:
    """Return the local maxima of a heat map, by descending probability.

    The most probable patch is a detection, at the centre of its cell; ties go to the first by rows.
    Patches with a centre closer than `apart` are then discarded. This repeats with the remaining
    patches, down to the probability `least`.
    """
    grid, heat = slide_result.grid, slide_result.to_raster()
    min_distance = max(rule.apart / slide_result.mpp / grid.stride, 0.5)
    radius = int(min_distance)
    across = np.arange(-radius, radius + 1)
    is_near = across[:, None] ** 2 + across**2 < min_distance**2
    is_open = np.where(np.isnan(heat), -1.0, heat) >= rule.least
    # np.nonzero is in row order, and the stable sort preserves this order for ties.
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
"""Minimum share of tumour in a tumour patch: equation 4 of Xiao et al., for every patch."""
MAX_WIDTH_DIFFERENCE = 0.02
"""Maximum relative difference of patch widths between slides, because resolutions are rounded."""


@dataclass(frozen=True, eq=False)
class EvaluatedSlide:
    """A slide's result with its ground truth.

    Args:
        slide_result: The result of a run.
        tumour_shares: The share of tumour in each patch, in the result's order.
        has_tumour: Whether the slide has any tumour.
        lesions: The lesions of the slide.
        detections: The detections of the result.
    """

    slide_result: StoredResult
    tumour_shares: NDArray[np.float64]
    has_tumour: bool
    lesions: Lesions
    detections: tuple[Detection, ...]

    @property
    def probability(self) -> float:
        """The slide's tumour probability: that of its most probable patch; 0 without patches."""
        return float(self.slide_result.tumour.max(initial=0.0))

    def find_lesion_probability(self, lesion: int) -> float:
        """Return the highest probability of a lesion's detections; NaN if it has none."""
        probabilities = (
            detection.probability for detection in self.detections if detection.lesion == lesion
        )
        return max(probabilities, default=float("nan"))

    @property
    def false_positives(self) -> tuple[Detection, ...]:
        """The detections outside all lesions."""
        return tuple(detection for detection in self.detections if not detection.lesion)

    def build_froc_slide(self, normal_only: bool) -> FrocSlide:
        """Return the slide's data for the FROC curve.

        Args:
            normal_only: Whether to ignore false positives on slides with tumour.
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
    """Slides that were classified by one bundle with the same settings."""

    slides: tuple[EvaluatedSlide, ...]

    def evaluate_patches(self) -> ClassEvaluation:
        """Return the evaluation of all patches; patches with at least half tumour are tumour."""
        is_tumour = np.concatenate(
            [slide.tumour_shares >= MIN_TUMOUR_SHARE for slide in self.slides]
        )
        is_positive = np.concatenate([slide.slide_result.is_positive for slide in self.slides])
        probabilities = np.concatenate([slide.slide_result.tumour for slide in self.slides])
        true_classes, predicted_classes = (
            np.stack([~is_class, is_class], axis=1) for is_class in (is_tumour, is_positive)
        )
        # Any score that increases with the probability gives the same areas under curves.
        return classification_metrics.evaluate_exclusive_classes(
            LABELS,
            true_classes,
            predicted_classes,
            np.stack([-probabilities, probabilities], axis=1),
        )

    @property
    def mixed(self) -> int:
        """The number of patches that are partly tumour, where either class is inexact."""
        return sum(
            int(((slide.tumour_shares > 0) & (slide.tumour_shares < 1)).sum())
            for slide in self.slides
        )

    def compute_auc(self) -> tuple[float | None, Bounds | None]:
        """Return the area under the slides' ROC curve, and its confidence interval."""
        has_tumour = np.array([slide.has_tumour for slide in self.slides], np.bool_)
        probabilities = np.array([slide.probability for slide in self.slides], np.float64)
        auc, count = roc_curve.compute_auc(probabilities, has_tumour), int(has_tumour.sum())
        return auc, confidence_intervals.compute_auc_interval(auc, count, len(has_tumour) - count)

    def compute_froc(self, *, normal_only: bool = False) -> FrocFigures | None:
        """Return the FROC figures: detected lesions against false positives per slide.

        Args:
            normal_only: Whether to count false positives only on slides without tumour.
        """
        return froc_curve.compute_froc(
            [slide.build_froc_slide(normal_only) for slide in self.slides]
        )


def evaluate_slide(
    slide_result: StoredResult, side: int, is_tumour: NDArray[np.bool_], rule: LesionRule
) -> EvaluatedSlide:
    """Evaluate a result against its slide's ground truth.

    Args:
        slide_result: The result of a run.
        side: The width of the squares of `is_tumour` in pixels of level 0.
        is_tumour: Whether each square is tumour.
        rule: The definition of lesions and detections.
    """
    grid = slide_result.grid
    tumour_pixels = patch_grid.count_patch_pixels(grid, TissueMask(side, is_tumour))
    tumour_shares = (tumour_pixels / grid.span**2)[
        slide_result.cells[:, 0], slide_result.cells[:, 1]
    ]
    slide_lesions = find_lesions(is_tumour, side, slide_result.mpp, rule)
    slide_detections = tuple(find_detections(slide_result, slide_lesions, rule))
    return EvaluatedSlide(
        slide_result, tumour_shares, bool(is_tumour.any()), slide_lesions, slide_detections
    )


def check_comparable(slide_results: Sequence[tuple[Path, StoredResult]]) -> None:
    """Reject results of different bundles or patches, or several results of one slide (E1322)."""
    for (first_path, first_result), (result_path, second_result) in pairwise(slide_results):
        if not _is_comparable(first_result, second_result):
            message = "these results have different bundles or settings"
            label = f"{first_path} differs in bundle, classes, threshold or patches"
            help = "evaluate them separately; combined figures would not describe one network"
            raise fail("E1322", message, make_file_span(str(result_path)), label=label, help=help)
    path_by_name: dict[str, Path] = {}
    for result_path, slide_result in slide_results:
        if slide_result.name in path_by_name:
            message = (
                f"slide {slide_result.name} is given twice: {path_by_name[slide_result.name]} "
                f"and {result_path}"
            )
            raise fail(
                "E1322", message, make_file_span(str(result_path)), help="give each slide once"
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
