"""`tcc serve RESULT SLIDE`: pages of slides, written and served, in Chromium."""

import json
import re
import subprocess
import sys
from functools import partial
from itertools import pairwise
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from drawn_slides import PINK, PURPLE, draw_pixels, write
from PIL import Image
from stored_slides import BUNDLE, write_result
from web_browser import CHROMIUM, Browser

from tcc.compiler.slides import saved_result, slide_viewer
from tcc.compiler.slides.patch_grid import PatchGrid
from tcc.compiler.slides.slide_file import open_slide
from tcc.compiler.support.external_tools import MissingTool
from tcc.compiler.support.progress import silent

pytest.importorskip("openslide", reason="needs the extra `slides`")
WIDTH, HEIGHT = 1300, 700
PIXELS = draw_pixels(WIDTH, HEIGHT, (256, 128, 1024, 640, PINK), (512, 256, 640, 384, PURPLE))
NOISE = np.random.default_rng(7).integers(-9, 10, PIXELS.shape)
GRID = PatchGrid(WIDTH, HEIGHT, 64, 64)
PROBABILITIES = {(2, 4): 0.25, (4, 8): 0.875, (4, 9): 0.75, (5, 8): 1.0, (9, 15): 0.0}
"""Tumour probability of each patch, by (row, column)."""


def read_pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.fixture
def result(home):
    """A result folder as `tcc slide run` writes it, and its slide."""
    bundle = {**BUNDLE, "notice": "Random </script> weights."}
    folder = write_result(
        home / "slides/s", "s.tif", (WIDTH, HEIGHT), 64, PROBABILITIES, mpp=0.5, threshold=None,
        bundle=bundle,
    )  # fmt: skip
    write(home / "s.tif", np.clip(PIXELS + NOISE, 0, 255).astype(np.uint8), levels=2, tile=256)
    return folder


@pytest.fixture
def library():
    try:
        slide_viewer.LIBRARY.load_files()
    except MissingTool as error:
        pytest.skip(f"{error} {error.reason}")


