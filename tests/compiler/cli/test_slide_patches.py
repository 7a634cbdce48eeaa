"""`tcc slide patches`: from annotated slides to images for `tcc train`."""

import csv
import json
import shutil

import numpy as np
import pytest
from drawn_slides import PINK, PURPLE, draw_pixels, write
from PIL import Image
from training_nets import RECIPE, SPEC

pytest.importorskip("openslide", reason="needs the extra `slides`")
SLIDE_ARGS = ("--at", 0.5, "--patch", 32, "--rule", "wide")
TISSUE, CANCER = (64, 128, 320, 416), (128, 192, 232, 320)
"""The tumour ends at column 232, so it covers a quarter of the patch that starts at column 224."""
PIXELS = draw_pixels(512, 480, (*TISSUE, PINK), (*CANCER, PURPLE))
ASAP = """<?xml version="1.0"?>
<ASAP_Annotations><Annotations>
<Annotation Name="a" Type="Polygon" PartOfGroup="_0" Color="#F4FA58"><Coordinates>
<Coordinate Order="1" X="232" Y="192"/><Coordinate Order="0" X="128,0" Y="192"/>
<Coordinate Order="2" X="232" Y="320"/><Coordinate Order="3" X="128" Y="320"/>
</Coordinates></Annotation>
</Annotations><AnnotationGroups><Group Name="_0"/></AnnotationGroups></ASAP_Annotations>
"""
EXCLUDED_AREA = ASAP[ASAP.index("<Annotation N") : ASAP.index("</Annotations>")].replace(
    '"_0"', '"_2"'
)
BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
TUMOUR = {(row, column) for row in range(6, 10) for column in range(4, 7)}
PARTLY_TUMOUR = {(row, 7) for row in range(6, 10)}
TISSUE_PATCHES = {(row, column) for row in range(4, 13) for column in range(2, 10)}


def make_polygon(name, x_min, y_min, x_max, y_max):
    ring = [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max], [x_min, y_min]]
    properties = {"classification": {"name": name, "color": [200, 0, 0]}} if name else {}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def format_geojson(*features):
    return json.dumps({"type": "FeatureCollection", "features": features})


@pytest.fixture
def slide(home):
    return write(home / "s.tif", PIXELS)


def list_patches(home, label):
    stems = [path.stem.split("_") for path in (home / "patches" / label).iterdir()]
    return {(int(row), int(column)) for _, row, column in stems}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.xml", ASAP),
        (
            "s.geojson",
            format_geojson(make_polygon("Tumor", *CANCER), make_polygon("Tissue", *TISSUE)),
        ),
    ],
    ids=["ASAP", "QuPath"],
)
def test_patches_follow_the_annotations(tcc, slide, home, name, text):
    (home / name).write_text(text)
    outcome = tcc("slide", "patches", "s.tif", *SLIDE_ARGS, "--json")
    assert outcome.code == 0, outcome.err
    normal = TISSUE_PATCHES - TUMOUR - PARTLY_TUMOUR
    assert outcome.document["found"] == {"normal": len(normal), "tumour": 12}
    assert outcome.document["taken"] == {"normal": 12, "tumour": 12}
    assert list_patches(home, "tumour") == TUMOUR
    assert list_patches(home, "normal") < normal
    for label, colour in (("tumour", PURPLE), ("normal", PINK)):
        for path in (home / "patches" / label).iterdir():
            with Image.open(path) as image:
                assert image.size == (32, 32)
                assert np.array_equal(np.unique(np.asarray(image).reshape(-1, 3), axis=0), [colour])
    rows = list(csv.DictReader((home / "patches/index.csv").read_text().splitlines()))
    files = {str(path.relative_to(home / "patches")) for path in home.glob("patches/*/*.png")}
    assert {row["file"] for row in rows} == files
    assert all(row["file"].startswith(row["label"] + "/") and row["group"] == "s" for row in rows)
    files_before = {path: path.read_bytes() for path in home.glob("patches/*/*.png")}
    assert tcc("slide", "patches", "s.tif", *SLIDE_ARGS).code == 0
    assert {path: path.read_bytes() for path in home.glob("patches/*/*.png")} == files_before
    assert tcc("slide", "patches", "s.tif", *SLIDE_ARGS, "--seed", 1, "--most", 5).code == 0
    assert len(list_patches(home, "tumour")) == len(list_patches(home, "normal")) == 5


