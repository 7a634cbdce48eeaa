"""Masks as large as their slides: the reader uses a level with complete squares of pixels."""

import numpy as np
import pytest
from drawn_slides import write

from tcc.compiler.slides import slide_decoder, slide_truth
from tcc.compiler.slides.patch_grid import PatchGrid
from tcc.compiler.support.diagnostics import UserError

pytest.importorskip("openslide", reason="needs the extra `slides`")
RNG = np.random.default_rng(5)


def refuse_value(value):
    raise AssertionError(value)


def compute_halves(mask, side):
    """Return which squares are at least half white. Squares at the edge may be smaller."""
    rows, columns = (-(-n // side) for n in mask.shape)
    parts = (
        mask[r * side : r * side + side, c * side : c * side + side]
        for r in range(rows) for c in range(columns)
    )  # fmt: skip
    return np.array([part.mean() >= 127.5 for part in parts]).reshape(rows, columns)


@pytest.mark.parametrize("size", [(300, 200), (97, 131), (1, 1)])
@pytest.mark.parametrize("side", [1, 3, 16, 1000])
def test_square_is_inside_if_half_white(tmp_path, size, side):
    height, width = size
    mask = np.where(RNG.random(size) < 0.5, 255, 0).astype(np.uint8)
    path = write(tmp_path / "m.tif", mask)
    truth = slide_truth.read_pyramid(path, PatchGrid(width, height, 8, 8), side, refuse_value)
    assert truth.side == side
    assert np.array_equal(truth.inside, compute_halves(mask, side))


def test_smallest_level_with_complete_squares_is_read(tmp_path, monkeypatch):
    """Of 320 x 200 pixels, levels 2, 4 and 8 have complete squares; level 16 does not."""
    coarse = np.where(RNG.random((25, 40)) < 0.5, 255, 0).astype(np.uint8)
    mask = np.kron(coarse, np.ones((8, 8), np.uint8))
    path = write(tmp_path / "m.tif", mask, levels=5)
    grid = PatchGrid(320, 200, 8, 8)
    reads = []
    region = slide_truth._MaskLevel.read_pixels

    def record_read(self, *region_args):
        reads.append((self.number, self.scale))
        return region(self, *region_args)

    monkeypatch.setattr(slide_truth._MaskLevel, "read_pixels", record_read)
    for side, number, expected_side in (
        (1, 0, 1),
        (3, 1, 2),
        (4, 2, 4),
        (8, 3, 8),
        (20, 3, 16),
        (30, 3, 24),
    ):
        reads.clear()
        truth = slide_truth.read_pyramid(path, grid, side, refuse_value)
        assert set(reads) == {(number, 1 << number)}
        assert truth.side == expected_side
        assert np.array_equal(truth.inside, compute_halves(mask, expected_side))


def test_mask_with_one_pixel_per_square(tmp_path):
    """One mask pixel for each eight slide pixels. The last ones are narrower."""
    mask = np.where(RNG.random((13, 20)) < 0.5, 255, 0).astype(np.uint8)
    path = write(tmp_path / "m.tif", mask)
    for side, expected_side in ((4, 8), (8, 8), (30, 24)):
        truth = slide_truth.read_pyramid(path, PatchGrid(157, 101, 8, 8), side, refuse_value)
        assert truth.side == expected_side
        assert np.array_equal(truth.inside, compute_halves(mask, expected_side // 8))


def test_other_mask_values_are_interpreted(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[:32], mask[32:, :16] = 2, 1
    path, asked_values = write(tmp_path / "m.tif", mask), set()

    def interpret_value(value):
        asked_values.add(value)
        return value == 2

    truth = slide_truth.read_pyramid(path, PatchGrid(64, 64, 8, 8), 16, interpret_value)
    assert asked_values == {1, 2}
    assert truth.inside.tolist() == [[True] * 4] * 2 + [[False] * 4] * 2


def test_damaged_and_oversized_masks_are_refused(tmp_path, monkeypatch):
    import tifffile

    grid = PatchGrid(200, 300, 8, 8)
    path = write(tmp_path / "m.tif", RNG.integers(0, 2, (300, 200), np.uint8) * np.uint8(255))
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, length = page.dataoffsets[2], page.databytecounts[2]
    data[offset : offset + length] = bytes(length)
    (tmp_path / "bad.tif").write_bytes(data)
    with pytest.raises(UserError, match=r"damaged near column 12\d, row 0"):
        slide_truth.read_pyramid(tmp_path / "bad.tif", grid, 4, refuse_value)
    monkeypatch.setattr(slide_decoder, "MAX_TILE", 4095)
    with pytest.raises(UserError, match="a tile of this slide has 4,096 pixels"):
        slide_decoder.open_slide(path, None, "mask")
