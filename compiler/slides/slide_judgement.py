"""Results of slides against what is known of them: by patch, by slide and by lesion."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.reference import (
    classification_metrics,
    confidence_intervals,
    froc_curve,
    roc_curve,
)
from tcc.compiler.reference.classification_metrics import JudgedClasses
from tcc.compiler.reference.confidence_intervals import Bounds
from tcc.compiler.reference.froc_curve import FrocFigures, FrocSlide
from tcc.compiler.slides import lesions, patch_grid
from tcc.compiler.slides.lesions import Detection, LesionRule, Lesions
from tcc.compiler.slides.stored_result import StoredResult
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    shares: "NDArray[np.float64]"
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
    result: StoredResult, side: int, inside: "NDArray[np.bool_]", rule: LesionRule
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
    drawn = lesions.lesions(inside, side, result.mpp, rule)
    found = tuple(lesions.detections(result, drawn, rule))
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
