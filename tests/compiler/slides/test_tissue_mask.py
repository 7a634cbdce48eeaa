"""Tissue detection follows the paper, and masks can be edited."""

import json
from itertools import pairwise

import numpy as np
import pytest
from drawn_slides import PAPER, PINK, PURPLE, draw_pixels, write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tcc.compiler.cli.options import TissueOptions
from tcc.compiler.slides import (
    annotated_areas,
    contours,
    mask_files,
    patch_grid,
    slide_file,
    tissue_mask,
)
from tcc.compiler.slides.patch_grid import PatchGrid
from tcc.compiler.slides.tissue_mask import TissueChoices, TissueMask
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.progress import silent

pytest.importorskip("openslide", reason="needs the extra `slides`")


SIDES = st.integers(1, 12)


def create_masks():
    shape = st.tuples(SIDES, SIDES)
    return shape.flatmap(
        lambda s: st.lists(st.booleans(), min_size=s[0] * s[1], max_size=s[0] * s[1]).map(
            lambda bits: np.array(bits).reshape(s)
        )
    )


def compute_threshold(values):
    """Return Otsu's threshold by trying all thresholds for the lowest variance within classes."""
    best = None
    for level in range(255):
        low, high = values[values <= level], values[values > level]
        if low.size and high.size:
            variance = low.var() * low.size + high.var() * high.size
            if best is None or variance < best[0] - 1e-6:
                best = variance, level
    return best and best[1]


@settings(max_examples=25)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=60))
def test_otsu_threshold_matches_the_definition(levels):
    values = np.array(levels, np.uint8)
    assert tissue_mask.find_threshold(values) == compute_threshold(values.astype(np.float64))


def test_saturation_matches_hsv():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (50, 50, 3), np.uint8)
    pixels[0, :3] = [(0, 0, 0), (255, 255, 255), (255, 0, 0)]
    max_channel, min_channel = pixels.max(axis=2).astype(float), pixels.min(axis=2).astype(float)
    exact = np.where(
        max_channel > 0, 255 * (max_channel - min_channel) / np.maximum(max_channel, 1), 0
    )
    assert np.abs(tissue_mask.compute_saturation(pixels) - exact).max() <= 0.5


def find_tissue(path, **choices):
    with slide_file.open_slide(path, 0.5) as slide:
        steps = tissue_mask.find_tissue(
            slide, 0.5, TissueChoices(**({"mpp": 4.0} | choices)), silent
        )
        return steps, slide


AREAS = ((80, 160, 240, 400, PURPLE), (400, 80, 440, 120, PURPLE))
PIXELS = draw_pixels(512, 480, *AREAS)


def test_tissue_is_where_all_three_masks_agree(tmp_path):
    steps, _ = find_tissue(write(tmp_path / "s.tif", PIXELS, levels=3), rule="paper")
    assert steps.mask.side == 8
    expected = np.zeros((60, 64), bool)
    expected[20:50, 10:30] = expected[10:15, 50:55] = True
    assert np.array_equal(steps.mask.inside, expected)
    joined = steps.masks["rgb"] & steps.masks["hsv"] & steps.masks["range"]
    assert np.array_equal(joined, expected)
    assert len(steps.mask.regions) == 2


@pytest.mark.parametrize(
    ("colour", "step"),
    [((40, 20, 60), "range"), ((250, 100, 170), "range"), ((120, 120, 120), "hsv")],
)
def test_each_mask_excludes_its_colours(tmp_path, colour, step):
    """Next to tissue: areas darker than 50, brighter than 240, and grey."""
    pixels = draw_pixels(512, 480, *AREAS, (300, 300, 400, 400, colour))
    steps, _ = find_tissue(write(tmp_path / "s.tif", pixels), rule="paper")
    assert not steps.masks[step][40:48, 40:48].any()
    assert not steps.mask.inside[40:48, 40:48].any()
    assert steps.mask.inside[20:50, 10:30].all()


def test_options_start_with_the_default_rule():
    assert TissueOptions().rule == tissue_mask.DEFAULT_RULE
    assert TissueChoices().rule == tissue_mask.DEFAULT_RULE