@pytest.fixture
def page(tcc, result, home, library):
    outcome = tcc("serve", "slides/s", "s.tif", "-o", "viewer", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document == {
        "page": "viewer/index.html", "micrometres_per_pixel": 0.5, "tiles": 6,
    }  # fmt: skip
    return home / "viewer"


def test_tiles_match_the_slide_and_the_overlay_is_aligned(page, result, home):
    slide = np.clip(PIXELS + NOISE, 0, 255).astype(np.uint8)
    stitched = np.zeros((HEIGHT, WIDTH, 3), int)
    for path in (page / "tiles/2").iterdir():
        x_min, y_min = (512 * int(n) for n in path.stem.split("_"))
        part = read_pixels(path)
        stitched[y_min : y_min + part.shape[0], x_min : x_min + part.shape[1]] = part
    # JPEG error; a shift of the noise by half a pixel gives 9
    assert np.abs(stitched - slide).mean() < 6
    assert read_pixels(page / "tiles/0/0_0.jpg").shape == (175, 325, 3)
    with open_slide(page / "overlay.tif") as file:
        assert [(level.width, level.height) for level in file.levels] == [
            (1300, 700), (650, 350), (325, 175),
        ]  # fmt: skip
        assert file.mpp == pytest.approx(0.5)
        over = file.read_pixels(0, 0, 0, (WIDTH, HEIGHT)).astype(int)
    changed = np.abs(over - stitched).mean(axis=2) > 30
    inside = np.zeros(changed.shape, bool)
    for row, column in PROBABILITIES:
        inside[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64] = True
    # JPEG stores colours in 16 x 16 pixels, and the patches are aligned to them.
    assert (changed == inside).mean() > 0.999
    heat = saved_result.read_result(result).to_raster()
    overlay = slide_viewer.draw_overlay(slide, 1, GRID, heat, "overlay")
    part = slide_viewer.draw_overlay(slide[256:, 512:], 1, GRID, heat, "overlay", (512, 256))
    assert np.array_equal(overlay[256:, 512:], part)


def test_viewer_is_reproducible_and_replaces_only_its_own_files(tcc, page, home):
    def contents():
        return {path: path.read_bytes() for path in page.rglob("*") if path.is_file()}

    files_before = contents()
    assert tcc("serve", "slides/s", "s.tif", "-o", "viewer").code == 0
    assert contents() == files_before
    assert tcc("slide", "view", "slides/s", "s.tif").out.startswith("viewer/index.html: open it")
    assert contents() == files_before
    (home / "own").mkdir()
    (home / "own/file").write_text("mine")
    outcome = tcc("serve", "slides/s", "s.tif", "-o", "own")
    assert outcome.code == 2
    assert "it is not the page of a slide" in outcome.err
    coarse = tcc("serve", "slides/s", "s.tif", "-o", "viewer", "--at", 2.1, "--json").document
    assert coarse["micrometres_per_pixel"] == 2


@pytest.mark.parametrize(("width", "height"), [(1, 1), (512, 512), (513, 3), (1030, 2050)])
def test_tiles_of_all_sizes_join_without_gaps(home, width, height):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(home / "s.png")
    with open_slide(home / "s.png", 0.5) as slide:
        pyramid = slide_viewer.build_pyramid(slide, 1)
        levels = [
            np.zeros((*pyramid.compute_size(n)[::-1], 3), np.uint8)
            for n in range(pyramid.depth + 1)
        ]
        for (level, column, row), tile in slide_viewer.iterate_tiles(slide, pyramid, silent):
            assert tile.shape[1::-1] == pyramid.compute_tile_shape((level, column, row))
            levels[level][512 * row :, 512 * column :][: tile.shape[0], : tile.shape[1]] = tile
    assert np.array_equal(levels[-1], pixels)
    assert max(levels[0].shape[:2]) <= 512
    for small, large in pairwise(levels):
        even = np.pad(large, ((0, len(large) % 2), (0, large.shape[1] % 2), (0, 0)), "edge")
        four = even.reshape(len(even) // 2, 2, -1, 2, 3).astype(int).sum(axis=(1, 3))
        assert np.array_equal(small, (four + 2) // 4)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("summary.json", '"tcc_slide": 1', '"tcc_slide": 9'),
        ("summary.json", '"stride": 64', '"stride": 0'),
        ("summary.json", '"stride": 64', '"stride": 1e9'),
        ("summary.json", '"width": 1300', '"width": 1301'),
        ("summary.json", '"classes": ["normal"', '"classes": ["other"'),
        ("summary.json", "{", "["),
        ("summary.json", '"tumour": {"classes": ["tumour"]', '"tumour": {"classes": ["cancer"]'),
        ("summary.json", '"tumour": {', '"tumour": 3, "tumor": {'),
        ("summary.json", '"threshold": null', '"threshold": "0.5"'),
        ("summary.json", '"threshold": null', '"threshold": 1.5'),
        ("summary.json", '"bundle": {', '"bundle": null, "bundles": {'),
        ("summary.json", '"patch": 64', '"patch": 0'),
        ("summary.json", '"patch": 64', '"patch": true'),
        ("summary.json", '"patches": 5', '"patches": 4'),
        ("summary.json", '"patches": 5', '"patches": 5, "patches": 5'),
        ("summary.json", '"patches": 5', '"patches": "5"'),
        ("summary.json", '"damaged": 0', '"damaged": -1'),
        ("summary.json", '"damaged": 0', '"damaged": 1'),
        ("summary.json", '"positive": 3', '"positive": 0'),
        ("summary.json", '"positive_mm2": 0.003', '"positive_mm2": 0.004'),
        ("summary.json", '"tissue_mm2": 0.2', '"tissue_mm2": 0.9'),
        ("summary.json", '"tissue_mm2": 0.2', '"tissue_mm2": NaN, "x": 0.2'),
        ("summary.json", '"highest_probability": 1.0', '"highest_probability": 0.5'),
        ("summary.json", '"highest_probability": 1.0', '"highest_probability": null'),
        ("summary.json", '"rows": 11', '"rows": 12'),
        ("summary.json", '"name": "s.tif"', '"name": ["s.tif"]'),
        ("summary.json", '"notice": "not', '"news": "not'),
        ("summary.json", "{", '{"x": ' + "[" * 100_000),
        ("patches.csv", "4,8,", "4,9,"),
        ("patches.csv", "4,8,512,256,64", "4,8,512,320,64"),
        ("patches.csv", "4,8,512,256,64", "4,8,512,256,65"),
        ("patches.csv", "4,8,512,", "4,8,5_12,"),
        ("patches.csv", "4,8,512,", "4,8,\u0665\u0661\u0662,"),
        ("patches.csv", "4,8,512,", "4, 8,512,"),
        ("patches.csv", "0.875000,1", "0.875000,2"),
        ("patches.csv", "0.875000,1", "1.875000,1"),
        ("patches.csv", "0.875000,1", "0.875000,0"),
        ("patches.csv", "0.875000,1\n", "0.875000,1"),
        ("patches.csv", "0.875000,1", "nan,1"),
        ("patches.csv", "4,8,", "4,21,"),
        ("patches.csv", "4,8,", "-1,8,"),
        ("patches.csv", "4,8,", "4,8,7,"),
        ("patches.csv", "row,", "line,"),
    ],
)
def test_inconsistent_results_are_refused(tcc, result, library, home, name, old, new):
    text = (result / name).read_text()
    assert old in text
    (result / name).write_text(text.replace(old, new, 1))
    outcome = tcc("serve", "slides/s", "s.tif", "-o", "viewer")
    assert outcome.code == 2
    assert "error[E1313]" in outcome.err
    assert not (home / "viewer").exists()


@pytest.mark.parametrize("command", ["serve", "slide eval"])
def test_duplicate_patch_line_is_refused(tcc, result, library, home, command):
    lines = (result / "patches.csv").read_text().splitlines(keepends=True)
    (result / "patches.csv").write_text("".join([*lines[:3], lines[2], *lines[3:-1]]))
    (home / "truth").mkdir()
    args = ("s.tif", "-o", "viewer") if command == "serve" else ("--truth", "truth")
    outcome = tcc(*command.split(), "slides/s", *args)
    assert outcome.code == 2
    assert "error[E1313]" in outcome.err
    assert "line 4 of patches.csv repeats the patch of an earlier line" in outcome.err


def test_wrong_number_of_patch_lines_is_refused(tcc, result, library):
    lines = (result / "patches.csv").read_text().splitlines(keepends=True)
    for kept_lines in ([*lines, lines[-1]], lines[:-1]):
        (result / "patches.csv").write_text("".join(kept_lines))
        outcome = tcc("serve", "slides/s", "s.tif", "-o", "viewer")
        assert outcome.code == 2
        assert "error[E1313]" in outcome.err


READY_SCRIPT = "document.documentElement?.dataset.ready === 'yes'"
PATCH_TEXT_SCRIPT = "document.getElementById('patch').textContent"
COLOUR = """(() => {
  const canvas = document.querySelector('.openseadragon-canvas canvas');
  const box = canvas.getBoundingClientRect();
  return [box.x, box.y, box.width, box.height];
})()"""


@pytest.fixture
def served(result, home, library):
    """The URL of the page, served by another process until the test ends."""
    args = ("serve", "slides/s", "s.tif", "--port", "0", "--json", "-q")
    program = "from tcc.compiler.entry import main; main()"
    command = [sys.executable, "-c", program, *args]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True) as process:
        lines = iter(process.stdout.readline, "")
        document = json.loads("".join(iter(partial(next, lines), "}\n")) + "}")
        assert document["result"] == "slides/s"
        yield document["url"]
        process.terminate()
    assert process.returncode == 143


