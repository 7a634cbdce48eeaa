"""`tcc slide run` on damaged, unusual or malicious files gives an error or a result with a notice."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from drawn_slides import PINK, PURPLE, build_colour_bundle, draw_pixels, write
from PIL import Image

pytest.importorskip("openslide", reason="needs the extra `slides`")
PIXELS = draw_pixels(320, 384, (64, 128, 256, 256, PINK), (128, 160, 192, 224, PURPLE))
SLIDE_ARGS = ("--at", 0.5, "--patch", 32, "--rule", "wide", "-q")


@pytest.fixture
def run(tcc, home):
    bundle = build_colour_bundle(tcc, home)
    return lambda path, *args: tcc("slide", "run", bundle, path, *SLIDE_ARGS, *args)


def write_claimed_tiff(path, side, tile, offset=0, count=0):
    """Write a small TIFF file that claims to be large: all its tiles are at one offset."""
    number = (-(-side // tile)) ** 2
    tags = [
        (256, 4, [side]), (257, 4, [side]), (258, 3, [8] * 3), (259, 3, [1]), (262, 3, [2]),
        (277, 3, [3]), (282, 5, [20000, 1]), (283, 5, [20000, 1]), (284, 3, [1]), (296, 3, [3]),
        (322, 4, [tile]), (323, 4, [tile]), (324, 4, [offset] * number), (325, 4, [count] * number),
    ]  # fmt: skip
    directory, overflow = b"", b""
    overflow_offset = 8 + 2 + 12 * len(tags) + 4
    for tag, kind, values in tags:
        data = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        length = len(values) // (2 if kind == 5 else 1)
        value_field = (
            data.ljust(4, b"\0")
            if len(data) <= 4
            else struct.pack("<I", overflow_offset + len(overflow))
        )
        overflow += data if len(data) > 4 else b""
        directory += struct.pack("<HHI", tag, kind, length) + value_field
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    path.write_bytes(head + directory + bytes(4) + overflow)


@pytest.mark.parametrize(
    ("side", "tile", "tile_range", "code", "message"),
    [
        (36864, 18432, (), "E1304", "a tile of this slide has 339,738,624 pixels"),
        (1 << 20, 8192, (), "E1304", "1,099,511,627,776 pixels would have to be read"),
        ((1 << 32) - 1, 1 << 31, (), "E1300", "cannot be read"),
        (320, 64, (10**9, 5000), "E1300", "Short read"),
        (320, 64, (8, (1 << 32) - 1), "E1302", "damaged near column 0, row 0"),
    ],
    ids=["tile", "pixels", "overflow", "beyond the end", "length"],
)
def test_false_tiff_sizes_are_refused(run, home, side, tile, tile_range, code, message):
    write_claimed_tiff(home / "claim.tif", side, tile, *tile_range)
    assert (home / "claim.tif").stat().st_size < 200_000
    outcome = run("claim.tif")
    assert outcome.code == 2
    assert f"error[{code}]" in outcome.err
    assert "--> claim.tif" in outcome.err
    assert message in outcome.err
    assert not (home / "slides/claim").exists()


@pytest.mark.parametrize(("large", "share"), [(False, 0.05), (False, 0.5), (True, 0.7)])
def test_truncated_pyramid_is_reported_as_truncated(run, home, large, share):
    """The first pages are complete, and the rest is missing."""
    data = write(home / "s.tif", PIXELS, levels=3, big=large).read_bytes()
    (home / "cut.tif").write_bytes(data[: int(len(data) * share)])
    outcome = run("cut.tif")
    assert outcome.code == 2
    assert "error[E1300]: the file of this slide is truncated" in outcome.err
    assert f"it has {int(len(data) * share):,} bytes, but a page is at byte" in outcome.err
    assert "copy or export it again" in outcome.err


@pytest.mark.parametrize("fields", [1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("offset", [16, 2**63, 2**64 - 1])
def test_offsets_beyond_the_file_are_refused(run, home, offset, fields):
    (home / "far.tif").write_bytes(struct.pack("<2sHHHQQ", b"II", 43, 8, 0, offset, fields))
    assert "error[E1300]: the file of this slide is truncated" in run("far.tif").err


def test_multi_page_file_is_refused(run, home):
    pages = [Image.fromarray(PIXELS), Image.fromarray(PIXELS)]
    pages[0].save(home / "pages.tif", save_all=True, append_images=pages[1:])
    assert "error[E0707]" in run("pages.tif").err


def test_missing_tiles_are_not_tissue(run, home):
    write_claimed_tiff(home / "sparse.tif", 1024, 256)
    outcome = run("sparse.tif")
    assert outcome.code == 0, outcome.err
    assert "no patch was classified (0.00 mm2 of tissue" in outcome.out


@pytest.mark.parametrize("kind", ["grey", "alpha", "cmyk", "colour", "thin"])
def test_other_pixel_types(run, home, kind):
    import tifffile

    with_alpha = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, np.uint8)])
    inks = np.asarray(Image.fromarray(PIXELS).convert("CMYK"))
    pixels, tiff_options = {
        "grey": (PIXELS[:, :, 0], {"photometric": "minisblack"}),
        "alpha": (with_alpha, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        "cmyk": (inks, {"photometric": "separated"}),
        "colour": (np.full_like(PIXELS, 200), {"photometric": "rgb"}),
        "thin": (PIXELS[200:201], {"photometric": "rgb"}),
    }[kind]
    unit = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER", "tile": (64, 64)}
    tifffile.imwrite(home / "s.tif", pixels, metadata=None, **unit, **tiff_options)
    outcome = run("s.tif")
    assert outcome.code == 0, outcome.err
    message = (
        "4 of 24 patches are tumour" if kind in ("alpha", "cmyk") else "no patch was classified"
    )
    assert message in outcome.out


@pytest.mark.parametrize("mpp", [None, 1e5, 1e-5], ids=str)
def test_missing_or_implausible_resolution_is_refused(run, home, mpp):
    write(home / "s.tif", PIXELS, mpp=mpp)
    assert "error[E1301]" in run("s.tif").err
    assert run("s.tif", "--mpp", 0.5).code == 0


def test_levels_with_wrong_sizes_are_refused(run, home):
    import tifffile

    with tifffile.TiffWriter(home / "s.tif") as file:
        for number, part in enumerate((PIXELS, PIXELS[:50, :300], np.vstack([PIXELS, PIXELS]))):
            tiff_options = {"subfiletype": 1} if number else {"resolution": (2e4, 2e4)}
            file.write(part, photometric="rgb", tile=(64, 64), metadata=None, **tiff_options)
    outcome = run("s.tif")
    assert outcome.code == 2
    assert "error[E1300]: this slide cannot be read\n  --> s.tif" in outcome.err


def test_pipes_and_link_loops_are_refused(run, home):
    os.mkfifo(home / "pipe.svs")
    (home / "loop.svs").symlink_to("loop.svs")
    for name in ("pipe.svs", "loop.svs"):
        assert "error[E1300]" in run(name).err


def test_unusual_file_names(run, home):
    write(home / "s.tif", PIXELS)
    for name in (b"-o.tif", b"a b\nc.tif", b"\xff.tif"):
        shutil.copy("s.tif", name)
        path = os.fsdecode(home / Path(os.fsdecode(name)))
        outcome = run(path, "--json")
        assert outcome.code == 0, outcome.err
        (home / "slides" / Path(path).stem / "summary.json").read_bytes().decode()
    long = f"{'n' * 245}.tif"
    shutil.copy("s.tif", long)
    outcome = run(long)
    assert outcome.code == 2
    assert "error[E0603]: cannot write this: File name too long" in outcome.err
    assert not list((home / "slides/.tcc-slides").glob("*/blocks-*"))


def test_full_disk_keeps_results_and_the_run_resumes(run, home):
    """Finished results stay, and the run continues once there is space."""
    write(home / "s.tif", PIXELS)
    (home / "small").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24k", "tcc-test", "small"]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:  # noqa: PLW1510 - the return code is checked
        pytest.skip("only root can mount a small disk")
    try:
        outcome = run("s.tif", "-o", "small")
        assert outcome.code == 1
        assert "error[E0604]: cannot write this: No space left on device" in outcome.err
        assert os.listdir("small") == [".tcc-slides"]
        subprocess.run(["mount", "-o", "remount,size=4m", "small"], check=True)
        assert run("s.tif", "-o", "small").code == 0
        files_before = {path.name: path.read_bytes() for path in Path("small/s").iterdir()}
    finally:
        subprocess.run(["umount", "small"], check=True)
    assert run("s.tif").code == 0
    assert {path.name: path.read_bytes() for path in Path("slides/s").iterdir()} == files_before
