"""A large synthetic slide and its ground truth."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("openslide", reason="needs the extra `slides`")

DARK, BRIGHT = 130, 230
"""Tumour has a mean color below the first, paper above the second."""


def test_a_synthetic_slide_comes_with_its_ground_truth(tmp_path, root):
    from tcc.compiler.slides import annotations, patch_grid, tissue_mask
    from tcc.compiler.slides.slide_file import open_slide
    from tcc.compiler.slides.tissue_mask import TissueChoices
    from tcc.compiler.support.progress import silent

    path = tmp_path / "large.tif"
    subprocess.run(
        [sys.executable, root / "tools/draw_slide.py", path, "--side", "20000"], check=True
    )
    assert path.stat().st_size < 3e6
    with open_slide(path) as slide:
        assert (slide.width, slide.height, slide.mpp) == (20000, 20000, 0.5)
        assert [level.width for level in slide.levels] == [20000, 10000, 5000, 2500, 1250, 625, 313]
        mask = tissue_mask.find_tissue(
            slide, 0.5, TissueChoices(32.0, "wide", 0, 0, 0), silent
        ).mask
        class_map = annotations.build_area_classes((), ())
        truth = annotations.rasterize_tumour(
            path.with_suffix(".geojson"), slide, mask.side, class_map
        )
        tumour, paper = (
            slide.read_pixels(0, *corner, (32, 32)).mean() for corner in ((5000, 6000), (0, 0))
        )
        assert tumour < DARK
        assert paper > BRIGHT
        tissue = patch_grid.count_tissue_pixels(mask, slide.width, slide.height) / 20000**2
    # Ellipses in steps of complete tiles. 40 of them cross the edge of the slide.
    slide_scale = (40 * 512 / 20000) ** 2
    assert tissue == pytest.approx(slide_scale * np.pi * (0.2 * 0.3 + 0.15 * 0.25), rel=0.03)
    expected_share = slide_scale * np.pi * (0.04 * 0.06 + 0.02 * 0.02 + 0.06 * 0.04)
    assert truth.mean() == pytest.approx(expected_share, rel=0.15)
    assert not (truth & ~mask.inside).any()