def test_server_serves_only_the_files_of_the_page(served, home):
    with urlopen(served) as answer:
        assert answer.url == f"{served}index.html"
        policy = answer.headers["Content-Security-Policy"]
    assert "style-src 'self' 'unsafe-inline'" in policy
    assert "script-src 'self' 'wasm-unsafe-eval'" in policy
    with urlopen(f"{served}tiles/0/0_0.jpg") as answer:
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.read(2) == b"\xff\xd8"
    for path in ("s.tif", "this-is-of-tcc", "tiles/../../s.tif"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{served}{path}")
    assert not (home / "viewer").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slides/s",), "= help: add the slide's file: `tcc serve slides/s SLIDE`"),
        (("slides/s", "-o", "viewer"), "`--output` has no effect: it is for the page of a slide"),
        (("slides/s", "s.tif", "-o", "viewer", "--port", "1"), "`--port` has no effect"),
    ],
)
def test_wrong_serve_arguments_are_refused(tcc, result, home, arguments, message):
    outcome = tcc("serve", *arguments)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert not (home / "viewer").exists()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("source", ["page", "served"])
def test_page_works_in_chromium(source, request, tmp_path):
    location = request.getfixturevalue(source)
    url = location if source == "served" else location.joinpath("index.html").as_uri()
    with Browser(tmp_path / "profile") as browser:
        browser("Page.navigate", url=url)
        browser.look(1200, 800, "light", tmp_path / "first.png")
        browser.wait(READY_SCRIPT)
        browser.evaluate("new Promise((done) => setTimeout(done, 800))")
        assert browser.evaluate("document.title") == "s.tif"
        header_text = browser.evaluate("document.querySelector('header').textContent")
        assert "Not a medical device" in header_text
        assert "Random </script> weights." in header_text
        _check_look(browser, tmp_path / "all.png", lambda red: red[4, 8] and red[5, 8])
        _check_threshold(browser)
        _check_look(browser, tmp_path / "some.png", lambda red: red[5, 8] and not red[4, 9])
        _check_choice(browser)
        _check_keyboard(browser)
        browser.look(390, 844, "dark", tmp_path / "phone.png")
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        urls = [
            request["request"]["url"] for request in browser.get_events("Network.requestWillBeSent")
        ]
        assert {url.split(":")[0] for url in urls} <= {url.partition(":")[0], "data"}
        assert browser.get_events("Log.entryAdded") == []
        assert browser.get_events("Runtime.exceptionThrown") == []