def test_area_cut_out_of_a_tumour_is_normal(tcc, slide, home):
    (home / "s.xml").write_text(ASAP.replace("</Annotations>", EXCLUDED_AREA + "</Annotations>"))
    outcome = tcc("slide", "patches", "s.tif", *SLIDE_ARGS, "--json")
    assert outcome.document["found"] == {"normal": len(TISSUE_PATCHES), "tumour": 0}
    assert outcome.document["taken"] == {"normal": 0, "tumour": 0}
    assert "only one label has patches" in outcome.err


@pytest.mark.parametrize(
    ("name", "text", "code", "message"),
    [
        ("s.txt", "", "E1314", "s.geojson and s.xml do not exist"),
        ("s.xml", ASAP.replace("<ASAP", BOMB + "<ASAP", 1), "E1314", "document type declarations"),
        ("s.xml", ASAP[:200], "E1314", "line "),
        ("s.xml", ASAP.replace('X="232"', 'X="nan"'), "E1314", "`nan` is not a decimal number"),
        ("s.xml", ASAP.replace('"Polygon"', '"Dot"'), "E1314", "type Dot has no area"),
        ("s.xml", ASAP.replace('"_0"', '"Lesion"', 1), "E1315", "whether class `Lesion`"),
        (
            "s.geojson",
            format_geojson(make_polygon("Necrosis", *CANCER)),
            "E1315",
            "whether class `Necrosis`",
        ),
        ("s.geojson", format_geojson(make_polygon("", *CANCER)), "E1315", "whether class ``"),
        ("s.geojson", "[", "E1306", "GeoJSON"),
    ],
)
def test_unclear_annotations_are_refused(tcc, slide, home, name, text, code, message):
    (home / name).write_text(text)
    outcome = tcc("slide", "patches", "s.tif", *SLIDE_ARGS)
    assert outcome.code == 2
    assert f"error[{code}]" in outcome.err
    assert message in outcome.err
    assert not (home / "patches").exists()


def test_missing_slide_is_refused(tcc, slide):
    outcome = tcc("slide", "patches", "s.tif", "none.tif", *SLIDE_ARGS)
    assert outcome.code == 2
    assert "error[E1300]: there is no such slide" in outcome.err
    assert "none.tif" in outcome.err


def test_tumour_and_other_classes_can_be_named(tcc, slide, home):
    annotations = home / "drawn"
    annotations.mkdir()
    areas = (make_polygon("Lesion", *CANCER), make_polygon("Necrosis", 0, 0, 30, 30))
    (annotations / "s.geojson").write_text(format_geojson(*areas))
    class_args = ("--annotations", annotations, "--tumour", "lesion", "--other", "Necrosis")
    assert tcc("slide", "patches", "s.tif", *SLIDE_ARGS, *class_args).code == 0
    assert list_patches(home, "tumour") == TUMOUR


@pytest.mark.slow
def test_patches_train_and_each_slide_is_in_one_split(tcc, slide, home):
    for number in range(6):
        shutil.copy(slide, home / f"s{number}.tif")
        if number < 5:
            (home / f"s{number}.xml").write_text(ASAP)
    slides = [f"s{number}.tif" for number in range(6)]
    assert tcc("slide", "patches", *slides, *SLIDE_ARGS).code == 2
    assert tcc("slide", "patches", *slides, *SLIDE_ARGS, "--normal").code == 0
    rows = list(csv.DictReader((home / "patches/index.csv").read_text().splitlines()))
    assert {row["group"] for row in rows} == {f"s{number}" for number in range(6)}
    # Equal files would join their slides into one group, as this image does in six slides.
    for path in home.glob("patches/*/*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image).copy()
        pixels[0, 0] = [int(n) for n in path.stem[1:].split("_")]
        Image.fromarray(pixels).save(path)
    (home / "tiny.yaml").write_text(SPEC.replace("blue, red", "normal, tumour"))
    (home / "own.yaml").write_text(RECIPE)
    args = ("--data", "patches", "--recipe", "own.yaml", "--threads", 1, "-o", "trained")
    outcome = tcc("train", "tiny.yaml", *args, "--split", "0.5,0.25,0.25", "--json")
    assert outcome.code == 0, outcome.err
    split = list(csv.DictReader((home / "trained/split.csv").read_text().splitlines()))
    assert len({(row["group"], row["split"]) for row in split}) == 6
    assert {row["split"] for row in split} == {"train", "val", "test"}
