"""Slides are read in parts, and damaged slides are refused with the location."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from drawn_slides import PINK, draw_pixels, write
from PIL import Image

from tcc.compiler.slides import slide_decoder, slide_file
from tcc.compiler.slides.slide_file import compute_block_means
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.progress import silent

pytest.importorskip("openslide", reason="needs the extra `slides`")
NOISE = np.random.default_rng(3).integers(0, 256, (300, 200, 3), np.uint8)


def read_all(path):
    with slide_file.open_slide(path) as slide:
        slide_file.get_resolution(slide)
        return slide.read_pixels(0, 0, 0, (slide.width, slide.height))


def read_code(path):
    with pytest.raises(UserError) as caught:
        read_all(path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.at.file == str(path)
    return diagnostic.code


def test_pixels_match_the_file(tmp_path):
    with slide_file.open_slide(write(tmp_path / "s.tif", NOISE, mpp=0.25)) as slide:
        assert (slide.width, slide.height) == (200, 300)
        assert slide_file.get_resolution(slide) == pytest.approx(0.25)
        assert np.array_equal(slide.read_pixels(0, 7, 90, (50, 60)), NOISE[90:150, 7:57])
        beyond = slide.read_pixels(0, 190, 290, (20, 20))
        assert np.array_equal(beyond[:10, :10], NOISE[290:, 190:])
        assert (beyond[10:] == 255).all()
        assert (beyond[:, 10:] == 255).all()


def test_a_plain_image_is_a_slide(tmp_path):
    path = tmp_path / "plain.png"
    Image.fromarray(NOISE).save(path)
    assert read_code(path) == "E1301"
    with slide_file.open_slide(path, 0.5) as slide:
        assert slide_file.get_resolution(slide) == 0.5
        assert np.array_equal(slide.read_pixels(0, 7, 90, (50, 60)), NOISE[90:150, 7:57])
        assert slide.read_pixels(0, 199, 299, (2, 2)).tolist() == [
            [NOISE[299, 199].tolist(), [255] * 3],
            [[255] * 3, [255] * 3],
        ]


@pytest.mark.parametrize("sizes", [(0.5, 0.25), (0.0, 0.0), (float("nan"), 0.5), (500.0, 500.0)])
def test_implausible_resolution_is_ignored(sizes):
    properties = dict(zip(("openslide.mpp-x", "openslide.mpp-y"), map(str, sizes), strict=True))
    assert slide_decoder.read_mpp(properties) is None
    assert slide_decoder.read_mpp({}) is None


def test_files_that_are_not_slides_are_refused(tmp_path):
    assert read_code(tmp_path / "none.svs") == "E1300"
    assert read_code(tmp_path) == "E1300"
    (tmp_path / "text.svs").write_text("a slide")
    assert read_code(tmp_path / "text.svs") == "E0702"
    (tmp_path / "empty.svs").touch()
    assert read_code(tmp_path / "empty.svs") == "E0702"
    deep = write(tmp_path / "deep.tif", NOISE.astype(np.uint16) << 8)
    assert read_code(deep) == "E1303"


def test_damaged_tiles_are_located(tmp_path):
    path = write(tmp_path / "s.tif", NOISE)
    data = bytearray(path.read_bytes())
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, length = page.dataoffsets[2], page.databytecounts[2]
    data[offset : offset + length] = bytes(length)
    path.write_bytes(data)
    with slide_file.open_slide(path) as slide:
        assert np.array_equal(slide.read_pixels(0, 0, 0, (64, 64)), NOISE[:64, :64])
        with pytest.raises(UserError, match="near column 130, row 2") as caught:
            slide.read_pixels(0, 130, 2, (10, 10))
        assert caught.value.diagnostics[0].code == "E1302"


def test_truncated_files_do_not_crash(tmp_path):
    data = write(tmp_path / "s.tif", NOISE).read_bytes()
    cut = tmp_path / "cut.tif"
    for length in range(0, len(data), len(data) // 12):
        cut.write_bytes(data[:length])
        with suppress(UserError):
            read_all(cut)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("side", [1, 3, 16, 1000])
def test_block_means_match_the_pixels(tmp_path, levels, side):
    areas = ((32, 64, 96, 128, PINK), (128, 160, 200, 300, (9, 8, 7)))
    pixels = draw_pixels(200, 300, *areas)
    with slide_file.open_slide(write(tmp_path / "s.tif", pixels, levels=levels)) as slide:
        means = compute_block_means(slide, side, silent)
    rows, columns = -(-300 // side), -(-200 // side)
    assert means.shape == (rows, columns, 3)
    if levels == 3 and side != 16:
        return  # squares of smaller levels differ from those of level 0
    for row in range(0, rows, max(1, rows // 9)):
        for column in range(0, columns, max(1, columns // 9)):
            part = pixels[row * side : row * side + side, column * side : column * side + side]
            mean = np.floor(part.reshape(-1, 3).mean(axis=0) + 0.5)
            assert means[row, column].tolist() == mean.tolist()


@pytest.mark.parametrize("side", [15, 16, 17, 4096])
def test_block_means_do_not_overflow(tmp_path, side):
    """Sums of 256 pixels just fit into 16 bits, and those of 4096 x 4096 into 32."""
    path = tmp_path / "white.png"
    Image.new("RGB", (4096, 4096 if side == 4096 else 64), (255, 254, 255)).save(path)
    with slide_file.open_slide(path, 0.5) as slide:
        means = compute_block_means(slide, side, silent)
    assert (means == np.array([255, 254, 255], np.uint8)).all()


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
def test_scanner_slides_are_read(shared: Path, name):
    with slide_file.open_slide(shared / "data/wsi" / name) as slide:
        assert (slide.mpp is None) == name.startswith("TCGA")
        region = slide.read_pixels(0, 1000, 1500, (256, 256))
        assert region.std() > 10
