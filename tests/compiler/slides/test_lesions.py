"""Lesions of CAMELYON16, and the local maxima of a heat map that detect them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_slides import write_result

from tcc.compiler.slides import saved_result, slide_evaluation
from tcc.compiler.slides.slide_evaluation import LesionRule

pytest.importorskip("scipy", reason="needs the extra `slides`")
RULE = LesionRule(75.0, 275.0, 200.0, 0.5)
SHAPE = (100, 120)


def draw_areas(*areas):
    mask = np.zeros(SHAPE, bool)
    for top, left_edge, bottom, right_edge in areas:
        mask[top:bottom, left_edge:right_edge] = True
    return mask


@pytest.mark.parametrize(("gap", "count"), [(15, 2), (14, 1)])
def test_areas_closer_than_75_micrometres_are_one_lesion(gap, count):
    """Squares of 5 micrometres: each area grows by seven squares, 35 um, below 37.5 um."""
    inside = draw_areas((20, 20, 80, 40), (20, 40 + gap, 80, 60 + gap))
    lesions = slide_evaluation.find_lesions(inside, 10, 0.5, RULE)
    assert len(lesions.major_axes) == lesions.labels.max() == count
    assert (
        len(slide_evaluation.find_lesions(inside, 10, 0.5, LesionRule(0, 0, 200, 0.5)).major_axes)
        == 2
    )


def test_areas_join_at_corners_and_holes_are_filled():
    touching = draw_areas((20, 20, 40, 40), (40, 40, 60, 60))
    assert (
        len(slide_evaluation.find_lesions(touching, 10, 0.5, LesionRule(0, 0, 200, 0.5)).major_axes)
        == 1
    )
    ring = draw_areas((20, 20, 80, 80)) & ~draw_areas((30, 30, 70, 70))
    lesions = slide_evaluation.find_lesions(ring, 10, 0.5, LesionRule(0, 0, 200, 0.5))
    assert lesions.labels[50, 50] == 1
    assert lesions.centers == ((500, 500),)


def test_major_axis_matches_an_ellipse():
    y, x = np.mgrid[:200, :200]
    for long, short in ((60, 20), (40, 40)):
        pixels = np.argwhere(((x - 100) / long) ** 2 + ((y - 100) / short) ** 2 <= 1)
        assert slide_evaluation.compute_major_axis(pixels) == pytest.approx(2 * long, rel=0.01)
    assert slide_evaluation.compute_major_axis(np.array([[3, 4]])) == pytest.approx(4 / 12**0.5)
    line = np.array([[0, n] for n in range(30)])
    assert slide_evaluation.compute_major_axis(line) == pytest.approx(4 * 30 / 12**0.5)


@pytest.mark.parametrize(("length", "counted"), [(47, False), (48, True)])
def test_small_lesions_are_not_counted(length, counted):
    """A line of n squares has a major axis of 4 n / sqrt(12) squares: 275 um at 47.6 squares of 5
    um.
    """
    lesions = slide_evaluation.find_lesions(
        draw_areas((20, 20, 21, 20 + length)), 10, 0.5, LesionRule(0, 275, 0, 0.5)
    )
    assert lesions.is_counted == (counted,)


def test_empty_annotation_has_no_lesions():
    lesions = slide_evaluation.find_lesions(draw_areas(), 10, 0.5, RULE)
    assert lesions.major_axes == ()
    assert not lesions.labels.any()


def detect_spots(tmp_path, likely, rule, inside=None, mpp=1.0):
    """Return the detections on a slide of 1000 x 800 pixels in patches of 100."""
    folder = write_result(tmp_path / "result", "s.tif", (1000, 800), 100, likely, mpp=mpp)
    squares = np.zeros((80, 100), bool) if inside is None else inside
    lesions = slide_evaluation.find_lesions(squares, 10, mpp, rule)
    return slide_evaluation.find_detections(saved_result.read_result(folder), lesions, rule)


def test_detections_are_local_maxima(tmp_path):
    likely = {(1, 1): 0.9, (1, 2): 0.95, (1, 3): 0.94, (1, 4): 0.8, (5, 5): 0.49, (7, 9): 0.5}
    detections = detect_spots(tmp_path, likely, RULE)
    # 0.95 suppresses its neighbours at distance 100; 0.8 is at 200, which is not closer.
    assert [(detection.x, detection.y, detection.probability) for detection in detections] == [
        (250, 150, 0.95), (450, 150, 0.8), (950, 750, 0.5),
    ]  # fmt: skip


def test_of_equal_maxima_the_first_by_rows_is_detected(tmp_path):
    likely = {(2, 2): 0.9, (2, 3): 0.9, (3, 1): 0.9, (3, 2): 0.9}
    (detection,) = detect_spots(tmp_path, likely, RULE)
    assert (detection.x, detection.y) == (250, 250)


def test_detection_belongs_to_the_lesion_at_its_centre(tmp_path):
    inside = np.zeros((80, 100), bool)
    inside[20:30, 20:30] = True  # the patch of row 2 and column 2
    rule = LesionRule(0, 0, 50, 0.5)
    detections = detect_spots(tmp_path, {(2, 2): 0.9, (2, 3): 0.8, (0, 0): 0.7}, rule, inside)
    assert [detection.lesion for detection in detections] == [1, 0, 0]


def find_maxima(likely, rule):
    """Repeatedly take the highest probability, the first of equal ones, and drop those closer to
    it.
    """
    remaining = {position: p for position, p in likely.items() if p >= rule.least}
    maxima = []
    while remaining:
        best = min(remaining, key=lambda position: (-remaining[position], position))
        maxima.append((best, remaining[best]))
        remaining = {
            position: p
            for position, p in remaining.items()
            if position != best
            and np.hypot(position[0] - best[0], position[1] - best[1]) * 100 >= rule.apart
        }
    return maxima


POSITIONS = st.tuples(st.integers(0, 7), st.integers(0, 9))
HEAT = st.dictionaries(POSITIONS, st.integers(0, 8).map(lambda n: n / 8), max_size=40)


@given(HEAT, st.sampled_from([0, 50, 100, 150, 200, 350]), st.sampled_from([0, 0.5, 1]))
def test_detections_match_the_definition_on_random_maps(
    tmp_path_factory, heat, min_distance, min_probability
):
    rule = LesionRule(0, 0, min_distance, min_probability)
    detections = detect_spots(tmp_path_factory.mktemp("heat"), heat, rule)
    peaks = [
        ((detection.y // 100, detection.x // 100), detection.probability)
        for detection in detections
    ]
    assert peaks == find_maxima(heat, rule)
