"""Fit a guard: forms to the images of the calibration, tables to images held out for them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.guard import calibration_tables, forms, plan
from tcc.compiler.guard.form_fits import fit_directions, fit_layer_form, fit_picture_form
from tcc.compiler.guard.guard_document import (
    MIN_CASES,
    VERSION,
    Guard,
    ImageOrigin,
    LayerForm,
    PictureForm,
)
from tcc.compiler.support.diagnostics import fail, make_file_span

Int64 = NDArray[np.int64]
MIN_FORM_IMAGES = 32
"""Fewest images that forms are fitted to."""
_DIFFER = "give images that differ, as the network's users take them"


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """What a guard reads of a set of images.

    Attributes:
        digest: The digest of the set.
        features: int64 (images, 19).
        channel_sums: int64 (images, counted channels); None without a tapped layer.
        cases: The case of each image, a patient or a slide; None if each image is one.
        changed: Features of the first images after each known change; only for form images.
    """

    digest: str
    features: Int64
    channel_sums: Int64 | None
    cases: Sequence[Hashable] | None = None
    changed: Mapping[str, Int64] = field(default_factory=dict)

    @property
    def origin(self) -> ImageOrigin:
        """The record of these images in a guard."""
        cases = len(set(self.cases)) if self.cases is not None else len(self.features)
        return ImageOrigin(self.digest, len(self.features), cases)

    def select_cases(self) -> "Measurements":
        """Return one image of each case, the first; images that measure alike are one case."""
        cases = self.cases if self.cases is not None else range(len(self.features))
        first_by_case = {case: index for index, case in reversed(list(enumerate(cases)))}
        first_by_values = {
            self.features[index].tobytes(): index for index in sorted(first_by_case.values())[::-1]
        }
        indices = sorted(first_by_values.values())
        sums = self.channel_sums
        return replace(
            self,
            features=self.features[indices],
            channel_sums=None if sums is None else sums[indices],
            cases=None,
        )


def fit_guard(
    guard_plan: plan.GuardPlan, form_images: Measurements, guard_images: Measurements
) -> Guard:
    """Return the guard of a network.

    Args:
        guard_plan: What it reads.
        form_images: Images of the calibration, at least 32, with the known changes of the first
            (`measure.measure_changes`): their means and covariances become the forms. They may be
            training images.
        guard_images: Images that the network was neither trained nor fitted on, of at least 50
            cases: their scores become the tables.

    Raises:
        UserError: There are too few images or cases (E0741), or all have the same score (E0743).
    """
    if len(form_images.features) < MIN_FORM_IMAGES:
        message = f"a guard needs at least {MIN_FORM_IMAGES} calibration images"
        label = f"these are {len(form_images.features)}"
        help = "calibrate with more images; 200 or more are advised"
        raise fail("E0741", message, make_file_span("calibration images"), label=label, help=help)
    layer = None
    if guard_plan.tap is not None and form_images.channel_sums is not None:
        layer = fit_layer_form(guard_plan, form_images.channel_sums)
    picture = fit_picture_form(form_images.features)
    directions = fit_directions(picture, form_images.features, form_images.changed)
    scores = _compute_case_scores(picture, layer, guard_images)
    return Guard(
        tcc_guard=VERSION,
        shape=guard_plan.shape,
        row_step=guard_plan.row_step,
        picture=picture,
        layer=layer,
        **_make_tables(scores, directions),
        forms=form_images.origin,
        calibrated=guard_images.origin,
    )


def refit_tables(guard: Guard, guard_images: Measurements) -> Guard:
    """Return the guard with the tables of other images, such as those of a site.

    Args:
        guard: The guard.
        guard_images: Images of at least 50 cases that nothing was fitted to.

    Raises:
        UserError: There are too few cases (E0741), or all have the same score (E0743).
    """
    scores = _compute_case_scores(guard.picture, guard.layer, guard_images)
    directions = {change.name: change.direction for change in guard.drift.changes}
    tables = _make_tables(scores, directions)
    return replace(guard, **tables, calibrated=guard_images.origin, seal="")


@dataclass(frozen=True, slots=True, eq=False)
class _CaseScores:
    """Deviations (cases, 19) and scores (cases,) of one image of each case."""

    deviations: Int64
    picture: Int64
    layer: Int64 | None


def _compute_case_scores(
    picture: PictureForm, layer: LayerForm | None, guard_images: Measurements
) -> _CaseScores:
    cases = guard_images.select_cases()
    if len(cases.features) < MIN_CASES:
        message = f"a guard needs images of at least {MIN_CASES} cases"
        label = f"these {len(guard_images.features)} images are of {len(cases.features)} cases"
        help = "give more images that were not used for training or calibration; 200 are advised"
        raise fail("E0741", message, make_file_span("guard images"), label=label, help=help)
    deviations = forms.compute_deviations(picture, cases.features)
    layer_scores = None
    if layer is not None:
        assert cases.channel_sums is not None
        layer_scores = forms.compute_layer_scores(layer, cases.channel_sums)
    return _CaseScores(deviations, forms.compute_picture_scores(deviations), layer_scores)


def _make_tables(scores: _CaseScores, directions: Mapping[str, Sequence[int]]) -> Mapping[str, Any]:
    """Return the tables of a guard by field."""
    if not directions:
        message = "no known change is visible in the calibration images"
        raise fail("E0743", message, make_file_span("calibration images"), help=_DIFFER)
    for name, values in (("picture", scores.picture), ("layer", scores.layer)):
        if values is not None and len(np.unique(values)) == 1:
            message = f"the {name} score is the same for all guard images, so it detects nothing"
            raise fail("E0743", message, make_file_span("guard images"), help=_DIFFER)
    count = 2 if scores.layer is None else 3
    layer = scores.layer
    return {
        "picture_table": calibration_tables.make_table(scores.picture, count),
        "drift": calibration_tables.make_drift_table(directions, scores.deviations, count),
        "layer_table": None if layer is None else calibration_tables.make_table(layer, count),
    }