def test_pale_tissue_lost_by_the_paper_rule_is_measured(tmp_path):
    path = write(tmp_path / "s.tif", draw_pixels(512, 480, *AREAS, (300, 200, 500, 400, PINK)))
    paper, wide = find_tissue(path, rule="paper")[0], find_tissue(path, rule="wide")[0]
    usual = find_tissue(path)[0]
    assert usual.mask.inside[25:50, 38:62].all()
    assert usual.lost_share == 0
    assert not paper.mask.inside[30, 40:60].any()
    assert wide.mask.inside[25:50, 38:62].all()
    assert wide.mask.inside[20:50, 10:30].all()
    assert paper.lost_share == pytest.approx(1 - 625 / wide.mask.inside.sum())
    assert wide.lost_share == 0


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (300, 5)])
@pytest.mark.parametrize("colour", [(0, 0, 0), PAPER, PURPLE, (255, 255, 255)])
def test_image_of_one_colour_has_no_tissue(tmp_path, size, colour):
    path = tmp_path / "one.png"
    Image.new("RGB", size, colour).save(path)
    steps, _ = find_tissue(path)
    assert not steps.mask.inside.any()
    assert steps.mask.regions == []
    assert steps.lost_share == 0


def test_small_regions_holes_and_growth_follow_the_options(tmp_path):
    pixels = draw_pixels(512, 480, *AREAS, (120, 240, 160, 280, PAPER))
    path = write(tmp_path / "s.tif", pixels)
    region, hole = 5 * 5 * 16.0, 5 * 5 * 16.0
    unsmoothed = find_tissue(path)[0].mask.inside
    assert unsmoothed.sum() == 600 - 25 + 25
    assert find_tissue(path, min_area=region)[0].mask.inside.sum() == unsmoothed.sum()
    assert find_tissue(path, min_area=region + 1)[0].mask.inside.sum() == 600 - 25
    assert find_tissue(path, fill=hole - 1)[0].mask.inside.sum() == unsmoothed.sum()
    filled = find_tissue(path, fill=hole)[0].mask.inside
    assert filled[20:50, 10:30].all()
    assert filled.sum() == 625
    # never the surrounding background
    assert find_tissue(path, fill=1e12)[0].mask.inside.sum() == 625
    grown = find_tissue(path, grow=4.0)[0].mask.inside
    assert grown[19, 10:30].all()
    assert not grown[19, 9]
    assert not grown[18].any()


def test_mask_size_is_limited():
    slide = slide_file.Slide(None, (slide_file.SlideLevel(1 << 20, 1 << 20, 1.0),), 0.25, None)
    side = tissue_mask.choose_side(slide, 0.25, 4.0)
    assert np.prod(tissue_mask.compute_shape(slide, side)) <= tissue_mask.MAX_PIXELS
    assert side == 256


@settings(max_examples=25)
@given(create_masks())
def test_outlines_match_the_regions(inside):
    polygons = contours.find_polygons(inside)
    collector = annotated_areas.AreaCollector()
    for outer, *holes in polygons:
        collector.add("", [np.array(ring, float) for ring in (outer, *holes)])
        assert contours.compute_area(outer) > 0
        assert all(contours.compute_area(hole) < 0 for hole in holes)
        for ring in (outer, *holes):
            assert np.array_equal(ring[0], ring[-1])
            turns = [(a[0] == b[0]) for a, b in pairwise(ring)]
            assert all(point != next_point for point, next_point in pairwise([*turns, turns[0]]))
    edges = mask_files.find_edges(collector.build_areas(), inside.shape)
    assert np.array_equal(mask_files.fill_polygons(edges), inside)


