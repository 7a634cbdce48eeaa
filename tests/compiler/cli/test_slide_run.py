"""`tcc slide run` on slides with ground truth for each pixel."""

import csv
import json
import multiprocessing
import os
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from drawn_slides import PINK, PURPLE, build_colour_bundle, draw_pixels, write
from PIL import Image
from web_browser import CHROMIUM, Browser

from tcc.compiler.slides import patch_grid, slide_record, slide_viewer
from tcc.compiler.slides.patch_grid import PatchGrid, PatchReader
from tcc.compiler.slides.slide_file import compute_block_means, open_slide
from tcc.compiler.support.progress import silent

pytest.importorskip("openslide", reason="needs the extra `slides`")
TISSUE, CANCER = (64, 128, 320, 416), (128, 192, 224, 320)
"""Left, top, right, bottom of the areas on the slide."""
PIXELS = draw_pixels(512, 480, (*TISSUE, PINK), (*CANCER, PURPLE))
KILL_AFTER_TWO_BLOCKS = """
import os, sys
from tcc.compiler.cli import main
from tcc.compiler.slides import patch_grid, slide_job
patch_grid.BLOCK_SIDE = 64
store, done = slide_job.BlockWorker._store, []
def store_then_kill(self, *args):
    store(self, *args)
    done.append(args)
    if len(done) == 2:
        os.kill(os.getpid(), 9)
slide_job.BlockWorker._store = store_then_kill
main()
"""


