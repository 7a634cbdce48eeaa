"""Polygons as rasters: each pixel follows the even-odd rule, and the cost is bounded."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcc.compiler.slides import annotated_areas, contours, mask_files, patch_grid, tissue_mask
from tcc.compiler.slides.slide_file import Slide, SlideLevel
from tcc.compiler.support.diagnostics import UserError


def create_areas(polygons):
    """Create areas from polygons, each a list of rings."""
    collector = annotated_areas.AreaCollector()
    for rings in polygons:
        collector.add("Tumor", [np.array(ring, float) for ring in rings])
    return collector.build_areas()


def fill(polygons, shape):
    return mask_files.fill_polygons(mask_files.find_edges(create_areas(polygons), shape))


def is_inside(rings, x, y):
    """Return whether a point is inside rings: a ray to the right crosses an odd number of edges."""
    is_odd = False
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
            if (y0 >= y) != (y1 >= y):
                is_odd ^= x >= x0 + (y - y0) / (y1 - y0) * (x1 - x0)
    return is_odd


# Odd quarters: no vertex and few edges are on centres, where either result is correct.
COORDINATES = st.integers(-16, 64).map(lambda n: n / 4 + 0.1875)
RINGS = st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=7)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(RINGS, min_size=1, max_size=3), max_size=4), st.sampled_from((7, 4096)))
def test_each_pixel_follows_the_even_odd_rule(polygons, band):
    shape = (9, 11)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_files, "BAND", band)
        inside = fill(polygons, shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            expected = any(is_inside(rings, column + 0.5, row + 0.5) for rings in polygons)
            assert inside[row, column] == expected


def create_slide(width, height):
    return Slide(None, (SlideLevel(width, height, 1.0),), 0.25, None)


def create_triangles(count, width, height):
    """Create overlapping triangles as wide as a slide."""
    return [
        [[(0.0, number % 7), (width, height - number % 5), (number % 11, height)]]
        for number in range(count)
    ]


def test_overlapping_polygons_have_bounded_cost(tmp_path):
    """8,000 triangles as wide as the slide: issue 29 measured over 80 s."""
    slide = create_slide(8000, 8000)
    areas = create_areas(create_triangles(8000, 8000, 8000))
    tracemalloc.start()
    start = time.process_time()
    inside = mask_files.rasterize_areas(areas, tmp_path / "x.geojson", slide, 4)
    assert time.process_time() - start < 20
    assert tracemalloc.get_traced_memory()[1] < 400 << 20
    tracemalloc.stop()
    assert inside.mean() == pytest.approx(0.5, abs=0.01)


def test_too_many_crossings_are_refused_with_the_limit(tmp_path):
    slide = create_slide(1 << 20, 1 << 20)
    with pytest.raises(UserError) as raised:
        mask_files.rasterize_areas(
            create_areas(create_triangles(9000, 1 << 20, 1 << 20)), tmp_path / "x", slide, 256
        )
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "E1324"
    assert f"{mask_files.MAX_CROSSINGS:,}" in diagnostic.label


def test_polygons_far_outside_the_slide_cost_nothing(tmp_path):
    far_polygon = [[(-9e8, -9e8), (9e8, -9e8), (9e8, 9e8), (-9e8, 9e8)]]
    inside = mask_files.rasterize_areas(
        create_areas([far_polygon] * 3), tmp_path / "x", create_slide(1000, 1000), 8
    )
    assert inside.all()


def test_classes_are_selected_with_their_rings():
    collector = annotated_areas.AreaCollector()
    rings = [np.arange(6, dtype=float).reshape(3, 2) + n for n in range(4)]
    collector.add("Tumor", rings[:2])
    collector.add("Normal", rings[2:3])
    collector.add("tumor", rings[3:])
    areas = collector.build_areas().select({"tumor"})
    assert areas.names == ("Tumor", "tumor")
    assert areas.ring_polygons.tolist() == [0, 0, 1]
    assert areas.ring_ends.tolist() == [3, 6, 9]
    assert np.array_equal(areas.vertices, np.concatenate([rings[0], rings[1], rings[3]]))
    assert [areas.locate(n) for n in (0, 5, 6, 8)] == [0, 0, 1, 1]


def test_nested_regions_have_bounded_cost():
    """Rings around rings: the bounding rectangle of each is nearly the complete grid."""
    side = 2001
    down, across = np.abs(np.mgrid[:side, :side] - side // 2)
    mask = tissue_mask.TissueMask(1, np.maximum(down, across) % 2 == 0)
    start = time.process_time()
    kept_patches = patch_grid.select_patches(patch_grid.PatchGrid(side, side, 4, 1), mask, 0.5)
    assert time.process_time() - start < 10
    assert kept_patches.mean() > 0.3


def test_outlines_with_too_many_vertices_are_refused(tmp_path, monkeypatch):
    noise = tissue_mask.TissueMask(1, np.random.default_rng(0).random((300, 300)) < 0.5)
    mask_files.check_outlines(tmp_path / "x.png", noise)
    corners = sum(len(ring) - 1 for rings in contours.find_polygons(noise.inside) for ring in rings)
    monkeypatch.setattr(mask_files, "MAX_CORNERS", corners - 1)
    with pytest.raises(UserError) as raised:
        mask_files.check_outlines(tmp_path / "x.png", noise)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "E1324"
    assert f"{corners:,}" in diagnostic.message