@settings(max_examples=15)
@given(create_masks(), st.integers(1, 9), st.integers(0, 8), st.integers(0, 8))
def test_patch_weights_count_tissue_pixels(inside, side, less, lower):
    """Checked by counting every level 0 pixel of every patch."""
    height, width = (max(1, n * side - m) for n, m in zip(inside.shape, (less, lower), strict=True))
    inside = inside[: -(-height // side), : -(-width // side)]
    mask = TissueMask(side, inside)
    pixel_mask = np.kron(inside, np.ones((side, side), bool))[:height, :width]
    for span, stride in ((7, 7), (7, 3), (4, 9)):
        grid = PatchGrid(width, height, span, stride)
        weights, is_kept = (
            patch_grid.count_patch_pixels(grid, mask),
            patch_grid.select_patches(grid, mask, 0.5),
        )
        for row, column in np.ndindex(grid.shape):
            x, y = grid.compute_corner(row, column)
            count = pixel_mask[y : y + span, x : x + span].sum()
            assert weights[row, column] == count
            assert is_kept[row, column] == (2 * count >= span * span)


def test_rectangles_follow_equations_1_and_2():
    inside = np.zeros((100, 100), bool)
    inside[10:55, 31:90] = True
    (found_rows,) = patch_grid.find_rectangles(PatchGrid(800, 800, 64, 64), TissueMask(8, inside))
    # MIN_Y 80 is padded to 64, MAX_Y is 439: (439 - 64) // 64 + 1 rows; MIN_X 248 to 192, MAX_X 719.
    assert found_rows == (slice(1, 1 + 6), slice(3, 3 + 9))


def write_mask(tmp_path, name):
    path = write(tmp_path / "s.tif", draw_pixels(517, 483, *AREAS, (480, 400, 517, 483, PURPLE)))
    with slide_file.open_slide(path, 0.5) as slide:
        steps = tissue_mask.find_tissue(slide, 0.5, TissueChoices(), silent)
        file = tmp_path / name
        file.write_bytes(mask_files.encode_mask(file, slide, steps.mask))
        return file, slide, steps.mask


@pytest.mark.parametrize("name", ["mask.png", "mask.geojson"])
def test_mask_survives_writing_and_reading(tmp_path, name):
    file, slide, mask = write_mask(tmp_path, name)
    reread = mask_files.read_mask(file, slide, mask.side)
    assert reread.side == mask.side == 8
    assert np.array_equal(reread.inside, mask.inside)
    assert mask.inside[-1, -1]


def test_geojson_coordinates_are_level_0_pixels(tmp_path):
    file, _, _ = write_mask(tmp_path, "mask.geojson")
    first_feature, *_ = features = json.loads(file.read_bytes())["features"]
    assert len(features) == 3
    assert first_feature["geometry"]["coordinates"] == [
        [[400, 80], [440, 80], [440, 120], [400, 120], [400, 80]]
    ]
    assert first_feature["properties"]["objectType"] == "annotation"
    assert features[-1]["geometry"]["coordinates"][0][1] == [517, 400]


RING = [[0, 0], [40, 0], [40, 40], [0, 0]]


@pytest.mark.parametrize(
    ("text", "code", "fragment"),
    [
        ("", "E1306", "byte 0: the file ends too early"),
        ("[" * 100_000, "E1306", "lists or objects are nested more than 64 levels deep"),
        ('{"type": "Point", "coordinates": [1, 2]}', "E1306", "its type is `Point`"),
        ("[3]", "E1306", "it has no geometry"),
        (json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}), "E1306", "feature 1"),
        (json.dumps({"type": "Polygon", "coordinates": [[[0, "0"]] * 4]}), "E1306", "feature 1"),
        ('{"type": "Polygon", "coordinates": [[[0,0],[NaN,1],[1,1]]]}', "E1306", "not valid JSON"),
    ],
    ids=range(7),
)
def test_invalid_mask_is_refused(tmp_path, text, code, fragment):
    _, slide, mask = write_mask(tmp_path, "mask.png")
    path = tmp_path / "wrong.geojson"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        mask_files.read_mask(path, slide, mask.side)
    (diagnostic,) = raised.value.diagnostics
    assert (diagnostic.code, diagnostic.at.file) == (code, str(path))
    assert fragment in diagnostic.label


def test_mask_of_another_size_is_refused(tmp_path):
    _, slide, mask = write_mask(tmp_path, "mask.png")
    Image.new("L", (66, 61)).save(tmp_path / "other.png")
    with pytest.raises(UserError, match="66 x 61 pixels does not match this slide"):
        mask_files.read_mask(tmp_path / "other.png", slide, mask.side)


def test_multi_polygons_and_feature_lists_are_read(tmp_path):
    _, slide, _ = write_mask(tmp_path, "mask.png")
    path = tmp_path / "drawn.geojson"
    far_ring = [[80, 80], [120, 80], [120, 120], [80, 120]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": [[RING], [far_ring]]},
    }
    path.write_text(json.dumps([feature]))
    inside = mask_files.read_mask(path, slide, 8).inside
    assert inside[10:15, 10:15].all()
    assert inside.sum() == 25 + 15  # a triangle of 5 x 5, with the centres on its edge
