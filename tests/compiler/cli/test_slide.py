"""`tcc slide mask`: from a slide to its tissue mask, and refused arguments."""

import json

import numpy as np
import pytest
from drawn_slides import PINK, PURPLE, draw_pixels, write
from PIL import Image

pytest.importorskip("openslide", reason="needs the extra `slides`")
PIXELS = draw_pixels(512, 480, (80, 160, 240, 400, PURPLE), (400, 80, 440, 120, PURPLE))


def test_mask_of_a_slide_is_written(tcc, home):
    write(home / "s.tif", PIXELS, levels=2)
    outcome = tcc("slide", "mask", "s.tif", "--steps", "steps", "--at", 1, "--patch", 32, "--json")
    assert outcome.code == 0, outcome.err
    mask = np.asarray(Image.open(home / "mask.png"))
    assert mask.shape == (60, 64)
    assert outcome.document == {
        "slide": "s.tif", "mask": "mask.png", "steps": "steps",
        "tissue_share": float((mask == 255).mean()), "tissue_mm2": pytest.approx(0.01),
        "regions": 2, "patches": 10,
    }  # fmt: skip
    assert [path.name[2:-4] for path in sorted((home / "steps").iterdir())] == [
        "slide", "rgb", "hsv", "range", "joined", "tissue", "without-background", "patches",
    ]  # fmt: skip
    files_before = {path.name: path.read_bytes() for path in (home / "steps").iterdir()}
    assert tcc("slide", "mask", "s.tif", "-o", "mask.geojson", "--steps", "steps").code == 0
    files_after = {path.name: path.read_bytes() for path in (home / "steps").iterdir()}
    assert files_after == {
        name: data for name, data in files_before.items() if "patches" not in name
    }
    assert len(json.loads((home / "mask.geojson").read_bytes())["features"]) == 2


def test_omitted_pale_tissue_is_reported(tcc, home):
    write(
        home / "s.tif",
        draw_pixels(512, 480, (80, 160, 240, 400, PURPLE), (300, 200, 500, 400, PINK)),
    )
    outcome = tcc("slide", "mask", "s.tif", "--rule", "paper")
    assert outcome.code == 0
    assert "s.tif: `--rule paper` omits 50% of the tissue that the default rule" in outcome.err
    assert "leaves out" not in tcc("slide", "mask", "s.tif", "--rule", "wide").err
    assert "leaves out" not in tcc("slide", "mask", "s.tif").err


def test_default_rule_keeps_the_tissue_of_a_real_slide(tcc, shared):
    """The paper's rule finds 15.2 % of the slide, and Otsu's method on grey 31.4 %."""
    slide = shared / "data/wsi/CMU-1-Small-Region.svs"
    shares = {
        rule: tcc("slide", "mask", slide, *(["--rule", rule] if rule else []), "--json").document
        for rule in ("", "any", "wide", "paper")
    }
    assert shares[""]["tissue_share"] == shares["any"]["tissue_share"]
    assert shares["any"]["tissue_share"] == pytest.approx(0.323, abs=0.001)
    assert shares["wide"]["tissue_share"] == pytest.approx(0.300, abs=0.001)
    assert shares["paper"]["tissue_share"] == pytest.approx(0.152, abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["none.svs"], "E1300"),
        (["one.png"], "E1301"),
        (["one.png", "--mpp", 0.5, "-o", "mask.bmp"], "E1307"),
        (["one.png", "--mpp", 0.5, "--rule", "best"], "E0601"),
        (["one.png", "--mpp", 0.5, "--at", 0.5], "E0601"),
        (["one.png", "--mpp", 0.5, "--at", 0.5, "--patch", 8], "E0601"),
        (["one.png", "--mpp", 0.5, "--steps", "set"], "E0602"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(tcc, home, picture, images, arguments, code):
    outcome = tcc("slide", "mask", *arguments)
    assert outcome.code == 2
    assert f"error[{code}]" in outcome.err
    if code != "E0602":
        assert not (home / "mask.png").exists()


def test_slide_without_tissue_gives_an_empty_mask(tcc, home):
    Image.new("RGB", (90, 70), (240, 240, 240)).save(home / "white.png")
    outcome = tcc("slide", "mask", "white.png", "--mpp", 0.5)
    assert outcome.code == 0
    assert "0.0% is tissue, 0.00 mm2 in 0 regions" in outcome.out
    assert not np.asarray(Image.open(home / "mask.png")).any()


@pytest.mark.parametrize(
    ("name", "share", "has_resolution"),
    [
        ("CMU-1-Small-Region.svs", 0.322, True),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.614, False),
        ("TCGA-CR-7395_pyramid_jpeg.tif", 0.612, False),
    ],
)
def test_sample_slides_have_the_expected_tissue_share(
    tcc, home, shared, name, share, has_resolution
):
    """The masks with the page's options were checked by eye. Two files are of one slide."""
    args = ("--rule", "wide", "--fill-holes", 2000, "--least-region", 2000, "--json")
    slide = shared / "data/wsi" / name
    if not has_resolution:
        outcome = tcc("slide", "mask", slide, *args)
        assert outcome.code == 2
        assert [diagnostic["code"] for diagnostic in outcome.document["diagnostics"]] == ["E1301"]
    outcome = tcc("slide", "mask", slide, *args, *(() if has_resolution else ("--mpp", 0.5)))
    assert outcome.code == 0, outcome.err
    assert outcome.document["tissue_share"] == pytest.approx(share, abs=0.01)