def _locate_patch(browser, row, column):
    """Return the window position of a patch's centre."""
    box = browser.evaluate(COLOUR)
    scale = min(box[2] / WIDTH, box[3] / HEIGHT)
    x_min = box[0] + (box[2] - WIDTH * scale) / 2
    y_min = box[1] + (box[3] - HEIGHT * scale) / 2
    return x_min + (column + 0.5) * 64 * scale, y_min + (row + 0.5) * 64 * scale


def _check_look(browser, path, check):
    browser.look(1200, 800, "light", path)
    pixels = read_pixels(path)
    red = {}
    for patch in PROBABILITIES:
        x, y = _locate_patch(browser, *patch)
        colour = pixels[int(y), int(x)]
        red[patch] = colour[0] - colour[1] > 90 and colour[0] > colour[2] + 40
    assert check(red), red


def _check_threshold(browser):
    assert browser.evaluate("document.getElementById('count').textContent").startswith("5 of 5")
    browser.evaluate("""(() => {
      const slider = document.getElementById('threshold');
      slider.value = 0.9;
      slider.dispatchEvent(new Event('input'));
    })()""")
    assert browser.evaluate("document.getElementById('count').textContent").startswith("1 of 5")
    browser.evaluate("new Promise((done) => setTimeout(done, 800))")


def _check_choice(browser):
    x, y = _locate_patch(browser, 4, 9)
    for kind in ("mousePressed", "mouseReleased"):
        browser("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    expected_text = "Column 576, row 256: tumour probability 75.0 %, classified as tumour."
    browser.wait(f"{PATCH_TEXT_SCRIPT} === {json.dumps(expected_text)}", 10)
    classes = browser.evaluate("document.getElementById('classes').textContent")
    assert classes == "normal25.0 %tumour75.0 %tissue100.0 %"
    first_button = browser.evaluate("document.querySelector('#list button').textContent")
    assert first_button == "Column 512, row 320: 100.0 %"
    browser.evaluate("document.querySelector('#list button').click()")
    assert "Column 512, row 320" in browser.evaluate(PATCH_TEXT_SCRIPT)


def _check_keyboard(browser):
    browser.evaluate("document.getElementById('whole').click()")
    browser.evaluate("document.querySelector('.openseadragon-canvas').focus()")
    browser.evaluate("new Promise((done) => setTimeout(done, 2000))")
    for kind in ("keyDown", "keyUp"):
        browser("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter",
                windowsVirtualKeyCode=13)  # fmt: skip
    browser.wait(f"{PATCH_TEXT_SCRIPT} === 'No patch was classified here.'", 10)
    tree = browser("Accessibility.getFullAXTree")["nodes"]
    accessible_names = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored")
    }
    assert {"main", "heading", "status", "list", "application"} <= {
        role for role, _ in accessible_names
    }
    for name in ("Zoom in", "Zoom out", "Show full slide"):
        assert ("button", name) in accessible_names
    sliders = [name for role, name in accessible_names if role == "slider"]
    assert len(sliders) == 2
    assert all(re.match("Opacity|Minimum tumour probability", name) for name in sliders)