@contextmanager
def kill_children():
    """Kill each child process when it starts."""
    stop, killed = threading.Event(), set()

    def kill():
        while not stop.wait(0.01):
            for child in multiprocessing.active_children():
                child.kill()
                killed.add(child.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def bundle(tcc, home):
    return build_colour_bundle(tcc, home)


@pytest.fixture
def run(tcc, bundle, home):
    write(home / "s.tif", PIXELS, levels=2)

    def run(*args, slides=("s.tif",)):
        rule = () if "--mask" in args else ("--rule", "wide")
        fixed = ("--at", 0.5, "--patch", 32, *rule, "-q")
        return tcc("slide", "run", bundle, *slides, *fixed, *args)

    return run


def read_contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def read_table(folder):
    return list(csv.DictReader((Path(folder) / "patches.csv").read_text().splitlines()))


def compute_truth(span, stride):
    """Return which patches are at least half tissue, and which of them half tumour, from the
    pixels.
    """
    tissue, cancer = (np.zeros((480 + span, 512 + span), bool) for _ in range(2))
    for mask, (x_min, y_min, x_max, y_max) in ((tissue, TISSUE), (cancer, CANCER)):
        mask[y_min:y_max, x_min:x_max] = True
    shape = -(-480 // stride), -(-512 // stride)
    shares = np.zeros((2, *shape))
    for row, column in np.ndindex(shape):
        part = np.s_[row * stride : row * stride + span, column * stride : column * stride + span]
        shares[:, row, column] = tissue[part].mean(), cancer[part].mean()
    return shares[0] >= 0.5, shares[1]


def test_heat_map_matches_the_tissue_exactly(run, home):
    outcome = run("--json")
    assert outcome.code == 0, outcome.err
    (summary,) = outcome.document["slides"]
    tissue, cancer = compute_truth(32, 32)
    assert summary["patches"] == tissue.sum() == 72
    assert summary["positive"] == (cancer == 1).sum() == 12
    assert summary["tumour"] == {"classes": ["tumour"], "threshold": None}
    assert summary["positive_mm2"] == pytest.approx(96 * 128 * 0.25e-6)
    assert summary["tissue_mm2"] == pytest.approx(256 * 288 * 0.25e-6)
    assert summary["damaged"] == 0
    values = np.load(home / "slides/s/probabilities.npy")
    assert values.shape == (15, 16, 2)
    assert np.array_equal(~np.isnan(values).any(axis=2), tissue)
    assert np.array_equal(values[:, :, 1] > 0.5, cancer == 1)
    # the size of the slide, so each pixel is a pixel of the slide
    overlay = np.asarray(Image.open(home / "slides/s/overlay.png")).astype(int)
    changed = (overlay != PIXELS).any(axis=2)
    expected_area = np.zeros(changed.shape, bool)
    expected_area[128:416, 64:320] = True
    assert np.array_equal(changed, expected_area)
    red = overlay[:, :, 0] - overlay[:, :, 1] > 100
    inside = np.zeros(changed.shape, bool)
    inside[192:320, 128:224] = True
    assert np.array_equal(red, inside)


def test_patch_gives_the_same_outputs_as_its_image(run, tcc, bundle, home):
    noise = np.random.default_rng(2).integers(-20, 21, PIXELS.shape)
    pixels = np.clip(PIXELS + noise, 0, 255).astype(np.uint8)
    write(home / "s.tif", pixels)
    assert run().code == 0
    values = np.load(home / "slides/s/probabilities.npy")
    for number, (x, y) in enumerate([(128, 192), (192, 352)]):
        Image.fromarray(pixels[y : y + 32, x : x + 32]).save(home / f"{number}.png")
    outcome = tcc("run", bundle, "0.png", "1.png", "--json")
    for (row, column), image in zip([(6, 4), (11, 6)], outcome.document["images"], strict=True):
        classes = {
            class_row["label"]: class_row["value"]
            for class_row in image["outputs"]["logits"]["classes"]
        }
        assert values[row, column].tolist() == [
            np.float32(classes["normal"]), np.float32(classes["tumour"]),
        ]  # fmt: skip


def test_regions_and_patches_are_written_for_qupath(run, home):
    assert run().code == 0
    features = json.loads((home / "slides/s/regions.geojson").read_bytes())["features"]
    assert [feature["properties"]["classification"]["name"] for feature in features] == [
        "Tumor", "Tissue",
    ]  # fmt: skip
    x_min, y_min, x_max, y_max = CANCER
    ring = [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max], [x_min, y_min]]
    assert features[0]["geometry"] == {"type": "Polygon", "coordinates": [ring]}
    tiles = json.loads((home / "slides/s/patches.geojson").read_bytes())["features"]
    rows = read_table(home / "slides/s")
    assert len(tiles) == len(rows) == 72
    for tile, row in zip(tiles, rows, strict=True):
        properties = tile["properties"]
        assert tile["type"] == "Feature"
        assert properties["objectType"] == "tile"
        assert properties["classification"]["name"] == (
            "Tumor" if row["tumour"] == "1" else "Normal"
        )
        assert tile["geometry"]["coordinates"][0][0] == [int(row["x"]), int(row["y"])]
        assert properties["measurements"]["probability"] == float(row["probability"])
        assert sum(float(row[f"p({name})"]) for name in ("normal", "tumour")) == pytest.approx(1)


def test_ome_tiff_has_one_channel_per_class(run, home):
    import tifffile

    assert run().code == 0
    with tifffile.TiffFile(home / "slides/s/probabilities.ome.tif") as file:
        planes, text = file.asarray(), file.ome_metadata
    values = np.load(home / "slides/s/probabilities.npy")
    assert np.array_equal(planes[:2], np.moveaxis(values, 2, 0), equal_nan=True)
    assert np.array_equal(planes[2], values[:, :, 1], equal_nan=True)
    assert 'PhysicalSizeX="16.0"' in text
    assert 'Name="tumour (all)"' in text


def test_overlapping_patches_are_placed_at_their_centres(run, home):
    assert run("--stride", 16).code == 0
    tissue, cancer = compute_truth(32, 16)
    values = np.load(home / "slides/s/probabilities.npy")
    assert np.array_equal(~np.isnan(values).any(axis=2), tissue)
    is_certain = tissue & ((cancer == 0) | (cancer == 1))
    assert np.array_equal((values[:, :, 1] > 0.5)[is_certain], (cancer == 1)[is_certain])
    overlay = np.asarray(Image.open(home / "slides/s/overlay.png")).astype(int)
    row, column = np.argwhere(tissue)[0]
    y, x = row * 16 + 8, column * 16 + 8
    changed = (overlay != PIXELS).any(axis=2)
    assert changed[y : y + 16, x : x + 16].all()
    assert not changed[:y].any()


def test_patches_at_another_resolution_match_the_tissue(run, home):
    """Pixels twice as wide: the second level, and patches of 64 pixels of the first."""
    assert run("--at", 1.0).code == 0
    tissue, cancer = compute_truth(64, 64)
    values = np.load(home / "slides/s/probabilities.npy")
    assert np.array_equal(~np.isnan(values).any(axis=2), tissue)
    is_certain = tissue & ((cancer == 0) | (cancer == 1))
    assert np.array_equal((values[:, :, 1] > 0.5)[is_certain], (cancer == 1)[is_certain])


def test_workers_and_kills_do_not_change_the_bytes(run, process, bundle, home, monkeypatch):
    monkeypatch.setattr(patch_grid, "BLOCK_SIDE", 64)
    assert run("-o", "one").code == 0
    assert run("-o", "two", "--workers", 2).code == 0
    with kill_children() as killed:
        assert run("-o", "alone", "--workers", 2).code == 0
    assert killed
    args = ("--at", 0.5, "--patch", 32, "--rule", "wide", "-o", "killed")
    assert process("slide", "run", bundle, "s.tif", *args, program=KILL_AFTER_TWO_BLOCKS).code == -9
    (blocks_folder,) = (home / "killed").glob(".tcc-slides/*/blocks-*")
    assert sorted(path.name for path in blocks_folder.iterdir()) == ["0000000.npy", "0000001.npy"]
    times = [path.stat().st_mtime_ns for path in sorted(blocks_folder.iterdir())]
    (blocks_folder / "0000000.npy").write_bytes((blocks_folder / "0000000.npy").read_bytes()[:90])
    outcome = run("-o", "killed", "--json")
    assert outcome.code == 0
    assert len(times) == 2
    expected_files = read_contents("one/s")
    assert len(expected_files) == 9
    for folder in ("one", "two", "alone", "killed"):
        assert read_contents(f"{folder}/s") == expected_files
        assert sorted(os.listdir(folder)) == [".tcc-slides", "s"]
        assert not list(Path(folder).glob(".tcc-slides/*/blocks-*"))


@pytest.mark.parametrize(("size", "stride"), [(32, 1), (32, 8), (256, 16), (8192, 4096)])
def test_block_size_is_limited_for_overlapping_patches(home, size, stride):
    Image.new("RGB", (1, 1)).save(home / "plain.png")
    with open_slide(home / "plain.png", 0.5) as slide:
        reader = PatchReader(slide, PatchGrid(220 * stride, 120 * stride, size, stride), size)
        all_patches = np.ones(reader.grid.shape, bool)
        blocks = patch_grid.split_into_blocks(reader, all_patches)
    assert sum(map(len, blocks)) == all_patches.size
    assert len(set().union(*blocks)) == all_patches.size
    max_patches = max(map(len, blocks))
    assert max_patches == 1 or max_patches * 3 * size**2 <= patch_grid.MAX_BLOCK_BYTES


@pytest.mark.slow
def test_finished_blocks_are_not_repeated(run, process, bundle, home, monkeypatch):
    from tcc.compiler.slides import slide_job

    monkeypatch.setattr(patch_grid, "BLOCK_SIDE", 64)
    args = ("--at", 0.5, "--patch", 32, "--rule", "wide")
    assert process("slide", "run", bundle, "s.tif", *args, program=KILL_AFTER_TWO_BLOCKS).code == -9
    numbers = []
    store = slide_job.BlockWorker._store
    monkeypatch.setattr(
        slide_job.BlockWorker, "_store",
        lambda self, number, values: (numbers.append(number), store(self, number, values)),
    )  # fmt: skip
    assert run().code == 0
    assert numbers[0] == 2
    assert len(numbers) == len(set(numbers)) == numbers[-1] - 1


def test_mask_selects_the_classified_patches(run, tcc, home):
    assert tcc("slide", "mask", "s.tif", "--rule", "wide").code == 0
    mask = np.asarray(Image.open(home / "mask.png")).copy()
    mask[:, :16] = 0  # all pixels left of the tumour
    Image.fromarray(mask).save(home / "mask.png")
    assert run("--mask", "mask.png").code == 0
    rows = read_table(home / "slides/s")
    assert min(int(row["x"]) for row in rows) == 128
    assert sum(row["tumour"] == "1" for row in rows) == 12


def test_damaged_tiles_are_reported(run, home):
    import tifffile

    data = bytearray((home / "s.tif").read_bytes())
    with tifffile.TiffFile(home / "s.tif") as file:
        page = file.pages[0]
        number = 8 * 4 + 3  # columns 192 to 255, rows 256 to 319
        offset, length = page.dataoffsets[number], page.databytecounts[number]
    data[offset : offset + length] = bytes(length)
    (home / "bad.tif").write_bytes(data)
    # without lower levels, so the mask reads other pixels than the damaged ones
    args = ("--mask-mpp", 1, "--mpp", 0.5)
    outcome = run(*args, "--json", slides=("bad.tif",))
    assert outcome.code == 2
    assert [diagnostic["code"] for diagnostic in outcome.document["diagnostics"]] == ["E1302"]
    assert outcome.document["diagnostics"][0]["file"] == "bad.tif"
    assert "near column 192, row 2" in outcome.document["diagnostics"][0]["message"]
    assert outcome.document["failed"] == [{"slide": "bad.tif", "state": "failed: E1302"}]
    assert run(*args).code == 0
    assert not (home / "slides/bad").exists()
    outcome = run(*args, "--skip-damaged", slides=("bad.tif",))
    assert outcome.code == 0, outcome.err
    assert "4 damaged patches are skipped" in outcome.err
    expected_heat, heat = (np.load(home / f"slides/{n}/probabilities.npy") for n in ("s", "bad"))
    hole = np.zeros(expected_heat.shape[:2], bool)
    hole[8:10, 6:8] = True
    assert np.isnan(heat[hole]).all()
    assert np.array_equal(heat[~hole], expected_heat[~hole], equal_nan=True)


def test_slide_without_tissue_gives_an_empty_result(run, home):
    Image.new("RGB", (1, 1), (240, 240, 240)).save(home / "one.png")
    outcome = run("--mpp", 0.5, slides=("one.png",))
    assert outcome.code == 0, outcome.err
    assert "no patch was classified (0.00 mm2 of tissue" in outcome.out
    assert np.isnan(np.load(home / "slides/one/probabilities.npy")).all()
    assert read_table(home / "slides/one") == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--tumour", "cancer"], "E1312", "classes are normal, tumour"),
        (["--tumour", "normla"], "E1312", "did you mean `normal`?"),
        (["--at", 0.25], "E1308", "resolution is lower"),
        (["--stride", 33], "E0601", "--stride must be at most --patch"),
        (["--mask", "none.png"], "E0701", "none.png"),
        (["-o", "taken"], "E0602", "it is not a result folder"),
        (["s.tif"], "E0601", "two slides are named s"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(run, home, arguments, code, message):
    (home / "taken/s").mkdir(parents=True)
    outcome = run(*arguments)
    assert outcome.code == 2
    assert f"error[{code}]" in outcome.err
    assert message in outcome.err
    assert not (home / "slides/s").exists()


def test_unknown_tumour_classes_are_refused(tcc, built, home):
    write(home / "s.tif", PIXELS)
    outcome = tcc("slide", "run", built, "s.tif", "--at", 0.5)
    assert outcome.code == 2
    assert "error[E1312]: it is unknown which of this network's classes are tumour" in outcome.err
    assert "classes are cat, dog, owl" in outcome.err


def test_second_run_on_a_locked_slide_is_refused(run, home, monkeypatch):
    monkeypatch.setattr(slide_record, "LOCK_WAIT_SECONDS", 0)
    folder = slide_record.get_work_folder(home / "slides/s")
    with slide_record.lock_slide(folder, home / "s.tif"):
        outcome = run()
        assert outcome.code == 2
        assert "error[E1309]: another run is working on this slide\n  --> s.tif\n" in outcome.err
        assert f"= process {os.getpid()} on " in outcome.err
    assert run().code == 0
    assert json.loads((folder / "finished.json").read_text())
    slide_report = run("--json").document["slides"][0]
    assert slide_report["finished_before"]
    (home / "s.tif").touch()
    assert not run("--json").document["slides"][0]["finished_before"]


def test_damaged_result_is_computed_again(run, home):
    assert run().code == 0
    expected_files = read_contents(home / "slides/s")
    for change in (
        lambda folder: (folder / "mask.png").unlink(),
        lambda folder: (folder / "patches.csv").write_text("x"),
        lambda folder: (folder / "summary.json").write_bytes(expected_files["summary.json"] + b" "),
    ):
        change(home / "slides/s")
        assert run().code == 0
        assert read_contents(home / "slides/s") == expected_files


def test_colour_maps_have_the_expected_colours(home):
    with open_slide(write(home / "s.tif", PIXELS)) as slide:
        image = compute_block_means(slide, 4, silent)
    grid = PatchGrid(512, 480, 256, 256)
    for name, (low, _, high) in slide_viewer.MAPS.items():
        overlay = slide_viewer.draw_overlay(
            image, 4, grid, np.array([[0.0, 1.0], [np.nan, 0.5]]), name
        )
        paper = np.array(PIXELS[0, 0], float)
        for x, colour in ((0, low), (127, high)):
            mixed = paper * (1 - slide_viewer.OPACITY) + np.array(colour) * slide_viewer.OPACITY
            assert np.abs(overlay[0, x] - mixed).max() <= 0.5
        assert np.array_equal(overlay[64:, :64], image[64:, :64])


def test_commands_of_the_page_run(tcc, bundle, home, root):
    page = (root / "docs/slides.md").read_text()
    page = re.sub("## From end to end.*?\n## ", "", page, flags=re.DOTALL)
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
             for line in block.splitlines()]  # fmt: skip
    assert len(lines) == 7
    if not shutil.which("npm"):  # installs the viewer's library
        lines = [line for line in lines if " view " not in line]
    write(home / "slide.svs", PIXELS)
    (home / "truth").mkdir()
    (home / "truth/slide.geojson").write_text("[]")
    (home / "scans").mkdir()
    write(home / "scans/s.tif", PIXELS)
    for line in lines:
        command_line = line.removeprefix("tcc ").replace(
            "build/fastnet-lung-onnxruntime-int8", bundle
        )
        outcome = tcc(
            *command_line.replace("lung_aca", "tumour").replace("lung_scc", "tumour").split()
        )
        assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_worked_example_of_the_page_runs(tcc, home, root, shared):
    """On real slides without ground truth: the test asserts only the tissue."""
    page = (root / "docs/slides.md").read_text()
    part = page[page.index("## From end to end") : page.index("## Looking at it")]
    lines = [line.strip() for line in part.splitlines() if line.strip().startswith("tcc ")]
    assert len(lines) == 6
    for name in ("CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"):
        (home / name).symlink_to(shared / "data/wsi" / name)
    (home / "truth").mkdir()
    (home / "truth/CMU-1-Small-Region.geojson").write_text("[]")
    for line in lines:
        if " view " in line and not shutil.which("npm"):
            continue
        outcome = tcc(*line.removeprefix("tcc ").split())
        assert outcome.code == 0, (line, outcome.err)
    small = json.loads((home / "slides/CMU-1-Small-Region/summary.json").read_bytes())
    assert (small["slide"]["width"], small["slide"]["height"]) == (2220, 2967)
    assert small["slide"]["micrometres_per_pixel"] == pytest.approx(0.499)
    # About 40 % of the slide is tissue, by eye; the paper's rule finds 15 %.
    assert 0.5 < small["background_share"] < 0.7
    assert small["patches"] == len(read_table(home / "slides/CMU-1-Small-Region")) > 30
    large = json.loads((home / "slides/TCGA-CR-7395-01A-01-TS1/summary.json").read_bytes())
    assert (large["slide"]["width"], large["slide"]["height"]) == (4443, 3567)
    assert 0.4 < large["background_share"] < 0.55
    assert large["patches"] == 152
    if CHROMIUM and shutil.which("npm"):
        with Browser(home / "profile") as browser:
            browser("Page.navigate", url=(home / "viewer/index.html").as_uri())
            browser.wait("document.documentElement?.dataset.ready === 'yes'")
            assert browser.evaluate("document.title") == "CMU-1-Small-Region.svs"
            urls = [
                request["request"]["url"]
                for request in browser.get_events("Network.requestWillBeSent")
            ]
            assert {url.split(":")[0] for url in urls} <= {"file", "data"}
            assert (
                browser.get_events("Runtime.exceptionThrown")
                == browser.get_events("Log.entryAdded")
                == []
            )
